"""Usage by what no sum is kept of: tenants, sessions, users, tags and hours; and of calls chosen by these.

Adds up the receipts' rows of a window, which is exact to the instant and takes time in proportion to its calls
(``usage`` answers what sums of days can).  Calls that several targets wrote count at the one that ended them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, desc, func, select, true
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.money import NANO
from headgate.control.ledger.tags import as_json, tag_value
from headgate.control.reports.response_cache import cached
from headgate.control.reports.usage import ENDED_WELL, MAX_GROUPS, UsageFilters, figures, of_receipts
from headgate.control.store.database import requests
from headgate.policy.admission.periods import DAY_NS, DAY_S

HOUR_NS = 3600 * NANO
GROUPS = ("tenant", "session", "user", "tag", "hour")

_row = requests.c
_ended_well = _row.outcome.in_(ENDED_WELL)
_SUMS: tuple[ColumnElement[Any], ...] = (
    func.count(),
    func.sum(case((_row.outcome == "delivered", 1), else_=0)),
    func.sum(case((_ended_well, 0), else_=1)),
    func.sum(_row.prompt_tokens),
    func.sum(_row.completion_tokens),
    func.sum(func.coalesce(_row.cached_tokens, 0)),
    func.sum(func.coalesce(_row.reasoning_tokens, 0)),
    func.sum(func.coalesce(_row.cost, 0)),
    func.sum(case((_row.cost.is_(None) & (_row.prompt_tokens + _row.completion_tokens > 0), 1), else_=0)),
)
_OPERATOR = func.sum(func.coalesce(_row.operator_cost, _row.cost, 0))
_KEYS: dict[str, ColumnElement[Any]] = {
    "tenant": _row.tenant,
    "session": _row.session,
    "user": _row.client_user,
    "hour": _row.created_at.op("/")(HOUR_NS),  # of integers, which both databases cut
    "day": _row.created_at.op("/")(DAY_NS),
    "model": case((_row.model == "", ""), else_=_row.provider + "/" + _row.model),
    "provider": _row.provider,
    "requested": _row.requested,
    "token": _row.grant_id,
    "outcome": _row.outcome,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Which calls, beside ``UsageFilters``; None: any.  ``tag`` is ``name=value``, or a name: whatever its value."""

    tenant: str | None = None
    session: str | None = None
    user: str | None = None
    tag: str | None = None

    def __bool__(self) -> bool:
        return any((self.tenant, self.session, self.user, self.tag))


async def report(engine: AsyncEngine, group_by: str, filters: UsageFilters, labels: Labels) -> dict[str, Any]:
    """As ``usage.report``, of the calls that began within ``filters.since`` and ``until``, to the instant.  Raises
    SQLAlchemyError.
    """
    where = [*of_receipts(filters), *_labelled(labels, engine.dialect.name)]
    key, source = _grouped(group_by, engine.dialect.name)
    groups: Select[Any] = select(key, *_SUMS, _OPERATOR).select_from(source).where(*where).group_by(key)
    order: Sequence[Any] = (key,) if group_by in ("day", "hour") else (desc(_SUMS[0]), key)
    async with engine.connect() as connection:
        rows = (await connection.execute(groups.order_by(*order).limit(MAX_GROUPS + 1))).all()
        whole = (await connection.execute(select(*_SUMS, _OPERATOR).where(*where))).one()
    return {
        "object": "list",
        "group_by": group_by,
        "since": None if filters.since is None else filters.since // NANO,
        "until": None if filters.until is None else filters.until // NANO,
        "data": [{"group": _name(group_by, row[0]), **figures(row[1:])} for row in rows[:MAX_GROUPS]],
        "total": figures(whole),
        "cache": await cached(engine, where),
        "has_more": len(rows) > MAX_GROUPS,
        "next": None,
    }


def _grouped(group_by: str, dialect: str) -> tuple[ColumnElement[Any], Any]:
    """The key, and where the rows come from: a call counts in the group of each of its tags."""
    if group_by != "tag":
        return _KEYS[group_by], requests
    pairs = func.json_each(_row.tags) if dialect == "sqlite" else func.json_each_text(as_json(_row.tags))
    table = pairs.table_valued("key", "value", name="tag")
    return table.c.key + "=" + table.c.value, requests.join(table, true())


def _labelled(labels: Labels, dialect: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for column, value in (
        (_row.tenant, labels.tenant),
        (_row.session, labels.session),
        (_row.client_user, labels.user),
    ):
        if value is not None:
            found.append(column == value)
    if labels.tag is not None:
        name, _, value = labels.tag.partition("=")
        found.append(_row.tags.is_not(None))
        of_tag = tag_value(_row.tags, name, dialect)
        found.append(of_tag == value if value else of_tag.is_not(None))
    return found


def _name(group_by: str, key: Any) -> str | None:
    if key is None or key == "":
        return None
    if group_by == "day":
        return datetime.fromtimestamp(int(key) * DAY_S, UTC).date().isoformat()
    if group_by == "hour":
        return datetime.fromtimestamp(int(key) * 3600, UTC).strftime("%Y-%m-%dT%H:00Z")
    return str(key)
