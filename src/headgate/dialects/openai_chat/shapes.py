"""The parts that answers and chunks share: finish reasons, content parts, tool calls.

Each function takes what an upstream sent and gives what the OpenAI schema says, or says that nothing had to change.
"""

from __future__ import annotations

import hashlib
import re

from msgspec import Raw

from headgate.wire import codec
from headgate.wire.codec import NULL, Object

TEXT_KEYS = ("content", "reasoning_content", "reasoning", "refusal")
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")
NO_ANSWER = frozenset(THOUGHTS)  # seen, but not what was asked for
OTHER_VISIBLE_KEYS = ("tool_calls", "function_call", "audio", "images", "reasoning_details")
EMPTY = frozenset((b"null", b'""', b"[]", b"{}"))
NO_ERROR = EMPTY | {b"false"}  # what stands under ``error`` where there is none

VISIBLE_KEYS = frozenset((*TEXT_KEYS, *OTHER_VISIBLE_KEYS))

_STOP = Raw(b'"stop"')
_FUNCTION = Raw(b'"function"')
_FINISHES = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "function_call",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "content_filtered": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
}
# The upstream itself says that it did not get to the end: DeepSeek's, vLLM's and OpenRouter's words for it.
FAILED_FINISHES = frozenset(("error", "abort", "aborted", "insufficient_system_resource", "network_error"))


def finish_reason(raw: Raw | None, called_tools: bool) -> str | None:
    """One of OpenAI's reasons, a member of FAILED_FINISHES, or None where there is none yet.

    A reason that nobody documents (``eos``, ``end_turn``, …) is ``stop``; ``stop`` after a tool call is ``tool_calls``.
    """
    if raw is None or raw == NULL:
        return None
    if raw == _STOP and not called_tools:
        return "stop"
    word = (codec.as_text(raw) or "").lower()
    if not word:
        return None
    if word in FAILED_FINISHES:
        return word
    reason = _FINISHES.get(word, "stop")
    return "tool_calls" if called_tools and reason == "stop" else reason


# ------------------------------------------------------------------------------------- content parts


def put_parts(delta: Object, raw: Raw) -> None:
    """Makes strings of content that came as an array of parts: ``content`` and ``reasoning_content``.

    Mistral's reasoning models stream ``[{"type": "thinking", "thinking": [{"type": "text", …}]}]``
    (docs.mistral.ai, Reasoning); the official clients read a string.
    """
    parts = codec.as_objects(raw)
    if parts is None:
        return
    text: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        inner = part.get("thinking")
        if inner is None:
            text.append(codec.as_text(part.get("text")) or "")
        else:
            pieces = codec.as_objects(inner)
            said = (
                codec.as_text(inner) if pieces is None else "".join(codec.as_text(p.get("text")) or "" for p in pieces)
            )
            thoughts.append(said or "")
    del delta["content"]
    if text or not thoughts:
        delta["content"] = codec.raw("".join(text))
    if thoughts:
        delta["reasoning_content"] = codec.raw("".join(thoughts))


# ------------------------------------------------------------------------------------- tool calls


class ToolCalls:
    """The tool calls of one choice, as far as their deltas have come.

    Fills what a delta lacks (``index``; ``id`` and ``type`` of a call's first) and takes out what it repeats, since the
    clients' accumulators join repeated strings.  A different id with a name at an index already in use is another call:
    servers exist that give every parallel call the index 0.
    """

    __slots__ = ("_at", "_by_id", "_seed", "_size", "calls")

    def __init__(self, seed: str) -> None:
        self.calls: list[tuple[str, str]] = []  # (id, name) by the index that the client sees
        self._at: dict[int, int] = {}  # the upstream's index → ours
        self._by_id: dict[str, int] = {}
        self._seed = seed
        self._size = 0

    def take_size(self) -> int:
        """Bytes of names and arguments since this was last asked."""
        size, self._size = self._size, 0
        return size

    def normalise(self, raw: Raw) -> Raw | None:
        """The ``tool_calls`` of one delta as the client gets them; None where nothing had to change."""
        deltas = codec.as_objects(raw)
        if not deltas:
            return None
        changed = False
        for delta in deltas:
            changed = self.normalise_one(delta) or changed
        return codec.raw(deltas) if changed else None

    def normalise_one(self, delta: Object) -> bool:
        ident = codec.as_text(delta.get("id")) or ""
        function = codec.as_object(delta.get("function"))
        name = codec.as_text(function.get("name")) or "" if function else ""
        arguments = function.get("arguments") if function else None
        whole = arguments is not None and memoryview(arguments)[0] in b"{["
        if function and arguments is not None and whole:  # an object where the clients read a string
            function["arguments"] = codec.raw(bytes(arguments).decode())
            delta["function"] = codec.raw(function)
        if function and "arguments" in function:
            self._size += len(bytes(function["arguments"])) - 2
        theirs = codec.as_integer(delta.get("index"))
        index = self._index(theirs, ident, name)
        changed = theirs != index
        if changed:
            delta["index"] = codec.raw(index)
        changed = changed or whole
        if index == len(self.calls):
            return self._open(delta, function, ident, name, index) or changed
        return self._continue(delta, function, index) or changed

    def _index(self, theirs: int | None, ident: str, name: str) -> int:
        """Which of our calls a delta belongs to; ``len(self.calls)`` for a new one."""
        new = len(self.calls)
        if ident and ident in self._by_id:
            return self._by_id[ident]
        if theirs is None:
            return new if ident or name or not new else new - 1
        ours = self._at.get(theirs)
        if ours is None or (ident and name and self.calls[ours][0] != ident):
            self._at[theirs] = new
            return new
        return ours

    def _open(self, delta: Object, function: Object | None, ident: str, name: str, index: int) -> bool:
        changed = False
        if not ident:
            ident = "call_" + hashlib.blake2b(f"{self._seed}/{index}".encode(), digest_size=12).hexdigest()
            delta["id"] = codec.raw(ident)
            changed = True
        if codec.is_null(delta.get("type")):
            delta["type"] = _FUNCTION
            changed = True
        if function is not None and codec.is_null(function.get("arguments")):
            function["arguments"] = codec.EMPTY_TEXT
            delta["function"] = codec.raw(function)
            changed = True
        self._size += len(name)
        self.calls.append((ident, name))
        self._by_id[ident] = index
        return changed

    def _continue(self, delta: Object, function: Object | None, index: int) -> bool:
        changed = delta.pop("id", None) is not None
        if "type" in delta and delta["type"] == NULL:
            del delta["type"]
            changed = True
        if function is None:
            return changed
        name = codec.as_text(function["name"]) if "name" in function else None
        stale = [key for key, value in function.items() if value == NULL]
        if "name" in function and (not name or name == self.calls[index][1]):
            stale.append("name")
        for key in stale:
            function.pop(key, None)
        if stale:
            delta["function"] = codec.raw(function)
        return changed or bool(stale)


def complete_calls(message: Object, raw: Raw, seed: str) -> bool:
    """Fills ``id``, ``type`` and ``arguments`` of a whole answer's calls, in ``message``; whether one was missing.

    Whole calls have no ``index``: it is taken out of what was written for a stream.
    """
    calls = codec.as_objects(raw)
    if not calls:
        return False
    tools = ToolCalls(seed)
    before = codec.raw(calls)
    for position, call in enumerate(calls):
        call["index"] = codec.raw(position)
        tools.normalise_one(call)
        del call["index"]
    after = codec.raw(calls)
    message["tool_calls"] = after
    return before != after


# ------------------------------------------------------------------------------------- text


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str, limit: int = 500) -> str:
    """``text`` without control characters, cut to ``limit`` characters."""
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def visible_keys(delta: Object) -> list[str]:
    """The members of a delta or message that a client can see something in."""
    return [
        key for key, value in delta.items() if key in VISIBLE_KEYS and (len(value) > 4 or bytes(value) not in EMPTY)
    ]
