"""Deltas as a Messages client reads them: events, and the whole message.

A message's blocks come one after the other, but an upstream may mix the arguments of several tool calls.  So later
calls are held until the open block can no longer grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from msgspec import Raw

from headgate.dialects.anthropic_messages import errors, seals
from headgate.dialects.anthropic_messages.events import (
    MESSAGE_STOP,
    Members,
    block_stop,
    event,
    message,
    message_start,
    thinking,
    usage_members,
)
from headgate.dialects.anthropic_messages.passing_source import BlockEvent
from headgate.dialects.anthropic_messages.request import NAME
from headgate.dialects.base import (
    Delta,
    Finish,
    PassedEvent,
    RawDelta,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
    finish_of,
    own_members,
)
from headgate.dialects.translation.arguments import object_from
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec
from headgate.wire.codec import EMPTY_OBJECT

_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_OWN_WORDS = ("pause_turn", "model_context_window_exceeded", "compaction")  # of this API, beyond those
_STARTS: Mapping[str, Members] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class MessagesFace:
    """Implements ``base.Face``.  ``PassedEvent``s are written as they are; later deltas continue the open block."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._begun = False
        self._index = -1  # of the open block, or of the last one
        self._open = ""  # text | thinking | tool_use | a provider's own kind; empty: no block is open
        self._signed = False  # the open block of thinking has its signature
        self._call = -1  # whose block is open, or was the last
        self._later: dict[int, tuple[ToolStart, list[str]]] = {}  # calls after the open one
        self._behind: list[TextDelta | RefusalDelta | ReasoningDelta] = []  # came while a call was open
        self._refused = False

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        events: list[bytes] = []
        if not self._begun:
            self._begun = True
            if not (deltas and isinstance(deltas[0], PassedEvent)):
                events.append(self._start(model))
        for delta in deltas:
            self._put(delta, events)
        return b"".join(events)

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        end = {"stop_reason": _reason(finish, self._refused), "stop_sequence": finish.stop or None}
        return self.end({"type": "message_delta", "delta": end, "usage": usage_members(usage)}, extra, trace)

    def end(self, members: Mapping[str, object], extra: bytes | None, trace: bytes | None) -> bytes:
        """Return the events that end a stream.  ``members`` are those of the last but one."""
        events: list[bytes] = []
        if not self._begun:
            self._begun = True
            events.append(self._start(self._reply.model))
        self._close(events)
        behind, self._behind = self._behind, []
        for delta in behind:
            self._put(delta, events)
        self._close(events)
        events += [event({**members, **own_members(extra, trace)}), MESSAGE_STOP]
        return b"".join(events)

    def error(self, error: GatewayError) -> bytes:
        return errors.error_event(error, self._reply.ident)

    def screen(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        return deltas

    def whole(
        self, deltas: Sequence[Delta], model: str, usage: Usage, extra: bytes | None, trace: bytes | None
    ) -> bytes:
        finish = finish_of(deltas)
        refused = any(isinstance(delta, RefusalDelta) for delta in deltas)
        return codec.encode(
            {
                **message(self._reply.ident, model),
                "content": _content(deltas, self._reply.family),
                "stop_reason": _reason(finish, refused),
                "stop_sequence": finish.stop or None,
                "usage": usage_members(usage),
                **own_members(extra, trace),
            }
        )

    # ------------------------------------------------------------------------------- events

    def _start(self, model: str) -> bytes:
        return message_start(self._reply.ident, model, self._reply.prompt_tokens)

    def _put(self, delta: Delta, events: list[bytes]) -> None:
        match delta:
            case TextDelta() | RefusalDelta() | ReasoningDelta() if self._open == "tool_use":
                self._behind.append(delta)  # more of the call's arguments may follow, and a block cannot be reopened
            case TextDelta() | RefusalDelta():
                self._refused = self._refused or isinstance(delta, RefusalDelta)
                self._ensure("text", events)
                events.append(self._delta({"type": "text_delta", "text": delta.text}))
            case ReasoningDelta():
                self._ensure("thinking", events)
                if delta.text:
                    events.append(self._delta({"type": "thinking_delta", "thinking": delta.text}))
                if delta.signature:  # it ends the block: what follows is another one
                    self._sign(delta.signature, events)
                    self._close(events)
            case ToolStart():
                if self._open == "tool_use":
                    self._later[delta.index] = delta, []
                else:
                    self._tool(delta, events)
            case ToolDelta():
                if delta.index in self._later:
                    self._later[delta.index][1].append(delta.arguments)
                elif delta.index == self._call and self._open == "tool_use":
                    events.append(self._delta({"type": "input_json_delta", "partial_json": delta.arguments}))
            case RawDelta():
                if delta.api == NAME:
                    self._close(events)
                    self._index += 1
                    members = {"type": "content_block_start", "index": self._index, "content_block": delta.value}
                    events += [event(members), block_stop(self._index)]
            case PassedEvent():
                if isinstance(delta, BlockEvent):
                    self._index, self._open = delta.index, delta.opens
                events.append(delta.event)
            case _:
                pass

    def _ensure(self, kind: str, events: list[bytes]) -> None:
        if self._open != kind:
            self._close(events)
            self._begin(kind, _STARTS[kind], events)

    def _sign(self, signature: str, events: list[bytes]) -> None:
        self._signed = True
        sealed = seals.sealed(signature, self._reply.family) or seals.NOBODYS
        events.append(self._delta({"type": "signature_delta", "signature": sealed}))

    def _tool(self, start: ToolStart, events: list[bytes]) -> None:
        self._close(events)
        self._call = start.index
        self._begin("tool_use", _tool_use(start, EMPTY_OBJECT), events)

    def _begin(self, kind: str, block: Members, events: list[bytes]) -> None:
        self._index += 1
        self._open = kind
        self._signed = False
        events.append(event({"type": "content_block_start", "index": self._index, "content_block": block}))

    def _delta(self, delta: Members) -> bytes:
        return event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self, events: list[bytes]) -> None:
        """End the open block, and write the calls that waited for its end."""
        if not self._open:
            return
        if self._open == "thinking" and not self._signed and self._reply.family:
            self._sign("", events)
        events.append(block_stop(self._index))
        self._open = ""
        later, self._later = self._later, {}
        for start, arguments in later.values():
            self._tool(start, events)
            events.append(self._delta({"type": "input_json_delta", "partial_json": "".join(arguments)}))
            self._close(events)


def _tool_use(start: ToolStart, input_: Raw) -> Members:
    return {"type": "tool_use", "id": start.id, "name": start.name, "input": input_}


def _reason(finish: Finish, refused: bool) -> str:
    if finish.word in _OWN_WORDS:
        return finish.word
    if finish.stop:
        return "stop_sequence"
    return "refusal" if refused else _REASONS.get(finish.reason, "end_turn")


# ------------------------------------------------------------------------------------- the whole message


def _content(deltas: Sequence[Delta], family: str) -> list[Members]:
    blocks: list[Members] = []
    calls: dict[int, tuple[ToolStart, list[str]]] = {}
    for delta in deltas:
        if isinstance(delta, ToolStart):
            calls[delta.index] = delta, []
        elif isinstance(delta, ToolDelta) and delta.index in calls:
            calls[delta.index][1].append(delta.arguments)
    for kind, run in groupby(deltas, _kind):
        if kind == "text":
            blocks.append({"type": "text", "text": "".join(_text(delta) for delta in run)})
        elif kind == "thinking":
            blocks += _thoughts([delta for delta in run if isinstance(delta, ReasoningDelta)], family)
        elif kind == NAME:
            blocks += [dict(codec.as_object(delta.value) or {}) for delta in run if isinstance(delta, RawDelta)]
    return blocks + [
        _tool_use(start, object_from("".join(arguments))) for _, (start, arguments) in sorted(calls.items())
    ]


def _kind(delta: Delta) -> str:
    if isinstance(delta, TextDelta | RefusalDelta):
        return "text"
    if isinstance(delta, ReasoningDelta):
        return "thinking"
    return delta.api if isinstance(delta, RawDelta) else ""


def _text(delta: Delta) -> str:
    return delta.text if isinstance(delta, TextDelta | RefusalDelta | ReasoningDelta) else ""


def _thoughts(deltas: list[ReasoningDelta], family: str) -> list[Members]:
    """Return blocks of thinking.  A signature ends a block."""
    blocks: list[Members] = []
    texts: list[str] = []
    for delta in deltas:
        texts.append(delta.text)
        if delta.signature:
            blocks.append(thinking("".join(texts), delta.signature, family))
            texts = []
    if any(texts):
        blocks.append(thinking("".join(texts), "", family))
    return blocks
