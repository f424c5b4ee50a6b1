"""Spend limits of accounts: what is spent, compared with what may be; accounts that are out until their period ends.

The data processes are told of an account only when it goes out, not of what it has spent.  ``telemetry`` reports what
is nearly spent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from headgate.control.ingest.receipts import Batch
from headgate.control.objects.assemble import all_providers
from headgate.control.reports.account_spend import AccountSpend, period
from headgate.control.snapshot.publication import Publication
from headgate.model import Account


class SpendLimits:
    """On one publication."""

    def __init__(self, publication: Publication, spend: AccountSpend) -> None:
        self._publication = publication
        self._spend = spend

    async def take(self, batch: Batch) -> None:
        """Receipts are in the store: a listener of the feed."""
        await self._spend.take(batch)
        if self._spend.begun and batch.closed:
            await self.apply()

    async def apply(self) -> None:
        """Compares, and tells the data processes what has changed.  Raises SQLAlchemyError, GatewayError (503)."""
        now = time.time()
        if not self._spend.begun and any(self._limited()):
            await self._spend.begin(now)
        self._spend.forget(now)
        out = {
            account.id: end
            for account, spent, end in self.used(now)
            if account.spend is not None and spent >= account.spend.limit and account.spend.action == "park"
        }
        if out != self._publication.sources.overspent:
            async with self._publication.turn():
                self._publication.sources = replace(self._publication.sources, overspent=out)
                await self._publication.publish(unless_same=True)

    def used(self, now: float) -> Iterator[tuple[Account, int, float]]:
        """Each account with a limit, what it has spent (nano-USD), and when that period ends.  None before the store
        was read.
        """
        for account in self._limited() if self._spend.begun else ():
            assert account.spend is not None
            kind = account.spend.period
            yield account, self._spend.spent(account.id, kind, now), period(kind, now)[1]

    def _limited(self) -> Iterator[Account]:
        for provider in all_providers(self._publication.sources).values():
            yield from (account for account in provider.accounts if account.spend is not None)
