"""The data process's end of the channel, against a peer that is no good."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import pairwise
from pathlib import Path

from headgate.model import Snapshot
from headgate.process.channel import AskReply, Hello, address, frame
from headgate.serving.loop.wheel import Wheel
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.link import Uplink
from headgate.serving.uplink.snapshots import SnapshotFile


async def connections(folder: Path, greeting: bytes, count: int) -> list[float]:
    """When a link connects to a peer that sends ``greeting`` and drops it: so many times."""
    path = folder / "channel.sock"
    times: list[float] = []
    enough = asyncio.Event()

    def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(time.monotonic())
        if len(times) == count:
            enough.set()
        writer.write(greeting)
        writer.close()

    with address(path) as reachable:
        server = await asyncio.start_unix_server(accepted, reachable)
    loop = asyncio.get_running_loop()
    directory = SnapshotDirectory(b"k" * 32, Snapshot(), {})
    link = Uplink(path, SnapshotFile(folder / "saved"), Hello("w0", "b0", 0, os.getpid()), directory, Wheel(loop), {})
    task = asyncio.create_task(link.run())
    async with asyncio.timeout(60):
        await enough.wait()
    task.cancel()
    server.close()
    return times


def test_a_peer_that_accepts_and_drops_is_tried_less_and_less(tmp_path: Path) -> None:
    times = asyncio.run(connections(tmp_path, b"", 10))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert sum(pauses[-3:]) > 1.5 * sum(pauses[:3]) and pauses[-1] >= 0.12


def test_a_peer_that_has_spoken_is_tried_again_soon(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    times = asyncio.run(connections(deep, frame(AskReply(1, 200, b"{}")), 25))
    pauses = sorted(later - earlier for earlier, later in pairwise(times))
    assert pauses[len(pauses) // 2] < 4 * pauses[0] or pauses[len(pauses) // 2] < 0.12  # they do not grow
