"""The recorder far behind, and the servers that go away under it."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from headgate.control.ingest.recorder import Recorder
from headgate.control.reports.requests import RequestFilters, page
from headgate.control.store.database import StoreUnusable, open_store
from headgate.wire.records import encode
from tests.control.journal_writer import Writer, closed, opened, query, run
from tests.control.postgres_server import Server

CALLS = 25_000
BLOCKED_S = 2.0


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_busy_gateway_is_recorded_in_few_commits(tmp_path: Path) -> None:
    """Records that come while a batch is committed wait for the next reading: else it would never rest."""

    async def main() -> int:
        engine = await open_store(f"sqlite:///{tmp_path}/headgate.db")
        recorder = Recorder(engine, tmp_path / "journal", interval=0.2)
        await recorder.start()
        commits: list[float] = []
        event.listen(engine.sync_engine, "commit", lambda _connection: commits.append(time.monotonic()))
        writer = Writer(tmp_path / "journal")
        for number in range(1_000):
            writer.write(opened(number), closed(number))
            await asyncio.sleep(0.001)
        during = len(commits)
        await recorder.catch_up()
        assert (await page(engine, RequestFilters())).rows and recorder.lag().records_behind == 0
        await recorder.stop()
        await engine.dispose()
        return during

    began = time.monotonic()
    commits = run(main())
    # at most three for each reading; nearly 300 where it goes on until nothing comes
    assert 0 < commits <= 3 * ((time.monotonic() - began) / 0.2 + 1)


def test_blocked_store_is_caught_up_while_lists_answer(tmp_path: Path, report: Callable[[str], None]) -> None:
    async def main() -> None:
        engine = await open_store(f"sqlite:///{tmp_path}/headgate.db")
        recorder = Recorder(engine, tmp_path / "journal")
        await recorder.start()
        writer = Writer(tmp_path / "journal", size=64 << 20)
        await page(engine, RequestFilters())
        before = peak_mb()
        with closing(sqlite3.connect(tmp_path / "headgate.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for start in range(0, CALLS, 500):
                some = range(start, start + 500)
                writer.write_bytes(b"".join(encode(opened(n)) + encode(closed(n)) for n in some))
                await asyncio.sleep(0)
            await asyncio.sleep(BLOCKED_S)
            assert (await page(engine, RequestFilters())).rows == []  # who only reads does not wait for who writes
            assert recorder.lag().records_behind == 2 * CALLS
            other.execute("ROLLBACK")
        began = time.monotonic()
        caught_up = asyncio.create_task(recorder.catch_up())
        waits = []
        while not caught_up.done():
            asked = time.monotonic()
            await page(engine, RequestFilters(token="g1"))
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.02)
        await caught_up
        took, grown = time.monotonic() - began, peak_mb() - before
        report(
            f"50,000 records caught up in {took:.1f} s, {grown:.0f} MB more at the peak; "
            f"meanwhile {len(waits)} lists, the slowest {max(waits) * 1000:.0f} ms"
        )
        assert recorder.lag().records_behind == 0
        assert grown < 64
        assert len(waits) >= 4, "lists waited until all was caught up"
        await recorder.stop()
        await engine.dispose()
        added_up = "SELECT sum(requests) AS n FROM usage_days WHERE detail = 0"
        assert query(tmp_path / "headgate.db", added_up) == [{"n": CALLS}]
        assert query(tmp_path / "headgate.db", "SELECT count(*) AS n FROM requests") == [{"n": CALLS}]

    run(main())


def test_a_server_that_restarts_is_met_again_and_nothing_is_lost(postgres: Server, tmp_path: Path) -> None:
    async def main() -> None:
        url = postgres.database()
        engine = await open_store(url)
        recorder = Recorder(engine, tmp_path / "journal", 0.05)
        await recorder.start()
        writer = Writer(tmp_path / "journal")
        writer.write(opened(1), closed(1), opened(2))
        await recorder.catch_up()
        await asyncio.to_thread(postgres.restart)
        writer.write(closed(2), opened(3))
        deadline = time.monotonic() + 20
        while len((await page(engine, RequestFilters())).rows) < 3:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        found = (await page(engine, RequestFilters())).rows
        assert [row["outcome"] for row in found] == [None, "delivered", "delivered"]
        assert recorder.lag().error is None
        await recorder.stop()
        await engine.dispose()

    run(main())


def test_unusable_server_is_named_without_password(postgres: Server) -> None:
    nobody = postgres.url("nobody").replace("headgate@", "headgate:canary-password@")
    stranger = postgres.url("postgres").replace("headgate@", "stranger:canary-password@")
    for url in (nobody, stranger):
        with pytest.raises(StoreUnusable, match="cannot be opened") as caught:
            asyncio.run(open_store(url))
        assert "canary" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_from_the_future_is_refused(postgres: Server) -> None:
    url = postgres.database()
    postgres.ask(url.split("/")[3].split("?")[0], "UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(StoreUnusable, match="newer release"):
        asyncio.run(open_store(url))
