"""The form of an answer's body: whether it is a stream, and its content coding; and the errors of decoding.

Nearly every answer is plain, and one check shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from headgate.errors import UPSTREAM_CUT, UPSTREAM_GARBAGE, UPSTREAM_TOO_LARGE, GatewayError
from headgate.ports import Sink
from headgate.wire.bodies.coding import CodingError, TooLargeError, TruncatedError
from headgate.wire.bodies.framing import BodyForm
from headgate.wire.bodies.intake import Intake

MOST_A_TURN = 256 << 10  # bytes of a decoded body
_STREAMS = (BodyForm.EVENTS, BodyForm.LINES, BodyForm.ITEMS)
_LINES = (b"ndjson", b"jsonl", b"json-lines", b"json-seq", b"jsonlines")
_FIELDS = (b"data:", b"event", b"id:", b"retry")


def is_plainly_events(headers: Mapping[bytes, bytes]) -> bool:
    """True if the fields announce events without a coding."""
    if b"event-stream" not in headers.get(b"content-type", b"").lower():
        return False
    return headers.get(b"content-encoding", b"").strip().lower() in (b"", b"identity")


def intake_of(headers: Mapping[bytes, bytes], most: int) -> Intake:
    """An intake for the body that ``headers`` announce."""
    kind = headers.get(b"content-type", b"").lower()
    lines = any(word in kind for word in _LINES)
    return Intake(headers.get(b"content-encoding", b""), lines=lines, most=most)


def is_stream(probe: Intake, data: bytes) -> bool:
    """True if the body, of which ``data`` is the next part, is a stream."""
    if probe.form is None and data:
        try:
            probe.recognise(data)
        except CodingError:
            return False  # it is collected, and fails when it is decoded
    return probe.form in _STREAMS


def error_of(error: CodingError) -> GatewayError:
    """Return the error for a body that cannot be decoded."""
    kind = UPSTREAM_GARBAGE
    if isinstance(error, TruncatedError):
        kind = UPSTREAM_CUT
    elif isinstance(error, TooLargeError):
        kind = UPSTREAM_TOO_LARGE
    return GatewayError(kind, f"the provider's answer {error}")


class PausableBody(Protocol):
    """The part of the connection that an Unpacker needs."""

    headers: dict[bytes, bytes]
    sink: Sink | None

    @property
    def reading(self) -> bool:
        """False while it waits for a slow client."""

    def hold(self) -> None:
        """Stop reading until the present bytes are sent."""

    def read_on(self) -> None: ...

    def later(self, step: Callable[[None], None]) -> None:
        """Do ``step`` in the next turn, when the bytes written in this turn have been sent."""

    def fail(self, error: GatewayError) -> None:
        """Close the connection and end the body with ``error``."""


class Unpacker:
    """Stands between a connection and its sink until a stream turns out to be plain events, as nearly all are.

    Otherwise it stays, decodes the body, and passes on a bounded part in a turn.  A few bytes may expand a
    thousandfold, and a slow client must be able to pause it.
    """

    def __init__(self, upstream: PausableBody, sink: Sink, intake: Intake | None, most: int) -> None:
        self._upstream = upstream
        self._sink = sink
        self._intake = intake
        self._most = most  # of a document in it, bytes
        self._ended = False
        self._waiting = False  # there is more to pass on, in a later turn

    def feed(self, data: bytes) -> None:
        upstream = self._upstream
        if self._intake is None:
            if data.startswith(_FIELDS):
                upstream.sink = self._sink
                self._sink.feed(data)
                return
            self._intake = intake_of(upstream.headers, self._most)
        self._intake.feed(data)
        self._pass_on(self._intake)

    def ended(self) -> None:
        self._ended = True
        if self._intake is None:
            self._sink.ended()
        else:
            self._intake.finish()
            self._pass_on(self._intake)

    def failed(self, error: GatewayError) -> None:
        self._sink.failed(error)

    def resume(self) -> None:
        """The client takes more."""
        if self._waiting:
            self._upstream.later(self._go_on)

    def _pass_on(self, intake: Intake) -> None:
        upstream, sink = self._upstream, self._sink
        passed = 0
        try:
            while passed < MOST_A_TURN and upstream.reading and upstream.sink is self and (events := intake.read()):
                passed += len(events)
                sink.feed(events)
        except CodingError as error:
            upstream.fail(error_of(error))
            return
        if upstream.sink is not self:
            return
        if not intake.pending:
            self._waiting = False
            if self._ended:
                sink.ended()
        elif not self._waiting:
            self._waiting = True
            upstream.hold()
            upstream.later(self._go_on)

    def _go_on(self, _: None) -> None:
        if self._upstream.sink is not self or not self._upstream.reading or self._intake is None:
            return  # over, or ``resume`` goes on
        self._waiting = False
        self._pass_on(self._intake)
        if not self._waiting:
            self._upstream.read_on()
