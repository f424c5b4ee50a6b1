"""The wheel of deadlines: each entry's own end is its own."""

from __future__ import annotations

import asyncio

import pytest

from headgate.serving.loop.wheel import NEVER, TICK, Wheel


class Entry:
    due = NEVER
    slot = -1

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.expired = asyncio.Event()

    def expire(self, now: float) -> None:
        self.expired.set()
        if self.fails:
            raise KeyError("a bug")


def test_a_bug_in_one_deadline_takes_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        wheel = Wheel(asyncio.get_running_loop())
        entries = [Entry(fails=index % 2 == 0) for index in range(8)]
        for entry in entries:
            wheel.set(entry, wheel.now + TICK)
        for entry in entries:
            await asyncio.wait_for(entry.expired.wait(), 10)
        wheel.close()

    asyncio.run(run())
    assert "a bug when a deadline passed" in caplog.text
