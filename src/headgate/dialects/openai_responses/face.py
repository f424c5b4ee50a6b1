"""Deltas as a Responses client reads them: numbered events, and the whole response.

An answer is a list of items: reasoning, messages and tool calls.  A text item ends when another item begins.  Calls
stay open until the answer ends, because an upstream may mix the arguments of several.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from headgate.dialects.openai_responses import document, errors
from headgate.dialects.openai_responses.document import Members
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse

_PREFIXES = {"message": "msg", "reasoning": "rs", "call": "fc"}
_PARTS = {TextDelta: "output_text", RefusalDelta: "refusal", ReasoningDelta: "reasoning_text"}
_EVENTS = {"output_text": "output_text", "refusal": "refusal", "reasoning_text": "reasoning_text"}
_UNKNOWN: dict[str, Members] = {"output_text": {"logprobs": []}}  # members of a text's events


class _OutputItem:
    """An output item: a message or reasoning with its parts, or a tool call with its arguments."""

    def __init__(self, kind: str, ident: str, index: int, start: ToolStart | None = None) -> None:
        self.kind = kind
        self.ident = ident
        self.index = index
        self.start = start
        self.parts: list[tuple[str, list[str]]] = []
        self.arguments: list[str] = []
        self.status = ""  # empty: it may grow


class ResponsesFace:
    """Implements ``base.Face``."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._model = reply.model
        self._sequence = 0
        self._begun = False
        self._items: list[_OutputItem] = []
        self._open: _OutputItem | None = None  # a message or reasoning that may grow
        self._calls: dict[int, _OutputItem] = {}
        _, self._special = document.request_of(reply)

    def put(self, deltas: Sequence[Delta], model: str) -> bytes:
        events: list[bytes] = []
        self._begin(model, events)
        for delta in deltas:
            self._put(delta, events)
        return b"".join(events)

    def tail(self, finish: Finish, usage: Usage, extra: bytes | None, trace: bytes | None) -> bytes:
        events: list[bytes] = []
        self._begin(self._model, events)
        status, end = document.ending(finish, usage, self._reply.created)
        for item in self._items:
            self._end(item, events, status)
        whole = document.response(self._reply, self._model, status, self._output(status), end)
        events.append(self._event(f"response.{status}", {"response": {**whole, **own_members(extra, trace)}}))
        return b"".join(events)

    def error(self, error: GatewayError) -> bytes:
        """The failed response, which agents read, and the error that makes the SDKs raise."""
        said = {"code": errors.error_code(error), "message": error.message}
        failed = document.response(self._reply, self._model, "failed", self._output("incomplete"), {"error": said})
        event = self._event("response.failed", {"response": failed})
        return event + errors.error_event(error, self._reply.ident, self._sequence)

    def screen(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        return deltas

    def whole(
        self, deltas: Sequence[Delta], model: str, usage: Usage, extra: bytes | None, trace: bytes | None
    ) -> bytes:
        self._begun = True
        for delta in deltas:
            self._put(delta, [])
        status, end = document.ending(finish_of(deltas), usage, self._reply.created)
        return codec.encode(
            {
                **document.response(self._reply, model, status, self._output(status), end),
                **own_members(extra, trace),
            }
        )

    # ------------------------------------------------------------------------------- events

    def _event(self, kind: str, members: Members) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return sse.encode(codec.encode(event), event=kind.encode())

    def _begin(self, model: str, events: list[bytes]) -> None:
        if self._begun:
            return
        self._begun = True
        self._model = model
        response = document.response(self._reply, model, "in_progress")
        events.append(self._event("response.created", {"response": response}))
        events.append(self._event("response.in_progress", {"response": response}))

    def _put(self, delta: Delta, events: list[bytes]) -> None:
        match delta:
            case TextDelta() | RefusalDelta():
                self._text("message", _PARTS[type(delta)], delta.text, events)
            case ReasoningDelta():
                if delta.text:
                    self._text("reasoning", _PARTS[type(delta)], delta.text, events)
            case ToolStart():
                self._close(events)
                self._calls[delta.index] = self._add("call", events, delta)
            case ToolDelta():
                item = self._calls.get(delta.index)
                if item is not None:
                    item.arguments.append(delta.arguments)
                    if not self._is_custom(item):
                        events.append(self._piece("function_call_arguments", item, delta.arguments))
            case _:
                pass

    def _text(self, kind: str, part: str, text: str, events: list[bytes]) -> None:
        item = self._open
        if item is None or item.kind != kind:
            self._close(events)
            item = self._open = self._add(kind, events)
        if not item.parts or item.parts[-1][0] != part:
            if item.parts:
                self._end_part(item, events)
            item.parts.append((part, []))
            events.append(self._part_event("added", item, document.part(part, "")))
        item.parts[-1][1].append(text)
        place = {"item_id": item.ident, "output_index": item.index, "content_index": len(item.parts) - 1}
        members = {**place, "delta": text, **_UNKNOWN.get(part, {})}
        events.append(self._event(f"response.{_EVENTS[part]}.delta", members))

    def _add(self, kind: str, events: list[bytes], start: ToolStart | None = None) -> _OutputItem:
        index = len(self._items)
        ident = self._reply.ident.rpartition("_")[2]
        item = _OutputItem(kind, f"{_PREFIXES[kind]}_{ident}{index:04x}", index, start)
        self._items.append(item)
        made = self._made(item, "in_progress")
        events.append(self._event("response.output_item.added", {"output_index": index, "item": made}))
        return item

    def _piece(self, event: str, item: _OutputItem, text: str) -> bytes:
        members: Members = {"item_id": item.ident, "output_index": item.index, "delta": text}
        return self._event(f"response.{event}.delta", members)

    def _part_event(self, word: str, item: _OutputItem, part: Members) -> bytes:
        place: Members = {"item_id": item.ident, "output_index": item.index, "content_index": len(item.parts) - 1}
        return self._event(f"response.content_part.{word}", {**place, "part": part})

    # ------------------------------------------------------------------------------- ends

    def _close(self, events: list[bytes]) -> None:
        item, self._open = self._open, None
        if item is not None:
            self._end(item, events, "completed")

    def _end(self, item: _OutputItem, events: list[bytes], status: str) -> None:
        if item.status:
            return
        item.status = status
        if item.start is None:
            self._end_part(item, events)
        else:
            self._end_call(item, events)
        made = self._made(item, status)
        events.append(self._event("response.output_item.done", {"output_index": item.index, "item": made}))

    def _end_part(self, item: _OutputItem, events: list[bytes]) -> None:
        part, pieces = item.parts[-1]
        text = "".join(pieces)
        place: Members = {"item_id": item.ident, "output_index": item.index, "content_index": len(item.parts) - 1}
        said: Members = {"refusal" if part == "refusal" else "text": text, **_UNKNOWN.get(part, {})}
        events.append(self._event(f"response.{_EVENTS[part]}.done", {**place, **said}))
        events.append(self._part_event("done", item, document.part(part, text)))

    def _end_call(self, item: _OutputItem, events: list[bytes]) -> None:
        arguments = "".join(item.arguments)
        place: Members = {"item_id": item.ident, "output_index": item.index}
        if self._is_custom(item):
            text = document.free_text(arguments)
            events.append(self._piece("custom_tool_call_input", item, text))
            events.append(self._event("response.custom_tool_call_input.done", {**place, "input": text}))
        else:
            name = item.start.name if item.start is not None else ""
            done = {**place, "name": name, "arguments": arguments}
            events.append(self._event("response.function_call_arguments.done", done))

    def _is_custom(self, item: _OutputItem) -> bool:
        special = self._special.get(item.start.name) if item.start is not None else None
        return special is not None and special.custom

    def _output(self, status: str) -> list[Members]:
        return [self._made(item, item.status or status) for item in self._items]

    def _made(self, item: _OutputItem, status: str) -> Members:
        start = item.start
        if start is not None:
            arguments = "".join(item.arguments)
            return document.call(item.ident, status, start.id, start.name, arguments, self._special.get(start.name))
        content = [document.part(part, "".join(pieces)) for part, pieces in item.parts]
        make = document.message if item.kind == "message" else document.reasoning
        return make(item.ident, status, content)
