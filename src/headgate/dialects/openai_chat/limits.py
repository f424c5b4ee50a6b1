"""When an upstream says that it may be asked again: Retry-After, its relatives, and what providers put in the body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_DATE = re.compile(rb"[A-Za-z]{3}, (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT")  # RFC 9110 §5.6.7
_DURATION = re.compile(rb"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {b"ms": 0.001, b"s": 1.0, b"m": 60.0, b"h": 3600.0, b"d": 86400.0}
_RETRY_DELAY = re.compile(rb'"retryDelay"\s*:\s*"([0-9.]+m?s)"')  # google.rpc.RetryInfo
_TRY_AGAIN = re.compile(rb"try again in ((?:\d+(?:\.\d+)?(?:ms|s|m|h))+)", re.IGNORECASE)
_LONGEST = 7 * 86400.0


def retry_after(headers: Mapping[bytes, bytes], body: bytes, now: float) -> float | None:
    """Seconds from ``now`` (Unix) until the upstream wants to be asked again; None where it does not say.

    In the order of trust: ``retry-after-ms``, ``Retry-After`` (RFC 9110 §10.2.3: seconds or a date), the reset of the
    limit that is used up, the body's own words.
    """
    seconds = _milliseconds(headers.get(b"retry-after-ms"))
    if seconds is None:
        seconds = _seconds_or_date(headers.get(b"retry-after"), now)
    if seconds is None:
        seconds = _reset(headers, now)
    if seconds is None:
        found = _RETRY_DELAY.search(body) or _TRY_AGAIN.search(body[:4096])
        seconds = duration(found[1]) if found else None
    return None if seconds is None else min(max(seconds, 0.0), _LONGEST)


def duration(text: bytes) -> float | None:
    """Seconds of ``20ms``, ``1s``, ``6m0s``; None for anything else."""
    parts = _DURATION.findall(text)
    if not parts or b"".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _milliseconds(value: bytes | None) -> float | None:
    number = _plain(value)
    return None if number is None else number / 1000


def _seconds_or_date(value: bytes | None, now: float) -> float | None:
    number = _plain(value)
    if number is not None or value is None:
        return number
    found = _DATE.fullmatch(value.strip())
    if found is None or found[2] not in _MONTHS:
        return None
    month = _MONTHS.index(found[2]) + 1
    try:
        day, hour, minute, second = (int(found[i]) for i in (1, 4, 5, 6))
        date = datetime(int(found[3]), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return max(date.timestamp() - now, 0.0)


def _reset(headers: Mapping[bytes, bytes], now: float) -> float | None:
    waits = []
    for limit in (b"-requests", b"-tokens", b""):
        value = headers.get(b"x-ratelimit-reset" + limit)
        if value is None or headers.get(b"x-ratelimit-remaining" + limit, b"0").strip() != b"0":
            continue
        seconds = duration(value.strip())
        if seconds is None:
            seconds = _instant(_plain(value), now)
        if seconds is not None:
            waits.append(seconds)
    return max(waits, default=None)


def _instant(number: float | None, now: float) -> float | None:
    """A bare number is seconds from now, an instant in Unix seconds, or one in milliseconds: its size tells which."""
    if number is None or number < 1e9:
        return number
    return max((number / 1000 if number > 1e11 else number) - now, 0.0)


def _plain(value: bytes | None) -> float | None:
    text = value.strip() if value else b""
    return float(text) if text and len(text) < 20 and text.replace(b".", b"", 1).isdigit() else None
