"""Control's reading of the journal: records in, rows and offsets out, in one transaction.

Owns the tail loop.  Exactly once towards the store: the rows and the offset commit together, and applying a record a
second time changes nothing.  A journal file is deleted only when all of it is committed and it is rotated or its
writer is gone. Refuses to lose a batch.  If the store fails, the batch is kept and tried again, and reading stops.
If the store works and refuses one row, only that row is set aside (``aside.py``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.control.ingest.feed import Feed
from headgate.control.ingest.receipts import EARLY, Batch, Receipts, Row
from headgate.control.ingest.rejected_rows import DRIVER_ERRORS, RejectedRows, is_refusal
from headgate.control.ingest.rollup import COUNTED, changes, columns_of, zones
from headgate.control.ingest.segments import Segment, Shelf
from headgate.control.ingest.statements import CLOSE_COLUMNS, OPEN_COLUMNS, Statements
from headgate.control.ledger.postings import POSTED, Entries, Posted, balances, entries
from headgate.control.store.database import journal_offsets, requests
from headgate.model import Opened

# Not 100 ms: at 2,000 calls/s a commit every 250 ms takes 32 µs of CPU per call instead of 43, at 50/s half, and an
# idle recorder 0.12 % of a core instead of 0.34 %.  The delay is not visible, because a question waits for `catch_up`.
INTERVAL_S = 0.25
RETRY_S = 1.0
LOOKED_UP = 5000  # rows of one query: the drivers bound its parameters

Before = dict[str, Row]  # by id: a call's row as COUNTED, then as POSTED

_counted = itemgetter(*columns_of(CLOSE_COLUMNS))
_posted_end = itemgetter(*(CLOSE_COLUMNS.index(name) for name in POSTED))
_close_span = itemgetter(*(CLOSE_COLUMNS.index(name) for name in ("id", "stream", "cost", "duration_us")))
_open_span = itemgetter(*(OPEN_COLUMNS.index(name) for name in ("id", "stream")))
_KNOWN = tuple(requests.c[name] for name in ("id", *COUNTED, *POSTED))

# The fields of a running call's Opened, and where its row has them
_REMEMBERED = {
    field: column.name for column in EARLY if (field := column.opened or column.closed) in Opened.__struct_fields__
}

log = structlog.get_logger("headgate.recorder")


def _opened(row: Row) -> Row:
    """A running call's row as COUNTED."""
    there = dict(zip(OPEN_COLUMNS, row, strict=True))
    return tuple(there.get(name) for name in COUNTED)


def _posted_open(row: Row) -> Posted:
    """A running call's row as POSTED."""
    there: dict[str, Any] = dict(zip(OPEN_COLUMNS, row, strict=True))
    values: list[Any] = [there.get(name) for name in POSTED]
    return Posted(*values)


def _spans(batch: Batch) -> Iterator[tuple[str, bool, int | None, int | None]]:
    for row in batch.opened:
        ident, stream = _open_span(row)
        yield ident, stream, None, None
    yield from map(_close_span, batch.closed)


def _days(before: Before, batch: Batch) -> list[Row]:
    """The closes' additions to ``usage_days``."""
    if not batch.closed:
        return []
    known = {row[0]: _opened(row) for row in batch.opened}
    known |= {ident: row[: len(COUNTED)] for ident, row in before.items()}
    return changes(known, ((row[0], _counted(row)) for row in batch.closed))


def _entries(before: Before, batch: Batch) -> Entries:
    """The ledger's entries of the batch."""
    return entries(
        {ident: Posted(*row[len(COUNTED) :]) for ident, row in before.items()},
        ((row[0], _posted_open(row)) for row in batch.opened),
        ((row[-1], row[-2]) for row in batch.progressed),
        ((row[0], Posted(*_posted_end(row))) for row in batch.closed),
    )


@dataclass(frozen=True, slots=True)
class Lag:
    """The records that are written and not yet in the store, and those that never will be."""

    bytes_behind: int
    records_behind: int
    running_calls: int
    unreadable_records: int
    records_set_aside: int
    records_damaged: int
    error: str | None


class Recorder:
    """``start`` it, ask it to ``catch_up``, ``stop`` it."""

    def __init__(self, engine: AsyncEngine, folder: Path, interval: float = INTERVAL_S) -> None:
        """``feed`` gets each batch once it is in the store."""
        self.feed = Feed()
        self.folder = folder
        self._engine = engine
        self._interval = interval
        self._sql = Statements.compile(engine)
        self._receipts = Receipts()
        self._pending: Batch | None = None  # drained, not committed
        self._positions: dict[str, int] = {}  # committed
        self._newest = ""  # no id in the store is greater: they begin with the time
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._error: str | None = None
        self._shelf = Shelf(folder)
        self._rejected = RejectedRows(folder.parent / "unrecorded.jsonl")
        self._damaged = 0  # records that were skipped because they are not what was written
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> asyncio.Task[None]:
        """Takes up where the store says that the last life of control ended.  The task ends by ``stop`` or by a defect.

        Raises SQLAlchemyError, OSError.
        """
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(journal_offsets.c.file, journal_offsets.c.position))
            self._positions = {row.file: row.position for row in rows}
            self._newest = await connection.scalar(select(func.max(requests.c.id))) or ""
            await self._remember_running(connection)
        self._shelf.resume(self._positions)
        # Deleted, but the process ended before its row was: names never come back
        await self._forget(self._positions.keys() - self._shelf.names())
        self._task = asyncio.create_task(self._run(), name="recorder")
        return self._task

    async def _remember_running(self, connection: AsyncConnection) -> None:
        columns = [requests.c[name] for name in OPEN_COLUMNS]
        running = await connection.execute(select(*columns).where(requests.c.outcome.is_(None)))
        for row in running.mappings():
            known = {field: row[name] for field, name in _REMEMBERED.items() if row[name] is not None}
            self._receipts.remember(row["boot"], Opened(**known), row["completion_tokens"], row["duration_us"] or 0)

    async def stop(self, within: float = 10.0) -> None:
        """End the loop after one more reading, within ``within`` seconds; the next start reads the rest."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            _done, late = await asyncio.wait([self._task], timeout=within)
            for task in late:
                task.cancel()
                await asyncio.wait([task])
        await self.feed.close()
        self._shelf.close()

    async def catch_up(self) -> None:
        """Returns when everything that was written before this call is in the store.  Raises what the store raised."""
        if self._stopping or self._task is None or self._task.done():
            raise OSError("the recorder is not running")
        reading = asyncio.get_running_loop().create_future()
        self._waiting.append(reading)
        self._wake.set()
        await reading

    async def catch_up_with_the_dead(self, boot: str) -> None:
        """Return when every other boot of this one's worker has ended and all that it wrote is in the store; before
        the first reading too.  Raises what the store raised.
        """
        worker = boot.rpartition("-")[0]
        while True:
            if self._stopping:
                raise OSError("the recorder is not running")
            reading = asyncio.get_running_loop().create_future()
            self._waiting.append(reading)
            await reading
            boots = {segment.boot for segment in self._shelf} | set(self._receipts.boots())
            if not any(one != boot and one.rpartition("-")[0] == worker for one in boots):
                return

    def lag(self) -> Lag:
        # From what is committed: a batch that is being written is not in the store yet
        behind = [segment.behind(self._positions.get(segment.name, 0)) for segment in self._shelf]
        return Lag(
            bytes_behind=sum(size for size, _count in behind),
            records_behind=sum(count for _size, count in behind),
            running_calls=self._receipts.running,
            unreadable_records=self._receipts.unreadable,
            records_set_aside=self._rejected.count,
            records_damaged=self._damaged,
            error=self._error,
        )

    async def _run(self) -> None:
        try:
            async with self._engine.connect() as connection:
                while not self._stopping:
                    pause = await self._read_once(connection)
                    if not self._wake.is_set():
                        await self._sleep(pause)
                    self._wake.clear()
                await self._read_once(connection)
        finally:  # nobody may wait for a reading that will not come
            for future in self._waiting:
                future.cancel()

    async def _sleep(self, seconds: float) -> None:
        # a plain timer: wait_for would make a task several times a second
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _read_once(self, connection: AsyncConnection) -> float:
        """One reading of everything, for everyone who waits for one.  Returns how long to rest."""
        waiting, self._waiting = self._waiting, []
        try:
            await self._read(connection)
        except (SQLAlchemyError, OSError) as error:
            await connection.rollback()
            self._error = str(getattr(error, "orig", None) or error)
            log.error("the store does not take the journal; trying again", error=self._error)
            for future in waiting:
                if not future.done():
                    future.set_exception(OSError(self._error))
            return RETRY_S
        self._error = None
        for future in waiting:
            if not future.done():
                future.set_result(None)
        return self._interval

    async def _read(self, connection: AsyncConnection) -> None:
        self._shelf.discover()
        await self._read_to_the_end(connection)
        ended = self._ended_boots()
        if ended:
            # They wrote until they died, which may have been after the last read; and perhaps to a new file
            self._shelf.discover()
            ended = [boot for boot in ended if all(segment.free for segment in self._shelf.of(boot))]
            await self._read_to_the_end(connection)
            for boot in ended:
                if lost := self._receipts.lose(boot):
                    log.warning("calls were lost with their process", boot=boot, calls=lost)
            await self._commit(connection)
        done = [s for s in self._shelf if s.rotated or s.exhausted or s.boot in ended]
        if done:
            for segment in done:
                self._shelf.remove(segment)
            await self._forget({segment.name for segment in done})

    async def _read_to_the_end(self, connection: AsyncConnection) -> None:
        behind = {""}
        while behind:
            await self._commit(connection)  # a batch that could not be committed comes first
            behind = set()
            for segment in self._shelf:  # a boot's in their order: a call opened in one may be closed in the next
                if segment.boot not in behind and self._advance(segment):
                    behind.add(segment.boot)
            await self._commit(connection)

    def _advance(self, segment: Segment) -> bool:
        if segment.rotated:
            return False
        buffer = segment.peek()
        if buffer:
            size, segment.rotated = self._receipts.ingest(segment.boot, buffer)
            if size:
                return segment.consumed(size, buffer) and not segment.rotated
        damage = segment.damage(time.monotonic(), self._shelf.settled(segment))
        if damage is None:
            return False
        self._shelf.pass_over(segment, damage)
        self._damaged += damage.records
        return True

    def _ended_boots(self) -> list[str]:
        now = time.monotonic()
        boots: dict[str, bool] = dict.fromkeys(self._receipts.boots(), True)
        for segment in self._shelf:
            segment.probe(now)
            boots[segment.boot] = boots.get(segment.boot, True) and segment.free
        return [boot for boot, free in boots.items() if free]

    async def _commit(self, connection: AsyncConnection) -> None:
        if self._pending is None:
            self._pending = self._receipts.drain()
        moved = {s.name: s.offset for s in self._shelf if self._positions.get(s.name, 0) != s.offset}
        if self._pending or moved:
            await self._write(connection, self._pending, list(moved.items()))
            self._positions.update(moved)
            if self._pending:
                self.feed.publish(self._pending)
        self._pending = None

    async def _write(self, connection: AsyncConnection, batch: Batch, positions: list[Row]) -> None:
        try:
            before = await self._before(connection, batch)
            posted = _entries(before, batch)
            work: list[tuple[str, Sequence[Row]]] = [
                *((statement, rows) for _kind, statement, rows in self._sql.of(batch)),
                (self._sql.count, _days(before, batch)),
                (self._sql.widen, zones(_spans(batch))),
                (self._sql.enter, posted),
                (self._sql.balance, balances(posted)),
                (self._sql.offset, positions),
            ]
            for statement, rows in work:
                if rows:
                    await connection.exec_driver_sql(statement, list(rows))
        except DRIVER_ERRORS as error:
            if not is_refusal(error):
                raise
            await connection.rollback()
            if not await self._rejected.sort_out(connection, self._sql.of(batch)):
                raise OSError(f"the store refuses every record: {getattr(error, 'orig', None) or error}") from error
            await self._write(connection, batch, positions)
            return
        await connection.commit()

    async def _before(self, connection: AsyncConnection, batch: Batch) -> Before:
        """Return the store's rows of the batch's calls, before they are written: read in the same transaction."""
        newest = self._newest
        # Raised before they are written: where the answer to a commit is lost nobody knows whether it holds, and the
        # batch comes again
        self._newest = max([newest, *(row[0] for row in (*batch.opened, *batch.closed))])
        # A busy gateway's short calls are newer
        idents = {row[0] for row in (*batch.opened, *batch.closed) if row[0] <= newest}
        idents.update(row[-1] for row in batch.progressed)
        found: Before = {}
        ordered = sorted(idents)
        for start in range(0, len(ordered), LOOKED_UP):
            known = select(*_KNOWN).where(requests.c.id.in_(ordered[start : start + LOOKED_UP]))
            for row in await connection.execute(known):
                found[row[0]] = tuple(row[1:])
        return found

    async def _forget(self, names: Iterable[str]) -> None:
        gone = list(names)
        if not gone:
            return
        async with self._engine.begin() as connection:
            await connection.execute(delete(journal_offsets).where(journal_offsets.c.file.in_(gone)))
        for name in gone:
            self._positions.pop(name, None)
