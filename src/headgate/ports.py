"""The Protocols that stand between packages: who needs what, said once, without saying who gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headgate.errors import GatewayError
from headgate.model import Delivered, Record, Snapshot, Usage


class Clock(Protocol):
    """Time as an argument.  ``now`` is monotonic seconds, coarse (100 ms) where the loop's wheel gives it."""

    now: float


class Directory(Protocol):
    """Where the current Snapshot and the providers' keys are found."""

    secrets: Mapping[str, str]

    @property
    def snapshot(self) -> Snapshot: ...


class Journal(Protocol):
    """The outbox.  ``write`` returns once the record is with the kernel: a ``kill -9`` does not lose it."""

    @property
    def accepting(self) -> bool:
        """False while room for the closes of running calls is short: new calls are then refused."""

    def write(self, record: Record) -> None: ...


class StreamBridge(Protocol):
    """An upstream's stream in, the client's stream out.  Pure; see ``dialects.registry``.

    ``feed`` and ``close`` return whole SSE events for the client, never the terminal one: that is ``tail()``, sent
    after the receipt is written.  Nothing is returned before the client can see something (``visible``): until then
    the attempt can still be replaced.
    """

    ident: str  # the answer's id, as the client reads it
    visible: bool
    done: bool
    error: GatewayError | None
    events: int  # what the upstream has really sent: its comments are no progress
    skipped: int  # of those events: what could not be read
    quiet: float
    """After so many seconds of silence the stream is complete: all that may come is the usage, and the end.  0.0: it
    has no such end yet.  Infinity: it seemed to have one, and went on.
    """

    @property
    def usage(self) -> Usage:
        """The upstream's own figures, else an estimate from what has been streamed so far."""

    @property
    def progress(self) -> int:
        """Estimated completion tokens so far."""

    @property
    def begun(self) -> bool:
        """The upstream has sent something that a client can see, whether it has been returned or is held."""

    @property
    def delivered(self) -> Delivered | None:
        """What the client has seen, for a verdict on whether another attempt may follow; None for nothing."""

    @property
    def own_usage(self) -> Usage:
        """Of this attempt alone, as its provider bills it; ``usage`` is of the whole answer."""

    @property
    def given(self) -> Usage:
        """``usage`` without what is held: what the client has had, where the stream has broken."""

    def feed(self, data: bytes) -> bytes:
        """Bytes as they came from the upstream's body, cut anywhere."""

    def whole(self, body: bytes) -> bytes:
        """An answer that came whole, as the stream that it would have been."""

    def close(self, clean: bool = True) -> bytes:
        """The upstream's body has ended: completes what is complete, sets ``error`` on what was cut.

        ``clean``: as its framing says, and not because the connection broke or a deadline passed.
        """

    def complete(self, reason: str) -> bool:
        """Declares the stream complete although its end was lost; False where what has come does not allow that."""

    def tail(self, extra: bytes | None = None, trace: bytes | None = None) -> bytes:
        """What ends the client's stream: the last chunks and ``[DONE]``, or the error event.

        ``extra`` is the answer's ``headgate`` object, encoded; it goes into the usage chunk, where one was asked for.
        ``trace`` is the route trace, which makes one where there is none.
        """
