"""The Protocols that stand between packages: who needs what, said once, without saying who gives it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Protocol

from headgate.errors import GatewayError
from headgate.model import (
    Attempt,
    Delivered,
    Hold,
    LimitsLeft,
    Quota,
    Quotas,
    QuotaUse,
    Rendered,
    Snapshot,
    Spent,
    Target,
    Usage,
    Used,
    Want,
)


class Directory(Protocol):
    """Where the current Snapshot and the providers' keys are found."""

    secrets: Mapping[str, str]

    @property
    def snapshot(self) -> Snapshot: ...


class Counters(Protocol):
    """Limits, budgets and parallel slots: what calls hold of them, and what they have used.

    ``now`` is Unix seconds.  Atomic: a call that is refused changes nothing.  ``restored``: what was used before they
    began is known and counted; until then no hard budget may be spent.  ``freed``, if set, is called with the quotas
    of each hold that has ended.
    """

    restored: bool
    freed: Callable[[Quotas], None] | None

    def take(self, want: Want, now: float) -> Hold:
        """Set aside what a call wants, of every quota that applies to it.

        Raises GatewayError: 402 where a hard budget cannot pay the least that it needs; 429, with the time when it
        would be admitted, where it is over a limit.
        """

    def extend(self, hold: Hold, tokens: int, now: float) -> int:
        """Return the next reach of a hold of which ``tokens`` have come.  0: nothing is left, the answer ends here."""

    def settle(self, hold: Hold, used: Usage, cost: int, now: float, served: Target | None = None) -> None:
        """Put what was used (``cost`` in nano-USD) in place of what was held; ``served``: by this target.  Once: later
        calls do nothing.  Usage beyond the hold counts too.
        """

    def cancel(self, hold: Hold) -> None:
        """Take back a hold that has just been given, as if it had not been: its call does not run yet."""

    def standing(self, quotas: Quotas, now: float) -> LimitsLeft:
        """Return what is left of the limits per minute and day."""

    def use(self, quota: Quota, now: float) -> QuotaUse:
        """Return what one holder has used, and what its running calls hold."""

    def restore(self, spents: Iterable[Spent], quotas: Iterable[Quota], now: float) -> None:
        """Add what holders had used before: ``quotas`` are those whose keys ``spents`` name."""

    def sweep(self, now: float) -> int:
        """Release the holds whose leases have expired; return their number.  Call it every second or so."""


class SizeShown(Protocol):
    """``size``: bytes of text, as it stands in JSON, from which tokens are estimated."""

    size: int


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
    def used(self) -> Used:
        """What this attempt alone has used so far: as its upstream reports it, else estimated from what has come."""

    @property
    def finish(self) -> str:
        """The finish reason of a complete answer, as chat completions have it; of several choices, the first one's."""

    @property
    def view(self) -> SizeShown:
        """What there was to see so far."""

    @property
    def progress(self) -> int:
        """Estimated completion tokens so far."""

    @property
    def begun(self) -> bool:
        """The upstream has sent something that a client can see, whether it has been returned or is held."""

    @property
    def delivered(self) -> Delivered | None:
        """What the client has seen, for a verdict on whether another attempt may follow; None for nothing."""

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

    def stop(self, reason: str) -> None:
        """End the answer here, with this finish reason: ``done``."""

    def tail(self, usage: Usage, extra: bytes | None = None, trace: bytes | None = None) -> bytes:
        """What ends the client's stream: the last chunks and ``[DONE]``, or the error event.

        ``usage`` is that of the whole answer, of which earlier attempts may have a part.  ``extra`` is the answer's
        ``headgate`` object, encoded; it goes into the usage chunk, where one was asked for.  ``trace`` is the route
        trace, which makes one where there is none.
        """


class Sink(Protocol):
    """Where the bytes of a streamed body go."""

    def feed(self, data: bytes) -> None:
        """Take what one read brought."""

    def ended(self) -> None:
        """The body is complete."""

    def failed(self, error: GatewayError) -> None:
        """The body will not be complete."""


class StreamDeadlines(Protocol):
    """What the pump tells of a stream's progress; see ``serving.upstream.patience``.

    ``last_event_at`` is the instant of the last event, in the seconds of the loop's wheel.
    """

    last_event_at: float

    def begin_stalling(self) -> None:
        """The first token has come: from now on the silence between events is bounded."""

    def begin_ending(self, seconds: float) -> None:
        """Everything has come but the end, which may take so many seconds."""


class Upstream(Protocol):
    """One attempt's answer, as a call sees it.

    ``streamed``: the body comes piece by piece to the sink that is attached.  Else all of it is in ``body``.
    """

    status: int
    headers: dict[bytes, bytes]
    """Lower-case names."""
    body: bytes
    streamed: bool

    @property
    def asking(self) -> Asking | None:
        """The question that this answers; None once the connection has failed or is released."""

    @property
    def patience(self) -> StreamDeadlines: ...

    def attach(self, sink: Sink) -> None:
        """Give the body to ``sink`` from here on, beginning with what is here already."""

    def detach(self) -> None:
        """Give the body to nobody any more."""

    def pause(self) -> None:
        """The client is slow: read no more.  The upstream is not stalling meanwhile."""

    def resume(self) -> None: ...


class Asking(Protocol):
    """One request on its way.  Awaited, it gives the Upstream, with a streamed answer's head or all of a whole one.

    Raises GatewayError where no answer comes.  The caller must ``release`` it, however the wait ends.  Instants are
    monotonic seconds: ``queued`` when a way to the upstream was there or began to be made, ``connected`` when the
    request was sent.
    """

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """The client's header fields, of which some went along."""

    @property
    def body(self) -> bytes: ...

    @property
    def queued(self) -> float: ...

    @property
    def connected(self) -> float: ...

    def __await__(self) -> Generator[Any, None, Upstream]: ...

    def release(self, *, finished: bool) -> None:
        """The call is done with it.  ``finished``: it has seen the answer's end, so the way may serve again."""


class Carrier(Protocol):
    """One kind of way to the upstreams: HTTP, or a link that a hoster has opened.  ``Provider.carrier`` names it."""

    def ask(
        self,
        attempt: Attempt,
        rendered: Rendered,
        headers: dict[bytes, bytes],
        stream: bool,
        deadline: float,
        max_answer: int,
    ) -> Asking:
        """Send an attempt's request.  ``headers`` are the client's.

        ``deadline`` is the latest end of the attempt, in monotonic seconds; ``max_answer`` bounds a whole answer, in
        bytes.  Raises GatewayError where the request cannot be sent, as with an unknown key.
        """

    def is_full(self, attempt: Attempt, freed: Callable[[], None]) -> bool:
        """True if an attempt's request would have to wait for a place.  ``freed`` is then called when one may be free,
        once, however often it was given.
        """

    def secrets_of(self, attempt: Attempt) -> tuple[str, ...]:
        """Return the texts that must not reach a client in an answer."""
