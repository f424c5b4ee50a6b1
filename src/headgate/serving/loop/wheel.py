"""Deadlines as timestamps, looked at lazily; and the coarse clock.

A deadline that moves with every event of every stream must not be a timer.  An object with a deadline is a ``Timed``:
it keeps ``due`` as a plain attribute and moves it *later* by assigning it.  The wheel looks at an entry when its slot
comes up.  It puts the entry in a later slot if ``due`` has moved on.  Moving a deadline *earlier* needs ``set``.

``now`` is monotonic seconds, renewed every tick: precise enough for deadlines of a second and more, and free to read.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import Protocol

TICK = 0.05
NEVER = inf

log = logging.getLogger("headgate.wheel")


class Timed(Protocol):
    """Something with a deadline.  ``slot`` belongs to the wheel: -1 when not in it."""

    due: float
    slot: int

    def expire(self, now: float) -> None:
        """Called after ``due``.  The entry is out of the wheel; it may ``set`` itself again."""


class Wheel:
    """Every deadline of this process; one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timed]] = {}
        self.now = loop.time()
        self._tick = int(self.now / TICK)
        self._timer = loop.call_later(TICK, self._turn)

    def set(self, entry: Timed, due: float) -> None:
        """Set or move a deadline, earlier or later."""
        entry.due = due
        if 0 <= entry.slot * TICK <= due:
            return  # its slot comes up in time, and moves it then
        if entry.slot >= 0:
            self._slots[entry.slot].discard(entry)
        slot = entry.slot = self._slot_of(due)
        self._slots.setdefault(slot, set()).add(entry)

    def drop(self, entry: Timed) -> None:
        """Remove the entry.  No effect if it is not in the wheel."""
        if entry.slot >= 0:
            self._slots[entry.slot].discard(entry)
            entry.slot = -1

    def close(self) -> None:
        self._timer.cancel()
        self._slots.clear()

    def _slot_of(self, due: float) -> int:
        # An entry without a deadline stays, and costs a look once a minute: less than an exit and an entry per request.
        horizon = self._tick + int(60 / TICK)
        return max(self._tick + 1, min(int(due / TICK) + 1, horizon)) if due != NEVER else horizon

    def _expire(self, entry: Timed, now: float) -> None:
        try:
            entry.expire(now)
        except Exception:  # the edge of a deadline: one call's bug must not take those of the others in its slot
            log.exception("a bug when a deadline passed")

    def _turn(self) -> None:
        now = self.now = self._loop.time()
        self._timer = self._loop.call_later(TICK, self._turn)
        last, self._tick = self._tick, int(now / TICK)
        for slot in range(last + 1, self._tick + 1):
            entries = self._slots.pop(slot, None)
            if entries is None:
                continue
            for entry in entries:
                entry.slot = -1
            for entry in entries:
                if entry.slot >= 0:  # an earlier entry of this slot has set it again
                    continue
                if entry.due <= now:
                    self._expire(entry, now)
                else:
                    self.set(entry, entry.due)
