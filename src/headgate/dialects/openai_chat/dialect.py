"""The client and the backend of chat completions, as ``registry`` lists them."""

from __future__ import annotations

import msgspec

from headgate.dialects.base import CountedBy, CountingOf, PassThrough, Reply
from headgate.dialects.openai_chat import prefill, quirks, request
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.face import ChatFace
from headgate.dialects.openai_chat.source import ChatSource
from headgate.dialects.openai_chat.stream.joining import ContinuedStream
from headgate.dialects.openai_chat.stream.stream import ChatStream
from headgate.dialects.openai_chat.whole import whole_answer
from headgate.dialects.seam import Seam
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.ports import StreamBridge
from headgate.wire import sse


class ChatClient:
    """Implements ``base.Client``."""

    name = request.NAME
    path = request.PATH
    counts: CountedBy | None = None
    prefix = "chatcmpl-"
    keep_alive = sse.comment(b"keep-alive")
    whole_calls = False

    read = staticmethod(request.read)
    requested = staticmethod(request.asked_for)
    with_prompt = staticmethod(request.with_prompt)
    error_body = staticmethod(failures.error_body)
    error_event = staticmethod(failures.error_event)

    def begin(self, path: bytes, query: bytes) -> ChatClient:
        return self

    def face(self, reply: Reply, before: StreamBridge | None = None) -> ChatFace:
        return ChatFace(reply, before)


class ChatPassThrough:
    """Implements ``base.PassThrough``."""

    returns: tuple[bytes, ...] = ()

    def stream(self, reply: Reply) -> ChatStream:
        return ChatStream(reply)

    def joined(self, before: StreamBridge, seam: Seam, reply: Reply) -> ContinuedStream | None:
        if not isinstance(before, ChatStream):
            return None
        joined = ContinuedStream(msgspec.structs.replace(reply, ident=before.ident, created=0, keep=True))
        joined.join(before, seam, reply.before or Usage())
        return joined

    answer = staticmethod(whole_answer)

    def refusal(self, body: bytes, reply: Reply, error: GatewayError) -> bytes:
        return b""  # servers of this API have many forms of errors, its clients read one


class ChatBackend:
    """Implements ``base.Backend``."""

    name = request.NAME
    passes: PassThrough | None = ChatPassThrough()
    counts: CountingOf | None = None
    usage_fields = frozenset(("stream_options", "include_usage"))

    adds_usage_field = staticmethod(quirks.adds_stream_options)
    failure = staticmethod(failures.of_answer)
    usage = staticmethod(prefill.probed)

    render = staticmethod(request.render)

    def source(self, reply: Reply) -> ChatSource:
        return ChatSource(reply)


CLIENT = ChatClient()
BACKEND = ChatBackend()
