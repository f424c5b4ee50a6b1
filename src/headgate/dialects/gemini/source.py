"""A Gemini upstream's answer as deltas (ai.google.dev/api/generate-content, GenerateContentResponse)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from headgate import errors
from headgate.dialects.base import Delta, Finish, RawDelta, ReasoningDelta, Reply, TextDelta, ToolDelta, ToolStart
from headgate.dialects.gemini.request import NAME
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.stream import finishes
from headgate.dialects.usage import reading as usages
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse
from headgate.wire.codec import EMPTY_OBJECT, Object

# Where a raw delta stands: a part of its own, or the signature of the call or text before it
PART, CALL, TEXT = "part", "call", "text"
SIGNATURE = "thoughtSignature"
_QUIET = 2.0  # seconds after a finish reason
_PLAIN = ("STOP", "MAX_TOKENS")  # finish reasons that a finish of ours fully expresses


class GeminiSource:
    """Implements ``base.Source``.  A stream has no end of its own: it is complete with a finish reason."""

    def __init__(self, reply: Reply) -> None:
        self.done = False
        self.error: GatewayError | None = None
        self.events = 0
        self.skipped = 0
        self.quiet = 0.0
        self.model = ""
        self._reply = reply
        self._decoder = sse.Decoder(reply.max_event + len(b"data: "))
        self._calls = 0
        self._finish: Finish | None = None
        self._usage: Raw | None = None

    @property
    def reported(self) -> Usage | None:
        if self._usage is None:
            return None
        estimate = Usage(self._reply.prompt_tokens)
        usage, _ = usages.read(self._usage, estimate)
        return None if usage is estimate else usage

    def feed(self, data: bytes) -> Sequence[Delta]:
        if self.done or self.error is not None:
            return ()
        deltas: list[Delta] = []
        for event in self._decoder.feed(data):
            self._take(event, deltas)
            if self.error is not None:
                return deltas
        if self._decoder.overflowed:
            said = f"{self._reply.provider} sent an event of more than {self._reply.max_event} bytes."
            self.error = GatewayError(errors.UPSTREAM_TOO_LARGE, said)
        return deltas

    def close(self, clean: bool = True) -> Sequence[Delta]:
        if self.done or self.error is not None:
            return ()
        deltas: list[Delta] = []
        for event in self._decoder.close() if clean else ():
            self._take(event, deltas)
            if self.error is not None:
                return deltas
        self._complete(deltas)
        return deltas

    def whole(self, body: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        top = _object(body)
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
            self._complete(deltas)
        return deltas

    # ------------------------------------------------------------------------------- events

    def _take(self, event: sse.Event, deltas: list[Delta]) -> None:
        self.events += 1
        if event.error:
            self._fail(event.error)
            return
        if event.data.strip() == b"[DONE]":
            return
        top = _object(event.data)
        if top is None:
            self.skipped += 1
            return
        self._read(top, event.data, deltas)

    def _read(self, top: Object, data: bytes, deltas: list[Delta]) -> None:
        if "candidates" not in top and "promptFeedback" not in top and failures.is_error(top):
            self._fail(data)
            return
        self.model = _text(top.get("modelVersion")) or self.model
        if codec.as_object(top.get("usageMetadata")):
            self._usage = usages.merge(self._usage, top["usageMetadata"])
        candidates = codec.as_objects(top.get("candidates")) or ()
        for candidate in [one for one in candidates if not codec.as_integer(one.get("index"))][:1]:
            content = codec.as_object(candidate.get("content")) or {}
            for part in codec.as_objects(content.get("parts")) or ():
                self._part(part, deltas)
            word = _text(candidate.get("finishReason"))
            if word and word != "FINISH_REASON_UNSPECIFIED":
                self._end(word, _text(candidate.get("finishMessage")))
        blocked = _text((codec.as_object(top.get("promptFeedback")) or {}).get("blockReason"))
        if blocked and self._finish is None and self.error is None:
            self._finish = Finish("content_filter", blocked)

    def _part(self, part: Object, deltas: list[Delta]) -> None:
        text, call = _text(part.get("text")), codec.as_object(part.get("functionCall"))
        thought = codec.as_boolean(part.get("thought")) is True
        if call is not None:
            index, self._calls = self._calls, self._calls + 1
            ident = _text(call.get("id")) or f"call_{self._reply.ident.rpartition('_')[2]}{index}"
            deltas.append(ToolStart(index, ident, _text(call.get("name"))))
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
        if _text(part.get(SIGNATURE)) and not thought:
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

    def _complete(self, deltas: list[Delta]) -> None:
        if self._finish is None:
            said = f"{self._reply.provider} closed the connection before its answer was complete."
            self.error = GatewayError(errors.UPSTREAM_CUT, said)
            return
        deltas.append(self._finish)
        self.done = True

    def _fail(self, data: bytes, finish: str = "") -> None:
        reply = self._reply
        self.error = failures.stream_failure(
            data, provider=reply.provider, secrets=reply.secrets, sent=reply.sent, finish=finish
        )


def _object(data: bytes) -> Object | None:
    found = codec.as_object(data)
    return found if found is not None else codec.as_object(codec.repair(data))


def _text(raw: Raw | None) -> str:
    if raw is None:
        return ""
    text = codec.as_text(raw)
    return text if text is not None else codec.as_text(codec.repair(bytes(raw))) or ""
