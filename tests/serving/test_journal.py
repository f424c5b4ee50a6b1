"""The outbox: what is on disk when, rotation, a full disk, and what a ``kill -9`` leaves."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headgate.model import Closed, Opened, Progress, Record, Refused, Rotated
from headgate.model.receipt_ids import bare
from headgate.serving.loop.turn import Turn
from headgate.serving.uplink.journal import Journal, Refusals
from headgate.testing import Provider
from headgate.wire import records
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import ask, closed_by_id, last_closed, opened, request
from tests.waiting import eventually, wait_until


def test_receipt_precedes_the_last_byte(provider: Provider, tmp_path: Path) -> None:
    """Under load: each client looks into the journal the moment it has its [DONE]."""
    missing: list[str] = []
    with DataPlane(tmp_path / "s", upstream(provider.url)) as plane:

        def client() -> None:
            for _ in range(15):
                answer = ask(plane, "up/lorem?rate=0&ttft=0&tokens=20")
                ident = bare(answer.headers["x-headgate-stream-id"])
                if not any(
                    isinstance(r, Closed) and r.id == ident and r.outcome == "delivered" for r in plane.records()
                ):
                    missing.append(ident)

        threads = [threading.Thread(target=client) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert missing == []


def test_kill_9_the_moment_that_a_client_has_done(provider: Provider, tmp_path: Path) -> None:
    plane = DataPlane(tmp_path / "s", upstream(provider.url))
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                ask(plane, "up/lorem?rate=0&ttft=0&tokens=200")
            except (OSError, EOFError):
                return

    with plane:
        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        with opened(plane, request("up/lorem?rate=300&ttft=0&tokens=60")) as stream:
            stream.head().until(b"[DONE]")
            os.kill(plane.process.pid, signal.SIGKILL)
        ident = bare(stream.headers["x-headgate-stream-id"])
        plane.process.wait(60)
        before = plane.records()
        assert [r.outcome for r in before if isinstance(r, Closed) and r.id == ident] == ["delivered"]
        plane.start()  # and the next life writes a file of its own, beside the old one
        assert ask(plane, "up/echo").status == 200
        stop.set()
        for thread in threads:  # whoever connected meanwhile has waited in the backlog, and is served
            thread.join(10)
        after = plane.records()
    assert len({path.name.rpartition("-")[0] for path in (tmp_path / "s" / "journal").iterdir()}) == 2
    assert {records.encode(r) for r in before} <= {records.encode(r) for r in after}
    opened_ids = {r.id for r in before if isinstance(r, Opened)}
    closed_ids = [r.id for r in before if isinstance(r, Closed)]
    assert len(closed_ids) == len(set(closed_ids)) and set(closed_ids) <= opened_ids
    assert len(opened_ids - set(closed_ids)) <= 4, "only calls that ran may lack their close"


def test_a_torn_write_hides_nothing_before_it(tmp_path: Path) -> None:
    whole = b"".join(records.encode(Refused(n, "code", n)) for n in range(20))
    for cut in range(len(whole)):
        found = [record for record, _ in records.scan(whole[:cut] + bytes(64))]
        assert found == [Refused(n, "code", n) for n in range(len(found))]
        assert len(found) == whole[:cut].count(b"code") or len(found) == whole[:cut].count(b"code") - 1


def test_progress_is_recorded_every_five_seconds(gate: DataPlane) -> None:
    with opened(gate, request("up/lorem?rate=40&ttft=0&tokens=100000")) as stream:
        stream.head()
        ident = bare(stream.headers["x-headgate-stream-id"])

        def reported() -> bool:
            return any(isinstance(r, Progress) and r.id == ident for r in gate.records())

        wait_until(reported, step=0.1)
        found = next(r for r in gate.records() if isinstance(r, Progress) and r.id == ident)
        assert 0 < found.completion_tokens < 500  # 40 a second
        stream.leave()


def test_refusals_are_counted_not_journalled_singly(provider: Provider, tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(provider.url)) as plane:
        for _ in range(50):
            assert ask(plane, "up/echo", token="hg_nobody").status == 401
        wait_until(lambda: sum(r.count for r in plane.records() if isinstance(r, Refused)) == 50)
        found = plane.records()
        assert all(isinstance(r, Refused) and r.code == "invalid_api_key" for r in found) and len(found) <= 5


# ------------------------------------------------------------------------------- rotation, in process

SMALL = 256 << 10


def small_journal(folder: Path) -> Journal:
    return Journal(folder, "w0", "boot", Turn(asyncio.get_running_loop()), SMALL)


def read_all(folder: Path) -> list[list[Record]]:
    return [[record for record, _ in records.scan(path.read_bytes())] for path in sorted(folder.iterdir())]


def test_rotation_loses_nothing_and_says_where_it_goes_on(tmp_path: Path) -> None:
    async def write() -> None:
        journal = small_journal(tmp_path)
        for number in range(20_000):
            journal.write(Refused(number, "rotation", 1))
            if number % 10 == 0:
                journal.flush()
            if number % 100 == 0:
                await asyncio.sleep(0)
        for _ in range(1000):  # the thread that makes the next one may not have had the processor yet
            await asyncio.sleep(0 if journal.accepting else 0.01)
        assert journal.accepting
        journal.close()

    asyncio.run(write())
    segments = [segment for segment in read_all(tmp_path) if segment]  # the last one may be made and not begun
    assert len(segments) >= 2
    for number, segment in enumerate(segments[:-1]):
        assert segment[-1] == Rotated(number + 1)
    assert [r.at for s in segments for r in s if isinstance(r, Refused)] == list(range(20_000))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_rotation_without_a_turn_of_the_loop(tmp_path: Path) -> None:
    """A burst that fills a segment faster than a thread can make the next one."""

    async def write() -> None:
        journal = small_journal(tmp_path)
        for number in range(20_000):
            journal.write(Refused(number, "burst", 1))
            if number % 64 == 0:
                journal.flush()
        await asyncio.sleep(0.2)
        for number in range(20_000, 25_000):
            journal.write(Refused(number, "burst", 1))
            journal.flush()
        journal.close()

    asyncio.run(write())
    segments = read_all(tmp_path)
    assert [r.at for s in segments for r in s if isinstance(r, Refused)] == list(range(25_000))


# ------------------------------------------------------------------------------- a full disk


def limit_files(plane: DataPlane, size: int) -> None:
    """The kernel refuses this process to write past ``size`` (EFBIG), as a full disk would (ENOSPC)."""
    resource.prlimit(plane.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_new_calls_and_recovers(provider: Provider, tmp_path: Path) -> None:
    """The call that meets it first is served, and its receipt held; the next ones are refused, until there is room."""
    with DataPlane(tmp_path / "s", upstream(provider.url)) as plane:
        with opened(plane, request("up/lorem?rate=20&ttft=0&tokens=100000")) as running:
            running.head()
            assert ask(plane, "up/echo").status == 200
            limit_files(plane, 1)
            first = ask(plane, "up/echo")
            assert first.status == 200
            asked = len(provider.requests)
            answer = ask(plane, "up/echo")
            assert (answer.status, answer.error["code"]) == (503, "journal_full")
            assert len(provider.requests) == asked and "retry-after" in answer.headers
            with opened(plane, b"GET /readyz HTTP/1.1\r\nHost: t\r\n\r\n") as ready:
                assert ready.rest().status == 503
            running.until(b"incididunt")  # what runs goes on
            limit_files(plane, resource.RLIM_INFINITY)
            wait_until(lambda: ask(plane, "up/echo").status == 200, within=60, step=0.2)
            running.leave()
        assert closed_by_id(plane, first.headers["x-headgate-stream-id"]).outcome == "delivered"
        assert closed_by_id(plane, running.headers["x-headgate-stream-id"]).outcome == "cancelled"
        answer = ask(plane, "up/echo")
        assert last_closed(plane).id == bare(answer.headers["x-headgate-stream-id"])
        assert any(isinstance(r, Refused) and r.code == "journal_full" for r in plane.wait_for(Refused))


def test_no_room_for_the_next_segment(tmp_path: Path) -> None:
    """The running one is used up to its reserve, which is kept for closes; the rest is refused."""

    async def write() -> tuple[int, bool]:
        journal = small_journal(tmp_path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL // 2, hard))  # no further segment can be made
        written = 0
        try:
            while journal.accepting and written < 50_000:
                journal.write(Refused(written, "room", 1))
                journal.flush()
                written += 1
                if written % 50 == 0:
                    await asyncio.sleep(0.001)
            refused = not journal.accepting
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        recovered = await eventually(lambda: journal.accepting)
        journal.write(Refused(written, "room", 1))
        journal.close()
        return written if refused else -1, recovered

    written, recovered = asyncio.run(write())
    assert written > 0 and recovered
    found = [r.at for s in read_all(tmp_path) for r in s if isinstance(r, Refused)]
    assert found[-1] == written and found[:-1] == list(range(len(found) - 1))


def test_counts_wait_for_room(tmp_path: Path) -> None:
    """A flood of refusals does not eat what is reserved for the closes of running calls."""

    async def flood() -> tuple[int, int]:
        journal = small_journal(tmp_path)
        journal.running = 1000  # more than this segment has reserves for
        assert not journal.accepting
        refusals = Refusals(journal)
        for second in range(100):
            refusals.count("invalid_api_key")
            refusals.flush(second)
            journal.flush()
        held = len(read_all(tmp_path)[0])
        journal.running = 0
        refusals.flush(100)
        journal.close()
        return held, sum(r.count for s in read_all(tmp_path) for r in s if isinstance(r, Refused))

    assert asyncio.run(flood()) == (0, 100)


# ------------------------------------------------------------------------------- a segment that others harm


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def _move_away(path: Path) -> None:
    path.rename(path.with_name("moved"))


HARM: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "removed with its folder": lambda path: shutil.rmtree(path.parent),
    "moved away": _move_away,
    "replaced by a copy": _replace,
    "emptied": lambda path: os.truncate(path, 0),
    "cut in the middle": lambda path: os.truncate(path, 100),
    "cut and grown": lambda path: (os.truncate(path, 100), os.truncate(path, SMALL)),
    "overwritten": lambda path: path.open("r+b").write(bytes(4096)),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_harmed_live_segment_is_noticed_and_a_new_one_begun(harm: str, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()

    async def main() -> tuple[list[Record], int]:
        journal = small_journal(folder)
        for number in range(20):
            journal.write(Refused(number, "before", 1))
        journal.flush()
        for _ in range(2):
            journal.check()
        assert journal.lost_segments == 0
        live = folder / "w0-boot-000000"
        HARM[harm](live)
        journal.write(Refused(20, "before", 1))  # it does not know yet
        journal.flush()
        journal.check()
        journal.write(Refused(21, "after", 1))
        journal.flush()
        journal.check()
        found = [record for record, _ in records.scan((folder / "w0-boot-000001").read_bytes())]
        journal.close()
        return found, journal.lost_segments

    assert asyncio.run(main()) == ([Refused(21, "after", 1)], 1)


def test_lost_segment_is_replaced_within_seconds(provider: Provider, tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(provider.url)) as plane:
        assert ask(plane, "up/echo").status == 200
        [live] = (tmp_path / "s" / "journal").iterdir()
        live.unlink()
        wait_until(lambda: list((tmp_path / "s" / "journal").iterdir()))
        answer = ask(plane, "up/echo")
        assert closed_by_id(plane, answer.headers["x-headgate-stream-id"]).outcome == "delivered"
