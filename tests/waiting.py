"""Waiting for a condition instead of sleeping: a busy machine takes longer, an idle one loses no time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
WITHIN_S = 120.0  # it costs nothing where the condition comes true
STEP_S = 0.01


def wait_until(
    condition: Callable[[], T], within: float = WITHIN_S, step: float = STEP_S, why: Callable[[], object] | str = ""
) -> T:
    """Return the first true value of ``condition``.  Raises AssertionError with ``why`` after ``within`` seconds."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {within} s in vain: {why() if callable(why) else why}"
        time.sleep(step)
    return found


async def eventually(condition: Callable[[], T], within: float = WITHIN_S, step: float = STEP_S) -> T:
    """``wait_until`` for code on an event loop, which goes on meanwhile."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {within} s in vain"
        await asyncio.sleep(step)
    return found


def wait_until_steady(read: Callable[[], T], pause: float = 0.2) -> T:
    """Return the value of ``read`` when it is the same ``pause`` seconds later."""
    before = read()
    while True:
        time.sleep(pause)
        if (now := read()) == before:
            return now
        before = now
