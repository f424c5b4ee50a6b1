"""Webhooks: each has a bounded queue of alerts and a task while any wait, so that a dead one delays nothing else.

An alert that is not taken is tried again, less and less often, for four hours.  Where a queue is full, its oldest alert
is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog
from msgspec import Struct

from headgate.control.telemetry.book import RaisedAlert
from headgate.control.telemetry.delivery import HookAttempt, deliver
from headgate.process.boot import WebhookSettings

WAITING = 1000  # alerts of one webhook
BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0)  # after the first attempt, the second, …
JITTER = 0.2

Settled = Callable[[str, str], Awaitable[None]]  # the alert's id, the webhook's name
log = structlog.get_logger("headgate.alerts")


class WebhookState(Struct, frozen=True):
    """What is known of a webhook's deliveries in this life of control.  ``last``: the newest attempt, at ``last_at``
    (Unix seconds).  ``given_up``: alerts that were tried to the end or refused for good.
    """

    waiting: int = 0
    delivered: int = 0
    given_up: int = 0
    dropped: int = 0
    last: HookAttempt | None = None
    last_at: float | None = None


class Webhooks:
    """``hooks`` gives those that are configured now; ``settled`` hears which alerts wait no more."""

    def __init__(
        self,
        hooks: Callable[[], Sequence[WebhookSettings]],
        settled: Settled,
        backoff: Sequence[float] = BACKOFF_S,
    ) -> None:
        self._hooks = hooks
        self._settled = settled
        self._backoff = backoff
        self._queues: dict[str, _Queue] = {}

    def __iter__(self) -> Iterator[tuple[WebhookSettings, WebhookState]]:
        for hook in self._hooks():
            queue = self._queues.get(hook.name)
            yield hook, queue.state() if queue is not None else WebhookState()

    def find(self, name: str) -> WebhookSettings | None:
        """The webhook of this name."""
        return next((hook for hook in self._hooks() if hook.name == name), None)

    def wanting(self, kind: str) -> list[str]:
        """The names of those that want alerts of this type."""
        return [hook.name for hook in self._hooks() if not hook.events or kind in hook.events]

    def send(self, alert: RaisedAlert) -> None:
        """Put it into the queue of each webhook that it waits for.  Never waits."""
        for name in alert.pending:
            self._queue(name).put(alert)

    async def test(self, hook: WebhookSettings, alert: RaisedAlert) -> HookAttempt:
        """Deliver it once, at once; the result counts as the newest attempt."""
        result = await deliver(hook, alert)
        self._queue(hook.name).note(result)
        return result

    async def close(self) -> None:
        """End the deliveries.  What waits is sent by the next life of control."""
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _queue(self, name: str) -> _Queue:
        if name not in self._queues:
            self._queues[name] = _Queue(name, lambda: self.find(name), self._settled, self._backoff)
        return self._queues[name]


class _Queue:
    """The alerts of one webhook, by when each is to be tried.  ``task`` runs while any wait."""

    def __init__(
        self,
        name: str,
        settings: Callable[[], WebhookSettings | None],
        settled: Settled,
        backoff: Sequence[float],
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self._name = name
        self._settings = settings
        self._settled = settled
        self._backoff = backoff
        self._waiting: list[tuple[float, str, int, RaisedAlert]] = []  # (monotonic seconds, id, attempts before, alert)
        self._more = asyncio.Event()
        self._over: set[asyncio.Task[None]] = set()
        self._gone: WebhookSettings | None = None  # these settings' receiver wants no more
        self._delivered = self._given_up = self._dropped = 0
        self._last: HookAttempt | None = None
        self._last_at: float | None = None

    def state(self) -> WebhookState:
        counts = self._delivered, self._given_up, self._dropped
        return WebhookState(len(self._waiting), *counts, self._last, self._last_at)

    def note(self, result: HookAttempt) -> None:
        if self._last is None or self._last.ok != result.ok or self._last.message != result.message:
            if not result.ok:
                log.warning("a webhook fails", webhook=self._name, error=result.message)
            elif self._last is not None:
                log.info("a webhook answers again", webhook=self._name)
        self._last, self._last_at = result, time.time()

    def put(self, alert: RaisedAlert) -> None:
        if len(self._waiting) >= WAITING:
            oldest = min(self._waiting, key=lambda one: one[1])
            self._waiting.remove(oldest)
            heapq.heapify(self._waiting)
            self._dropped += 1
            over = asyncio.create_task(self._settle(oldest[3]), name=f"webhook {self._name} drops")
            self._over.add(over)
            over.add_done_callback(self._over.discard)
        heapq.heappush(self._waiting, (time.monotonic(), alert.id, 0, alert))
        self._more.set()
        if self.task is None:
            self.task = asyncio.create_task(self._run(), name=f"webhook {self._name}")

    async def _run(self) -> None:
        try:
            while self._waiting:
                wait = self._waiting[0][0] - time.monotonic()
                if wait > 0:
                    self._more.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await self._more.wait()
                    continue
                _due, _id, attempts, alert = heapq.heappop(self._waiting)
                await self._try(alert, attempts)
        finally:
            self.task = None

    async def _try(self, alert: RaisedAlert, attempts: int) -> None:
        hook = self._settings()
        if hook is None or hook == self._gone:  # it was removed, or wants nothing
            self._given_up += 1
            await self._settle(alert)
            return
        result = await deliver(hook, alert)
        self.note(result)
        if result.ok:
            self._delivered += 1
        elif result.gone or attempts >= len(self._backoff):
            self._gone = hook if result.gone else None
            self._given_up += 1
            log.error("an alert was not delivered", webhook=self._name, alert=alert.id, error=result.message)
        else:
            pause = self._backoff[attempts] * (1 + JITTER * random.random())
            heapq.heappush(self._waiting, (time.monotonic() + pause, alert.id, attempts + 1, alert))
            return
        await self._settle(alert)

    async def _settle(self, alert: RaisedAlert) -> None:
        try:
            await self._settled(alert.id, self._name)
        except Exception as error:  # noqa: BLE001  (at worst the next life of control sends it again)
            log.warning("a delivery was not recorded", webhook=self._name, alert=alert.id, error=repr(error))
