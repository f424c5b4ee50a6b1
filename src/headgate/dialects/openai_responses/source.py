"""A Responses upstream's answer as deltas (platform.openai.com/docs/api-reference/responses-streaming)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from headgate.dialects.base import (
    Delta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_responses.to_chat import CUSTOM_INPUT
from headgate.dialects.translation.event_source import EventSource, object_of, text_of
from headgate.wire import codec, sse
from headgate.wire.codec import Object

_LENGTH = "max_output_tokens"
_BETWEEN = "\n\n"  # parts of a summary
_REASONING = ("response.reasoning_text", "response.reasoning_summary_text", "response.reasoning")


class _Item(Struct, gc=False):
    """An item that has begun.  ``call``: its place among the tool calls; -1: it is none.  ``fed``: parts whose deltas
    have come, of which the end repeats the whole.
    """

    call: int = -1
    custom: bool = False
    fed: set[str] = set()  # a Struct copies it
    part: int = 0  # of a summary


class ResponsesSource(EventSource):
    """Implements ``base.Source``."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._items: dict[int, _Item] = {}
        self._calls = 0

    def whole(self, body: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        top = object_of(body)
        self.events = 1
        if top is not None and text_of(top.get("object")) == "response":
            self._end(top, deltas)
        elif top is not None and failures.is_error(top):
            self._fail(body)
        else:
            reply = self._reply
            self.error = failures.garbage(body, provider=reply.provider, secrets=reply.secrets, sent=reply.sent)
        return deltas

    # ------------------------------------------------------------------------------- events

    def _take(self, event: sse.Event, deltas: list[Delta]) -> None:
        self.events += 1
        if event.error:
            self._fail(event.error)
            return
        if event.data.strip() == b"[DONE]":  # this API has no such end, some of its servers send it
            return
        top = object_of(event.data)
        if top is None:
            self.skipped += 1
            return
        kind = text_of(top.get("type")) or event.name.decode(errors="replace")
        match kind:
            case "response.output_text.delta":
                self._say("text", top, deltas)
            case "response.refusal.delta":
                self._say("refusal", top, deltas)
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                self._arguments(top, deltas)
            case "response.output_item.added":
                self._start(_index(top), codec.as_object(top.get("item")) or {}, deltas)
            case "response.output_item.done":
                self._complete(_index(top), codec.as_object(top.get("item")) or {}, deltas)
            case "response.created" | "response.in_progress" | "response.queued":
                self._head(codec.as_object(top.get("response")) or {})
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                self._end(codec.as_object(top.get("response")) or {}, deltas, kind.removeprefix("response."))
            case "error":
                self._fail(event.data)
            case _ if kind.endswith(".delta") and kind.removesuffix(".delta") in _REASONING:
                self._think(top, deltas)
            case _ if failures.is_error(top):
                self._fail(event.data)

    def _head(self, response: Object) -> None:
        self.model = text_of(response.get("model")) or self.model

    def _item(self, index: int) -> _Item:
        found = self._items.get(index)
        if found is None:
            found = self._items[index] = _Item(fed=set())
        return found

    def _say(self, part: str, top: Object, deltas: list[Delta]) -> None:
        text = text_of(top.get("delta"))
        if text:
            self._item(_index(top)).fed.add(part)
            deltas.append(TextDelta(text) if part == "text" else RefusalDelta(text))

    def _think(self, top: Object, deltas: list[Delta]) -> None:
        text = text_of(top.get("delta"))
        if not text:
            return
        item = self._item(_index(top))
        part = codec.as_integer(top.get("summary_index")) or 0
        between = _BETWEEN if part > item.part and "reasoning" in item.fed else ""
        item.part = part
        item.fed.add("reasoning")
        deltas.append(ReasoningDelta(between + text))

    def _arguments(self, top: Object, deltas: list[Delta]) -> None:
        item, piece = self._items.get(_index(top)), text_of(top.get("delta"))
        if item is None or item.call < 0:
            self.skipped += 1
        elif piece and not item.custom:  # free text becomes an argument when it is complete
            item.fed.add("arguments")
            deltas.append(ToolDelta(item.call, piece))

    def _start(self, index: int, given: Object, deltas: list[Delta]) -> _Item:
        item = self._items[index] = _Item(fed=set())
        kind = text_of(given.get("type"))
        if kind in ("function_call", "custom_tool_call"):
            item.call, self._calls = self._calls, self._calls + 1
            item.custom = kind == "custom_tool_call"
            ident = text_of(given.get("call_id")) or text_of(given.get("id"))
            deltas.append(ToolStart(item.call, ident, text_of(given.get("name"))))
        return item

    def _complete(self, index: int, given: Object, deltas: list[Delta]) -> None:
        """Read a whole item; what has come in deltas is not repeated."""
        item = self._items.get(index)
        if item is None:
            item = self._start(index, given, deltas)
        match text_of(given.get("type")):
            case "message":
                for part in codec.as_objects(given.get("content")) or ():
                    self._part(item, part, deltas)
            case "function_call":
                arguments = text_of(given.get("arguments"))
                if "arguments" not in item.fed and item.call >= 0:
                    deltas.append(ToolDelta(item.call, arguments or "{}"))
            case "custom_tool_call":
                if "arguments" not in item.fed and item.call >= 0:
                    free = codec.encode({CUSTOM_INPUT: text_of(given.get("input"))}).decode()
                    deltas.append(ToolDelta(item.call, free))
            case "reasoning":
                self._reasoning(item, given, deltas)
        item.fed |= {"text", "refusal", "arguments", "reasoning"}

    def _part(self, item: _Item, part: Object, deltas: list[Delta]) -> None:
        text, refusal = text_of(part.get("text")), text_of(part.get("refusal"))
        if text and "text" not in item.fed:
            deltas.append(TextDelta(text))
        if refusal and "refusal" not in item.fed:
            deltas.append(RefusalDelta(refusal))

    def _reasoning(self, item: _Item, given: Object, deltas: list[Delta]) -> None:
        if "reasoning" in item.fed:
            return
        parts = [*(codec.as_objects(given.get("summary")) or ()), *(codec.as_objects(given.get("content")) or ())]
        text = _BETWEEN.join(said for part in parts if (said := text_of(part.get("text"))))
        if text:
            deltas.append(ReasoningDelta(text))

    # ------------------------------------------------------------------------------- the end

    def _end(self, response: Object, deltas: list[Delta], status: str = "") -> None:
        self._head(response)
        if codec.as_object(response.get("usage")):
            self._usage = response["usage"]
        status = text_of(response.get("status")) or status
        if status in ("failed", "cancelled"):
            given = response.get("error")
            said = {"error": given} if codec.as_object(given) else {"error": {"message": f"the answer was {status}"}}
            self._fail(codec.encode(said))
            return
        if not self._items:  # servers number the items of a stream and of this list differently: read one of them
            for index, item in enumerate(codec.as_objects(response.get("output")) or ()):
                self._complete(index, item, deltas)
        deltas.append(self._finish(response, status))
        self.done = True

    def _finish(self, response: Object, status: str) -> Finish:
        if status == "incomplete":
            word = text_of((codec.as_object(response.get("incomplete_details")) or {}).get("reason"))
            if word == "content_filter":
                return Finish("content_filter")
            return Finish("length", "" if word in ("", _LENGTH) else word)
        return Finish("tool_calls" if self._calls else "stop")

    def _fail(self, data: bytes) -> None:
        reply = self._reply
        self.error = failures.stream_failure(data, provider=reply.provider, secrets=reply.secrets, sent=reply.sent)


def _index(top: Object) -> int:
    index = codec.as_integer(top.get("output_index"))
    return index if index is not None else 0
