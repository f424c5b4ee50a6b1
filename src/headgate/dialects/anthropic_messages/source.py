"""A Messages upstream's answer as deltas (docs.anthropic.com/en/docs/build-with-claude/streaming)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from headgate import errors
from headgate.dialects.anthropic_messages.request import NAME
from headgate.dialects.base import (
    Delta,
    Finish,
    RawDelta,
    ReasoningDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.request import NAME as CHAT
from headgate.dialects.openai_chat.stream import finishes
from headgate.dialects.translation.event_source import EventSource, object_of, text_of
from headgate.dialects.usage import reading as usages
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse
from headgate.wire.codec import EMPTY_OBJECT, NULL, Object

_QUIET = 2.0  # seconds after a stop reason
_PLAIN = ("end_turn", "stop_sequence", "max_tokens", "tool_use")  # stop reasons that a finish reason fully expresses
# docs.anthropic.com/en/api/errors: each type of error has one status, which an event does not contain
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_WITHOUT_TEXT = ("redacted_thinking", "fallback")  # blocks that a client does not need


class _Block(Struct):
    """A content block that has begun.  ``call`` is its place among the tool calls; -1: it is none."""

    call: int = -1
    input: bytes = b""  # the input that came with its start
    fed: bool = False  # more of its input has come
    own: Object | None = None  # of a type that only this API has: its members
    begins: int = 0  # characters of the answer's text before it
    citations: list[dict[str, str]] = msgspec.field(default_factory=list)  # of pages


class MessagesSource(EventSource):
    """Implements ``base.Source``."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._finish: Finish | None = None
        self._counted = False  # the answer's tokens have been reported, and not only its prompt's
        self._thinks = False  # a block of thinking is open
        self._has_blocks = False  # a block has begun
        self._length = 0  # characters of the answer's text

    @property
    def reported(self) -> Usage | None:
        return None if self.done and not self._counted else super().reported

    def _end_body(self, deltas: list[Delta]) -> None:
        if self._finish is not None:  # only the last event is missing
            self.done = True
        else:
            super()._end_body(deltas)

    def whole(self, body: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        top = object_of(body)
        self.events = 1
        if top is not None and text_of(top.get("type")) == "message":
            self._message(top, deltas)
        elif top is not None and failures.is_error(top):
            self._fail(body)
        else:
            reply = self._reply
            self.error = failures.garbage(body, provider=reply.provider, secrets=reply.secrets, sent=reply.sent)
        return deltas

    # ------------------------------------------------------------------------------- events

    def _take(self, event: sse.Event, deltas: list[Delta]) -> None:
        self.events += 1
        if event.name == b"error" or event.error:
            self._fail(event.data or event.error)
            return
        if event.data.strip() == b"[DONE]":  # from servers that speak this API inexactly
            self.done = self._finish is not None
            return
        top = object_of(event.data)
        if top is None:
            self.skipped += 1
            return
        self._read(text_of(top.get("type")) or event.name.decode(errors="replace"), top, event.data, deltas)

    def _read(self, kind: str, top: Object, data: bytes, deltas: list[Delta]) -> None:
        """Read one event of a stream: its type, its members, and the bytes of those."""
        match kind:
            case "content_block_delta":
                self._delta(top, deltas)
            case "content_block_start":
                self._start(top, deltas)
            case "content_block_stop":
                self._stop(_index(top), deltas)
            case "message_start":
                self._head(codec.as_object(top.get("message")) or {})
            case "message_delta":
                self._end(top, deltas)
            case "message_stop":
                self._finish = self._finish or self._end_once("", "", deltas)
                self.done = True
            case "message":
                self._message(top, deltas)
            case "ping":
                # As a comment, it is no progress; but while the model thinks, nothing else may come (``display:
                # omitted`` on docs.anthropic.com, Extended thinking).
                self.events -= not self._thinks
            case _:
                if failures.is_error(top):
                    self._fail(data)

    def _head(self, message: Object) -> None:
        if self._has_blocks:  # a proxy in between has asked again, and splices the two
            broke = f"{self._reply.provider} broke off its answer and began another one."
            self.error = GatewayError(errors.UPSTREAM_CUT, broke)
            return
        self.model = text_of(message.get("model")) or self.model
        self._use(message.get("usage"))

    def _use(self, raw: Raw | None) -> None:
        if raw is not None and codec.as_object(raw):
            self._usage = usages.merge(self._usage, raw)

    def _start(self, top: Object, deltas: list[Delta]) -> None:
        index, given = _index(top), codec.as_object(top.get("content_block")) or {}
        block = self._blocks[index] = _Block(begins=self._length)
        self._has_blocks = True
        self._thinks = text_of(given.get("type")) == "thinking"
        match text_of(given.get("type")):
            case "text":
                self._say(given.get("text"), deltas)
                for citation in codec.as_objects(given.get("citations")) or ():
                    _cite(citation, block)
            case "thinking":
                self._think(given, deltas)
            case "tool_use":
                block.call, self._calls = self._calls, self._calls + 1
                block.input = bytes(given.get("input", EMPTY_OBJECT))
                deltas.append(ToolStart(block.call, text_of(given.get("id")), text_of(given.get("name"))))
            case kind if kind not in _WITHOUT_TEXT:
                self.skipped += 1  # for clients of other APIs
                block.own = given

    def _delta(self, top: Object, deltas: list[Delta]) -> None:
        delta = codec.as_object(top.get("delta")) or {}
        match text_of(delta.get("type")):
            case "text_delta":
                self._say(delta.get("text"), deltas)
            case "citations_delta":
                block = self._blocks.get(_index(top))
                if block is not None:
                    _cite(codec.as_object(delta.get("citation")) or {}, block)
            case "thinking_delta" | "signature_delta":
                self._think(delta, deltas)
            case "input_json_delta":
                block = self._blocks.get(_index(top))
                piece = text_of(delta.get("partial_json"))
                if block is None:
                    self.skipped += 1
                elif piece and block.call >= 0:
                    block.fed = True
                    deltas.append(ToolDelta(block.call, piece))
                elif block.own is not None:
                    block.input += piece.encode()

    def _say(self, raw: Raw | None, deltas: list[Delta]) -> None:
        text = text_of(raw)
        if text:
            self._length += len(text)
            deltas.append(TextDelta(text))

    def _think(self, given: Object, deltas: list[Delta]) -> None:
        text, signature = text_of(given.get("thinking")), text_of(given.get("signature"))
        if text or signature:
            deltas.append(ReasoningDelta(text, signature))

    def _stop(self, index: int, deltas: list[Delta]) -> None:
        self._thinks = False
        block = self._blocks.pop(index, None)
        if block is not None and block.call >= 0 and not block.fed:
            input_ = Raw(block.input)
            deltas.append(ToolDelta(block.call, "{}" if input_ == NULL else block.input.decode(errors="replace")))
        if block is not None and block.own is not None:
            if codec.as_object(block.input) is not None:
                block.own["input"] = Raw(block.input)
            deltas.append(RawDelta("content_block", codec.raw(block.own), NAME))
        if block is not None and block.citations:
            span = {"start_index": block.begins, "end_index": self._length}
            cited = [{"type": "url_citation", "url_citation": {**span, **one}} for one in block.citations]
            deltas.append(RawDelta("annotations", codec.raw(cited), CHAT))

    def _end(self, top: Object, deltas: list[Delta]) -> None:
        usage = top.get("usage")
        self._use(usage)
        self._counted = self._counted or "output_tokens" in (codec.as_object(usage) or {})
        delta = codec.as_object(top.get("delta")) or {}
        word = text_of(delta.get("stop_reason"))
        if word:
            self._end_once(word, text_of(delta.get("stop_sequence")), deltas)
            self.quiet = _QUIET

    def _end_once(self, word: str, stop: str, deltas: list[Delta]) -> Finish:
        """Return the end of the answer; one that came earlier stays."""
        for index in sorted(self._blocks):
            self._stop(index, deltas)
        reason = finishes.reason_of(word) or "stop"
        if reason == finishes.FAILED:
            self._fail(codec.encode({"error": {"message": word}}), word)
        elif self._calls and reason == "stop":
            reason = "tool_calls"
        elif reason == "tool_calls" and not self._calls:
            reason = "stop"
        self._finish = Finish(reason, "" if word in _PLAIN else word, stop)
        if self.error is None:
            deltas.append(self._finish)
        return self._finish

    def _message(self, top: Object, deltas: list[Delta]) -> None:
        """Read an answer that came whole."""
        self._head(top)
        self._counted = True
        for i, raw in enumerate(codec.as_list(top.get("content")) or ()):
            self._start({"index": codec.raw(i), "content_block": raw}, deltas)
            self._stop(i, deltas)
        self._end_once(text_of(top.get("stop_reason")), text_of(top.get("stop_sequence")), deltas)
        self.done = self.error is None

    def _fail(self, data: bytes, finish: str = "") -> None:
        reply = self._reply
        given = codec.as_object((object_of(data) or {}).get("error")) or {}
        status = _STATUSES.get(text_of(given.get("type")))
        if status is not None:
            self.error = failures.failure(
                status, {}, data, provider=reply.provider, secrets=reply.secrets, sent=reply.sent
            )
        else:
            self.error = failures.stream_failure(
                data, provider=reply.provider, secrets=reply.secrets, sent=reply.sent, finish=finish
            )


def _index(top: Object) -> int:
    index = codec.as_integer(top.get("index"))
    return index if index is not None else 0


def _cite(citation: Object, block: _Block) -> None:
    """Note a page that the block's text refers to.  Chat completions have no form for other citations."""
    url = text_of(citation.get("url")) or text_of(citation.get("source"))
    if url.startswith(("http://", "https://")):
        block.citations.append({"url": url, "title": text_of(citation.get("title"))})
