"""What the counters of one process hold, for tests."""

from __future__ import annotations

from headgate.policy.admission.memory import MemoryCounters


def spent(counters: MemoryCounters, key: str, now: float) -> tuple[int, int]:
    """nano-USD that a holder has spent in its budget's period, and that its running calls hold."""
    meter = counters._meters.get(key)
    if meter is None:
        return 0, 0
    meter.catch_up(now)
    return meter.spent, meter.held
