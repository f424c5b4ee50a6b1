"""The calls that wait for a limit instead of being refused: who is tried again, and when.

Owns the waiting calls and their deadlines; ``policy.admission.queue`` has their order.  A waiting call holds nothing.
It is tried again, all or nothing, when its turn may have come: a call that stood in its way has ended, a connection is
free, the time has come that the limit named, or the configuration has changed.  Nothing is polled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial

from headgate.errors import DRAINING, QUEUE_FULL, GatewayError, LimitReached
from headgate.model import Alias, Attempt, Call, Grant, Plan, Quotas
from headgate.policy.admission.queue import QueueLines, QueuePlace, tier_of
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.progress import Step
from headgate.policy.attempts.selection import CONNECTIONS, MARGIN_S
from headgate.process.channel import queued_at
from headgate.serving.call.admission.holding import Holding
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.upstream.carriers import Carriers

# How long the official SDKs wait for a response, in seconds; their users set it, 600 by default
_CLIENT_TIMEOUTS = (b"x-stainless-read-timeout", b"x-stainless-timeout")

_monotonic = time.monotonic


class MustWait(Exception):
    """A call is not admitted, and its alias has a queue."""

    def __init__(self, call: Call, plan: Plan, limit: LimitReached) -> None:
        super().__init__(limit.message)
        self.call = call
        self.plan = plan
        self.limit = limit


class QueuedCall:
    """One waiting call.  ``chance`` is set when it is to be tried again."""

    due = NEVER
    slot = -1
    key = ""  # of the line in which its turn came last

    def __init__(self, queue: CallQueue, place: QueuePlace, call: Call, since: float) -> None:
        self.place = place
        self.call = call
        self.since = since
        self.chance: Signal[None] = Signal()
        self.limit: LimitReached  # that it waits for
        self.tried = since
        self._queue = queue

    @property
    def left(self) -> float | None:
        """Seconds until its limit gives way; None: not known."""
        return None if self.limit.wait is None else max(0.0, self.tried + self.limit.wait - _monotonic())

    def expire(self, now: float) -> None:
        """The wheel: it has waited as long as it may."""
        now, limit = _monotonic(), self.limit
        again = limit.retry_after if self.left is None else max(1.0, self.left)
        sentence = f"{limit.reason}; the call has waited {now - self.since:.1f} s in the queue of {self.place.alias}"
        self.chance.fail(GatewayError(limit.kind, sentence, retry_after=again))


class LineTimer:
    """Tells the queue when a line may have moved: by the wheel, or by a pool of connections."""

    due = NEVER
    slot = -1

    def __init__(self, queue: CallQueue, key: str) -> None:
        self._queue = queue
        self._key = key

    def expire(self, now: float) -> None:
        self._queue.free(self._key)

    def freed(self) -> None:
        self._queue.free(self._key)


class CallQueue:
    """All waiting calls of this process."""

    def __init__(self, wheel: Wheel, directory: SnapshotDirectory, carriers: Carriers) -> None:
        self._wheel = wheel
        self._counters = directory.counters
        self._carriers = carriers
        self._lines = QueueLines()
        self._calls: dict[QueuePlace, QueuedCall] = {}
        self._timers: dict[str, LineTimer] = {}  # by the line's key
        self._moved: dict[str, None] = {}  # keys of the lines whose first call is tried in the next turn
        self._draining = False
        directory.changed = self.retry

    # ------------------------------------------------------------------------------------- called by the exchange

    def first_attempt(
        self, next_attempt: NextAttempt, deadline: float, holding: Holding | None, queued: QueuedCall | None
    ) -> Step:
        """Return the first attempt of a call that limits admit: one that can be made now.  Raises LimitReached, also
        where others wait already for what a call wants that has not waited (``queued`` is None).
        """
        if queued is None and self._lines and holding is not None:
            self._give_way(holding.quotas)
        return next_attempt.first_at_once(self._wheel.now, deadline, partial(self._is_full, queued))

    def enter(self, waits: MustWait, grant: Grant, until: float) -> QueuedCall:
        """Let a call wait, until ``until`` at the latest (monotonic seconds).  Raises GatewayError: the limit's own
        where it cannot give way by then, 429 where the queue is full, 503 where the process ends.
        """
        alias, limit = waits.plan.alias, waits.limit
        if self._draining:
            raise _draining()
        _check_in_time(limit, until)
        tier = tier_of(waits.call.options.tier, grant)
        place = self._lines.enter(alias.name, grant.tenant, tier, alias.queue_size)
        if place is None:
            sentence = f"{limit.reason}, and {alias.queue_size} calls wait for {alias.name} already; try again later"
            raise GatewayError(QUEUE_FULL, sentence, retry_after=limit.retry_after or 1.0)
        queued = self._calls[place] = QueuedCall(self, place, waits.call, _monotonic())
        self._counters.freed = self._quota_freed
        self._wheel.set(queued, until)
        self._line_up(queued, limit)
        return queued

    def stand(self, queued: QueuedCall, limit: LimitReached) -> None:
        """Let a call that was tried wait on.  Raises GatewayError: the limit's own, as ``enter``."""
        if self._draining:
            raise _draining()
        _check_in_time(limit, queued.due)
        queued.chance = Signal()
        self._line_up(queued, limit)

    def leave(self, queued: QueuedCall, *, served: bool) -> None:
        """Take a call out: it is admitted (``served``), it is refused, or its client has gone."""
        place = queued.place
        keys = place.keys
        moved = [key for key in keys if not served and self._lines.first(key) is place]
        self._wheel.drop(queued)
        del self._calls[place]
        self._lines.leave(place, queued.key if served else "")
        self._drop_timers(keys)
        for key in moved:
            self.free(key)
        if not self._lines:
            self._counters.freed = None

    # ------------------------------------------------------------------------------------- what moves the lines

    def free(self, key: str) -> None:
        """Try the first calls of a line again, in the next turn of the loop: the call that ends now ends first."""
        if key in self._lines:
            if not self._moved:
                asyncio.get_running_loop().call_soon(self._try_again)
            self._moved[key] = None

    def retry(self) -> None:
        """Try all lines again: limits, keys or targets have changed."""
        for key in self._lines.keys:
            self.free(key)

    def drain(self) -> None:
        """Refuse all waiting calls, and those that would wait from now on: this process ends."""
        self._draining = True
        for queued in tuple(self._calls.values()):
            queued.chance.fail(_draining())

    @property
    def waiting(self) -> int:
        return len(self._calls)

    def gauges(self) -> dict[str, float]:
        return {"queued": self.waiting, **{queued_at(alias): depth for alias, depth in self._lines.depths().items()}}

    def _try_again(self) -> None:
        moved, self._moved = self._moved, {}
        for key in moved:
            while (place := self._lines.first(key)) is not None:
                queued = self._calls[place]
                queued.key = key
                queued.chance.set(None)  # it is tried before this returns
                if self._lines.first(key) is place:
                    break  # it waits on, and so do all behind it

    def _quota_freed(self, quotas: Quotas) -> None:
        for quota in quotas.each:
            self.free(quota.key)

    # ------------------------------------------------------------------------------------- the lines

    def _line_up(self, queued: QueuedCall, limit: LimitReached) -> None:
        place, before = queued.place, queued.place.keys
        queued.limit, queued.tried = limit, _monotonic()
        joined = [key for key in limit.keys if key in self._lines and key not in before]
        self._lines.stand(place, limit.keys)
        self._drop_timers(before)
        if limit.wait is not None:
            due = queued.tried + limit.wait
            for key in limit.keys:
                timer = self._timer(key)
                if timer.slot < 0 or due < timer.due:
                    self._wheel.set(timer, due)
        for key in joined:  # those behind it may be all that was in its way
            if self._lines.first(key) is place:
                self.free(key)

    def _give_way(self, quotas: Quotas) -> None:
        """Raise LimitReached if others wait for one of these quotas: what comes free is theirs, and no newcomer's."""
        for quota in quotas.each:
            place = self._lines.first(quota.key)
            if place is not None:
                raise self._behind(place, quota.key)

    def _behind(self, place: QueuePlace, key: str) -> LimitReached:
        queued = self._calls[place]
        ahead, left = queued.limit, queued.left
        return LimitReached(
            ahead.kind, ahead.reason, keys=(key,), wait=left, sooner=ahead.sooner,
            retry_after=ahead.retry_after if left is None else max(1.0, left),
        )  # fmt: skip

    def _is_full(self, queued: QueuedCall | None, attempt: Attempt) -> bool:
        """True if an attempt finds no free connection, or others wait for one already."""
        provider = attempt.target.provider
        key = CONNECTIONS + provider.name
        if key in self._lines and (queued is None or key not in queued.place.keys):
            return True
        return self._carriers[provider.carrier].is_full(attempt, self._timer(key).freed)

    def _timer(self, key: str) -> LineTimer:
        timer = self._timers.get(key)
        if timer is None:
            timer = self._timers[key] = LineTimer(self, key)
        return timer

    def _drop_timers(self, keys: tuple[str, ...]) -> None:
        """Forget the timers of lines that are gone."""
        for key in keys:
            if key not in self._lines and (timer := self._timers.pop(key, None)) is not None:
                self._wheel.drop(timer)


def latest_start(alias: Alias, headers: Mapping[bytes, bytes], received: float, deadline: float) -> float:
    """Return until when a call may wait (monotonic seconds): by its alias, its own deadline, and its client's."""
    latest = min(received + alias.queue_wait_s, deadline - MARGIN_S)
    for name in _CLIENT_TIMEOUTS:
        try:
            latest = min(latest, received + float(headers.get(name, b"inf")))
        except ValueError:
            continue
    return latest


def _check_in_time(limit: LimitReached, latest: float) -> None:
    """Raise the limit's own error if it is known not to give way in time."""
    now = _monotonic()
    late = limit.wait is not None and not limit.sooner and now + limit.wait > latest
    if late or now >= latest:
        raise limit


def _draining() -> GatewayError:
    return GatewayError(
        DRAINING, "this gateway is shutting down, and the call was still waiting; connect again", retry_after=1
    )
