"""Ten thousand resumable streams, or two thousand under a fifth of the cap: never more memory than the cap, and what is
accounted is what is used.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headgate.model import Limits
from headgate.serving.replay.keeper import WEIGHT
from headgate.serving.replay.ring import HEADER
from headgate.testing import Script
from tests import proofs
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import ask, chunk_event, request, scripted_in_thread, transcript, whole_stream
from tests.serving.resuming import alias, plane

STREAMS = proofs.of(2_000, 10_000)
CAP = proofs.of(Limits().replay_max // 5, Limits().replay_max)
CLIENTS = 16
ALLOWANCE = 24 << 20  # what ten thousand calls leave in an allocator anyhow


def answering(data: bytes) -> Script:
    """A connection that answers every request with the same stream."""
    answer = whole_stream(data)
    return tuple(step for _ in range(STREAMS) for step in (("expect_request",), ("send", answer)))


async def ask_often(port: int, times: int, found: list[bool]) -> None:
    """Calls back to back on one connection; notes of each whether it was resumable."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    for _ in range(times):
        writer.write(request("kept"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        found.append(b"x-headgate-stream-url" in head)
        assert b"[DONE]" in await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()


def grow(gate: DataPlane) -> tuple[list[bool], int]:
    """So many streams: which were resumable, and what the process has grown by (bytes)."""

    async def all_of_them(times: int) -> list[bool]:
        found: list[bool] = []
        await asyncio.gather(*(ask_often(gate.port, times, found) for _ in range(CLIENTS)))
        return found

    asyncio.run(all_of_them(1))  # what first calls make once
    before = gate.rss_kb()
    found = asyncio.run(all_of_them(STREAMS // CLIENTS))
    return found, (gate.rss_kb() - before) * 1024


@pytest.mark.parametrize(
    ("events", "size"),
    [(1, 10), (40, 80), (60, 400)],
    ids=["short ones: what each takes beside its events", "middling ones", "more than there is room for"],
)
def test_many_resumable_streams_stay_under_the_cap(tmp_path: Path, events: int, size: int) -> None:
    with (
        scripted_in_thread(answering(transcript(*["x" * size] * events))) as up,
        plane(
            tmp_path / "s", upstream(up.url), alias("kept", "up/m", resumable_s=60.0), limits=Limits(replay_max=CAP)
        ) as gate,
    ):
        found, grown = grow(gate)
        accounted = sum(found) * (WEIGHT + events * (size + 10 + HEADER) + 3 * (230 + HEADER))
        print(f"{sum(found)} of {len(found)} resumable, {grown / 1e6:.0f} MB more, {accounted / 1e6:.0f} expected")
        assert len(found) == STREAMS and grown < CAP + ALLOWANCE and grown < accounted * 1.15 + ALLOWANCE
        assert all(found) or (accounted > CAP * 0.9 and not found[-1])


def test_large_events_count_with_all_that_is_kept_of_them(tmp_path: Path) -> None:
    """Search results in every chunk: what they share is kept once, and is no less memory for that."""
    found = "x" * 400_000
    deltas = ({"role": "assistant", "content": ""}, *({"content": f"{n} "} for n in range(4)))
    data = b"".join(chunk_event(delta, search_results=found) for delta in deltas)
    with (
        scripted_in_thread(answering(data + chunk_event({}, "stop", search_results=found) + b"data: [DONE]\n\n")) as up,
        plane(
            tmp_path / "s", upstream(up.url), alias("kept", "up/m", resumable_s=60.0), limits=Limits(replay_max=4 << 20)
        ) as gate,
    ):
        for _ in range(10):
            ask(gate, "up/m")  # what such calls leave in an allocator anyhow
        before = gate.rss_kb()
        answers = [ask(gate, "kept", headgate={}) for _ in range(150)]
        grown = (gate.rss_kb() - before) * 1024
    assert all("x-headgate-stream-url" in answer.headers for answer in answers)
    print(f"{grown / 1e6:.0f} MB more")
    assert grown < (4 << 20) + ALLOWANCE
