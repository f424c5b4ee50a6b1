"""One chunk at a time: what it is, its delta in order, and its bytes with other values in the same places."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from headgate.dialects.openai_chat import shapes
from headgate.errors import GatewayError
from headgate.wire import codec
from headgate.wire.codec import NULL, Object

Members = dict[str, Any]  # a JSON object of which some members are Raw and some are ours, in plain types
TELLING = ("length", "content_filter")  # finish reasons that say why there is nothing to see


class Fate(Enum):
    """What becomes of one choice of a chunk."""

    KEPT = "as it came"
    EDITED = "changed"
    DROPPED = "not sent"


class Choice:
    """What has been streamed of one choice.  ``finish`` is its one finish reason, sent or not."""

    __slots__ = ("finish", "finish_sent", "held", "held_delta", "index", "role_sent", "tools")

    def __init__(self, index: int, ident: str) -> None:
        self.index = index
        self.role_sent = False
        self.finish: str | None = None
        self.finish_sent = False
        self.tools = shapes.ToolCalls(f"{ident}/{index}")
        self.held: Object = {}  # what a chunk that was held back said beyond index, delta and finish_reason
        self.held_delta: Object = {}  # and its delta beyond role and content

    def hold(self, choice: Members, delta: Object) -> None:
        """Keeps what the first invisible chunk of this choice says, for its role chunk."""
        if not self.held:
            self.held = {k: v for k, v in choice.items() if k not in ("index", "delta", "finish_reason", "message")}
        if not self.held_delta:
            self.held_delta = {k: v for k, v in delta.items() if k != "content"}


def tell_why(choices: Mapping[int, Choice]) -> bool:
    """Whether one of them has ended with a reason for having no answer in it."""
    return any(choice.finish in TELLING for choice in choices.values())


def take_back_finish(choices: Mapping[int, Choice]) -> None:
    """Ends that no client has seen: the answer goes on elsewhere, or with an error."""
    for choice in choices.values():
        if not choice.finish_sent:
            choice.finish = None


def parse(data: bytes) -> tuple[bytes, Object | None]:
    """An event's JSON, mended where it is not UTF-8, and its members; None where it is no JSON object even so."""
    try:
        return data, codec.decode_object(data)
    except GatewayError:
        mended = codec.repair(data)
    try:
        return mended, codec.decode_object(mended)
    except GatewayError:
        return mended, None


def is_complaint(top: Object) -> bool:
    """Whether an event is an error, in one of the forms that come without ``event: error``."""
    error = top.get("error")
    if error is not None and bytes(error) not in shapes.NO_ERROR:
        return True
    if "choices" in top or "usage" in top:
        return False
    words = (codec.as_text(top.get("object")), codec.as_text(top.get("type")))
    return "error" in words or bool(codec.as_text(top.get("message")) or codec.as_text(top.get("detail")))


def delta_of(choice: Members, tools: shapes.ToolCalls) -> tuple[Object, bool]:
    """The delta without its role and in its form: (delta, whether that changed it)."""
    raw = choice.get("delta")
    delta = codec.as_object(raw) if raw is not None and raw != NULL else None
    edited = delta is None
    if delta is None:
        delta = codec.as_object(choice.pop("message", None)) or {}
        choice["delta"] = codec.EMPTY_OBJECT
    if delta.pop("role", None) is not None:
        edited = True
    content = delta.get("content")
    if content is not None and memoryview(content)[0] == 0x5B:
        edited = True
        shapes.put_parts(delta, content)
    calls = delta.get("tool_calls")
    if calls is not None:
        normalised = tools.normalise(calls) if calls != NULL else None
        if normalised is not None:
            delta["tool_calls"] = normalised
            edited = True
    for key in ("tool_calls", "function_call"):
        if key in delta and delta[key] == NULL:
            del delta[key]
            edited = True
    return delta, edited


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
