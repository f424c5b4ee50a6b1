"""One chunk at a time: its kind, its normal delta, and its bytes with other values in the same places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from msgspec import Raw

from headgate.dialects.openai_chat import normalise
from headgate.dialects.openai_chat.errors import detection
from headgate.dialects.openai_chat.stream import finishes
from headgate.dialects.openai_chat.stream.calls import ToolCalls, stringify
from headgate.dialects.tally import TELLING
from headgate.errors import GatewayError
from headgate.wire import codec, sse
from headgate.wire.codec import NULL, Object

Members = dict[str, Any]  # a JSON object: some members are Raw, those of the gateway plain values
_MOST_HELD = 256 << 10
_ON_TOP = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "provider")
)
# Members of every chunk or delta, and repetitions of the finish reason
_USUAL = frozenset(
    ("index", "delta", "message", "finish_reason", "native_finish_reason", "stop_reason", "matched_stop", "role")
)

MOST_CHOICES = 128  # of one stream, unless more were asked for: as many as OpenAI's `n` allows
MOST_IN_ONE = 1024  # of one whole answer, which does not know how many were asked for


class Fate(Enum):
    """The treatment of one choice of a chunk."""

    KEPT = "as it came"
    EDITED = "changed"
    DROPPED = "not sent"


class Choice:
    """The streamed part of one choice.

    ``finish``: its finish reason, if known; ``word``: the server's own word for it.  The client gets it last, because
    some servers continue after it.  ``ending``: the chunk with the finish reason, if that had no text.  ``doubted``:
    this server sends finish reasons before the end.
    """

    __slots__ = (
        "_size", "doubted", "ending", "finish", "finish_sent", "halves", "held", "index", "legacy", "messages",
        "role_sent", "tools", "word",
    )  # fmt: skip

    def __init__(self, index: int, ident: str) -> None:
        self.index = index
        self.role_sent = False
        self.messages = False  # its text comes in messages, where others have deltas
        self.finish: str | None = None
        self.word = ""
        self.doubted = False
        self.ending: bytes | None = None
        self.finish_sent = False
        self.tools = ToolCalls(f"{ident}/{index}")
        self.legacy: str | None = None  # the name of a ``function_call``
        self.held: list[tuple[Members, Members]] = []  # extras of chunks without text before the first: choice, delta
        self._size = 0
        self.halves: dict[str, bytes] = {}  # the first half of a surrogate pair, by the member whose text it ends

    @property
    def called(self) -> str:
        """The finish reason that a tool call implies."""
        return "tool_calls" if self.tools.calls else "" if self.legacy is None else "function_call"

    def end(self, finish: finishes.FinishReason, *, doubted: bool) -> bool:
        """Take a finish reason.  Return false if there is one already."""
        if self.finish is not None and not self.doubted:
            return False
        self.finish, self.word = finish
        self.doubted = self.doubted or doubted
        return True

    def hold(self, choice: Members, delta: Object) -> None:
        """Keep the members of an invisible chunk before the first visible one."""
        beyond = {k: v for k, v in choice.items() if k not in ("index", "delta", "finish_reason", "message")}
        within = {k: v for k, v in delta.items() if k != "content"}
        if self.held:
            beyond, within = extras(beyond), extras(within)
        elif not (beyond or within):
            return
        self._size += sum(map(len, beyond.values())) + sum(map(len, within.values()))
        if (beyond or within) and self._size <= _MOST_HELD:
            self.held.append((beyond, within))

    def take_back(self) -> None:
        """Drop its finish reason, because more text has come after it."""
        self.finish = None
        self.word = ""
        self.ending = None
        self.doubted = True


def extras(members: Object) -> Object:
    """Return the members of a choice or a delta beyond the usual ones."""
    return {
        key: value
        for key, value in members.items()
        if key not in _USUAL and (len(value) > 4 or bytes(value) not in normalise.EMPTY)
    }


def tell_why(choices: Mapping[int, Choice]) -> bool:
    """True if one of them has ended with a reason that explains an empty answer."""
    return any(choice.finish in TELLING for choice in choices.values())


def take_back_finish(choices: Mapping[int, Choice]) -> None:
    """Forgets every end: the answer goes on elsewhere, or with an error."""
    for choice in choices.values():
        choice.take_back()
        choice.doubted = False  # another server may go on with it
        choice.halves = {}


def says_more(event: bytes) -> bool:
    """True if a chunk that was held for its finish reason has other members."""
    top = codec.decode_object(event[6:-2])
    return not top.keys() <= _ON_TOP or any(
        extras(choice) or extras(codec.as_object(choice.get("delta")) or {})
        for choice in codec.as_objects(top["choices"]) or []
    )


def without_finish(event: bytes) -> bytes:
    """A chunk of ours that was held for its finish reason, as it is sent where the choice goes on after it."""
    top: Members = codec.decode_object(event[6:-2])
    choices = codec.as_objects(top["choices"]) or []
    top["choices"] = [{**choice, "finish_reason": NULL} for choice in choices]
    return sse.encode(codec.encode(top))


def parse(data: bytes) -> tuple[bytes, Object | None]:
    """A document's JSON, mended where it is none, and its members; None where it is no JSON object even so."""
    if b"\\u" not in data or (b"\\ud" not in data and b"\\uD" not in data):
        try:
            return data, codec.decode_object(data)
        except GatewayError:
            pass
    mended = codec.repair(data)
    return mended, codec.as_object(mended)


def parse_event(data: bytes) -> tuple[bytes, Object | None]:
    """An event's JSON as ``parse`` has it, but that halves of surrogate pairs stay apart (``codec.halves_apart``)."""
    if b"\\u" not in data or (b"\\ud" not in data and b"\\uD" not in data):
        try:
            return data, codec.decode_object(data)
        except GatewayError:
            pass
    mended = codec.mend(data)
    return mended, codec.as_object(mended)


def payloads(data: bytes) -> list[bytes]:
    """The payloads that one event holds, where its data is not one JSON object: lines of their own, or objects one
    behind the other.  One alone where there is nothing to tell them apart.
    """
    lines = [line for line in data.split(b"\n") if line.strip()]
    if len(lines) > 1 and any(parse_event(line)[1] is not None for line in lines):
        return [payload for line in lines for payload in _objects(line)]
    return list(_objects(data.replace(b"\n", b" ")))


def _objects(data: bytes) -> Iterator[bytes]:
    items = codec.as_objects(data) if data.lstrip()[:1] == b"[" else None
    if items and all("choices" in item for item in items):  # a list of chunks
        yield from map(codec.encode, items)
        return
    at = _end_of_gap(data, 0)
    while at < len(data):
        length = codec.object_length(memoryview(data)[at:]) or len(data) - at
        yield data[at : at + length]
        at = _end_of_gap(data, at + length)


def _end_of_gap(data: bytes, at: int) -> int:
    gap = _GAP.match(data, at)
    return gap.end() if gap is not None else at


_GAP = re.compile(rb"(?:\s*data:)*\s*(?:,\s*(?=\{))?")  # between objects, and before the first
# An event that cannot be read, but names a member of a tool call's
_CALL = re.compile(rb'\\?"(?:tool_calls|function_call)\\?"\s*(?:\Z|:(?!\s*(?:null|None|\[\s*\]|\{\s*\})))')


def tears_a_call(data: bytes) -> bool:
    """Whether an event that cannot be read is part of a tool call, as far as one can see."""
    return _CALL.search(data) is not None


def named(name: bytes, data: bytes) -> bytes:
    """Return an event's data, with the event's name in it if that says more: for an exception or a notice."""
    if data[:1] != b"{" or b'"choices"' in data:
        return data
    if name.endswith((b"Exception", b"exception")):
        return b'{"%b":%b}' % (name, data)
    if detection.is_notice_word(name) and b'"type"' not in data:
        return b'{"type":"%b"%b%b' % (name, b"" if data[1:].lstrip()[:1] == b"}" else b",", data[1:])
    return data


def is_notice(payload: bytes, top: Object | None) -> bool:
    """True if an event only reports that its server is at work."""
    if top is None:
        word = payload.strip(b' \t"')
        return word in (b"", b"null") or detection.is_notice_word(word)
    return "choices" not in top and detection.holds_nothing(top)


def is_complaint(top: Object) -> bool:
    """True if an event is an error, in one of the forms without ``event: error``."""
    return detection.is_error(top)


def is_plain_complaint(payload: bytes) -> bool:
    """Whether an event that is no JSON object is an error: a list of errors, or a short text that speaks of one."""
    start = payload.lstrip()[:1]
    if start == b"[":
        return any(is_complaint(one) for one in codec.as_objects(payload) or ())
    return start != b"{" and detection.speaks_of_one(payload)


def failure_of(choice: Members) -> Raw | None:
    """The error that stands in a choice, its delta or its message; None where there is none."""
    error: Raw | None = choice.get("error")
    if error is not None and detection.says_error(error):
        return error
    for key in ("delta", "message"):
        raw = choice.get(key)
        if raw is not None and b'"error"' in bytes(raw):
            error = (codec.as_object(raw) or {}).get("error")
            if error is not None and detection.says_error(error):
                return error
    return None


def delta_of(choice: Members, state: Choice, view: set[str]) -> tuple[Object, bool]:
    """The delta without its role and in its form: (delta, whether that changed it).

    ``view``: the members in which there has been something to see.
    """
    raw = choice.get("delta")
    delta = codec.as_object(raw) if raw is not None and raw != NULL else None
    edited = delta is None
    if delta is None:
        delta = _stand_in(choice, state, view)
    if delta.pop("role", None) is not None:
        edited = True
    if "finish_reason" in delta:
        edited = finishes.lift(choice, delta) or edited
    content = delta.get("content")
    if content is not None and memoryview(content)[0] != 0x22 and content != NULL:
        edited = True
        normalise.put_parts(delta, content)
    calls = delta.get("tool_calls")
    if calls is not None:
        normalised = state.tools.normalise(calls, state.messages) if calls != NULL else None
        if normalised is not None:
            delta["tool_calls"] = normalised
            edited = True
    legacy = delta.get("function_call")
    if legacy is not None and legacy != NULL:
        edited = _normalise_legacy(delta, legacy, state) or edited
    for key in ("tool_calls", "function_call"):
        if key in delta and delta[key] == NULL:
            del delta[key]
            edited = True
    return delta, edited


def _stand_in(choice: Members, state: Choice, view: set[str]) -> Object:
    """Return a delta for a choice without one: from a message, or a bare text.

    A message after deltas repeats all of them, so only its other members count.
    """
    choice["delta"] = codec.EMPTY_OBJECT
    message = codec.as_object(choice.pop("message", None)) or {}
    if message and state.role_sent and not state.messages:
        return {key: value for key, value in message.items() if key not in view}
    text = choice.pop("text", None)
    if not message and text is not None and text != NULL:
        message["content"] = text
    state.messages = state.messages or bool(normalise.visible_keys(message))
    return message


def _normalise_legacy(delta: Object, raw: Raw, state: Choice) -> bool:
    """``function_call``, which came before ``tool_calls``: its name once, its arguments as a string."""
    call = codec.as_object(raw)
    if not call:
        return False
    changed = stringify(call)
    name = codec.as_text(call.get("name")) or ""
    if state.legacy is None and not normalise.says_something(raw):
        del delta["function_call"]  # no call
        return True
    if not state.legacy:
        state.legacy = name
    elif "name" in call and name in ("", state.legacy):
        del call["name"]
        changed = True
    if changed:
        delta["function_call"] = codec.raw(call)
    return changed


def join_halves(delta: Object, state: Choice) -> bool:
    """Joins the halves of a surrogate pair that two deltas have; whether that changed this one.  The first half waits
    for the next delta of its member.
    """
    changed = False
    for key in normalise.TEXT_KEYS:
        raw = delta.get(key)
        if raw is None or memoryview(raw)[0] != 0x22:
            continue
        text = bytes(raw)[1:-1]
        if codec.has_halves(text) or (state.halves and key in state.halves and text):
            half = state.halves.pop(key, b"")
            text, half = codec.split_half(half + text)
            if half:
                state.halves[key] = half
            delta[key] = Raw(b'"%b"' % codec.join_halves(text))
            changed = True
    return changed


def swap(data: bytes, top: Object, ours: Object) -> bytes | None:
    """``data`` with some members' values replaced where they stand, however it is spelled; None where that cannot be
    done for certain.
    """
    swapped = data
    for key, value in ours.items():
        theirs = top.get(key)
        if theirs is None:
            return None
        name = b'"' + key.encode() + b'"'
        spelled = [name + gap + bytes(theirs) for gap in (b":", b": ") if name + gap + bytes(theirs) in swapped]
        if len(spelled) != 1 or swapped.count(spelled[0]) != 1:
            return None
        swapped = swapped.replace(spelled[0], spelled[0][: -len(bytes(theirs))] + bytes(value))
    _, again = parse(swapped)
    return swapped if again is not None and all(again.get(key) == value for key, value in ours.items()) else None
