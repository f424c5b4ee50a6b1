"""The audit log's rows: written in the transaction of the change, chained by hashes, listed and verified.

Owns the tables ``audit`` and ``audit_head``.  A row's hash is SHA-256 over the hash of the row before it and the row's
own content.  The head is one row: its lock puts concurrent changes one behind the other, on SQLite and PostgreSQL.
Refuses to change or delete a row; the database's triggers do, too.  A secret is never in a row: callers describe
objects without them (``changed_secret`` says that one is new).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.control.store.access_tables import audit, audit_head

GENESIS = bytes(32)  # the hash before the first row
VERIFIED_AT_ONCE = 1000

ActorKind = Literal["user", "admin_token", "oidc", "file", "gateway", "stranger"]
Description = Mapping[str, Any]  # what of an object may be shown, as JSON


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something.  ``session``: its public id; ``address``: where the request came from."""

    kind: ActorKind
    name: str = ""
    session: str | None = None
    address: str = ""


GATEWAY = Actor("gateway", "headgate")  # what the gateway does by itself
FILE = Actor("file", "configuration file")

# Of the request that runs.  The API's door sets it, so that no change can forget to say who made it.
ACTOR: ContextVar[Actor] = ContextVar("actor", default=GATEWAY)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object.  ``before`` is None for a new one, ``after`` for one that is gone."""

    noun: str
    object: str
    action: str
    before: Description | None = None
    after: Description | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """``at``: Unix ns.  ``before`` and ``after``: JSON, as they were written."""

    seq: int
    at: int
    actor_kind: str
    actor: str
    session: str | None
    address: str
    noun: str
    object: str
    action: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """``before``: only rows with a smaller number.  Instants are Unix ns."""

    actor: str | None = None
    noun: str | None = None
    object: str | None = None
    action: str | None = None
    since: int | None = None
    until: int | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class ChainState:
    """``rows``: how many are sound.  ``broken``: the number of the first row that is not, and why.  ``head``: the hash
    of the last sound row, in hex: written down elsewhere, it shows later whether the whole log was replaced.
    """

    rows: int
    head: str
    broken: int | None = None
    reason: str | None = None


@asynccontextmanager
async def changing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction of changes that are recorded.  Others wait until it ends, so that no two of them lock the same rows
    in another order; and nothing that it reads changes before it writes.  Raises SQLAlchemyError.
    """
    async with engine.begin() as connection:
        await _lock(connection)
        yield connection


async def record(connection: AsyncConnection, *changes: Change, actor: Actor | None = None) -> None:
    """Appends a row for each change, in the transaction of ``changing``.  Raises SQLAlchemyError."""
    if not changes:
        return
    who = actor or ACTOR.get()
    await _lock(connection)
    seq, hashed = (await connection.execute(select(audit_head.c.seq, audit_head.c.hash))).one()
    at = time.time_ns()
    for change in changes:
        seq += 1
        row = AuditRow(
            seq, at, who.kind, who.name, who.session, who.address, change.noun, change.object, change.action,
            _text(change.before), _text(change.after),
        )  # fmt: skip
        hashed = row_hash(row, bytes(hashed))
        values = {name: getattr(row, name) for name in AuditRow.__slots__}
        await connection.execute(insert(audit).values(**values, hash=hashed))
    await connection.execute(update(audit_head).values(seq=seq, hash=hashed))


async def _lock(connection: AsyncConnection) -> None:
    """A write, because on SQLite this is what begins a transaction."""
    await connection.execute(update(audit_head).values(seq=audit_head.c.seq))


async def record_alone(engine: AsyncEngine, *changes: Change, actor: Actor | None = None) -> None:
    """As ``record``, in a transaction of its own: for what changes nothing in the store.  Raises SQLAlchemyError."""
    async with changing(engine) as connection:
        await record(connection, *changes, actor=actor)


def changed_secret(description: Description) -> dict[str, Any]:
    """The description of an object whose secret is another one now."""
    return {**description, "secret": "changed"}


def differences(noun: str, before: Mapping[str, Description], after: Mapping[str, Description]) -> list[Change]:
    """The changes from one set of objects to another, by id."""
    found = [Change(noun, name, "deleted", old) for name, old in before.items() if name not in after]
    for name, new in after.items():
        old = before.get(name)
        if old != new:
            found.append(Change(noun, name, "created" if old is None else "changed", old, new))
    return found


def row_hash(row: AuditRow, previous: bytes) -> bytes:
    """What a row's ``hash`` must be, behind the row whose hash is ``previous``."""
    content = [getattr(row, name) for name in AuditRow.__slots__]
    return hashlib.sha256(previous + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()).digest()


def _text(description: Description | None) -> str | None:
    if description is None:
        return None
    return json.dumps(description, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _row(row: Row[Any]) -> AuditRow:
    return AuditRow(*(getattr(row, name) for name in AuditRow.__slots__))


async def page(engine: AsyncEngine, filters: AuditFilters, limit: int) -> Sequence[AuditRow]:
    """At most ``limit`` rows that match, the newest first.  Raises SQLAlchemyError."""
    query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    for name in ("actor", "noun", "object", "action"):
        if (wanted := getattr(filters, name)) is not None:
            query = query.where(audit.c[name] == wanted)
    if filters.since is not None:
        query = query.where(audit.c.at >= filters.since)
    if filters.until is not None:
        query = query.where(audit.c.at < filters.until)
    if filters.before is not None:
        query = query.where(audit.c.seq < filters.before)
    async with engine.connect() as connection:
        return [_row(row) for row in await connection.execute(query)]


async def verify(engine: AsyncEngine) -> ChainState:
    """Walks the whole chain, from its first row to the head.  Raises SQLAlchemyError."""
    seq, hashed = 0, GENESIS
    async with engine.connect() as connection:
        head = (await connection.execute(select(audit_head.c.seq, audit_head.c.hash))).first()
        while True:
            query = select(audit).where(audit.c.seq > seq).order_by(audit.c.seq).limit(VERIFIED_AT_ONCE)
            rows = (await connection.execute(query)).all()
            for row in rows:
                reason = _fault(row, seq + 1, hashed, head)
                if reason:
                    return ChainState(seq, hashed.hex(), seq + 1, reason)
                seq, hashed = row.seq, bytes(row.hash)
            if len(rows) < VERIFIED_AT_ONCE:
                break
    if head is None or head.seq > seq:
        return ChainState(seq, hashed.hex(), seq + 1, "it is missing at the end")
    return ChainState(seq, hashed.hex())


def _fault(row: Row[Any], expected: int, previous: bytes, head: Row[Any, Any] | None) -> str | None:
    if row.seq != expected:
        return "it is missing"
    if row_hash(_row(row), previous) != bytes(row.hash):
        return "its content or its hash was changed"
    if head is not None and row.seq == head.seq and bytes(row.hash) != bytes(head.hash):
        return "it is not the row that was written last"
    return None
