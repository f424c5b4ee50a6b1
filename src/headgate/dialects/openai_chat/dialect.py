"""Chat completions on both sides: what callers of this API and its providers are to the rest of the house."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headgate.dialects.base import Answer, Extras, PassThrough, Rendered, Reply
from headgate.dialects.openai_chat import prefill, quirks, request
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.face import ChatFace
from headgate.dialects.openai_chat.source import ChatSource
from headgate.dialects.openai_chat.stream.joining import Joined
from headgate.dialects.openai_chat.stream.stream import ChatStream, stream_of
from headgate.dialects.openai_chat.whole import whole_answer
from headgate.dialects.seam import Seam
from headgate.errors import GatewayError
from headgate.model import Call, Target
from headgate.ports import StreamBridge

NAME = "openai_chat"
PATH = "/chat/completions"


class ChatClient:
    """Implements ``base.Client``."""

    name = NAME
    path = PATH
    prefix = "chatcmpl-"

    read = staticmethod(request.read)
    requested = staticmethod(request.asked_for)
    error_body = staticmethod(failures.error_body)
    error_event = staticmethod(failures.error_event)

    def face(self, reply: Reply, before: StreamBridge | None = None) -> ChatFace:
        return ChatFace(reply, before)


class ChatPassThrough:
    """Implements ``base.PassThrough``."""

    def stream(self, reply: Reply) -> ChatStream:
        return stream_of(reply)

    def joined(self, before: StreamBridge, seam: Seam, reply: Reply) -> Joined | None:
        if not isinstance(before, ChatStream):
            return None
        joined = Joined(
            before.ident, 0, reply.model, reply.include_usage, provider=reply.provider, secrets=reply.secrets,
            max_event=reply.max_event, keep=True, sent=reply.sent,
        )  # fmt: skip
        joined.join(before, seam)
        return joined

    def answer(self, body: bytes, reply: Reply, extras: Extras) -> Answer | Iterator[Answer | None]:
        return whole_answer(
            body, id=reply.ident, created=reply.created, model=reply.model, extra=extras.metadata, trace=extras.trace,
            provider=reply.provider, secrets=reply.secrets, prompt_tokens=reply.prompt_tokens, sent=reply.sent,
        )  # fmt: skip


class ChatBackend:
    """Implements ``base.Backend``."""

    name = NAME
    passes: PassThrough | None = ChatPassThrough()

    adds_usage_field = staticmethod(quirks.adds_stream_options)
    usage = staticmethod(prefill.probed)

    def render(self, call: Call, target: Target, ask_usage: bool) -> Rendered:
        body = request.render(
            call, target.upstream_model, ask_usage=ask_usage, row=target.row, quirks=target.provider.quirks
        )
        return Rendered(PATH, body)

    def source(self, reply: Reply) -> ChatSource:
        return ChatSource(reply)

    def failure(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, reply: Reply, now: float
    ) -> GatewayError:
        return failures.failure(
            status, headers, body, provider=reply.provider, secrets=reply.secrets, now=now, sent=reply.sent
        )


CLIENT = ChatClient()
BACKEND = ChatBackend()
