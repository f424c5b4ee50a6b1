"""The client and the backend of the Messages API, as ``registry`` lists them."""

from __future__ import annotations

from headgate.dialects.anthropic_messages import errors, request
from headgate.dialects.anthropic_messages.events import PING
from headgate.dialects.anthropic_messages.face import MessagesFace
from headgate.dialects.anthropic_messages.source import MessagesSource
from headgate.dialects.anthropic_messages.stream import MessagesStream
from headgate.dialects.anthropic_messages.whole import passed_answer
from headgate.dialects.base import CountedBy, CountingOf, PassThrough, Reply
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.prefill import probed
from headgate.dialects.openai_chat.request import asked_for
from headgate.dialects.seam import Seam
from headgate.model import Call
from headgate.ports import StreamBridge
from headgate.wire import codec


class MessagesCount:
    """Implements ``base.CountedBy``."""

    path = request.COUNT_PATH
    read = staticmethod(request.read_count)

    def answer(self, tokens: int) -> bytes:
        return codec.encode({"input_tokens": tokens})


class MessagesCounting:
    """Implements ``base.CountingOf``."""

    render = staticmethod(request.render_count)

    def read(self, body: bytes) -> int | None:
        return codec.as_index((codec.as_object(body) or {}).get("input_tokens"))


class MessagesClient:
    """Implements ``base.Client``."""

    name = request.NAME
    path = request.PATH
    counts: CountedBy | None = MessagesCount()
    prefix = "msg_"
    keep_alive = PING
    whole_calls = False

    read = staticmethod(request.read)
    requested = staticmethod(asked_for)
    with_prompt = staticmethod(request.with_prompt)
    error_body = staticmethod(errors.error_body)
    error_event = staticmethod(errors.error_event)

    def begin(self, path: bytes, query: bytes) -> MessagesClient:
        return self

    def face(self, reply: Reply, before: StreamBridge | None = None) -> MessagesFace:
        return MessagesFace(reply)  # a pass-through of this API has a face of its own, which goes on


class MessagesPassThrough:
    """Implements ``base.PassThrough``."""

    returns: tuple[bytes, ...] = (b"anthropic-", b"request-id")

    def stream(self, reply: Reply) -> MessagesStream:
        return MessagesStream(reply)

    def joined(self, before: StreamBridge, seam: Seam, reply: Reply) -> None:
        """A stream that broke is continued as deltas."""

    answer = staticmethod(passed_answer)
    refusal = staticmethod(errors.refusal)


class MessagesBackend:
    """Implements ``base.Backend``."""

    name = request.NAME
    passes: PassThrough | None = MessagesPassThrough()
    counts: CountingOf | None = MessagesCounting()
    usage_fields: frozenset[str] = frozenset()

    render = staticmethod(request.render)
    failure = staticmethod(failures.of_answer)
    usage = staticmethod(probed)

    def adds_usage_field(self, call: Call) -> bool:
        return False  # every answer reports its usage

    def source(self, reply: Reply) -> MessagesSource:
        return MessagesSource(reply)


CLIENT = MessagesClient()
BACKEND = MessagesBackend()
