"""What every holder of a limit or budget has used, as of a position in the journal: a pure read of the store.

A starting data process begins with it and replays what the journal holds behind that position.  Tokens and tenants are
read from the ledger's balances, by day; the piece of a period before its first whole UTC day, and groups of calls, from
the receipts.  Corrections count in the period of their receipt.  A token's children count against it too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.catalog.money import NANO
from headgate.control.ledger.postings import TENANT, TOKEN
from headgate.control.ledger.tags import tag_value
from headgate.control.ledger.verify import begin_snapshot
from headgate.control.store.database import journal_offsets, requests, tokens
from headgate.control.store.ledger_tables import ledger_balances
from headgate.model import Budget, CallGroup, CallLimits, Snapshot, Spent
from headgate.model.receipt_ids import first_of
from headgate.policy.admission.periods import DAY_S, period

RECENT_S = 60.0
CLOCK_S = 3600.0  # a clock may have been set back by so much since a process began
LOOKED_UP = 5000
_row = requests.c


class Spending(NamedTuple):
    """``positions``: how far each journal file is contained.  ``held``: nano-USD of running calls, by key."""

    positions: dict[str, int]
    spent: tuple[Spent, ...]
    held: dict[str, int]


class Life(NamedTuple):
    """One life of a data process: its ``boot`` in the journal, and when it began (Unix seconds)."""

    boot: str
    since: float


ServedAs = frozenset[tuple[str, str]]
"""Providers and their own names of a model, as receipts have them."""


class _Holder(NamedTuple):
    """A token, a tenant or a group that has a limit or a budget.  ``accounts``: whose calls count, but for a group."""

    key: str
    limits: CallLimits
    budget: Budget | None
    group: CallGroup | None = None
    accounts: tuple[str, ...] = ()
    served: ServedAs = frozenset()  # of a group of a model


class _Holders:
    """All of them, by key; ``of`` says against which a call counts."""

    def __init__(self, each: Iterable[_Holder]) -> None:
        self.by_key = {one.key: one for one in each}
        self.groups = [one for one in self.by_key.values() if one.group is not None]
        self._of_account: dict[str, list[str]] = defaultdict(list)
        for one in self.by_key.values():
            for account in one.accounts:
                self._of_account[account].append(one.key)

    def of(self, row: Mapping[str, Any]) -> Iterator[str]:
        for account in (TOKEN + row["grant_id"], TENANT + (row["tenant"] or "")):
            yield from self._of_account.get(account, ())
        tags = json.loads(row["tags"]) if row["tags"] else {}
        for one in self.groups:
            if one.group is not None and group_matches(one.group, row, tags, one.served):
                yield one.key


async def spending(engine: AsyncEngine, snapshot: Snapshot, now: float, without: Life | None = None) -> Spending:
    """Read it, in one transaction.  ``now`` (Unix seconds) decides which periods run.  ``without``: the calls of this
    process do not count.  Raises SQLAlchemyError.
    """
    others = _row.boot != (without.boot if without else "")
    async with engine.connect() as connection:
        await begin_snapshot(connection)
        holders = await _holders(connection, snapshot)
        positions = {row.file: row.position for row in await connection.execute(select(journal_offsets))}
        spent = await _spent(connection, holders.by_key, now)
        recent = await _recent(connection, holders, now - RECENT_S, others)
        today = await _today(connection, holders.by_key, now // DAY_S * DAY_S)
        running = await _rows(connection, _row.outcome.is_(None) & others)
        own = await _of_life(connection, without) if without else []
    held: dict[str, int] = defaultdict(int)
    for row in running:
        for key in holders.of(row):
            held[key] += row["held"] or 0
    for row in own:
        for key in holders.of(row):
            budget = holders.by_key[key].budget
            if budget is not None and row["created_at"] >= _since(budget, now) * NANO:
                spent[key] -= row["cost"] or 0
            if key in today and row["created_at"] >= now // DAY_S * DAY_S * NANO:
                today[key] -= 1
    found = [
        Spent(
            key, now, spent.get(key, 0), _since(one.budget, now) if one.budget else 0.0, today.get(key, 0),
            tuple(recent.get(key, ())),
        )
        for key, one in holders.by_key.items()
    ]  # fmt: skip
    return Spending(positions, tuple(found), {key: amount for key, amount in held.items() if amount})


async def _holders(connection: AsyncConnection, snapshot: Snapshot) -> _Holders:
    children: dict[str, list[str]] = defaultdict(list)
    for row in await connection.execute(select(tokens.c.id, tokens.c.parent).where(tokens.c.parent != "")):
        children[row.parent].append(TOKEN + row.id)  # the revoked ones too: what they have spent stays spent
    found = []
    for one in snapshot.tokens.values():
        key = TOKEN + one.id
        found.append(_Holder(key, one.limits, one.budget, None, (key, *children.get(one.id, ()))))
    for tenant in snapshot.tenants.values():
        key = TENANT + tenant.name
        found.append(_Holder(key, tenant.limits, tenant.budget, None, (key,)))
    for group in snapshot.groups:
        served = served_as(group.model, snapshot)
        found.append(_Holder(f"group:{group.id}", group.limits, group.budget, group, served=served))
    return _Holders(one for one in found if one.budget is not None or one.limits != CallLimits())


def _since(budget: Budget, now: float) -> float:
    return period(budget.period, budget.zone, now)[0]


async def _spent(connection: AsyncConnection, holders: Mapping[str, _Holder], now: float) -> dict[str, int]:
    """nano-USD of each budget's running period."""
    by_start: dict[float, list[_Holder]] = defaultdict(list)
    for holder in holders.values():
        if holder.budget is not None:
            by_start[_since(holder.budget, now)].append(holder)
    found: dict[str, int] = defaultdict(int)
    for since, these in by_start.items():
        accounts = list({account for one in these for account in one.accounts})
        totals: dict[str, int] = defaultdict(int)
        for start in range(0, len(accounts), LOOKED_UP):
            await _of_accounts(connection, accounts[start : start + LOOKED_UP], since, totals)
        for one in these:
            if one.group is None:
                found[one.key] = sum(totals[account] for account in one.accounts)
            else:
                where = (
                    _row.id >= first_of(int(since * NANO)),
                    *_matching(one.group, connection.dialect.name, one.served),
                )
                found[one.key] = int(await connection.scalar(select(func.sum(_row.cost)).where(*where)) or 0)
    return found


async def _of_accounts(connection: AsyncConnection, accounts: list[str], since: float, found: dict[str, int]) -> None:
    first = -int(-since // DAY_S)  # the first whole day
    account, day, amount = ledger_balances.c.account, ledger_balances.c.day, ledger_balances.c.amount
    whole = select(account, func.sum(amount)).where(account.in_(accounts), day >= first).group_by(account)
    for key, total in await connection.execute(whole):
        found[key] += int(total)
    if first * DAY_S == since:
        return
    within = (_row.id >= first_of(int(since * NANO)), _row.id < first_of(first * DAY_S * NANO))
    for prefix, column in ((TOKEN, _row.grant_id), (TENANT, _row.tenant)):
        names = [name.removeprefix(prefix) for name in accounts if name.startswith(prefix)]
        if names:
            part = select(column, func.sum(_row.cost)).where(*within, column.in_(names)).group_by(column)
            for name, total in await connection.execute(part):
                found[prefix + name] += int(total or 0)


def _matching(group: CallGroup, dialect: str, served: ServedAs) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [
        tag_value(_row.tags, name, dialect) == value for name, value in group.tags.items()
    ]
    if where:
        where.append(_row.tags.is_not(None))
    if group.session:
        where.append(_row.session == group.session)
    if group.user:
        where.append(_row.client_user == group.user)
    if group.model:
        named = _row.model == group.model, _row.provider + "/" + _row.model == group.model
        pairs = [and_(_row.provider == provider, _row.model == model) for provider, model in sorted(served)]
        where.append(or_(*named, *pairs))
    return where


async def _today(connection: AsyncConnection, holders: Mapping[str, _Holder], midnight: float) -> dict[str, int]:
    """Requests since midnight (UTC), of those that have a limit per day."""
    limited = {key: one for key, one in holders.items() if one.limits.rpd is not None}
    counts: dict[str, int] = defaultdict(int)
    since = _row.id >= first_of(int(midnight * NANO))
    accounts = {account for one in limited.values() for account in one.accounts}
    for prefix, column in ((TOKEN, _row.grant_id), (TENANT, _row.tenant)):
        names = [account.removeprefix(prefix) for account in accounts if account.startswith(prefix)]
        for start in range(0, len(names), LOOKED_UP):
            piece = column.in_(names[start : start + LOOKED_UP])
            counted = select(column, func.count()).where(since, piece).group_by(column)
            counts |= {prefix + name: int(count) for name, count in await connection.execute(counted)}
    found = {key: sum(counts[account] for account in one.accounts) for key, one in limited.items()}
    for key, one in limited.items():
        if one.group is not None:
            where = (since, *_matching(one.group, connection.dialect.name, one.served))
            found[key] = int(await connection.scalar(select(func.count()).select_from(requests).where(*where)) or 0)
    return found


async def _recent(
    connection: AsyncConnection, holders: _Holders, since: float, others: ColumnElement[bool]
) -> dict[str, list[tuple[float, int, int]]]:
    """(Unix seconds, requests, tokens) of the last minute's calls, by second, in order."""
    found: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for row in await _rows(connection, (_row.id >= first_of(int(since * NANO))) & others):
        at = float(row["created_at"] // NANO)
        for key in holders.of(row):
            entries = found[key]
            tokens = row["prompt_tokens"] + row["completion_tokens"]
            if entries and entries[-1][0] == at:
                entries[-1] = (at, entries[-1][1] + 1, entries[-1][2] + tokens)
            else:
                entries.append((at, 1, tokens))
    return found


async def _rows(connection: AsyncConnection, where: ColumnElement[bool]) -> list[Mapping[str, Any]]:
    names = ("created_at", "grant_id", "tenant", "session", "client_user", "tags", "provider", "model", "held", "cost")
    columns = [_row[name] for name in (*names, "prompt_tokens", "completion_tokens")]
    query = select(*columns).where(where).order_by(_row.id)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def _of_life(connection: AsyncConnection, life: Life) -> list[Mapping[str, Any]]:
    """The calls of one process."""
    first = first_of(int(max(0.0, life.since - CLOCK_S) * NANO))
    return await _rows(connection, (_row.id >= first) & (_row.boot == life.boot))


def served_as(model: str, snapshot: Snapshot) -> ServedAs:
    """Return the names under which receipts have the calls of ``model``: a row may send another name upstream."""
    found = set()
    for provider in snapshot.providers.values() if model else ():
        for ident, row in (*provider.catalog.items(), *(provider.models or {}).items()):
            if model in (ident, f"{provider.name}/{ident}"):
                found.add((provider.name, row.upstream_model or ident))
    return frozenset(found)


def group_matches(group: CallGroup, row: Mapping[str, Any], tags: Mapping[str, str], served: ServedAs) -> bool:
    """True where a receipt's row counts against a group, whose model is ``served`` under these names."""
    if any(tags.get(name) != value for name, value in group.tags.items()):
        return False
    if group.session and group.session != row["session"]:
        return False
    if group.user and group.user != row["client_user"]:
        return False
    names = row["model"], f"{row['provider']}/{row['model']}"
    return not group.model or group.model in names or (row["provider"], row["model"]) in served
