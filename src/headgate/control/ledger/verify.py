"""Check the ledger: entries add up to 0, holds are those of running calls, every receipt and journal record is posted.

Reads only, in one transaction but for the journal's files.  Every check finds at most ``SHOWN`` examples.  Calls that
ended before the ledger began (``meta.ledger_begins``) are checked in sum, by token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.control.ledger.charges import MOST
from headgate.control.store.database import IN_FULL, journal_offsets, read_meta, requests
from headgate.model import Closed
from headgate.model.receipt_ids import LENGTH
from headgate.wire.records import HEADER, MAX_RECORD, next_sound, scan

SHOWN = 5
PIECE = 1 << 20  # of a journal file, read at a time
LOOKED_UP = 5000

_OWN = "transfer NOT LIKE '%:reprice:%'"  # what a receipt alone has caused
_RECEIPT = "substr(transfer, 1, 24)"

# Each finds what must not be.  `begins`: the last id before the ledger.
CHECKS = {
    "entries add up to 0": f"""
        SELECT transfer, SUM(amount) FROM ledger_entries GROUP BY transfer HAVING SUM(amount) <> 0 LIMIT {SHOWN}""",
    "balances are the sums of entries": f"""
        SELECT account, day, SUM(amount) FROM (
            SELECT account, day, amount FROM ledger_entries
            UNION ALL SELECT account, day, -amount FROM ledger_balances
        ) AS summed GROUP BY account, day HAVING SUM(amount) <> 0 LIMIT {SHOWN}""",
    "holds are those of running calls": f"""
        SELECT id, SUM(amount) FROM (
            SELECT {_RECEIPT} AS id, amount FROM ledger_entries WHERE account LIKE 'held:%'
            UNION ALL SELECT id, -held FROM requests WHERE outcome IS NULL AND held > 0
        ) AS summed GROUP BY id HAVING SUM(amount) <> 0 LIMIT {SHOWN}""",
    "receipts are posted": f"""
        SELECT id, SUM(amount) FROM (
            SELECT {_RECEIPT} AS id, amount FROM ledger_entries
            WHERE account LIKE 'token:%' AND {_OWN} AND transfer > :begins AND transfer NOT LIKE 'opening:%'
            UNION ALL SELECT id, -cost FROM requests WHERE outcome IS NOT NULL AND cost > 0 AND id > :begins
        ) AS summed WHERE id > :begins GROUP BY id HAVING SUM(amount) <> 0 LIMIT {SHOWN}""",
    "providers' charges are posted": f"""
        SELECT id, SUM(amount) FROM (
            SELECT {_RECEIPT} AS id, amount FROM ledger_entries
            WHERE account LIKE 'provider:%' AND {_OWN} AND transfer > :begins AND transfer NOT LIKE 'opening:%'
            UNION ALL SELECT id, coalesce(operator_cost, cost) FROM requests
            WHERE outcome IS NOT NULL AND id > :begins AND (operator_cost IS NOT NULL OR provider <> '')
        ) AS summed WHERE id > :begins GROUP BY id HAVING SUM(amount) <> 0 LIMIT {SHOWN}""",
    "earlier receipts are in the opening": f"""
        SELECT account, SUM(amount) FROM (
            SELECT account, amount FROM ledger_entries
            WHERE account LIKE 'token:%' AND {_OWN} AND (transfer LIKE 'opening:%' OR {_RECEIPT} <= :begins)
            UNION ALL SELECT 'token:' || grant_id, -cost FROM requests
            WHERE outcome IS NOT NULL AND cost > 0 AND id <= :begins
        ) AS summed GROUP BY account HAVING SUM(amount) <> 0 LIMIT {SHOWN}""",
    "usage is the sum of receipts": f"""
        SELECT name, SUM(amount) FROM (
            SELECT 'requests' AS name, requests AS amount FROM usage_days WHERE detail = {IN_FULL}
            UNION ALL SELECT 'cost', cost FROM usage_days WHERE detail = {IN_FULL}
            UNION ALL SELECT 'requests', -count(*) FROM requests WHERE outcome IS NOT NULL
            UNION ALL SELECT 'cost', -cost FROM requests WHERE outcome IS NOT NULL AND cost > 0
        ) AS summed GROUP BY name HAVING SUM(amount) <> 0""",
}
JOURNAL = "the journal is recorded"


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """``found``: examples of what is wrong, a sentence each."""

    name: str
    found: Sequence[str]

    @property
    def ok(self) -> bool:
        return not self.found


async def verify(engine: AsyncEngine, journal: Path) -> list[LedgerCheck]:
    """Run every check.  The recorder must have caught up.  Raises SQLAlchemyError, OSError."""
    async with engine.connect() as connection:
        await begin_snapshot(connection)
        begins = await read_meta(connection, "ledger_begins") or ""
        positions = {row.file: row.position for row in await connection.execute(select(journal_offsets))}
        checks = []
        for name, query in CHECKS.items():
            parameters = {"begins": begins} if ":begins" in query else {}
            rows = await connection.execute(text(query), parameters)
            checks.append(
                LedgerCheck(name, [" ".join(map(str, row[:-1])) + f": {int(row[-1]):+} nano-USD" for row in rows])
            )
        checks.append(LedgerCheck(JOURNAL, await _journal(connection, journal, positions)))
    return checks


async def begin_snapshot(connection: AsyncConnection) -> None:
    """All that is read is of one moment: the recorder may write meanwhile."""
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql("BEGIN")
    else:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


async def _journal(connection: AsyncConnection, folder: Path, positions: dict[str, int]) -> list[str]:
    """Compare what the journal's files still hold, as far as they are read, with the rows."""
    found: list[str] = []
    for file, end in sorted(positions.items()):
        calls: dict[str, Closed] = {}
        pieces = _pieces(folder / file, end)
        while (records := await asyncio.to_thread(next, pieces, None)) is not None:
            for record in records:
                calls.setdefault(record.id[-LENGTH:], record)  # the first end stays
            if len(calls) >= LOOKED_UP:
                found += await _compare(connection, calls)
                calls = {}
        found += await _compare(connection, calls)
        if len(found) >= SHOWN:
            break
    return found[:SHOWN]


def _pieces(path: Path, end: int) -> Iterator[list[Closed]]:
    """The records up to ``end``, some at a time; nothing where the file is gone: all of it was recorded."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        rest = b""
        while file.tell() < end and (read := file.read(min(PIECE, end - file.tell()))):
            buffer, done = rest + read, 0
            records: list[Closed] = []
            while True:
                try:
                    for record, done in scan(buffer, done):  # noqa: B007, B020  (goes on where it stopped)
                        if isinstance(record, Closed):
                            records.append(record)
                    break
                except msgspec.DecodeError:  # a newer writer's
                    done += HEADER.size + HEADER.unpack_from(buffer, done)[0]
            rest = buffer[done:]
            if len(rest) > 2 * MAX_RECORD:  # what stands there is damaged: the recorder has passed it over
                rest = rest[next_sound(rest, 1) or len(rest) - MAX_RECORD :]
            yield records


async def _compare(connection: AsyncConnection, calls: dict[str, Closed]) -> list[str]:
    if not calls:
        return []
    query = select(requests.c.id, requests.c.outcome, requests.c.cost).where(requests.c.id.in_(list(calls)))
    rows: dict[str, Any] = {row.id: row for row in await connection.execute(query)}
    found = []
    for ident, record in calls.items():
        row = rows.get(ident)
        cost = record.cost if 0 <= record.cost <= MOST else None
        if row is None:
            found.append(f"{ident} has no receipt")
        elif (row.outcome, row.cost) != (record.outcome, cost):
            stored = f"{row.outcome} for {row.cost}"
            found.append(f"{ident} is {record.outcome} for {cost} in the journal, {stored} in the store")
    return found
