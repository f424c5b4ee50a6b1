"""What a client read, piece by piece: of a recording by the contract's rules, of the gateway's stream as it stands.

``promised`` turns what a client yields from a recording into what it must yield through the gateway: the rules of WIRE,
"A stream", a second time and from the other end, over plain dictionaries.  ``found`` applies no rule at all: it takes
the gateway's chunks literally and asserts their form on the way.  Neither knows ``headgate.dialects``.

A piece is (choice, what, value): ``content`` and its kin with their text, ``call`` with (index, id, name), ``args``
with (index, text), ``finish`` with the reason, anything else with its value.  Pieces keep the upstream's granularity,
so that joining or splitting texts is a difference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
REASONS = ("stop", "length", "tool_calls", "content_filter")
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
OURS = ("id", "object", "created", "model", "choices", "usage")
Chunk = dict[str, Any]
Piece = tuple[int, str, Any]


@dataclass
class Reading:
    """``extras``: (where, key, JSON) of what stands beyond the API; ``may``: of chunks that need not be sent."""

    pieces: list[Piece] = field(default_factory=list)
    extras: set[tuple[str, str, str]] = field(default_factory=set)
    may: set[tuple[str, str, str]] = field(default_factory=set)
    usage: dict[str, Any] | None = None
    model: str | None = None
    failed: bool = False


def extras_of(where: str, members: dict[str, Any], known: tuple[str, ...]) -> set[tuple[str, str, str]]:
    return {
        (where, key, json.dumps(value, sort_keys=True))
        for key, value in members.items()
        if key not in known and value not in (None, "", [], {})
    }


# ------------------------------------------------------------------------------- by the contract's rules


def promised(chunks: list[Chunk], raised: bool, body: bytes) -> Reading:
    """What must come of ``chunks``, which a client has read from the recording ``body`` (and then raised, or not)."""
    reading = Reading()
    choices: dict[int, _Choice] = {}
    for chunk in chunks:
        reading.usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or reading.usage
        if reading.model is None and not reading.pieces:
            reading.model = chunk.get("model") or None
        kept = False
        here: list[Piece] = []
        extras = extras_of("chunk", chunk, OURS)
        for position, choice in enumerate(chunk.get("choices") or ()):
            number = choice.get("index", position)
            state = choices.setdefault(number, _Choice(number))
            pieces = state.take(choice)
            if pieces and not state.started:
                state.started = True
                here.append((number, "role", "assistant"))
            here += pieces
            kept = kept or bool(pieces)
            standin = () if choice.get("delta") else ("message",)  # one provider sends it in the delta's place
            extras |= extras_of("choice", choice, ("index", "delta", "finish_reason", *standin))
            extras |= extras_of("delta", choice.get("delta") or {}, ("role", "tool_calls", *TEXTS))
        reading.pieces += here
        (reading.extras if kept else reading.may).update(extras)
    told_why = any(state.finish in ("length", "content_filter") for state in choices.values())
    said = told_why or any(what != "role" for _, what, _ in reading.pieces)
    ended = b"data: [DONE]" in body or b"data:[DONE]" in body
    complete = bool(choices) and all(state.finish for state in choices.values())
    reading.failed = raised or not said or not (ended or complete)
    if reading.failed:
        # A finish whose stream then failed, or that says nothing, is no promise.
        reading.pieces = reading.pieces if said else []
        return reading
    for number, state in choices.items():  # a finish is sent when nothing can follow it
        reading.pieces += [] if state.started else [(number, "role", "assistant")]
        reading.pieces.append((number, "finish", state.finish or ("tool_calls" if state.calls else "stop")))
    return reading


class _Choice:
    """One choice of a recording as far as it has come."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.started = False
        self.finish: str | None = None
        self.calls: list[str | None] = []  # their ids
        self.at: dict[int, int] = {}

    def take(self, choice: dict[str, Any]) -> list[Piece]:
        delta = choice.get("delta") or choice.get("message") or {}
        pieces = [(self.number, key, text) for key, text in texts_of(delta) if text]
        pieces += [(self.number, "details", detail) for detail in delta.get("reasoning_details") or ()]
        for position, call in enumerate(delta.get("tool_calls") or ()):
            pieces += self.call(call, position)
        if pieces:
            self.finish = None  # one that something follows was none
        reason = choice.get("finish_reason")
        if reason and self.finish is None:
            # `tool_calls` whenever one was streamed; second finishes are dropped.
            self.finish = "tool_calls" if self.calls and reason == "stop" else reason
        return pieces

    def call(self, call: dict[str, Any], position: int) -> list[Piece]:
        function = call.get("function") or {}
        index, ident, name = call.get("index", position), call.get("id"), function.get("name")
        known = self.at.get(index)
        pieces: list[Piece] = []
        if known is None or (ident and name and self.calls[known] != ident):
            known = self.at[index] = len(self.calls)
            self.calls.append(ident)
            pieces.append((self.number, "call", (known, ident or "", name)))
        if function.get("arguments"):
            pieces.append((self.number, "args", (known, function["arguments"])))
        return pieces


def texts_of(delta: dict[str, Any]) -> list[tuple[str, str]]:
    """The texts of a delta; content that is an array of parts becomes one text for each of the two kinds."""
    content = delta.get("content")
    if not isinstance(content, list):
        return [(key, delta.get(key) or "") for key in TEXTS]
    thoughts = [piece["text"] for part in content if part["type"] == "thinking" for piece in part["thinking"]]
    text = [part["text"] for part in content if part["type"] == "text"]
    return [("reasoning_content", "".join(thoughts)), ("content", "".join(text))]


# ------------------------------------------------------------------------------- as it is


def found(chunks: list[Chunk], raised: bool, *, usage: bool) -> Reading:
    """What a client has read from the gateway.  Asserts the form of every chunk; ``usage`` was asked for, or not."""
    reading = Reading(failed=raised)
    assert len({(c["id"], c["object"], c["created"], c["model"]) for c in chunks}) <= 1
    started: dict[int, bool] = {}  # choices, and whether their role chunk announces text
    finished: set[int] = set()
    for number, chunk in enumerate(chunks):
        assert chunk["id"].startswith("chatcmpl-") and len(chunk["id"]) == 33
        assert chunk["object"] == "chat.completion.chunk" and isinstance(chunk["created"], int)
        reading.model = chunk["model"]
        reading.extras |= extras_of("chunk", chunk, (*OURS, "headgate"))
        last = number == len(chunks) - 1
        # The answer's metadata stand in the usage chunk, and nowhere else.
        assert "headgate" not in chunk or (last and usage and set(chunk["headgate"]) >= {"provider", "provider_model"})
        if not usage:
            assert "usage" not in chunk and chunk["choices"]
        elif chunk["usage"] is not None:
            assert last and chunk["choices"] == [] and not raised
            reading.usage = chunk["usage"]
        for choice in chunk["choices"]:
            index = choice["index"]
            if index not in started:
                assert choice["delta"].get("role") == "assistant" and choice["delta"]["content"] in ("", None)
                started[index] = choice["delta"]["content"] == ""
                assert choice["finish_reason"] is None
                reading.pieces.append((index, "role", "assistant"))
            else:
                assert "role" not in choice["delta"]
            pieces = literal(choice)
            seen = [what for _, what, _ in pieces if what != "finish"]
            if seen and all(what == "role" for one, what, _ in reading.pieces if one == index):
                # The role chunk says whether the first thing to be seen is text.
                assert started[index] == bool({"content", "refusal"} & set(seen))
            reading.pieces += pieces
            reading.extras |= extras_of("choice", choice, ("index", "delta", "finish_reason"))
            reading.extras |= extras_of("delta", choice["delta"], ("role", "tool_calls", *TEXTS))
            if choice["finish_reason"] is not None:
                assert choice["finish_reason"] in REASONS and index not in finished
                finished.add(index)
    if not raised:
        assert finished == set(started) and started
        assert (reading.usage is not None) == usage
    return reading


def literal(choice: dict[str, Any]) -> list[Piece]:
    index, delta = choice["index"], choice["delta"]
    pieces: list[Piece] = [(index, key, delta[key]) for key in TEXTS if delta.get(key)]
    pieces += [(index, "details", detail) for detail in delta.get("reasoning_details") or ()]
    for call in delta.get("tool_calls", ()):
        function = call["function"]
        if "id" in call:
            assert call["type"] == "function" and call["id"]
            pieces.append((index, "call", (call["index"], call["id"], function["name"])))
        else:
            assert "name" not in function
        if function.get("arguments"):
            pieces.append((index, "args", (call["index"], function["arguments"])))
    if choice["finish_reason"] is not None:
        pieces.append((index, "finish", choice["finish_reason"]))
    return pieces


# ------------------------------------------------------------------------------- the comparison


def compare(promise: Reading, reading: Reading) -> None:
    """Asserts that the gateway kept its promise."""
    assert reading.failed == promise.failed
    pieces = list(reading.pieces)
    for at, (number, what, value) in enumerate(promise.pieces[: len(pieces)]):
        if what == "call" and not value[1] and pieces[at][1] == "call":
            assert pieces[at][2][1].startswith("call_")  # an id that the upstream left out is ours
            pieces[at] = (number, what, (pieces[at][2][0], "", pieces[at][2][2]))
    assert [one for one in pieces if not waits(one)] == [one for one in promise.pieces if not waits(one)]
    assert sorted(filter(waits, pieces)) == sorted(filter(waits, promise.pieces))
    if not pieces:
        return
    assert promise.extras - reading.extras == set()  # lost
    assert reading.extras - promise.extras - promise.may == set()  # invented
    if reading.usage is not None:
        # Members of a chunk that is not sent travel on the next; without a usage chunk there may be no next.
        assert keys(promise.may) <= keys(reading.extras)
    if promise.model is not None:
        assert reading.model == promise.model
    if reading.usage is not None and promise.usage is not None:
        compare_usage(promise.usage, reading.usage)


def waits(piece: Piece) -> bool:
    """True for empty arguments: they are sent late, for some servers send the real ones behind them."""
    return bool(piece[1] == "args" and piece[2][1] == "{}")


def keys(extras: set[tuple[str, str, str]]) -> set[str]:
    return {key for where, key, _ in extras if where == "chunk"}


def compare_usage(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    prompt, completion, total = (theirs[key] for key in COUNTS)
    reasoning = (theirs.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    if reasoning and total == prompt + completion + reasoning:
        completion += reasoning  # xAI counts reasoning beside the completion; OpenAI within
    heard = (theirs.get("prompt_tokens_details") or {}).get("audio_tokens") or 0
    if heard and total == prompt + completion + heard:
        prompt += heard  # Mistral counts what was heard beside the prompt
    assert tuple(ours[key] for key in COUNTS) == (prompt, completion, prompt + completion)
    for key, value in theirs.items():
        if key not in COUNTS and value is not None:
            assert ours[key] == (
                {k: v for k, v in value.items() if v is not None} if key.endswith("_tokens_details") else value
            )
