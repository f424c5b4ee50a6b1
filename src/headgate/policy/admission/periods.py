"""When a budget's period begins and ends: at midnight in its zone, whatever clocks do that day.

The zone's rules are the system's time zone database, read once per zone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

DAY_S = 86_400
DAY_NS = DAY_S * 1_000_000_000
NEVER = float("inf")


def period(kind: str, zone: str, now: float) -> tuple[float, float]:
    """Return the beginning and the end (exclusive) of the period of ``kind`` (day | month | total), in Unix seconds.

    Raises ZoneInfoNotFoundError.
    """
    if kind == "total":
        return 0.0, NEVER
    if zone == "UTC" and kind == "day":
        begin = now // DAY_S * DAY_S
        return begin, begin + DAY_S
    local = datetime.fromtimestamp(now, _zone(zone))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if kind == "day":
        return midnight.timestamp(), (midnight + timedelta(days=1)).timestamp()
    first = midnight.replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return first.timestamp(), following.timestamp()


def written(instant: float, zone: str) -> str:
    """An instant as ISO 8601, in ``zone``."""
    return datetime.fromtimestamp(instant, _zone(zone)).isoformat(timespec="seconds")


@cache  # as many as zones are configured
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
