"""Usage: totals per UTC day, added up from ``store.usage_days``.

Owns the JSON of the operator's report and of a client's own.  Days count whole: a window is widened to them, and the
report says to which.  Calls without a known price are counted beside the cost, never as 0.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, case, desc, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.catalog.money import NANO, usd
from headgate.catalog.words import Outcome
from headgate.control.reports.response_cache import cached
from headgate.control.store.database import ALL_NAMES, ALL_TOKENS, IN_FULL, requests, usage_days
from headgate.model.receipt_ids import first_of
from headgate.policy.admission.periods import DAY_NS, DAY_S

MAX_GROUPS = 1000
MAX_USES = 5000  # names: they are clients' own words
USES_DAYS = 30
ENDED_WELL: tuple[Outcome, ...] = ("delivered", "cancelled", "budget_exceeded")  # every other outcome is a failure

_day = usage_days.c
_delivered = _day.outcome == "delivered"
_ended_well = _day.outcome.in_(ENDED_WELL)
_answered = _day.outcome.in_((*ENDED_WELL, "truncated"))
_SUMS: dict[str, ColumnElement[Any]] = {
    "requests": func.sum(_day.requests),
    "delivered": func.sum(case((_delivered, _day.requests), else_=0)),
    "failed": func.sum(case((_ended_well, 0), else_=_day.requests)),
    "prompt_tokens": func.sum(_day.prompt_tokens),
    "completion_tokens": func.sum(_day.completion_tokens),
    "cached_tokens": func.sum(_day.cached_tokens),
    "reasoning_tokens": func.sum(_day.reasoning_tokens),
    "cost": func.sum(_day.cost),
    "unpriced_requests": func.sum(_day.unpriced),
}
FIGURES = tuple("cost_usd" if name == "cost" else name for name in _SUMS)  # of a total, in JSON
_KEYS: dict[str, Sequence[ColumnElement[Any]]] = {
    "model": (case((_day.model == "", ""), else_=_day.provider), _day.model),
    "provider": (_day.provider,),
    "requested": (_day.requested,),
    "token": (_day.grant_id,),
    "outcome": (_day.outcome,),
    "day": (_day.day,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilters:
    """None: anything.  ``since`` and ``until`` are Unix ns; the days that they fall into count whole.  ``model`` is
    ``provider/model`` or the model's id alone.
    """

    since: int | None = None
    until: int | None = None
    token: str | None = None
    model: str | None = None
    provider: str | None = None


async def report(engine: AsyncEngine, group_by: str, filters: UsageFilters) -> dict[str, Any]:
    """The JSON of GET /admin/v1/usage: a list of at most MAX_GROUPS, the most used first, days in their order, with the
    ``total`` of all.  ``group_by`` is a key of ``_KEYS``.

    ``failed`` are the calls whose outcome is not in ENDED_WELL.  ``group`` is null for calls whose
    name is not known, where grouped by a name (control/ingest/rollup.py).
    Raises SQLAlchemyError.
    """
    keys = _KEYS[group_by]
    where = [_day.detail == _detail(group_by, filters), *_where(filters)]
    order = (_day.day,) if group_by == "day" else (desc(_SUMS["requests"]), *keys)
    if filters.token is not None:
        where.append(_days())
    groups = select(*keys, *_SUMS.values()).where(*where).group_by(*keys).order_by(*order).limit(MAX_GROUPS + 1)
    async with engine.connect() as connection:
        rows = (await connection.execute(groups)).all()
        whole = (await connection.execute(select(*_SUMS.values()).where(*where))).one()
    since = None if filters.since is None else _first_day(filters.since) * DAY_S
    until = None if filters.until is None else (_last_day(filters.until) + 1) * DAY_S
    window = replace(filters, since=since and since * NANO, until=until and until * NANO)
    width = len(keys)
    return {
        "object": "list",
        "group_by": group_by,
        "since": since,
        "until": until,
        "data": [{"group": _name(group_by, row[:width]), **figures(row[width:])} for row in rows[:MAX_GROUPS]],
        "total": figures(whole),
        "cache": await cached(engine, of_receipts(window)),
        "has_more": len(rows) > MAX_GROUPS,
        "next": None,
    }


async def uses_30d(engine: AsyncEngine) -> tuple[dict[str, int], dict[str, int]]:
    """Requests of the last 30 days that were answered, if only in part: by ``provider/model``, and by the name that was
    asked for.  The most used MAX_USES of each.  Raises SQLAlchemyError.
    """
    since = (_day.detail == ALL_TOKENS, _day.day > _today() - USES_DAYS, _answered)
    uses = desc(_SUMS["requests"])

    async def count(connection: AsyncConnection, *keys: ColumnElement[Any]) -> dict[str, int]:
        query = select(*keys, _SUMS["requests"]).where(*since, keys[-1] != "").group_by(*keys)
        rows = await connection.execute(query.order_by(uses, *keys).limit(MAX_USES))
        return {"/".join(row[:-1]): int(row[-1]) for row in rows}

    async with engine.connect() as connection:
        return await count(connection, _day.provider, _day.model), await count(connection, _day.requested)


async def of_grant(engine: AsyncEngine, grant: str) -> dict[str, Any]:
    """Return the JSON of a client's own GET /v1/usage: the token's usage in all, today and this month (UTC).

    ``cost_usd`` sums the known costs, null without any; ``since``: Unix seconds of the first call, null without one.
    """
    async with engine.connect() as connection:
        of_grant = (_day.detail == ALL_NAMES, _day.grant_id == grant, _days())
        query = select(_day.day, *_SUMS.values(), func.min(_day.first_at))
        rows = (await connection.execute(query.where(*of_grant).group_by(_day.day).order_by(_day.day))).all()
    today = _today()
    month = today - datetime.fromtimestamp(today * DAY_S, UTC).day + 1
    return {
        "object": "headgate.usage",
        **_own(rows),
        "since": rows[0][-1] // NANO if rows else None,
        "today": _own([row for row in rows if row.day == today]),
        "month": _own([row for row in rows if row.day >= month]),
    }


def _days() -> ColumnElement[bool]:
    """Return every day in the table, each found by one look-up.  The key begins with the day, so a token's rows also
    take a look-up per day, not a scan of all tokens' rows.
    """
    known = usage_days.alias()
    first = select(func.min(known.c.day).label("day")).where(known.c.detail == ALL_NAMES)
    days = first.cte("days", recursive=True)
    following = select(func.min(known.c.day)).where(known.c.detail == ALL_NAMES, known.c.day > days.c.day)
    days = days.union_all(select(following.scalar_subquery()).where(days.c.day.is_not(None)))
    return _day.day.in_(select(days.c.day).where(days.c.day.is_not(None)))


def _detail(group_by: str, filters: UsageFilters) -> int:
    """The coarsest of the three sums that tells apart what is asked for."""
    tokens = group_by == "token" or filters.token is not None
    names = group_by in ("model", "provider", "requested") or (filters.model, filters.provider) != (None, None)
    if tokens:
        return IN_FULL if names else ALL_NAMES
    return ALL_TOKENS


def _where(filters: UsageFilters) -> list[ColumnElement[bool]]:
    # A day whose only call was put right is empty; a target may have written a part of other targets' answers alone
    found: list[ColumnElement[bool]] = [or_(_day.requests > 0, _day.completion_tokens > 0)]
    if filters.since is not None:
        found.append(_day.day >= _first_day(filters.since))
    if filters.until is not None:
        found.append(_day.day <= _last_day(filters.until))
    return found + named(_day, filters)


def of_receipts(filters: UsageFilters) -> list[ColumnElement[bool]]:
    """The conditions for receipts' rows of ended calls that began within ``since`` and ``until``, to the instant."""
    found: list[ColumnElement[bool]] = [requests.c.outcome.is_not(None)]
    if filters.since is not None:
        found.append(requests.c.id >= first_of(filters.since))
    if filters.until is not None:
        found.append(requests.c.id < first_of(filters.until))
    return found + named(requests.c, filters)


def named(columns: Any, filters: UsageFilters) -> list[ColumnElement[bool]]:
    """The conditions of the filters that name something, for ``columns`` of receipts or of days."""
    found: list[ColumnElement[bool]] = []
    if filters.token is not None:
        found.append(columns.grant_id == filters.token)
    if filters.provider is not None:
        found.append(columns.provider == filters.provider)
    if filters.model is not None:
        found.append(or_(columns.model == filters.model, columns.provider + "/" + columns.model == filters.model))
    return found


def _today() -> int:
    return int(time.time()) // DAY_S


def _first_day(since: int) -> int:
    return since // DAY_NS


def _last_day(until: int) -> int:
    """``until`` itself is too late."""
    return (until - 1) // DAY_NS


def _name(group_by: str, key: Sequence[Any]) -> str | None:
    if group_by == "day":
        return datetime.fromtimestamp(key[0] * DAY_S, UTC).date().isoformat()
    return "/".join(key) if key[-1] else None


def figures(row: Sequence[Any]) -> dict[str, Any]:
    """The JSON of sums in the order of ``_SUMS``; one more is what the operator's providers charge."""
    found: dict[str, Any] = {name: int(value or 0) for name, value in zip(_SUMS, row, strict=False)}
    found["cost_usd"] = _cost(found.pop("cost"), found["unpriced_requests"])
    found["operator_cost_usd"] = usd(int(row[len(_SUMS)] or 0)) if len(row) > len(_SUMS) else None
    return found


def _cost(nano: int, unpriced: int) -> float | None:
    return None if unpriced and not nano else usd(nano)


def _own(rows: Sequence[Any]) -> dict[str, Any]:
    """The sum of rows (day, _SUMS, first_at), as far as a client's business goes."""
    total = {name: sum(int(row[1 + index]) for row in rows) for index, name in enumerate(_SUMS)}
    return {
        "requests": total["requests"],
        "prompt_tokens": total["prompt_tokens"],
        "completion_tokens": total["completion_tokens"],
        "total_tokens": total["prompt_tokens"] + total["completion_tokens"],
        "cost_usd": _cost(total["cost"], total["unpriced_requests"]),
        "unpriced_requests": total["unpriced_requests"],
    }
