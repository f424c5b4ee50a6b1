"""Alerts as they arise: after receipts, every ten seconds and every minute, compared with the rules, raised once.

Each is a line of the log, a row of the store, and a message to the webhooks that want it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from operator import itemgetter

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest.receipts import Batch
from headgate.control.snapshot.setup import Publishing
from headgate.control.store.receipt_columns import RECEIPT
from headgate.control.telemetry import alerts, live
from headgate.control.telemetry.alerts import Alert
from headgate.control.telemetry.book import AlertBook
from headgate.control.telemetry.budgeted import BudgetedHolders
from headgate.control.telemetry.live import DataProcesses
from headgate.control.telemetry.spend_rate import SpendRates
from headgate.control.telemetry.webhooks import Webhooks
from headgate.errors import BUDGET_EXCEEDED
from headgate.model import Account, Snapshot

REST_S = 1.0  # between two rounds
ROUND_S = 10.0  # the longest time between two
MINUTE_S = 60.0
HOUR_S = 3600.0
PROBED = "probe"

_FIELDS = (
    *("created_at", "grant_id", "tenant", "tags", "session", "client_user", "provider", "model"),
    *("cost", "outcome", "code"),
)
_fields = itemgetter(*([column.name for column in RECEIPT].index(name) for name in _FIELDS))
log = structlog.get_logger("headgate.alerts")


class Alerting:
    """``take`` listens to the feed, ``run`` is a task.  Mutable: the budgets to be looked at, and when what was done
    last.
    """

    def __init__(self, engine: AsyncEngine, publishing: Publishing, link: DataProcesses) -> None:
        self.book = AlertBook(engine)
        self.webhooks = Webhooks(lambda: self._publication.sources.compiled.alerting.webhooks, self.book.settled)
        self._publication = publishing.publication
        self._spend = publishing.spend
        self._link = link
        self._rates = SpendRates(engine)
        self._holders = BudgetedHolders(Snapshot())
        self._due: set[str] = set()  # keys of budgets
        self._refused: set[tuple[str, ...]] = set()  # the budgets of a call that one of them has refused or ended
        self._wake = asyncio.Event()
        self._rated_at = self._forgot_at = 0.0

    async def take(self, batch: Batch) -> None:
        """Receipts are in the store."""
        holders = self._current()
        for closed in batch.closed:
            row = dict(zip(_FIELDS, _fields(closed), strict=True))
            self._rates.take(row)
            refused = BUDGET_EXCEEDED.code in (row["outcome"], row["code"])
            if (row["cost"] or refused) and (keys := tuple(holders.of(row))):
                self._due.update(keys)
                self._wake.set()
                if refused:
                    self._refused.add(keys)
            if row["outcome"] == "failed":  # it may have parked an account
                self._wake.set()

    async def run(self) -> None:
        """Ends by being cancelled."""
        begun = False
        try:
            while True:
                try:
                    now = time.time()
                    if not begun:
                        await self._begin(now)
                        begun = True
                    await self._round(now)
                except Exception as error:  # noqa: BLE001  (the store is away: later it may be back)
                    log.error("alerts were not looked for; trying again", error=repr(error))
                await asyncio.sleep(REST_S)
                try:
                    async with asyncio.timeout(ROUND_S - REST_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
        finally:
            await self.webhooks.close()

    async def _begin(self, now: float) -> None:
        for alert in await self.book.begin(now):
            self.webhooks.send(alert)
        await self._rates.begin(now)
        self._due.update(self._current().all())

    async def _round(self, now: float) -> None:
        await self._look_at_budgets(now)
        await self._look_at_accounts(now)
        if now - self._rated_at >= MINUTE_S:
            await self._look_at_rates(now)
            self._rated_at = now
        if now - self._forgot_at >= HOUR_S:
            await self.book.forget(now)
            self._forgot_at = now

    def _current(self) -> BudgetedHolders:
        if self._holders.snapshot is not self._publication.snapshot:
            self._holders = BudgetedHolders(self._publication.snapshot)
        return self._holders

    async def _look_at_budgets(self, now: float) -> None:
        due, refused = self._due, self._refused
        self._due, self._refused = set(), set()  # receipts come meanwhile
        try:
            standings = await live.holder_standings(self._link, list(due)) if due else {}
            if standings is not None:
                refusing = {alerts.nearest_to_its_end(keys, standings) for keys in refused}
                for key, standing in standings.items():
                    await self._raise(alerts.of_budget(key, standing, refuses=key in refusing), now)
                due, refused = set(), set()
        finally:  # again, where there was no answer or no store
            self._due |= due
            self._refused |= refused

    async def _look_at_accounts(self, now: float) -> None:
        for account, spent, end in self._spend.used(now):
            await self._raise(alerts.of_account_spend(account, spent, end), now)
        states = await live.account_states(self._link)
        if states is None:
            return
        whole = [(one.account, one.state) for one in states if not one.model]
        parked = {one: alerts.of_parked(*one) for one in (*whole, *self._by_own_terms(now))}
        for alert in parked.values():
            await self._raise(alert, now)
        reasons = {(alert.subject, alert.scope) for alert in parked.values() if alert is not None}
        probed = {account for account, state in whole if state == PROBED}
        for subject, scope in self.book.lasting(alerts.PARKED):
            if (subject, scope) not in reasons and subject not in probed:
                await self.book.over(alerts.PARKED, subject, scope, now + alerts.AGAIN_S)

    def _by_own_terms(self, now: float) -> Iterator[tuple[str, str]]:
        for account in self._accounts():
            if account.expires is not None and account.expires <= now:
                yield account.id, "expired"
            elif account.paused_until > now:
                yield account.id, "overspent"

    def _accounts(self) -> Iterator[Account]:
        for provider in self._publication.snapshot.providers.values():
            yield from provider.accounts

    async def _look_at_rates(self, now: float) -> None:
        settings = self._publication.sources.compiled.alerting
        if settings.rate_times <= 0:
            return
        hours = self._rates.above(settings.rate_least, now)
        usual = await self._rates.usual(hours, now, settings.rate_days)
        for key, hour in hours.items():
            mean = usual[key]
            if mean is not None and alerts.is_unusual(hour, mean, settings.rate_times):
                await self._raise(alerts.of_rate(key, self._current().name(key), hour, mean, now), now)

    async def _raise(self, alert: Alert | None, now: float) -> None:
        if alert is None:
            return
        raised = await self.book.raise_once(alert, self.webhooks.wanting(alert.type), now)
        if raised is not None:
            figures = {name: value for name, value in alert.data.items() if name != "id" and value is not None}
            log.warning(alert.message, alert=alert.type, subject=alert.subject, alert_id=raised.id, **figures)
            self.webhooks.send(raised)
