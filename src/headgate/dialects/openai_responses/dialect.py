"""The client and the backend of the Responses API, as ``registry`` lists them."""

from __future__ import annotations

from headgate.dialects.base import CountedBy, CountingOf, PassThrough, Reply
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.prefill import probed
from headgate.dialects.openai_chat.request import asked_for
from headgate.dialects.openai_responses import errors, request
from headgate.dialects.openai_responses.face import ResponsesFace
from headgate.dialects.openai_responses.source import ResponsesSource
from headgate.errors import GatewayError
from headgate.model import Call
from headgate.ports import StreamBridge
from headgate.wire import sse


class ResponsesClient:
    """Implements ``base.Client``.  One call's has the stream's face, whose events an error event continues."""

    name = request.NAME
    path = request.PATH
    prefix = "resp_"
    counts: CountedBy | None = None
    keep_alive = sse.comment(b"keep-alive")
    whole_calls = False

    read = staticmethod(request.read)
    requested = staticmethod(asked_for)
    with_prompt = staticmethod(request.with_prompt)
    error_body = staticmethod(failures.error_body)

    def __init__(self) -> None:
        self._face: ResponsesFace | None = None

    def begin(self, path: bytes, query: bytes) -> ResponsesClient:
        return ResponsesClient()

    def error_event(self, error: GatewayError, ident: str) -> bytes:
        return self._face.error(error) if self._face is not None else errors.error_event(error, ident)

    def face(self, reply: Reply, before: StreamBridge | None = None) -> ResponsesFace:
        self._face = ResponsesFace(reply)  # there is no pass-through that ``before`` could be
        return self._face


class ResponsesBackend:
    """Implements ``base.Backend``."""

    name = request.NAME
    passes: PassThrough | None = None
    counts: CountingOf | None = None
    usage_fields: frozenset[str] = frozenset()

    render = staticmethod(request.render)
    failure = staticmethod(failures.of_answer)
    usage = staticmethod(probed)

    def adds_usage_field(self, call: Call) -> bool:
        return False  # every answer reports its usage

    def source(self, reply: Reply) -> ResponsesSource:
        return ResponsesSource(reply)


CLIENT = ResponsesClient()
BACKEND = ResponsesBackend()
