"""Instants as people write them, to Unix seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from headgate.cli.trouble import Trouble

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def after(text: str, now: float) -> float:
    """``30d``, ``12h``, ``45m`` from ``now``; or an ISO date or instant, UTC where it names no zone."""
    return _instant(text, now, 1, "write 30d, 12h, or a date like 2027-01-31")


def before(text: str, now: float) -> float:
    """``7d``, ``1h`` before ``now``; or an ISO date or instant, UTC where it names no zone."""
    return _instant(text, now, -1, "write 1h, 7d, or a date like 2026-01-31")


def duration(text: str) -> int:
    """``90``, ``90s``, ``1h`` as seconds."""
    if match := re.fullmatch(r"(\d{1,9})([smhdw]?)", text):
        return int(match[1]) * _UNITS[match[2] or "s"]
    raise Trouble(f"{text!r} is no duration", "write 90s, 10m, 1h or 7d", 2)


def _instant(text: str, now: float, direction: int, step: str) -> float:
    if match := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return now + direction * int(match[1]) * _UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise Trouble(f"{text!r} is no time", step, 2) from error
