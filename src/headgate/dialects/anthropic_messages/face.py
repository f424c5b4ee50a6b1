"""Deltas as a Messages client reads them: events, and the whole message.

A message's blocks come one after the other, but an upstream may mix the arguments of several tool calls.  So later
calls are held until the open block can no longer grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from msgspec import Raw

from headgate.dialects.anthropic_messages import errors
from headgate.dialects.base import (
    Delta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
    finish_of,
    own_members,
)
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse
from headgate.wire.codec import EMPTY_OBJECT

_Members = dict[str, object]
_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_OWN_WORDS = ("pause_turn", "model_context_window_exceeded", "compaction")  # of this API, beyond those
_STARTS: Mapping[str, _Members] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class MessagesFace:
    """Implements ``base.Face``."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._begun = False
        self._index = -1  # of the open block, or of the last one
        self._open = ""  # text | thinking | tool_use; empty: no block is open
        self._call = -1  # whose block is open, or was the last
        self._later: dict[int, tuple[ToolStart, list[str]]] = {}  # calls after the open one
        self._refused = False

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        events: list[bytes] = []
        if not self._begun:
            self._begun = True
            events.append(self._start(model))
        for delta in deltas:
            self._put(delta, events)
        return b"".join(events)

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        events: list[bytes] = []
        if not self._begun:
            self._begun = True
            events.append(self._start(self._reply.model))
        self._close(events)
        end = {"stop_reason": _reason(finish, self._refused), "stop_sequence": finish.stop or None}
        members = {"type": "message_delta", "delta": end, "usage": _usage(usage), **own_members(extra, trace)}
        events += [_event(members), _event({"type": "message_stop"})]
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
                **self._message(model),
                "content": _content(deltas),
                "stop_reason": _reason(finish, refused),
                "stop_sequence": finish.stop or None,
                "usage": _usage(usage),
                **own_members(extra, trace),
            }
        )

    # ------------------------------------------------------------------------------- events

    def _message(self, model: str) -> _Members:
        return {"id": self._reply.ident, "type": "message", "role": "assistant", "model": model}

    def _start(self, model: str) -> bytes:
        message = {
            **self._message(model),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(Usage(self._reply.prompt_tokens)),
        }
        return _event({"type": "message_start", "message": message})

    def _put(self, delta: Delta, events: list[bytes]) -> None:
        match delta:
            case TextDelta() | RefusalDelta():
                self._refused = self._refused or isinstance(delta, RefusalDelta)
                self._ensure("text", events)
                events.append(self._delta({"type": "text_delta", "text": delta.text}))
            case ReasoningDelta():
                self._ensure("thinking", events)
                if delta.text:
                    events.append(self._delta({"type": "thinking_delta", "thinking": delta.text}))
                if delta.signature:
                    events.append(self._delta({"type": "signature_delta", "signature": delta.signature}))
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
            case _:
                pass

    def _ensure(self, kind: str, events: list[bytes]) -> None:
        if self._open != kind:
            self._close(events)
            self._begin(kind, _STARTS[kind], events)

    def _tool(self, start: ToolStart, events: list[bytes]) -> None:
        self._close(events)
        self._call = start.index
        self._begin("tool_use", _tool_use(start, EMPTY_OBJECT), events)

    def _begin(self, kind: str, block: _Members, events: list[bytes]) -> None:
        self._index += 1
        self._open = kind
        events.append(_event({"type": "content_block_start", "index": self._index, "content_block": block}))

    def _delta(self, delta: _Members) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self, events: list[bytes]) -> None:
        """End the open block, and write the calls that waited for its end."""
        if not self._open:
            return
        events.append(_event({"type": "content_block_stop", "index": self._index}))
        self._open = ""
        later, self._later = self._later, {}
        for start, arguments in later.values():
            self._tool(start, events)
            events.append(self._delta({"type": "input_json_delta", "partial_json": "".join(arguments)}))
            self._close(events)


def _event(members: _Members) -> bytes:
    return sse.encode(codec.encode(members), event=str(members["type"]).encode())


def _tool_use(start: ToolStart, input_: Raw) -> _Members:
    return {"type": "tool_use", "id": start.id, "name": start.name, "input": input_}


def _reason(finish: Finish, refused: bool) -> str:
    if finish.word in _OWN_WORDS:
        return finish.word
    if finish.stop:
        return "stop_sequence"
    return "refusal" if refused else _REASONS.get(finish.reason, "end_turn")


def _usage(usage: Usage) -> dict[str, int]:
    """In this API, the input tokens do not include cached ones."""
    return {
        "input_tokens": max(0, usage.prompt - usage.cached - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    }


# ------------------------------------------------------------------------------------- the whole message


def _content(deltas: Sequence[Delta]) -> list[_Members]:
    blocks: list[_Members] = []
    calls: dict[int, tuple[ToolStart, list[str]]] = {}
    for delta in deltas:
        if isinstance(delta, ToolStart):
            calls[delta.index] = delta, []
        elif isinstance(delta, ToolDelta) and delta.index in calls:
            calls[delta.index][1].append(delta.arguments)
    said = [delta for delta in deltas if isinstance(delta, TextDelta | RefusalDelta | ReasoningDelta)]
    for thought, run in groupby(said, lambda delta: isinstance(delta, ReasoningDelta)):
        pieces = list(run)
        text = "".join(delta.text for delta in pieces)
        if thought:
            signature = "".join(delta.signature for delta in pieces if isinstance(delta, ReasoningDelta))
            blocks.append({"type": "thinking", "thinking": text, "signature": signature})
        else:
            blocks.append({"type": "text", "text": text})
    return blocks + [_tool_use(start, _input("".join(arguments))) for _, (start, arguments) in sorted(calls.items())]


def _input(arguments: str) -> Raw:
    data = arguments.encode()
    return Raw(data) if codec.as_object(data) is not None else EMPTY_OBJECT
