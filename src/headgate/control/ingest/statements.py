"""The recorder's SQL: how rows of receipts, of the sums over them and of the ledger are written.

Every statement may be run again with the same row and changes nothing then; the sums (``count``, ``refuse``,
``balance``) are added to, so their rows must be those of a batch that is not in the store yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, bindparam, case, literal_column, or_
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.base import Executable

from headgate.control.ingest.receipts import EARLY, Batch
from headgate.control.ingest.rejected_rows import Work
from headgate.control.ingest.rollup import BOUNDS, KEYS, SUMS
from headgate.control.ledger.postings import ENTRY
from headgate.control.store.database import journal_offsets, refusals, request_zones, requests, upsert, usage_days
from headgate.control.store.ledger_tables import ledger_balances, ledger_entries
from headgate.control.store.receipt_columns import RECEIPT

LOST: ColumnElement[str] = literal_column("'lost'")

# Written when a call opens; everything else when it closes
OPEN_COLUMNS = tuple(column.name for column in EARLY)
CLOSE_COLUMNS = tuple(column.name for column in RECEIPT)
# Of a call: a close never changes it; the prices are of no use then and go
IDENTITY = tuple(column.name for column in EARLY if not column.closed and not column.until_closed)


@dataclass(frozen=True)
class Statements:
    """The recorder's SQL, compiled once: handing tuples to the driver costs a third of going through SQLAlchemy per
    batch.
    """

    open: str
    progress: str
    close: str
    refuse: str
    offset: str
    count: str
    widen: str
    enter: str
    balance: str

    def of(self, batch: Batch) -> Work:
        """Each kind's statement with its rows, in the order in which they must be written."""
        return (
            ("opened", self.open, batch.opened),
            ("progressed", self.progress, batch.progressed),
            ("closed", self.close, batch.closed),
            ("refused", self.refuse, batch.refused),
        )

    @classmethod
    def compile(cls, engine: AsyncEngine) -> Statements:
        opened = upsert(engine, requests).values({name: bindparam(name) for name in OPEN_COLUMNS})
        closed = upsert(engine, requests).values({name: bindparam(name) for name in CLOSE_COLUMNS})
        excluded = closed.excluded
        refused = upsert(engine, refusals)
        offset = upsert(engine, journal_offsets)
        return cls(
            open=_text(engine, opened.on_conflict_do_nothing(index_elements=["id"]), OPEN_COLUMNS),
            progress=_text(
                engine,
                requests.update()
                .values(completion_tokens=bindparam("tokens"), duration_us=bindparam("elapsed"), held=bindparam("hold"))
                .where(requests.c.id == bindparam("ident"), requests.c.outcome.is_(None)),
                ("tokens", "elapsed", "hold", "ident"),
            ),
            close=_text(
                engine,
                closed.on_conflict_do_update(
                    index_elements=["id"],
                    set_={name: excluded[name] for name in CLOSE_COLUMNS if name not in IDENTITY},
                    # The first end that is known stays; a lost call's may become known later
                    where=or_(
                        requests.c.outcome.is_(None),
                        and_(requests.c.outcome == LOST, excluded.outcome != LOST),
                    ),
                ),
                CLOSE_COLUMNS,
            ),
            refuse=_text(
                engine,
                refused.on_conflict_do_update(
                    index_elements=["second", "code"], set_={"count": refusals.c.count + refused.excluded.count}
                ),
                ("second", "code", "count"),
            ),
            offset=_text(
                engine,
                offset.on_conflict_do_update(index_elements=["file"], set_={"position": offset.excluded.position}),
                ("file", "position"),
            ),
            count=_count(engine),
            widen=_widen(engine),
            enter=_text(
                engine,
                upsert(engine, ledger_entries)
                .values({name: bindparam(name) for name in ENTRY})
                .on_conflict_do_nothing(index_elements=["transfer", "account"]),
                ENTRY,
            ),
            balance=_balance(engine),
        )


def _count(engine: AsyncEngine) -> str:
    days = upsert(engine, usage_days)
    new = days.excluded
    sums = {name: usage_days.c[name] + new[name] for name in SUMS}
    first = case((new.first_at < usage_days.c.first_at, new.first_at), else_=usage_days.c.first_at)
    statement = days.on_conflict_do_update(index_elements=KEYS, set_={**sums, "first_at": first})
    return _text(engine, statement, (*KEYS, *SUMS, "first_at"))


def _widen(engine: AsyncEngine) -> str:
    statement = upsert(engine, request_zones)
    new, old = statement.excluded, request_zones.c
    wider = {name: case((new[name] > old[name], new[name]), else_=old[name]) for name in BOUNDS}
    return _text(engine, statement.on_conflict_do_update(index_elements=["zone"], set_=wider), ("zone", *BOUNDS))


def _balance(engine: AsyncEngine) -> str:
    statement = upsert(engine, ledger_balances)
    added = {"amount": ledger_balances.c.amount + statement.excluded.amount}
    changed = statement.on_conflict_do_update(index_elements=["account", "day"], set_=added)
    return _text(engine, changed, ("account", "day", "amount"))


def _text(engine: AsyncEngine, statement: Executable, order: Sequence[str]) -> str:
    compiled = statement.compile(dialect=engine.dialect)  # type: ignore[attr-defined]
    if list(compiled.positiontup) != list(order):
        raise AssertionError(f"parameters are {compiled.positiontup}, rows are {order}")
    return str(compiled.string)
