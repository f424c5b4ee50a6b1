"""A damaged journal: what can still be read is read, and what cannot is counted and kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.control.ingest.recorder import Recorder
from headgate.control.ingest.segments import MAX_PIECES
from headgate.control.store.database import open_store
from headgate.model import Record, Rotated
from headgate.wire.records import HEADER, encode, next_sound, scan
from tests.control.journal_writer import Writer, closed, ident, opened, query, run
from tests.waiting import eventually

CALLS = 20
HURT = 7  # the call whose close is damaged


@asynccontextmanager
async def recording(state: Path) -> AsyncIterator[Recorder]:
    engine = await open_store(f"sqlite:///{state}/headgate.db")
    recorder = Recorder(engine, state / "journal", 0.02)
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()
        await engine.dispose()


def outcomes(state: Path) -> dict[str, str | None]:
    return {row["id"]: row["outcome"] for row in query(state / "headgate.db", "SELECT id, outcome FROM requests")}


def write_calls(writer: Writer) -> dict[int, int]:
    """Opens and closes CALLS calls; where each close begins."""
    begins = {}
    for number in range(CALLS):
        writer.write(opened(number))
        begins[number] = writer.offset
        writer.write(closed(number))
    return begins


def flip(writer: Writer, at: int) -> None:
    byte = os.pread(writer.fd, 1, at)[0]
    os.pwrite(writer.fd, bytes([byte ^ 0xFF]), at)


SPOTS = {
    "the length's low byte": 0,
    "the length's high byte": 3,
    "the checksum": 5,
    "the tag": HEADER.size + 1,
    "the middle": HEADER.size + 40,
    "the last byte": len(encode(closed(HURT))) - 1,
}


@pytest.mark.parametrize("alive", [True, False], ids=["writer lives", "writer is gone"])
@pytest.mark.parametrize("spot", SPOTS)
def test_one_damaged_byte_costs_one_record(spot: str, alive: bool, tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        begins = write_calls(writer)
        flip(writer, begins[HURT] + SPOTS[spot])
        if not alive:
            writer.die()
        async with recording(tmp_path) as recorder:
            await eventually(lambda: recorder.lag().records_damaged)
            await eventually(lambda: len([o for o in outcomes(tmp_path).values() if o == "delivered"]) == CALLS - 1)
            assert recorder.lag().records_damaged == 1
            await eventually(lambda: outcomes(tmp_path)[ident(HURT)] == (None if alive else "lost"))
            assert [path.name for path in (tmp_path / "torn").iterdir()] == [f"{writer.path.name}@{begins[HURT]}"]
            await eventually(lambda: writer.there is alive)

    run(main())


def test_a_length_that_became_zero_is_not_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        begins = write_calls(writer)
        os.pwrite(writer.fd, bytes(4), begins[HURT])
        async with recording(tmp_path) as recorder:
            await eventually(lambda: recorder.lag().records_damaged == 1)
            await eventually(lambda: outcomes(tmp_path).get(ident(CALLS - 1)) == "delivered")

    run(main())


@pytest.mark.parametrize("size", [3000, 100_000])
def test_damaged_stretch_inside_a_segment_is_skipped(size: int, tmp_path: Path) -> None:
    """As after a power cut, or a file system's repair."""

    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        writer.write(opened(1))
        writer.write_bytes(bytes(size))
        writer.write(closed(1), opened(2))
        writer.write_bytes(b"\x51" * size)
        writer.write(closed(2), Rotated(1))
        later = Writer(tmp_path / "journal", number=1)
        later.write(opened(3), closed(3))
        async with recording(tmp_path) as recorder:
            await eventually(lambda: set(outcomes(tmp_path).values()) == {"delivered"} and len(outcomes(tmp_path)) == 3)
            await eventually(lambda: not writer.there)
            assert later.there
            assert recorder.lag().records_damaged >= 2

    run(main())


def test_unended_segment_ends_with_its_successor(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        writer.write(opened(1), closed(1))
        later = Writer(tmp_path / "journal", number=1)
        async with recording(tmp_path) as recorder:
            await eventually(lambda: outcomes(tmp_path))
            assert writer.there, "the next one is made in advance"
            later.write(opened(2))
            await eventually(lambda: not writer.there)
            assert recorder.lag().records_damaged == 0
            assert not (tmp_path / "torn").exists(), "nothing was lost"

    run(main())


def test_a_record_in_the_middle_of_its_write_is_not_damage(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        whole = encode(closed(1))
        async with recording(tmp_path) as recorder:
            writer.write(opened(1))
            os.pwrite(writer.fd, whole[:-9], writer.offset)
            await asyncio.sleep(0.5)
            writer.write_bytes(whole)
            await eventually(lambda: outcomes(tmp_path).get(ident(1)) == "delivered")
            assert recorder.lag().records_damaged == 0

    run(main())


def test_the_damage_that_is_kept_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    for number in range(MAX_PIECES):
        (tmp_path / "torn" / str(number)).touch()

    async def main() -> None:
        writer = Writer(tmp_path / "journal")
        flip(writer, write_calls(writer)[HURT] + 20)
        async with recording(tmp_path) as recorder:
            await eventually(lambda: recorder.lag().records_damaged == 1)
        assert len(list((tmp_path / "torn").iterdir())) == MAX_PIECES

    run(main())


# ------------------------------------------------------------------------------------- the search alone


@pytest.mark.parametrize("record", [opened(1), closed(1), Rotated(1), opened(2, label="\x00" * 60)], ids=repr)
def test_a_sound_record_is_found_behind_anything(record: Record) -> None:
    data = encode(record)
    for before in (b"", b"\x00" * 999, b"\x91" * 999, bytes(range(256)) * 9, data[:-1], data[1:], data[5:]):
        assert next_sound(before + data + bytes(20)) == len(before)
        assert next_sound(before + data[:-1]) is None


def test_one_damaged_byte_loses_one_record() -> None:
    records: list[Any] = [opened(1), closed(1), opened(2)]
    data = b"".join(map(encode, records))
    for at in range(len(data)):
        hurt = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
        found, offset = [], 0
        while (start := next_sound(hurt, offset)) is not None:
            sound = list(scan(hurt, start))
            found += [record for record, _ in sound]
            offset = sound[-1][1]
        assert len(found) == len(records) - 1, at
