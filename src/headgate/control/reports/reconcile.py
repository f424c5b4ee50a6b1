"""What a provider says it has charged, beside what the ledger has posted to its account, by UTC day.

The *capture rate* is the part of the provider's figure that this gateway has recorded; the rest did not come through
it, or is priced otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import usd
from headgate.control.ledger.postings import PROVIDER
from headgate.control.store.database import ALL_TOKENS, usage_days
from headgate.control.store.ledger_tables import ledger_balances

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Charged:
    """What an export says of one day: nano-USD, and tokens; None where it does not say."""

    day: date
    cost: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


async def reconcile(engine: AsyncEngine, providers: list[str], charged: Iterable[Charged]) -> dict[str, Any]:
    """The JSON of POST /admin/v1/usage/reconcile: each day of the export, and the sum.  Raises SQLAlchemyError."""
    theirs = _by_day(charged)
    days = [(day - EPOCH).days for day in theirs]
    if not days:
        return {"object": "headgate.reconciliation", "providers": providers, "data": [], "total": _line([], [])}
    ours = await _ours(engine, providers, min(days), max(days))
    lines = [
        {"day": day.isoformat(), **_line([figures], [ours.get((day - EPOCH).days, (0, 0, 0))])}
        for day, figures in sorted(theirs.items())
    ]
    total = _line(list(theirs.values()), [ours.get(day, (0, 0, 0)) for day in days])
    return {"object": "headgate.reconciliation", "providers": providers, "data": lines, "total": total}


Figures = tuple[int | None, int | None, int | None]


def _by_day(charged: Iterable[Charged]) -> dict[date, Figures]:
    found: dict[date, Figures] = {}
    for one in charged:
        before = found.get(one.day, (None, None, None))
        new = (one.cost, one.input_tokens, one.output_tokens)
        cost, asked, answered = (_added(old, more) for old, more in zip(before, new, strict=True))
        found[one.day] = (cost, asked, answered)
    return found


def _added(first: int | None, second: int | None) -> int | None:
    return second if first is None else first if second is None else first + second


async def _ours(engine: AsyncEngine, providers: list[str], first: int, last: int) -> dict[int, tuple[int, int, int]]:
    """By day: nano-USD, prompt and completion tokens."""
    accounts, days = ledger_balances.c, usage_days.c
    costs = (
        select(accounts.day, func.sum(accounts.amount))
        .where(accounts.account.in_([PROVIDER + name for name in providers]), accounts.day.between(first, last))
        .group_by(accounts.day)
    )
    tokens = (
        select(days.day, func.sum(days.prompt_tokens), func.sum(days.completion_tokens))
        .where(days.detail == ALL_TOKENS, days.provider.in_(providers), days.day.between(first, last))
        .group_by(days.day)
    )
    async with engine.connect() as connection:
        charged = {row[0]: -int(row[1]) for row in await connection.execute(costs)}
        counted = {row[0]: (int(row[1]), int(row[2])) for row in await connection.execute(tokens)}
    return {day: (charged.get(day, 0), *counted.get(day, (0, 0))) for day in charged.keys() | counted.keys()}


def _line(theirs: list[Figures], ours: list[tuple[int, int, int]]) -> dict[str, Any]:
    said = [_sum(figures[index] for figures in theirs) for index in range(3)]
    counted = [sum(figures[index] for figures in ours) for index in range(3)]
    cost, recorded = said[0], counted[0]
    basis = next((index for index in (0, 1, 2) if said[index]), None)
    return {
        "provider_cost_usd": usd(cost),
        "cost_usd": usd(recorded),
        "difference_usd": None if cost is None else usd(recorded - cost),
        "provider_input_tokens": said[1],
        "input_tokens": counted[1],
        "provider_output_tokens": said[2],
        "output_tokens": counted[2],
        "capture_rate": None if basis is None else round(counted[basis] / (said[basis] or 1), 6),
    }


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
