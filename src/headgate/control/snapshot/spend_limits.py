"""Spend limits of accounts: what is spent, compared with what may be; accounts that are out until their period ends.

The data processes are told of an account only when it goes out, not of what it has spent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import structlog

from headgate.catalog.money import NANO
from headgate.control.ingest.receipts import Batch
from headgate.control.objects.assemble import all_providers
from headgate.control.reports.account_spend import AccountSpend, period
from headgate.control.snapshot.publication import Publication
from headgate.model import Account

log = structlog.get_logger("headgate.publication")


class SpendLimits:
    """On one publication.  Mutable: of which accounts the log has a warning, and for which period."""

    def __init__(self, publication: Publication, spend: AccountSpend) -> None:
        self._publication = publication
        self._spend = spend
        self._warned: dict[str, float] = {}  # account → the end of the period

    async def take(self, batch: Batch) -> None:
        """Receipts are in the store: a listener of the feed."""
        await self._spend.take(batch)
        if self._spend.begun and batch.closed:
            await self.apply()

    async def apply(self) -> None:
        """Compares, and tells the data processes what has changed.  Raises SQLAlchemyError, GatewayError (503)."""
        limited = list(self._limited())
        now = time.time()
        if limited and not self._spend.begun:
            await self._spend.begin(now)
        self._spend.forget(now)
        out = {}
        for account in limited:
            assert account.spend is not None
            end = period(account.spend.period, now)[1]
            if self._spend.spent(account.id, account.spend.period, now) >= account.spend.limit:
                self._warn(account, end)
                if account.spend.action == "park":
                    out[account.id] = end
        if out != self._publication.sources.overspent:
            async with self._publication.turn():
                self._publication.sources = replace(self._publication.sources, overspent=out)
                await self._publication.publish(unless_same=True)

    def _limited(self) -> Iterator[Account]:
        for provider in all_providers(self._publication.sources).values():
            yield from (account for account in provider.accounts if account.spend is not None)

    def _warn(self, account: Account, end: float) -> None:
        if account.spend is None or self._warned.get(account.id) == end:
            return
        self._warned[account.id] = end
        follows = "it is not used until that ends" if account.spend.action == "park" else "it goes on"
        log.warning(
            f"an account has reached its spend limit of this {account.spend.period}; {follows}",
            account=account.id,
            limit_usd=account.spend.limit / NANO,
        )
