"""The fixture engine: a small language model's server without the model, for honest tests of broken streams.

It is the model ``engine`` of the built-in provider.  Its text is a pure function of (seed, mode, all text so far): see
``walk``.  ``EngineSettings`` set the form of its events and its faults.  They come as a suffix of the model id,
``engine?mode=code&chunk=3``, or as ``"engine": {…}`` in the body, which takes precedence.  ``kill`` and ``key`` cut one
call several times: the n-th request with a key dies at ``kill[n-1]``; requests beyond the list complete.

It does not answer questions: the prompt only chooses the words.
"""

from __future__ import annotations

import asyncio
import codecs
import random
import time
from typing import Any, Literal

import msgspec
from msgspec import Struct

from headgate.testing.engine.walk import Walk, count, rest
from headgate.testing.faults.scene import FaultCounts
from headgate.testing.provider import shapes
from headgate.testing.provider.playing import EVENT_STREAM
from headgate.testing.provider.server import ReplyWriter
from headgate.testing.provider.shapes import ChatRequest, Invalid, Shape
from headgate.testing.provider.tools import CALLS

MOST_TOKENS = 20_000
_NEVER = -1
_REASONING_SEED = 1 << 20
_WHITE = " \n\t"


class EngineSettings(Struct, forbid_unknown_fields=True):
    """How one answer is made.  Durations are milliseconds."""

    # The text
    seed: int = 0
    mode: Literal["prose", "code", "multibyte", "loop", "spaces"] = "prose"
    tokens: int = 60
    diverge: int = 0  # tokens after which it differs from the same seed without this
    reasoning: int = 0  # tokens of reasoning before the text
    tool: Literal["none", "only", "after"] = "none"  # a tool call instead of the text, or after it
    # The split into events
    chunk: int = 1  # tokens per event; 0: one to five, by hash
    space: Literal["lead", "tail"] = "lead"  # white space: as it comes, or all of it at the end of the event before
    pace: float = 0  # per event; 0: as fast as the socket takes them
    burst: bool = False  # everything up to the end or the cut in one write
    usage: Literal["asked", "never", "each", "finish"] = "asked"
    hold: bool = True  # text that may become a stop string is held back
    eol: Literal["lf", "crlf"] = "lf"
    ascii: bool = False  # every other character is escaped
    split: int = 0  # the body is written in pieces of any size, by this seed; 0: an event each
    # The handling of a trailing assistant message
    prefill: Literal[
        "trailing", "continue_final_message", "prefix", "repeat", "ignore", "turn", "refuse"
    ] = "trailing"  # fmt: skip
    trims: bool = False  # the prefill's trailing white space is lost, and generated again
    strict: bool = False  # a prefill that ends in white space is refused
    status: int = 400  # of a refusal
    # The fault: after so many visible events.  After the last one it comes between the text and the finish; one
    # further, after the finish
    kill: list[int] = []
    cut: list[float] = []  # the same, behind this share of the body's bytes, wherever that is; 1 and more: never
    key: str = ""
    how: Literal["close", "reset", "stall", "end", "error", "done", "half"] = "close"
    late: int = 0  # behind an error event or [DONE]: the last event again, and so many of the next
    stall: float = 60_000


class EngineMessage(shapes.Message):
    prefix: bool | None = None


class EngineRequest(ChatRequest):
    """The engine's own fields of a request, beyond those of every model here."""

    messages: list[EngineMessage]  # type: ignore[assignment]
    stop: str | list[str] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    engine: dict[str, Any] | None = None

    @property
    def structured(self) -> bool:
        return (self.response_format or {}).get("type") in ("json_schema", "json_object")

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class Piece(Struct):
    """One visible event: its ``delta``, and its ``text`` if that is content."""

    delta: dict[str, Any]
    tokens: int
    text: str | None = None


_decoder = msgspec.json.Decoder(EngineRequest)


def read(body: bytes) -> tuple[EngineRequest, EngineSettings]:
    """Return the request, and its settings with those of the model's suffix.  Raises Invalid."""
    request = shapes.read_chat(body, _decoder)
    suffix = request.model.partition("?")[2]
    given: dict[str, Any] = dict(pair.partition("=")[::2] for pair in suffix.split("&") if pair)
    for name in ("kill", "cut"):
        if name in given:
            given[name] = given[name].split(",")
    try:
        settings = msgspec.convert({**given, **(request.engine or {})}, EngineSettings, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"engine: {error}", "engine" if request.engine else "model") from None
    if not 0 <= settings.tokens <= MOST_TOKENS:
        raise Invalid(f"the engine says 0 to {MOST_TOKENS} tokens", "model")
    return request, settings


# ------------------------------------------------------------------------------------- what is said


class EngineAnswer:
    """The whole answer to one request, made before any of it is sent.  Raises Invalid."""

    def __init__(self, request: EngineRequest, settings: EngineSettings) -> None:
        self.request, self.settings = request, settings
        messages, prefill = _split(request, settings)
        prompt = "".join(f"<|{message.role}|>{message.text}\n" for message in messages)
        self.reason = "stop"
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.pieces: list[list[Piece]] = []  # of each choice
        for index in range(request.n or 1):
            used = self._say(prompt, prefill, index)
        self.prompt_tokens = count(prompt) + used

    def _say(self, prompt: str, prefill: str, index: int) -> int:
        """Fill one choice, and return the prefill's tokens."""
        request, settings = self.request, self.settings
        mode = "json" if request.structured else settings.mode
        seed = settings.seed + index
        cap = MOST_TOKENS if request.cap is None else request.cap
        pieces: list[Piece] = []
        if settings.reasoning and not prefill:
            thought, _ = rest(Walk(seed + _REASONING_SEED, "prose", prompt, settings.reasoning), "")
            thought = thought[:cap]
            cap -= len(thought)
            self.reasoning_tokens += len(thought)
            pieces += [Piece({"reasoning_content": text}, n) for text, n in _texts(thought, settings)]
        used = 0
        if settings.tool != "only":
            tokens, used = rest(Walk(seed, mode, prompt, settings.tokens, settings.diverge), prefill)
            if settings.prefill == "repeat" and prefill:
                tokens.insert(0, prefill.encode())
            if cap <= len(tokens):
                tokens, self.reason = tokens[:cap], "length"
            texts = _texts(tokens, settings)
            if request.stops:
                texts, stopped = _stop(texts, request.stops, settings.hold)
                self.reason = "stop" if stopped else self.reason
            pieces += [Piece({"content": text}, n, text) for text, n in texts]
        if settings.tool != "none" and self.reason == "stop":
            pieces += [Piece({"tool_calls": [call]}, 1) for call in _tool_call()]
            self.reason = "tool_calls"
        self.pieces.append(pieces)
        self.completion_tokens += sum(piece.tokens for piece in pieces)
        return used

    @property
    def usage(self) -> dict[str, Any]:
        figures = shapes.usage(self.prompt_tokens, self.completion_tokens)
        if self.reasoning_tokens:
            figures["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return figures

    def document(self, shape: Shape) -> bytes:
        """The whole answer as one JSON document."""
        choices = []
        for index, pieces in enumerate(self.pieces):
            message: dict[str, Any] = {"role": "assistant", "content": _joined(pieces, "content")}
            if thought := _joined(pieces, "reasoning_content"):
                message["reasoning_content"] = thought
            if self.reason == "tool_calls":
                id, name, arguments = CALLS[0]
                function = {"name": name, "arguments": arguments}
                message["tool_calls"] = [{"id": id, "type": "function", "function": function}]
            choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": self.reason})
        head = {"id": shape.id, "object": "chat.completion", "created": shape.created, "model": shape.model}
        usage = {} if self.settings.usage == "never" else {"usage": self.usage}
        return shapes.dumps({**head, "choices": choices, **usage})


def _split(request: EngineRequest, settings: EngineSettings) -> tuple[list[EngineMessage], str]:
    """Return the conversation, and the beginning of the answer that the client already has."""
    messages, last = request.messages, request.messages[-1]
    if last.role != "assistant" or settings.prefill == "turn":
        return messages, ""
    if settings.prefill == "refuse":
        refusal = "Assistant message prefill is not supported: the last message must be the user's."
        raise Invalid(refusal, "messages", status=settings.status)
    if settings.strict and last.text != last.text.rstrip():
        raise Invalid("messages: final assistant content cannot end with trailing whitespace", "messages")
    if settings.prefill == "ignore":
        return messages[:-1], ""
    if settings.prefill == "continue_final_message":
        if request.add_generation_prompt is not False:  # vLLM: both together are invalid
            raise Invalid("add_generation_prompt and continue_final_message exclude each other", "messages")
        continues = request.continue_final_message
    else:
        continues = last.prefix if settings.prefill in ("prefix", "repeat") else True
    if not continues:
        return messages, ""
    return messages[:-1], last.text.rstrip() if settings.trims else last.text


def _joined(pieces: list[Piece], member: str) -> str:
    return "".join(piece.delta.get(member, "") for piece in pieces)


def _tool_call() -> list[dict[str, Any]]:
    id, name, arguments = CALLS[0]
    first = {"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    parts = [arguments[start : start + 5] for start in range(0, len(arguments), 5)]
    return [first, *({"index": 0, "function": {"arguments": part}} for part in parts)]


def _texts(tokens: list[bytes], settings: EngineSettings) -> list[tuple[str, int]]:
    """Return the events' texts, with the tokens in each.  A split character waits for its next token."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    texts: list[tuple[str, int]] = []
    held = at = 0
    while at < len(tokens):
        size = settings.chunk or 1 + (len(tokens[at]) * 7 + at * 13 + settings.seed) % 5
        group = tokens[at : at + size]
        at += len(group)
        held += len(group)
        text = decoder.decode(b"".join(group))
        if text:
            texts.append((text, held))
            held = 0
    if held and texts:
        texts[-1] = (texts[-1][0], texts[-1][1] + held)  # a character that max_tokens has cut is not sent
    return _tailed(texts) if settings.space == "tail" else texts


def _tailed(texts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    moved = texts[:1]
    for text, tokens in texts[1:]:
        bare = text.lstrip(_WHITE)
        before, n = moved[-1]
        space = text[: len(text) - len(bare)]
        if bare:
            moved[-1] = (before + space, n)
            moved.append((bare, tokens))
        else:
            moved[-1] = (before + space, n + tokens)
    return moved


def _stop(texts: list[tuple[str, int]], stops: list[str], hold: bool) -> tuple[list[tuple[str, int]], bool]:
    """Return the texts up to the first stop string, and true if there was one.

    Without ``hold`` the beginning of a stop string has been sent when its end comes.
    """
    shown: list[tuple[str, int]] = []
    text, sent, waiting = "", 0, 0
    for part, tokens in texts:
        text += part
        waiting += tokens
        found = min((at for at in (text.find(stop) for stop in stops) if at >= 0), default=-1)
        until = found if found >= 0 else len(text) - (_begun(text, stops) if hold else 0)
        if until > sent:
            shown.append((text[sent:until], waiting))
            sent, waiting = until, 0
        if found >= 0:
            return shown, True
    if sent < len(text):
        shown.append((text[sent:], waiting))
    return shown, False


def _begun(text: str, stops: list[str]) -> int:
    """Return the length of the text's end that begins a stop string."""
    longest = max(map(len, stops)) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-size:]) for stop in stops):
            return size
    return 0


# ------------------------------------------------------------------------------------- how it is said


_STEP = 4096  # most bytes of a piece of a body that is written in arbitrary pieces


class Telling:
    """One stream: its events in order, and the place and manner of its break."""

    def __init__(self, reply: ReplyWriter, answer: EngineAnswer, shape: Shape) -> None:
        self._reply, self._answer, self._shape = reply, answer, shape
        self._request, self._settings = answer.request, answer.settings
        self._tokens_sent = 0
        self.events = [self._event(index, piece) for index, piece in _interleaved(answer.pieces)]
        self.events += [self._finish(index) for index in range(len(answer.pieces))]

    def _event(self, index: int, piece: Piece) -> bytes:
        self._tokens_sent += piece.tokens
        shape = self._shape
        plain = index == 0 and self._settings.usage != "each" and not self._request.logprobs
        if plain and piece.text is not None and not self._settings.ascii:
            return shape.content(piece.text)
        value = shape.chunk(piece.delta)
        value["choices"][0]["index"] = index
        if self._request.logprobs and piece.text is not None:
            value["choices"][0]["logprobs"] = {"content": [_logprob(piece.text)]}
        if self._settings.usage == "each":
            value["usage"] = shapes.usage(self._answer.prompt_tokens, self._tokens_sent)
        return shapes.event(value, ascii=self._settings.ascii)

    def _finish(self, index: int) -> bytes:
        value = self._shape.chunk({}, self._answer.reason)
        value["choices"][0]["index"] = index
        if self._settings.usage in ("each", "finish"):
            value["usage"] = self._answer.usage
        return shapes.event(value)

    def _tail(self) -> bytes:
        if self._settings.usage == "asked" and self._request.include_usage:
            return shapes.event({**self._shape.chunk({}), "choices": [], "usage": self._answer.usage}) + shapes.DONE
        return shapes.DONE

    async def tell(self, kill: int, cut: float) -> None:
        """Send the stream up to its end, ``kill`` or ``cut``, then end it as the settings demand."""
        reply, settings = self._reply, self._settings
        reply.head(200, EVENT_STREAM)
        if settings.cut or settings.split:
            return await self._tell_bytes(cut)
        end = len(self.events) if kill == _NEVER else min(kill, len(self.events))
        if settings.burst:
            reply.send(self._shape.first() + b"".join(self.events[:end]))
        else:
            reply.send(self._shape.first())
            for event in self.events[:end]:
                await asyncio.sleep(settings.pace / 1e3)
                reply.send(event)
                reply.seen.tokens += 1
                await reply.room()
        if kill != _NEVER:
            await self._fail(end)
        if not reply.over:
            reply.send(self._tail())
            reply.end()

    async def _tell_bytes(self, cut: float) -> None:
        """Send the body as bytes, independent of the ends of events."""
        reply, settings = self._reply, self._settings
        body = self._shape.first() + b"".join(self.events) + self._tail()
        if settings.eol == "crlf":
            body = body.replace(b"\n", b"\r\n")  # no event has a line break of its own: JSON escapes it
        end = len(body) if cut >= 1 else int(len(body) * cut)
        chance = random.Random(settings.split)
        at = 0
        while at < end:
            size = min(end - at, 1 + chance.randrange(chance.choice((3, 60, _STEP)))) if settings.split else end - at
            reply.send(body[at : at + size])
            at += size
            await reply.room()
            if chance.random() < 0.1:
                await asyncio.sleep(0)
        if cut >= 1:
            reply.end()
        elif settings.how == "close" and chance.random() < 0.5:
            reply.raw(b"%x\r\n" % (len(body) + 1) + body[end : end + 1])  # the framing is cut as well
            reply.close()
        else:
            await self._fail(len(self.events))

    async def _fail(self, at: int) -> None:
        reply, settings = self._reply, self._settings
        match settings.how:
            case "close":
                reply.close()
            case "reset":
                await asyncio.sleep(0.05)  # an RST throws away what the client's kernel has not handed over yet
                reply.reset()
            case "half":
                whole = (self.events[at:] or [self._tail()])[0]
                reply.send(whole[: len(whole) // 2])
                reply.close()
            case "stall":
                await asyncio.sleep(settings.stall / 1e3)
                reply.send(b"".join(self.events[at:]))
            case "end":
                reply.end()
            case how:
                broken = shapes.error("The engine has lost its worker.", "server_error", "internal_error")
                reply.send((shapes.DONE if how == "done" else shapes.event(broken)) + self._late(at))
                reply.end()

    def _late(self, at: int) -> bytes:
        late = self._settings.late
        return b"".join(self.events[max(0, at - 1) : at + late]) if late else b""


def _interleaved(choices: list[list[Piece]]) -> list[tuple[int, Piece]]:
    longest = max(map(len, choices))
    return [(i, pieces[at]) for at in range(longest) for i, pieces in enumerate(choices) if at < len(pieces)]


def _logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": []}


async def _perform(reply: ReplyWriter, shape: Shape, answer: EngineAnswer, kill: int, cut: float) -> None:
    if answer.request.stream:
        return await Telling(reply, answer, shape).tell(kill, cut)
    await asyncio.sleep(answer.settings.pace / 1e3 * len(answer.pieces[0]))
    if kill != _NEVER or cut < 1:
        return reply.close()
    return reply.whole(200, answer.document(shape))


def begin(reply: ReplyWriter, memory: FaultCounts, id: str) -> None:
    """Read the request and start its answer.  Raises Invalid."""
    request, settings = read(reply.request.body)
    answer = EngineAnswer(request, settings)
    visit = memory.visit("engine", settings.key)[0] if settings.key else 1
    kill = settings.kill[visit - 1] if visit <= len(settings.kill) else _NEVER
    cut = settings.cut[visit - 1] if visit <= len(settings.cut) else 1.0
    shape = Shape(id, int(time.time()), "engine", request.include_usage)
    reply.run(_perform(reply, shape, answer, kill, cut), f"engine on connection {reply.seen.connection}")
