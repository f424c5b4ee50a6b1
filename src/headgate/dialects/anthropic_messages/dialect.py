"""The client and the backend of the Messages API, as ``registry`` lists them."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.dialects.anthropic_messages import errors, request
from headgate.dialects.anthropic_messages.face import MessagesFace
from headgate.dialects.anthropic_messages.source import MessagesSource
from headgate.dialects.base import PassThrough, Reply
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.prefill import probed
from headgate.dialects.openai_chat.request import asked_for
from headgate.errors import GatewayError
from headgate.model import Call
from headgate.ports import StreamBridge


class MessagesClient:
    """Implements ``base.Client``."""

    name = request.NAME
    path = request.PATH
    prefix = "msg_"

    read = staticmethod(request.read)
    requested = staticmethod(asked_for)
    error_body = staticmethod(errors.error_body)
    error_event = staticmethod(errors.error_event)

    def begin(self) -> MessagesClient:
        return self

    def face(self, reply: Reply, before: StreamBridge | None = None) -> MessagesFace:
        return MessagesFace(reply)  # there is no pass-through that ``before`` could be


class MessagesBackend:
    """Implements ``base.Backend``."""

    name = request.NAME
    passes: PassThrough | None = None
    usage_fields: frozenset[str] = frozenset()

    render = staticmethod(request.render)
    usage = staticmethod(probed)

    def adds_usage_field(self, call: Call) -> bool:
        return False  # every answer reports its usage

    def source(self, reply: Reply) -> MessagesSource:
        return MessagesSource(reply)

    def failure(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, reply: Reply, now: float
    ) -> GatewayError:
        return failures.failure(
            status, headers, body, provider=reply.provider, secrets=reply.secrets, now=now, sent=reply.sent
        )


CLIENT = MessagesClient()
BACKEND = MessagesBackend()
