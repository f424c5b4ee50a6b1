"""Journal → rows: real files, real locks, real SQLite, real kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from headgate.control.ingest.feed import WAITING
from headgate.control.ingest.receipts import Batch
from headgate.control.ingest.recorder import Recorder
from headgate.control.store.database import open_store
from headgate.model import Record, Refused, Rotated
from headgate.wire.records import HEADER, encode
from tests import waiting
from tests.control import postgres_server
from tests.control.journal_writer import SECOND, T0, Writer, closed, ident, opened, progress, run
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def on_both(database: str, tmp_path: Path) -> None:
    (tmp_path / "database.url").write_text(database)


def url(state: Path) -> str:
    named = state / "database.url"
    return named.read_text() if named.exists() else f"sqlite:///{state}/headgate.db"


def query(state: Path, sql: str) -> list[dict[str, Any]]:
    """Rows as another program sees them; changes are made."""
    if url(state).startswith("sqlite"):
        with closing(sqlite3.connect(state / "headgate.db", isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]
    return postgres_server.ask(url(state), sql)


@asynccontextmanager
async def recording(state: Path, interval: float = 60.0) -> AsyncIterator[Recorder]:
    """A recorder that reads when asked to (its own timer is far away)."""
    engine = await open_store(url(state))
    recorder = Recorder(engine, state / "journal", interval)
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()
        await engine.dispose()


def rows(state: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in query(state, "SELECT * FROM requests ORDER BY id")}


async def eventually(recorder: Recorder, condition: Callable[[], bool], within: float = 120) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await recorder.catch_up()
        await asyncio.sleep(0.05)


def test_records_of_an_earlier_release_are_kept_under_bare_ids(tmp_path: Path) -> None:
    """Its ids begin with ``chatcmpl-``, in segments that it left and of calls that run while it is replaced."""

    def old(record: Record) -> Record:
        return replace(record, id=f"chatcmpl-{record.id}")

    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            writer.write(*map(old, (opened(1), closed(1), opened(2), progress(2, 7))))
            await recorder.catch_up()
            found = {name: row["outcome"] for name, row in rows(tmp_path).items()}
            assert found == {ident(1): "delivered", ident(2): None}
        async with recording(tmp_path) as recorder:  # which has the second from the store
            writer.write(*map(old, (progress(2, 9), closed(2))))
            await recorder.catch_up()
            assert [row["outcome"] for row in rows(tmp_path).values()] == ["delivered", "delivered"]
        writer.die()

    run(main())


def test_feed_listeners_get_committed_rows_and_cannot_hurt_ingest(tmp_path: Path) -> None:
    """One listener raises, one never returns; both cost nothing but their own batches."""

    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        seen: list[str] = []
        never = asyncio.Event()

        async def look(batch: Batch) -> None:
            assert {row[0] for row in batch.closed} <= rows(tmp_path).keys(), "it is committed"
            seen.extend(row[0] for row in batch.closed)

        async def fail(_batch: Batch) -> None:
            raise RuntimeError("a defect of the listener")

        async def wait(_batch: Batch) -> None:
            await never.wait()

        async with recording(tmp_path) as recorder:
            for name, listener in (("fail", fail), ("wait", wait), ("look", look)):
                recorder.feed.listen(name, listener)
            count = WAITING + 3
            for number in range(count):
                writer.write(opened(number), closed(number))
                await recorder.catch_up()
            await eventually(recorder, lambda: len(seen) == count)
            assert seen == [ident(number) for number in range(count)]
            assert len(rows(tmp_path)) == count
            assert recorder.feed.dropped == {"fail": 0, "wait": 2, "look": 0}
        writer.die()

    run(main())


def test_open_and_close_in_one_batch_are_one_row(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            writer.write(opened(1, label="mine"), progress(1, 7), closed(1))
            await recorder.catch_up()
            row = rows(tmp_path)[ident(1)]
            assert (row["outcome"], row["grant_id"], row["label"], row["boot"]) == ("delivered", "g1", "mine", "w0-b0")
            assert (row["prompt_tokens"], row["completion_tokens"], row["cost"]) == (90, 10, 110_000)
            assert (row["model"], row["requested"], row["stream"]) == ("big-0613", "headgate/chat", 1)
            assert (row["ttft_us"], row["queue_us"]) == (250_000, None)
            assert recorder.lag().records_behind == 0

    run(main())


def test_a_rotated_segment_is_read_to_its_end_before_the_next(tmp_path: Path) -> None:
    """What was opened at the end of a long one is closed at the beginning of the next."""

    async def main() -> None:
        first, second = Writer(tmp_path / "journal"), Writer(tmp_path / "journal", number=1)
        for number in range(400):
            first.write(opened(number), closed(number))
        first.write(opened(400), Rotated(1))
        second.write(closed(400))
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
            row = rows(tmp_path)[ident(400)]
            assert (row["outcome"], row["grant_id"], row["requested"]) == ("delivered", "g1", "headgate/chat")
            assert recorder.lag().running_calls == 0

    run(main())


def test_running_call_has_a_row_without_outcome(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            writer.write(opened(1), opened(2))
            await recorder.catch_up()
            assert [row["outcome"] for row in rows(tmp_path).values()] == [None, None]
            assert recorder.lag().running_calls == 2
            writer.write(progress(2, 33), closed(1))
            await recorder.catch_up()
            first, second = rows(tmp_path).values()
            assert (first["outcome"], first["created_at"], first["completion_tokens"]) == ("delivered", T0 + 1, 10)
            assert (second["outcome"], second["completion_tokens"]) == (None, 33)

    run(main())


def test_the_timer_reads_without_being_asked(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path, 0.1):
            writer.write(opened(1), closed(1))
            await waiting.eventually(lambda: len(rows(tmp_path)) == 1)

    run(main())


def test_an_unknown_cost_is_null(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            writer.write(opened(1), closed(1, cost=-1))
            await recorder.catch_up()
            assert rows(tmp_path)[ident(1)]["cost"] is None

    run(main())


def test_dead_process_calls_are_billed_from_progress(tmp_path: Path) -> None:
    async def main() -> None:
        dead, alive = Writer(tmp_path / "journal", "w0-dead"), Writer(tmp_path / "journal", "w1-alive")
        async with recording(tmp_path) as recorder:
            dead.write(opened(1), progress(1, 50), opened(2, price_output=-1), opened(3), closed(3))
            alive.write(opened(4))
            await recorder.catch_up()
            dead.die()
            await eventually(recorder, lambda: not dead.path.exists())
            found = rows(tmp_path)
            lost = found[ident(1)]
            assert (lost["outcome"], lost["basis"], lost["completion_tokens"]) == ("lost", "estimated", 50)
            assert lost["cost"] == 100 * 1000 + 50 * 2000  # nano-USD: 1 and 2 USD per million tokens
            assert lost["duration_us"] == 5_000_000
            assert (found[ident(2)]["outcome"], found[ident(2)]["cost"]) == ("lost", None)
            assert found[ident(3)]["outcome"] == "delivered"
            assert found[ident(4)]["outcome"] is None
            assert alive.path.exists()

    run(main())


def test_running_calls_outlive_control(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            writer.write(opened(1), progress(1, 20), opened(2))
            await recorder.catch_up()
        writer.die()
        async with recording(tmp_path) as recorder:
            assert recorder.lag().running_calls == 2
            await eventually(recorder, lambda: not writer.path.exists())
            first, second = rows(tmp_path).values()
            assert (first["outcome"], first["completion_tokens"], first["cost"]) == ("lost", 20, 140_000)
            assert (first["duration_us"], second["outcome"]) == (5_000_000, "lost")

    run(main())


def test_a_torn_tail_is_ignored_and_its_file_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        writer.write(opened(1), closed(1), opened(2))
        writer.write_bytes(encode(closed(2))[:-3] + b"\xff\xff\xff")
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
            assert rows(tmp_path)[ident(2)]["outcome"] is None
            assert writer.path.exists()  # its writer lives and may yet overwrite the tail
            writer.die()
            await eventually(recorder, lambda: not writer.path.exists())
            assert rows(tmp_path)[ident(2)]["outcome"] == "lost"

    run(main())


def test_a_torn_record_that_its_writer_mends_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            writer.write(opened(1))
            whole = encode(closed(1))
            os.pwrite(writer.fd, whole[:20], writer.offset)
            await recorder.catch_up()
            assert rows(tmp_path)[ident(1)]["outcome"] is None
            writer.write_bytes(whole)
            await recorder.catch_up()
            assert rows(tmp_path)[ident(1)]["outcome"] == "delivered"

    run(main())


def test_a_rotated_segment_is_deleted_while_its_writer_lives(tmp_path: Path) -> None:
    async def main() -> None:
        first = Writer(tmp_path / "journal", number=9)
        second = Writer(tmp_path / "journal", number=10)
        first.write(opened(1), Rotated(10))
        second.write(closed(1))
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
            assert not first.path.exists()
            assert second.path.exists()
            assert [row["outcome"] for row in rows(tmp_path).values()] == ["delivered"]
            offsets = query(tmp_path, "SELECT file FROM journal_offsets")
            assert offsets == [{"file": second.path.name}]

    run(main())


def test_backlog_of_many_chunks(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal", size=4 << 20)
        writer.write(opened(0, label="x" * 40_000), closed(0))
        for number in range(1, 3000):
            writer.write(opened(number), closed(number))
        async with recording(tmp_path) as recorder:
            assert recorder.lag().records_behind == 6000
            await recorder.catch_up()
            assert len(rows(tmp_path)) == 3000
            assert recorder.lag().records_behind == 0

    run(main())


def test_a_sound_record_of_an_unknown_kind_is_stepped_over(tmp_path: Path) -> None:
    import zlib

    async def main() -> None:
        payload = b"\x92\x63\x01"  # [99, 1]
        writer = Writer(tmp_path / "journal")
        writer.write(opened(1))
        writer.write_bytes(HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
        writer.write(closed(1))
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
            assert rows(tmp_path)[ident(1)]["outcome"] == "delivered"
            assert recorder.lag().unreadable_records == 1

    run(main())


def test_refusals_are_counted_once(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        writer.write(Refused(T0, "invalid_api_key", 3), Refused(T0, "invalid_api_key", 4))
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
        writer.write(Refused(T0 + 5, "invalid_api_key", 5), Refused(T0 + SECOND, "missing_api_key", 1))
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
        second = T0 // SECOND
        assert query(tmp_path, "SELECT second, code, count FROM refusals ORDER BY second") == [
            {"second": second, "code": "invalid_api_key", "count": 12},
            {"second": second + 1, "code": "missing_api_key", "count": 1},
        ]

    run(main())


def test_a_store_that_fails_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
            query(tmp_path, "ALTER TABLE refusals RENAME TO away")
            writer.write(opened(1), Refused(T0, "invalid_api_key", 3))
            with pytest.raises(OSError, match="refusals"):
                await recorder.catch_up()
            assert recorder.lag().error is not None
            assert rows(tmp_path) == {}  # the whole batch or nothing
            query(tmp_path, "ALTER TABLE away RENAME TO refusals")
            writer.write(closed(1))
            await recorder.catch_up()
            assert rows(tmp_path)[ident(1)]["outcome"] == "delivered"
            assert query(tmp_path, "SELECT count FROM refusals") == [{"count": 3}]
            assert recorder.lag().error is None

    run(main())


WRITER = """
    import sys
    from pathlib import Path
    from tests.control.journal_writer import Writer, opened, closed, ident
    writer = Writer(Path(sys.argv[1]), "w0-killed", size=64 << 20)
    for number in range(10**6):
        writer.write(opened(number))
        if number >= 20:
            writer.write(closed(number - 20))
            print(number - 20, flush=True)
"""


def test_killed_writer_loses_no_receipt(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "journal")],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdout is not None

    async def main() -> None:
        async with recording(tmp_path, 0.02) as recorder:
            assert child.stdout is not None
            lines = await asyncio.to_thread(lambda: [next(child.stdout or ()) for _ in range(2000)])  # it is at work
            child.kill()
            promised = int([*lines, *child.stdout.read().split()][-1])
            child.wait()
            await eventually(recorder, lambda: not list((tmp_path / "journal").iterdir()))
            found = rows(tmp_path)
            assert promised > 100
            assert all(found[ident(number)]["outcome"] == "delivered" for number in range(promised + 1))
            rest = list(found.values())[promised + 1 :]
            assert 20 <= len(rest) <= 22
            assert {row["outcome"] for row in rest} <= {"lost", "delivered"}

    run(main())


DATA_PROCESS = """
    import asyncio, sys
    from pathlib import Path
    from headgate.serving.uplink.journal import Journal
    from headgate.serving.loop.turn import Turn
    from tests.control.journal_writer import opened, closed
    async def main():
        turn = Turn(asyncio.get_running_loop())
        journal = Journal(Path(sys.argv[1]), "w0", "real", turn, segment=256 << 10)
        for number in range(10**6):
            journal.write(opened(number))
            if number >= 20:
                journal.write(closed(number - 20))
                turn.send(lambda done: print(done, flush=True), number - 20)
            await asyncio.sleep(0.0005)
    asyncio.run(main())
"""


def test_killed_journal_is_read_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DATA_PROCESS), str(folder)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) == 2500:  # two segments are full
            break
    child.kill()
    promised = int((child.stdout.read().split() or [b"2500"])[-1])
    child.wait()
    assert len(list(folder.iterdir())) >= 3

    async def main() -> None:
        async with recording(tmp_path) as recorder:
            await eventually(recorder, lambda: not list(folder.iterdir()))
        found = rows(tmp_path)
        assert all(found[ident(number)]["outcome"] == "delivered" for number in range(promised + 1))
        assert {row["outcome"] for row in found.values()} == {"delivered", "lost"}

    run(main())


READER = """
    import asyncio, sys
    from pathlib import Path
    from headgate.control.ingest.recorder import Recorder
    from headgate.control.store.database import open_store
    async def main():
        engine = await open_store(sys.argv[2])
        recorder = Recorder(engine, Path(sys.argv[1]) / "journal", 0.001)
        await recorder.start()
        print("reading", flush=True)
        await asyncio.sleep(60)
    asyncio.run(main())
"""


def test_killed_control_records_each_call_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal", size=16 << 20)
    number = 0
    for kill in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(READER), str(tmp_path), url(tmp_path)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"reading\n"
        until = time.monotonic() + 0.5 + kill * 0.13
        while time.monotonic() < until or number < 120 * (kill + 1):
            writer.write(opened(number), Refused(T0, "invalid_api_key", 1))
            if number >= 10:
                writer.write(closed(number - 10))
            number += 1
            time.sleep(0.0005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()

    async def main() -> None:
        async with recording(tmp_path) as recorder:
            await recorder.catch_up()
            found = list(rows(tmp_path).values())
            assert [row["id"] for row in found] == [ident(n) for n in range(number)]
            assert [row["outcome"] for row in found] == ["delivered"] * (number - 10) + [None] * 10
            assert query(tmp_path, "SELECT sum(count) AS n FROM refusals") == [{"n": number}]

    assert number > 300
    run(main())


def test_refused_record_is_set_aside(tmp_path: Path) -> None:
    """A damaged writer may give integers that no store holds."""

    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            poison = (opened(7, at=2**63), closed(8, status=2**64 - 1))
            writer.write(opened(1), poison[0], closed(1), Refused(T0, "invalid_api_key", 3), opened(8), poison[1])
            writer.write(opened(2), progress(2, 5), closed(3))
            await recorder.catch_up()
            assert {key: row["outcome"] for key, row in rows(tmp_path).items()} == {
                ident(1): "delivered",
                ident(2): None,
                ident(3): "delivered",
            }
            assert query(tmp_path, "SELECT count FROM refusals") == [{"count": 3}]
            assert (recorder.lag().records_behind, recorder.lag().records_set_aside) == (0, 2)
        lines = [json.loads(line) for line in (tmp_path / "unrecorded.jsonl").read_text().splitlines()]
        assert [(line["kind"], line["row"][0]) for line in lines] == [("opened", ident(7)), ("closed", ident(8))]
        assert (tmp_path / "unrecorded.jsonl").stat().st_mode & 0o777 == 0o600

    run(main())


def test_a_nul_in_a_name_takes_no_call_out_of_the_accounts(tmp_path: Path) -> None:
    """PostgreSQL stores none; whatever let it in, the call is counted."""

    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path) as recorder:
            writer.write(opened(1, requested="a\x00b", model="m\x00"), closed(1, model="m\x00", code="c\x00"))
            writer.write(opened(2, label="l\x00"))
            await recorder.catch_up()
            assert recorder.lag().records_set_aside == 0
            found = rows(tmp_path)
            assert (found[ident(1)]["requested"], found[ident(1)]["model"]) == ("a\ufffdb", "m\ufffd")
            assert found[ident(2)]["label"] == "l\ufffd"

    run(main())


def test_refusing_store_sets_no_record_aside(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        async with recording(tmp_path, 0.05) as recorder:
            query(tmp_path, "ALTER TABLE requests RENAME TO elsewhere")
            writer.write(opened(1), closed(1))
            with pytest.raises(OSError):
                await recorder.catch_up()
            assert recorder.lag().error and recorder.lag().records_set_aside == 0
            query(tmp_path, "ALTER TABLE elsewhere RENAME TO requests")
            await recorder.catch_up()
            assert rows(tmp_path)[ident(1)]["outcome"] == "delivered"
            assert not (tmp_path / "unrecorded.jsonl").exists()

    run(main())
