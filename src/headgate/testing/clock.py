"""A clock that a test moves: an hour of cooldown becomes one line."""

from __future__ import annotations


class ManualClock:
    """Satisfies ``ports.Clock``.  ``now`` is monotonic seconds; it only ever grows."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def advance(self, seconds: float) -> float:
        """Advance, and return the new ``now``.  Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self.now += seconds
        return self.now
