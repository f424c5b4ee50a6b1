"""Questions to the table of requests: one of them, or a page of those that a filter lets through, newest first.

``receipts`` makes a row's JSON.  A page is read along one index, backwards from the cursor, and never sorted: ids are
ordered by time.  Where several filters are given, the rarest one leads; minima of cost and duration skip the stretches
of time that hold nothing so large (``store.request_zones``).  Refuses cursors that are not its own, and to search for
long: a page may come back short, with a cursor to go on from.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, Text, func, literal, literal_column, select, true
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.control.reports.receipts import view
from headgate.control.store.database import (
    CONTINUED,
    LABELLED,
    OF_TENANT,
    UNDELIVERED,
    WITH_CODE,
    ZONE_LENGTH,
    request_zones,
    requests,
)
from headgate.model import receipt_ids
from headgate.model.receipt_ids import bare, first_of

MAX_LIMIT = 500
BUDGET_S = 0.15  # of looking for rows that pass several filters; then the page ends as it is
FIRST_WINDOW, WIDEST_WINDOW = 1000, 16_000  # rows that are looked at before the clock is
ROWS_A_ZONE = 50  # a guess: at a hundred thousand calls a day they are eighty
DELIVERED = "delivered"
RUNNING = "running"  # as an outcome: of calls that have none yet
COLUMNS = {name: name for name in ("label", "code", "outcome", "requested", "model", "provider", "tenant")} | {
    "token": "grant_id"
}
AFTER = "g"  # comes after any hex digit


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilters:
    """The filter of a list; None: any value.  ``token`` is a grant's id, ``model`` the upstream's model id or
    ``provider/model`` (either reading passes, as in usage).  ``requested`` is the name that the client used,
    ``outcome`` one of model.Closed's, ``lost`` or ``running``.
    """

    token: str | None = None
    model: str | None = None
    requested: str | None = None
    provider: str | None = None
    outcome: str | None = None
    code: str | None = None
    stream: bool | None = None
    label: str | None = None
    since: int | None = None  # Unix ns, of the call's beginning, to the millisecond
    until: int | None = None  # the first that is too late
    continued: bool | None = None  # its stream went on at another attempt
    min_cost: int | None = None  # nano-USD; a call of unknown cost does not pass
    min_duration_us: int | None = None
    tenant: str | None = None  # that the call's token had when it began


@dataclass(frozen=True, slots=True)
class RequestPage:
    """``rows`` as JSON objects; ``next`` is the cursor of the page after this one, None on the last."""

    rows: list[dict[str, Any]]
    next: str | None

    @property
    def has_more(self) -> bool:
        return self.next is not None


async def page(engine: AsyncEngine, filters: RequestFilters, limit: int = 50, cursor: str | None = None) -> RequestPage:
    """Up to ``limit`` (1–500) requests, newest first, after ``cursor`` (a page's ``next``).  It may have fewer
    although there is a ``next``: after BUDGET_S the rows found so far are returned, and the next page continues there.

    Raises ValueError with a sentence on a cursor that is none or a limit out of bounds, SQLAlchemyError.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be between 1 and {MAX_LIMIT}.")
    bounds = _bounds(filters, None if cursor is None else _ident(cursor))
    readings = _readings(filters)
    found: list[RowMapping] = []
    reached: list[str] = []
    async with engine.connect() as connection:
        for filters in readings:
            until = time.monotonic() + BUDGET_S / len(readings)
            rows, lowest = await _read(connection, filters, bounds, limit, until)
            found += rows
            reached += [] if lowest is None else [lowest]
    # Above where one of them stopped, all is known of each
    horizon = max(reached, default=None)
    known = sorted((row for row in found if row["id"] >= (horizon or "")), key=lambda row: row["id"], reverse=True)
    if len(known) > limit:
        horizon = known[limit - 1]["id"]
    return RequestPage([view(row) for row in known[:limit]], None if horizon is None else _cursor(horizon))


async def _read(
    connection: AsyncConnection, filters: RequestFilters, bounds: Bounds, limit: int, until: float
) -> tuple[list[RowMapping], str | None]:
    """Return the newest rows within ``bounds``, one more than ``limit`` if there are so many.  Also how far back all
    rows have been read (None: to the end).
    """
    size = FIRST_WINDOW
    rows: list[RowMapping] = []
    while True:
        window = await _window(connection, filters, bounds, size)
        query = _query(filters, window, connection.dialect.name, limit + 1 - len(rows))
        rows += (await connection.execute(query)).mappings()
        if len(rows) > limit:
            return rows, rows[-1]["id"]
        if window.last:
            return rows, None
        bounds = bounds[0], window.bounds[0]
        if time.monotonic() > until:
            return rows, bounds[1] or ""
        size = min(size * 4, WIDEST_WINDOW)


async def one(
    engine: AsyncEngine, ident: str, grant: str | None = None, tenant: str | None = None
) -> dict[str, Any] | None:
    """The request with this ``chatcmpl-`` id, or the latest under this label of a client's own; where given, of
    ``grant`` and of ``tenant`` alone.  None: there is none.  Raises SQLAlchemyError.
    """
    row = await find(engine, ident, grant, tenant)
    return None if row is None else view(row)


async def find(
    engine: AsyncEngine, ident: str, grant: str | None = None, tenant: str | None = None
) -> RowMapping | None:
    """As ``one``, the row."""
    labelled = select(requests).where(requests.c.label == ident, LABELLED).order_by(requests.c.id.desc()).limit(1)
    # A label may look like an id of ours: that of a client which is a gateway itself
    own = bare(ident)
    queries = [] if own is None else [select(requests).where(requests.c.id == own)]
    owned = [] if grant is None else [requests.c.grant_id == grant]
    owned += [] if tenant is None else [requests.c.tenant == tenant]
    async with engine.connect() as connection:
        for query in (*queries, labelled):
            if row := (await connection.execute(query.where(*owned))).mappings().first():
                return row
    return None


# ------------------------------------------------------------------------------------- how a page is read

Conditions = list[ColumnElement[bool]]
Bounds = tuple[str | None, str | None]


def _bounds(filters: RequestFilters, before: str | None) -> Bounds:
    """``since``, ``until`` and the cursor, all as bounds of the key: the first that passes, the first that does not."""
    ends = [end for end in (before, None if filters.until is None else first_of(filters.until)) if end is not None]
    return None if filters.since is None else first_of(filters.since), min(ends, default=None)


def _between(key: ColumnElement[str], bounds: Bounds) -> Conditions:
    first, end = bounds
    return [*([] if first is None else [key >= first]), *([] if end is None else [key < end])]


def _cursor(ident: str) -> str:
    return base64.urlsafe_b64encode(ident.encode()).decode()


def _ident(cursor: str) -> str:
    try:
        ident = bare(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode("ascii"))
    except ValueError:
        ident = None
    if ident is None:
        raise ValueError("This cursor is not the `next` of a page of requests.")
    return ident


def _readings(filters: RequestFilters) -> list[RequestFilters]:
    """A name with a slash is a model's whole id, and a provider's model.  No row is both; each has its own indexes."""
    name = filters.model
    provider, slash, model = (name or "").partition("/")
    if not slash or filters.provider not in (None, provider):
        return [filters]
    return [filters, replace(filters, provider=provider, model=model)]


@dataclass(frozen=True, slots=True)
class _Window:
    """The next reading: ``bounds`` of the key, the filter whose index leads, the zones that lead before it.
    ``last``: nothing that passes lies further back.
    """

    bounds: Bounds
    leader: str | None
    zones: Conditions
    last: bool


async def _window(connection: AsyncConnection, filters: RequestFilters, bounds: Bounds, size: int) -> _Window:
    """Return how far back about ``size`` rows of any kind reach.

    The rarest filter leads.  Neither database knows which that is: SQLite has no statistics, and PostgreSQL's are about
    a column, not about what lies before a cursor.
    """
    first, end = bounds
    leaders = _leaders(filters)
    leader = next(iter(leaders), None)
    if _given(filters) <= {leader, "since", "until"}:
        return _Window(bounds, leader, [], last=True)  # every row that is read is wanted
    if leaders:
        leader, count, lowest = await _rarest(connection, leaders, bounds, size)
        if count < size:
            return _Window(bounds, leader, [], last=True)
    zones = _zones(filters, alone=not leaders)
    if zones:
        zone = request_zones.c.zone
        probe = select(zone).where(*zones, *_between(zone, _zone_bounds(bounds))).order_by(zone.desc())
        count, lowest = await _reach(connection, [probe.limit(size // ROWS_A_ZONE)])
        if count < size // ROWS_A_ZONE:
            return _Window(bounds, leader, zones, last=True)
        lowest = max(lowest.ljust(receipt_ids.LENGTH, "0"), first or "")
    elif not leaders:
        return _Window(bounds, None, [], last=True)
    return _Window((lowest, end), leader, zones, last=False)


def _query(filters: RequestFilters, window: _Window, dialect: str, limit: int) -> Select[Any]:
    where = [*_between(requests.c.id, window.bounds), *_others(filters, window.leader, dialect)]
    if window.leader is not None:
        where += _leaders(filters)[window.leader].conditions(within_zones=bool(window.zones))
    if not window.zones:
        return select(requests).where(*where).order_by(requests.c.id.desc()).limit(limit)
    zone = request_zones.c.zone
    within = [*window.zones, *_between(zone, _zone_bounds(window.bounds))]
    where += [requests.c.id >= zone, requests.c.id < zone + AFTER]
    if dialect == "sqlite":
        return select(requests).where(*within, *where).order_by(zone.desc(), requests.c.id.desc()).limit(limit)
    # PostgreSQL would rather read the whole table once than a little of it per zone, unless it is told not to
    inside = (
        select(requests).where(*where).order_by(requests.c.id.desc()).limit(limit).correlate(request_zones).lateral()
    )
    found = select(inside).select_from(request_zones.join(inside, true())).where(*within)
    return found.order_by(zone.desc(), inside.c.id.desc()).limit(limit)


def _zone_bounds(bounds: Bounds) -> Bounds:
    first, end = bounds
    return first and first[:ZONE_LENGTH], end and end[:ZONE_LENGTH] + AFTER


def _given(filters: RequestFilters) -> set[str]:
    return {name for name in RequestFilters.__slots__ if getattr(filters, name) is not None}


@dataclass(frozen=True, slots=True)
class _Leader:
    """A filter with an index of its own, which ends in the key.  ``also`` is what makes a partial one usable."""

    column: ColumnElement[Any]
    value: str | None
    also: ColumnElement[bool] | None = None

    def conditions(self, within_zones: bool = False) -> Conditions:
        """Within zones the index must be used inside each, after it.  A value that seems to come from the zone makes
        the planner do so.
        """
        value = self.value
        nothing = func.substr(request_zones.c.zone, ZONE_LENGTH + 1)
        equal = self.column == (literal(value) + nothing if within_zones and value is not None else value)
        return [equal] if self.also is None else [equal, self.also]


def _leaders(filters: RequestFilters) -> dict[str, _Leader]:
    c = requests.c
    found: dict[str, _Leader] = {}
    if filters.label is not None:
        found["label"] = _Leader(c.label, filters.label, LABELLED)
    if filters.code:
        found["code"] = _Leader(c.code, filters.code, WITH_CODE)
    if filters.continued:
        found["continued"] = _Leader(literal("1"), "1", CONTINUED)  # the index has no column but the key
    if filters.outcome == RUNNING:
        found["outcome"] = _Leader(c.outcome, None)
    elif filters.outcome is not None and filters.outcome != DELIVERED:
        found["outcome"] = _Leader(c.outcome, filters.outcome, UNDELIVERED)
    if filters.tenant is not None:
        found["tenant"] = _Leader(c.tenant, filters.tenant, OF_TENANT)
    for name in ("requested", "model", "token", "provider"):
        value = getattr(filters, name)
        if value is not None:
            found[name] = _Leader(c[COLUMNS[name]], value)
    return found


async def _rarest(
    connection: AsyncConnection, leaders: Mapping[str, _Leader], bounds: Bounds, size: int
) -> tuple[str, int, str]:
    """Return the one with the fewest rows, or, if all have ``size``, the one whose newest ``size`` go back the
    furthest.  Also its count and how far they go back.
    """
    key = requests.c.id
    probes = [
        select(key).where(*leader.conditions(), *_between(key, bounds)).order_by(key.desc()).limit(size)
        for leader in leaders.values()
    ]
    row = await _reach(connection, probes)
    count, lowest, name = min((row[2 * index], row[2 * index + 1], name) for index, name in enumerate(leaders))
    return name, count, lowest


async def _reach(connection: AsyncConnection, probes: Sequence[Select[Any]]) -> tuple[Any, ...]:
    """Of each: how many it finds, and the lowest."""
    figures: list[Any] = []
    for probe in probes:
        found = probe.subquery()
        lowest = func.coalesce(func.min(found.c[0]), "")
        figures += [select(func.count()).select_from(found).scalar_subquery(), select(lowest).scalar_subquery()]
    return tuple((await connection.execute(select(*figures))).one())


def _others(filters: RequestFilters, leader: str | None, dialect: str) -> Conditions:
    """Every filter but the leader, so written that SQLite does not take an index of theirs instead."""
    c = requests.c
    found: Conditions = []
    for name, column in COLUMNS.items():
        value = getattr(filters, name)
        if value is None or name == leader:
            continue
        subject = literal_column(f"+requests.{column}", Text) if dialect == "sqlite" else c[column]
        found.append(subject == (None if (name, value) == ("outcome", RUNNING) else value))
    if filters.stream is not None:
        found.append(c.stream == filters.stream)
    if filters.continued is not None and leader != "continued":
        found.append(CONTINUED if filters.continued else c.continued.is_(None))
    if filters.min_cost is not None:
        found.append(c.cost >= filters.min_cost)
    if filters.min_duration_us is not None:
        found.append(c.duration_us >= filters.min_duration_us)
    return found


def _zones(filters: RequestFilters, alone: bool) -> Conditions:
    """Return the condition on a stretch of time that may contain a passing row.  ``alone``: no index leads, so that
    zones are all there is against reading everything where streams, or the others, are rare.
    """
    z = request_zones.c
    found: Conditions = []
    if filters.stream is not None and alone:
        found.append((z.streamed if filters.stream else z.plain).is_(True))
    if filters.min_cost is not None:
        found.append(z.max_cost >= filters.min_cost)
    if filters.min_duration_us is not None:
        found.append(z.max_duration_us >= filters.min_duration_us)
    return found
