"""Any cut, any batching, any replay of the journal gives the same rows, and sums that counting them would give."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.control.ingest import rollup
from headgate.control.ingest.receipts import Receipts
from headgate.control.ingest.recorder import Recorder
from headgate.control.ingest.statements import CLOSE_COLUMNS, OPEN_COLUMNS
from headgate.control.store.database import open_store, request_zones, usage_days
from headgate.model import Closed, Record
from headgate.wire.records import encode
from tests.control.journal_writer import Writer, closed, ident, opened, progress, query, run


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has been migrated: copying it is quicker than doing that for every example."""
    path = tmp_path_factory.mktemp("empty") / "headgate.db"

    async def main() -> None:
        await (await open_store(f"sqlite:///{path}")).dispose()

    run(main())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@asynccontextmanager
async def recording(state: Path) -> AsyncIterator[Recorder]:
    engine = await open_store(f"sqlite:///{state}/headgate.db")
    recorder = Recorder(engine, state / "journal", 60.0)
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()
        await engine.dispose()


async def read_all(recorder: Recorder, writer: Writer) -> None:
    """Until the dead writer's file has gone."""
    deadline = time.monotonic() + 20
    while writer.there:
        assert time.monotonic() < deadline, "it was not read to its end"
        await recorder.catch_up()
        await asyncio.sleep(0.05)


def copy(empty: Path, state: Path) -> None:
    state.mkdir(exist_ok=True)
    shutil.copy(empty, state / "headgate.db")


def rows(state: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in query(state / "headgate.db", "SELECT * FROM requests ORDER BY id")}


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """A boot's records: calls that open, progress and close, interleaved in any way that a process can write them."""
    calls = draw(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8))
    tracks: list[list[Record]] = []
    for number, (steps, ends) in enumerate(calls):
        track: list[Record] = [opened(number), *(progress(number, 10 * (step + 1)) for step in range(steps))]
        tracks.append([*track, closed(number)] if ends else track)
    order = draw(st.permutations([index for index, track in enumerate(tracks) for _ in track]))
    return [tracks[index].pop(0) for index in order]


class Table:
    """What the SQL does, in a dictionary: rows by id, with the columns of the statements by name."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def apply(self, receipts: Receipts) -> None:
        batch = receipts.drain()
        for row in batch.opened:
            self.rows.setdefault(row[0], dict(zip(OPEN_COLUMNS, row, strict=True)))
        for completion, _elapsed, hold, key in batch.progressed:
            kept = self.rows[key]
            if kept.get("outcome") is None:
                kept |= {"completion_tokens": completion, "held": hold}
        for row in batch.closed:
            ended = dict(zip(CLOSE_COLUMNS, row, strict=True))
            before = self.rows.get(row[0], {}).get("outcome")
            if before is None or (before == "lost" and ended["outcome"] != "lost"):
                self.rows[row[0]] = ended


@given(histories(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_batching_gives_the_same_rows(history: list[Record], data: st.DataObject) -> None:
    straight, cut = Table(), Table()
    once = Receipts()
    once.ingest("b", b"".join(map(encode, history)))
    once.lose("b")
    straight.apply(once)

    receipts = Receipts()
    for start in range(len(history)):
        if data.draw(st.booleans(), label="replayed from the start"):
            receipts = Receipts()
            receipts.ingest("b", b"".join(map(encode, history[:start])))
        receipts.ingest("b", encode(history[start]))
        if data.draw(st.booleans(), label="committed"):
            cut.apply(receipts)
    receipts.lose("b")
    cut.apply(receipts)
    assert cut.rows == straight.rows


@given(histories(), st.integers(0, 400), st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_any_crash_keeps_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, empty: Path, history: list[Record], cut_at: int, restart_at: int
) -> None:
    """The journal is cut at any byte, control stops after any number of records; SQLite must have what an uncut
    reading has.
    """
    whole = b"".join(map(encode, history))
    kept = whole[: cut_at * len(whole) // 400]

    async def main(state: Path, stops: bool) -> dict[str, dict[str, Any]]:
        copy(empty, state)
        writer = Writer(state / "journal")
        if stops:
            writer.write(*history[: min(restart_at, len(history))])
            os.ftruncate(writer.fd, len(kept))  # no further than the cut
            async with recording(state) as recorder:
                await recorder.catch_up()
            writer.offset = 0
        writer.write_bytes(kept)
        writer.die()
        async with recording(state) as recorder:
            await read_all(recorder, writer)
        await check_sums(state)
        return rows(state)

    state = tmp_path_factory.mktemp("crash")
    assert run(main(state / "a", True)) == run(main(state / "b", False))


# ---------------------------------------------------------------------------------- what is derived


async def derived(engine: AsyncEngine) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    days, zones = select(usage_days).where(usage_days.c.requests > 0), select(request_zones)
    async with engine.connect() as connection:
        return (
            sorted(tuple(row) for row in await connection.execute(days)),
            sorted(tuple(row) for row in await connection.execute(zones)),
        )


async def check_sums(state: Path) -> None:
    """What the recorder has added up is what counting gives.  Bounds may be wider: what a corrected call had widened
    stays so.
    """
    engine = await open_store(f"sqlite:///{state}/headgate.db")
    days, zones = await derived(engine)
    async with engine.begin() as connection:
        await connection.run_sync(rollup.recount)
    counted, bounds = await derived(engine)
    await engine.dispose()
    assert [day[:-1] for day in days] == [day[:-1] for day in counted]
    assert all(day[-1] <= exact[-1] for day, exact in zip(days, counted, strict=True))
    assert [zone[0] for zone in zones] == [zone[0] for zone in bounds]
    assert all(wide[i] >= narrow[i] for wide, narrow in zip(zones, bounds, strict=True) for i in range(1, 5))


DAY = 86_400 * 10**9
OUTCOMES = ("delivered", "failed", "cancelled", "truncated", "refused", "lost")


@st.composite
def ends(draw: st.DrawFn) -> Closed:
    """Of a few calls, so that many come twice, and not always alike."""
    number = draw(st.integers(0, 4))
    return closed(
        number,
        outcome=draw(st.sampled_from(OUTCOMES)),
        model=draw(st.sampled_from(("big", "small", ""))),
        provider=draw(st.sampled_from(("up-a", "up-b"))),
        prompt_tokens=draw(st.integers(0, 3)),
        completion_tokens=draw(st.sampled_from((0, 7))),
        cost=draw(st.sampled_from((-1, 0, 5))),
    )


starts = st.integers(0, 4).map(lambda n: opened(n, at=opened(n).at + n // 2 * DAY, grant=f"g{n % 2}", stream=n != 3))
steps = st.lists(
    st.one_of(starts, ends(), st.sampled_from(("committed", "restarted", "read anew", "commit failed", "answer lost"))),
    max_size=25,
)


@contextmanager
def an_answer_lost() -> Iterator[None]:
    """A commit that holds although whoever asked for it is told that its connection broke."""

    async def commit(connection: AsyncConnection) -> None:
        await real(connection)
        AsyncConnection.commit = real  # type: ignore[method-assign]
        raise OperationalError("COMMIT", {}, Exception("the connection is lost"))

    real = AsyncConnection.commit
    AsyncConnection.commit = commit  # type: ignore[method-assign]
    try:
        yield
    finally:
        AsyncConnection.commit = real  # type: ignore[method-assign]


@given(steps, st.booleans())
@example(history=[opened(1), closed(1), "answer lost"], dies=False)
@settings(max_examples=40, deadline=None)
def test_sums_are_what_counting_gives_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, empty: Path, history: list[Record | str], dies: bool
) -> None:
    """Records come twice, calls end twice, a lost one had ended after all; commits fail, control restarts and, what
    should not happen, forgets how far it has read.
    """

    async def main(state: Path) -> None:
        copy(empty, state)
        writer = Writer(state / "journal")
        left = list(history)
        while left:
            async with recording(state) as recorder:
                while left:
                    step = left.pop(0)
                    if not isinstance(step, str):
                        writer.write(step)
                    elif step == "committed":
                        await recorder.catch_up()
                    elif step == "commit failed":
                        query(state / "headgate.db", "ALTER TABLE journal_offsets RENAME TO away")
                        try:
                            await recorder.catch_up()
                        except OSError:
                            pass
                        query(state / "headgate.db", "ALTER TABLE away RENAME TO journal_offsets")
                    elif step == "answer lost":
                        with an_answer_lost():
                            try:
                                await recorder.catch_up()
                            except OSError:
                                pass
                    else:
                        break
            if left and step == "read anew":
                query(state / "headgate.db", "DELETE FROM journal_offsets")
        if dies:
            writer.die()
        async with recording(state) as recorder:
            await recorder.catch_up()
            if dies:
                await read_all(recorder, writer)
        await check_sums(state)

    run(main(tmp_path_factory.mktemp("sums")))


def test_lost_call_that_ended_counts_once(tmp_path: Path, empty: Path) -> None:
    async def main() -> None:
        shutil.copy(empty, tmp_path / "headgate.db")
        writer = Writer(tmp_path / "journal")
        writer.write(opened(1), progress(1, 50))
        writer.die()
        async with recording(tmp_path) as recorder:
            await read_all(recorder, writer)
        assert rows(tmp_path)[ident(1)]["outcome"] == "lost"
        late = Writer(tmp_path / "journal", number=1)
        late.write(opened(1), closed(1))
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
        kept = query(tmp_path / "headgate.db", "SELECT outcome, requests, cost FROM usage_days WHERE requests > 0")
        assert kept == [{"outcome": "delivered", "requests": 1, "cost": 110_000}] * 3
        await check_sums(tmp_path)

    run(main())
