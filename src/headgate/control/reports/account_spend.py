"""What each account has cost within the running UTC day and month: from the store once, then from the feed of receipts.

A gauge for spend limits, not the ledger: it counts what attempts cost the operator, those that failed or were continued
included.  An attempt whose price is unknown counts as nothing.
"""

from __future__ import annotations

from calendar import timegm
from collections import defaultdict
from datetime import UTC, datetime

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import NANO
from headgate.control.ingest.receipts import Batch
from headgate.control.store.receipt_columns import RECEIPT
from headgate.model import AttemptRecord
from headgate.model.receipt_ids import first_of
from headgate.policy.admission.periods import DAY_NS, DAY_S

_columns = [column.name for column in RECEIPT]
_CREATED, _ATTEMPTS = _columns.index("created_at"), _columns.index("attempts")
_attempts = msgspec.json.Decoder(tuple[AttemptRecord, ...])
_MEMBERS = {"sqlite": "json_each(attempts) AS one", "postgresql": "json_array_elements(attempts::json) AS one"}
_SPENT = f"""
SELECT created_at / {DAY_NS} AS day, one.value ->> 2 AS account, sum(CAST(one.value ->> 10 AS BIGINT)) AS cost
FROM requests, {{members}}
WHERE requests.id >= :first AND attempts IS NOT NULL AND CAST(one.value ->> 10 AS BIGINT) > 0 GROUP BY 1, 2
"""


class AccountSpend:
    """nano-USD by UTC day and account id.  ``begin`` reads what the store has."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._spent: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.begun = False

    async def begin(self, now: float) -> None:
        """Adds up the running month.  About a second per million calls.  Raises SQLAlchemyError."""
        self.begun = True
        self._spent.clear()
        month, _end = period("month", now)
        query = text(_SPENT.format(members=_MEMBERS[self._engine.dialect.name]))
        async with self._engine.connect() as connection:
            for day, account, cost in await connection.execute(query, {"first": first_of(int(month) * NANO)}):
                self._spent[int(day)][account] += int(cost)

    async def take(self, batch: Batch) -> None:
        """A batch of receipts is in the store (see ``ingest.feed``).  Before ``begin`` it will be read there."""
        if self.begun:
            for row in batch.closed:
                for one in _attempts.decode(row[_ATTEMPTS]) if row[_ATTEMPTS] else ():
                    if one.cost > 0:
                        self._spent[row[_CREATED] // DAY_NS][one.account] += one.cost

    def spent(self, account: str, name: str, now: float) -> int:
        """nano-USD within the running ``day`` or ``month``."""
        begin, _end = period(name, now)
        first = int(begin) // DAY_S
        return sum(costs.get(account, 0) for day, costs in self._spent.items() if day >= first)

    def forget(self, now: float) -> None:
        """Drops the days before the running month."""
        first = int(period("month", now)[0]) // DAY_S
        for day in [day for day in self._spent if day < first]:
            del self._spent[day]


def period(name: str, now: float) -> tuple[float, float]:
    """Begin and end of the UTC ``day`` or ``month`` that ``now`` is in: Unix seconds."""
    if name == "day":
        begin = now // DAY_S * DAY_S
        return begin, begin + DAY_S
    at = datetime.fromtimestamp(now, UTC)
    following = (at.year + at.month // 12, at.month % 12 + 1, 1, 0, 0, 0)
    return float(timegm((at.year, at.month, 1, 0, 0, 0))), float(timegm(following))
