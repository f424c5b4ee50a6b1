"""The common part of a ``Source`` that reads server-sent events: the bytes, the end of the body, the reported usage."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from headgate import errors
from headgate.dialects.base import Delta, Reply
from headgate.dialects.usage import reading
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse
from headgate.wire.codec import Object


class EventSource:
    """Implements all of ``base.Source`` but ``whole``.  A subclass reads one event in ``_take``.

    ``_usage``: the last usage that the provider has reported, as it came.
    """

    def __init__(self, reply: Reply) -> None:
        self.done = False
        self.error: GatewayError | None = None
        self.events = 0
        self.skipped = 0
        self.quiet = 0.0
        self.model = ""
        self._reply = reply
        self._decoder = sse.Decoder(reply.max_event + len(b"data: "))
        self._usage: Raw | None = None

    @property
    def reported(self) -> Usage | None:
        if self._usage is None:
            return None
        estimate = Usage(self._reply.prompt_tokens)
        usage, _ = reading.read(self._usage, estimate)
        return None if usage is estimate else usage

    def feed(self, data: bytes) -> Sequence[Delta]:
        if self.done or self.error is not None:
            return ()
        deltas: list[Delta] = []
        for event in self._decoder.feed(data):
            self._take(event, deltas)
            if self.done or self.error is not None:
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
            if self.done or self.error is not None:
                return deltas
        self._end_body(deltas)
        return deltas

    def _take(self, event: sse.Event, deltas: list[Delta]) -> None:
        """Read one event.  Append its deltas; set ``done`` or ``error`` at the end of the answer."""
        raise NotImplementedError

    def _end_body(self, deltas: list[Delta]) -> None:
        """Judge an answer whose body has ended.  Without an end of its own, it was cut."""
        said = f"{self._reply.provider} closed the connection before its answer was complete."
        self.error = GatewayError(errors.UPSTREAM_CUT, said)


def object_of(data: bytes) -> Object | None:
    """Return the members of a JSON object, repaired if necessary; None if it is none."""
    found = codec.as_object(data)
    return found if found is not None else codec.as_object(codec.repair(data))


def text_of(raw: Raw | None) -> str:
    """Return a text, repaired if necessary; empty if it is missing or of another type."""
    if raw is None:
        return ""
    text = codec.as_text(raw)
    return text if text is not None else codec.as_text(codec.repair(bytes(raw))) or ""
