"""The client and the backend of the Gemini API, as ``registry`` lists them."""

from __future__ import annotations

from headgate.dialects.base import CountedBy, CountingOf, PassThrough, Reply
from headgate.dialects.gemini import errors, request
from headgate.dialects.gemini.face import GeminiFace
from headgate.dialects.gemini.source import GeminiSource
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.prefill import probed
from headgate.errors import ROUTE_NOT_FOUND, GatewayError
from headgate.model import Call
from headgate.ports import StreamBridge
from headgate.wire import codec, sse
from headgate.wire.urls import parameters


class GeminiCount:
    """Implements ``base.CountedBy`` for one request."""

    path = request.MODELS

    def __init__(self, model: str) -> None:
        self._model = model

    def read(self, body: bytes) -> Call:
        return request.read_count(body, self._model)

    def answer(self, tokens: int) -> bytes:
        return codec.encode({"totalTokens": tokens})


class GeminiCounting:
    """Implements ``base.CountingOf``."""

    render = staticmethod(request.render_count)

    def read(self, body: bytes) -> int | None:
        return codec.as_index((codec.as_object(body) or {}).get("totalTokens"))


class GeminiClient:
    """Implements ``base.Client``.  The path of a request names its model, so ``begin`` makes a client for each."""

    name = request.NAME
    path = request.MODELS
    prefix = "gemini-"
    keep_alive = sse.comment(b"keep-alive")
    whole_calls = True

    with_prompt = staticmethod(request.with_prompt)
    error_body = staticmethod(errors.error_body)
    error_event = staticmethod(errors.error_event)

    def __init__(self, path: bytes = b"", query: bytes = b"") -> None:
        self._model, self._method = request.parted(path)
        self._events = ("alt", "sse") in parameters(query)
        self.counts: CountedBy | None = GeminiCount(self._model) if self._method == request.COUNT else None

    def begin(self, path: bytes, query: bytes) -> GeminiClient:
        return GeminiClient(path, query)

    def read(self, body: bytes) -> Call:
        """Read a client's request.  Raises GatewayError: 404 for an unknown method, 400 with ``param``."""
        if self._method not in (request.STREAM, request.WHOLE):
            known = ", ".join((request.WHOLE, request.STREAM, request.COUNT))
            raise GatewayError(ROUTE_NOT_FOUND, f"models have the methods {known}")
        stream = self._method == request.STREAM
        if stream and not self._events:
            raise GatewayError(ROUTE_NOT_FOUND, "a stream is sent as events only: add ?alt=sse")
        return request.read(body, self._model, stream)

    def requested(self, body: bytes) -> str:
        return self._model if self._model.isprintable() and len(self._model) <= 256 else ""

    def face(self, reply: Reply, before: StreamBridge | None = None) -> GeminiFace:
        return GeminiFace(reply)  # there is no pass-through that ``before`` could be


class GeminiBackend:
    """Implements ``base.Backend``."""

    name = request.NAME
    passes: PassThrough | None = None
    counts: CountingOf | None = GeminiCounting()
    usage_fields: frozenset[str] = frozenset()

    render = staticmethod(request.render)
    failure = staticmethod(failures.of_answer)
    usage = staticmethod(probed)

    def adds_usage_field(self, call: Call) -> bool:
        return False  # every answer reports its usage

    def source(self, reply: Reply) -> GeminiSource:
        return GeminiSource(reply)


CLIENT = GeminiClient()
BACKEND = GeminiBackend()
