"""What each token, each tenant and the whole gateway has spent within the last hour, and what is usual.

The last hour is kept by the minute, from the store once and then from the feed.  What is usual is the mean hour of the
past whole UTC days, read from the sums by day: nights and weekends count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ledger.postings import TENANT, TOKEN
from headgate.control.store.database import ALL_TOKENS, requests, usage_days
from headgate.control.store.ledger_tables import ledger_balances
from headgate.control.telemetry.alerts import DAY_S, EVERYTHING, HOURS
from headgate.model.receipt_ids import first_of

MINUTES = 60
LEAST_DAYS = 3  # of history; with less, nothing is usual yet
LOOKED_UP = 500
NANO = 1_000_000_000
MINUTE_NS = 60 * NANO


class SpendRates:
    """``begin`` reads what the store has.  Mutable: the sums by minute, and the usual ones of the day."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._minutes: dict[int, dict[str, int]] = {}
        self._usual: dict[str, float | None] = {}
        self._usual_of: tuple[int, int] = (0, 0)  # the day, and how many days before it
        self.begun = False

    async def begin(self, now: float) -> None:
        """Adds up the last hour.  Raises SQLAlchemyError."""
        self.begun = True
        row = requests.c
        since = row.id >= first_of(int((now - MINUTES * 60) * NANO))
        groups = (row.created_at // MINUTE_NS).label("minute"), row.grant_id, row.tenant
        query = select(*groups, func.sum(row.cost)).where(since, row.cost > 0).group_by("minute", *groups[1:])
        async with self._engine.connect() as connection:
            for at, grant, tenant, cost in await connection.execute(query):
                self._add(int(at), grant, tenant, int(cost))

    def take(self, row: Mapping[str, Any]) -> None:
        """Count a receipt.  Before ``begin`` it will be read there."""
        if self.begun and row["cost"]:
            self._add(row["created_at"] // MINUTE_NS, row["grant_id"], row["tenant"], row["cost"])

    def _add(self, minute: int, grant: str, tenant: str | None, cost: int) -> None:
        if minute not in self._minutes:
            for old in [one for one in self._minutes if one < minute - 2 * MINUTES]:
                del self._minutes[old]
        sums = self._minutes.setdefault(minute, defaultdict(int))
        for key in (EVERYTHING, TOKEN + grant, *((TENANT + tenant,) if tenant else ())):
            sums[key] += cost

    def above(self, least: int, now: float) -> dict[str, int]:
        """nano-USD of the last hour, of those who have spent ``least``."""
        first = int(now // 60) - MINUTES + 1
        for minute in [minute for minute in self._minutes if minute < first]:
            del self._minutes[minute]
        totals: dict[str, int] = defaultdict(int)
        for sums in self._minutes.values():
            for key, cost in sums.items():
                totals[key] += cost
        return {key: cost for key, cost in totals.items() if cost >= least}

    async def usual(self, keys: Iterable[str], now: float, days: int) -> Mapping[str, float | None]:
        """nano-USD of the mean hour of up to ``days`` whole days before today, since the first spend among them.  None:
        there are fewer than LEAST_DAYS.  Each is read once a day.  Raises SQLAlchemyError.
        """
        today = int(now // DAY_S)
        if self._usual_of != (today, days):
            self._usual, self._usual_of = {}, (today, days)
        unknown = [key for key in keys if key not in self._usual]
        for start in range(0, len(unknown), LOOKED_UP):
            await self._look_up(unknown[start : start + LOOKED_UP], today, days)
        return self._usual

    async def _look_up(self, keys: list[str], today: int, days: int) -> None:
        balance, day = ledger_balances.c, usage_days.c
        within = balance.day >= today - days, balance.day < today, balance.amount > 0
        sums = select(balance.account, func.min(balance.day), func.sum(balance.amount))
        each = sums.where(balance.account.in_(keys), *within).group_by(balance.account)
        async with self._engine.connect() as connection:
            found = [tuple(row) for row in await connection.execute(each)]
            if EVERYTHING in keys:
                whole = day.detail == ALL_TOKENS, day.day >= today - days, day.day < today, day.cost > 0
                row = (await connection.execute(select(func.min(day.day), func.sum(day.cost)).where(*whole))).one()
                found.append((EVERYTHING, *row))
        self._usual |= dict.fromkeys(keys)
        for key, first, amount in found:
            if first is not None and today - first >= LEAST_DAYS:
                self._usual[key] = int(amount) / ((today - first) * HOURS)
