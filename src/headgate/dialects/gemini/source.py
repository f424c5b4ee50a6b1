"""A Gemini upstream's answer as deltas (ai.google.dev/api/generate-content, GenerateContentResponse)."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.dialects.base import Delta, Finish, RawDelta, ReasoningDelta, Reply, TextDelta, ToolDelta, ToolStart
from headgate.dialects.gemini.request import NAME
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.stream import finishes
from headgate.dialects.translation.event_source import EventSource, object_of, text_of
from headgate.dialects.usage import reading as usages
from headgate.wire import codec, sse
from headgate.wire.codec import EMPTY_OBJECT, Object

# Where a raw delta stands: a part of its own, or the signature of the call or text before it
PART, CALL, TEXT = "part", "call", "text"
SIGNATURE = "thoughtSignature"
_QUIET = 2.0  # seconds after a finish reason
_PLAIN = ("STOP", "MAX_TOKENS")  # finish reasons that a finish of ours fully expresses


class GeminiSource(EventSource):
    """Implements ``base.Source``.  A stream has no end of its own: it is complete with a finish reason."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._calls = 0
        self._finish: Finish | None = None

    def whole(self, body: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        top = object_of(body)
        self.events = 1
        if top is None:
            many = codec.as_objects(body)  # a stream without alt=sse is an array of its events
            if not many:
                reply = self._reply
                self.error = failures.garbage(body, provider=reply.provider, secrets=reply.secrets, sent=reply.sent)
                return deltas
            for one in many:
                self._read(one, codec.encode(one), deltas)
        else:
            self._read(top, body, deltas)
        if self.error is None:
            self._end_body(deltas)
        return deltas

    # ------------------------------------------------------------------------------- events

    def _take(self, event: sse.Event, deltas: list[Delta]) -> None:
        self.events += 1
        if event.error:
            self._fail(event.error)
            return
        if event.data.strip() == b"[DONE]":
            return
        top = object_of(event.data)
        if top is None:
            self.skipped += 1
            return
        self._read(top, event.data, deltas)

    def _read(self, top: Object, data: bytes, deltas: list[Delta]) -> None:
        if "candidates" not in top and "promptFeedback" not in top and failures.is_error(top):
            self._fail(data)
            return
        self.model = text_of(top.get("modelVersion")) or self.model
        if codec.as_object(top.get("usageMetadata")):
            self._usage = usages.merge(self._usage, top["usageMetadata"])
        candidates = codec.as_objects(top.get("candidates")) or ()
        for candidate in [one for one in candidates if not codec.as_integer(one.get("index"))][:1]:
            content = codec.as_object(candidate.get("content")) or {}
            for part in codec.as_objects(content.get("parts")) or ():
                self._part(part, deltas)
            word = text_of(candidate.get("finishReason"))
            if word and word != "FINISH_REASON_UNSPECIFIED":
                self._end(word, text_of(candidate.get("finishMessage")))
        blocked = text_of((codec.as_object(top.get("promptFeedback")) or {}).get("blockReason"))
        if blocked and self._finish is None and self.error is None:
            self._finish = Finish("content_filter", blocked)

    def _part(self, part: Object, deltas: list[Delta]) -> None:
        text, call = text_of(part.get("text")), codec.as_object(part.get("functionCall"))
        thought = codec.as_boolean(part.get("thought")) is True
        if call is not None:
            index, self._calls = self._calls, self._calls + 1
            ident = text_of(call.get("id")) or f"call_{self._reply.ident.rpartition('_')[2]}{index}"
            deltas.append(ToolStart(index, ident, text_of(call.get("name"))))
            arguments = call.get("args", EMPTY_OBJECT)
            deltas.append(
                ToolDelta(index, "{}" if codec.is_null(arguments) else bytes(arguments).decode(errors="replace"))
            )
        elif text:
            deltas.append(ReasoningDelta(text) if thought else TextDelta(text))
        elif part.keys() - {"text", "thought", SIGNATURE}:
            self.skipped += 1
            deltas.append(RawDelta(PART, codec.raw(part), NAME))  # what only this API has: code that ran, an image
            return
        if text_of(part.get(SIGNATURE)) and not thought:
            deltas.append(RawDelta(CALL if call is not None else TEXT, part[SIGNATURE], NAME, shows=False))

    def _end(self, word: str, message: str) -> None:
        reason = finishes.reason_of(word) or "stop"
        if reason == finishes.FAILED:
            self._fail(codec.encode({"error": {"message": message or word}}), word)
            return
        if self._calls and reason == "stop":
            reason = "tool_calls"
        self._finish = Finish(reason, "" if word in _PLAIN else word)
        self.quiet = _QUIET

    def _end_body(self, deltas: list[Delta]) -> None:
        if self._finish is None:
            super()._end_body(deltas)
        else:
            deltas.append(self._finish)
            self.done = True

    def _fail(self, data: bytes, finish: str = "") -> None:
        reply = self._reply
        self.error = failures.stream_failure(
            data, provider=reply.provider, secrets=reply.secrets, sent=reply.sent, finish=finish
        )
