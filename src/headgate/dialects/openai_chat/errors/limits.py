"""Read when an upstream may be asked again: from Retry-After, similar fields, and the body.

An instant is measured against the answer's own ``Date``, so a wrong clock on either side has no effect.  No wait is
longer than ``LONGEST_S``.  A longer one is a mistake (milliseconds for seconds) or a quota, and a probe costs less than
such a wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

LONGEST_S = 900.0
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# RFC 9110 §5.6.7: the preferred form, RFC 850's, and asctime's
_FIXED = re.compile(r"[a-z]{3,9},? (\d{1,2})[ -]([a-z]{3})[ -](\d{4}|\d\d) (\d\d):(\d\d):(\d\d) (?:gmt|utc|[+-]0000)")
_ASCTIME = re.compile(r"[a-z]{3} ([a-z]{3}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[t ](\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(z|[+-]\d\d:?\d\d)?")  # RFC 3339
_PART = re.compile(rb"(\d{1,20}(?:\.\d{1,20})?) ?(ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)")
_UNITS = {b"ms": 0.001, b"s": 1.0, b"m": 60.0, b"h": 3600.0, b"d": 86400.0}
_AGAIN = re.compile(
    r"(?:try again|retry|available again|wait|resets?|retrying) (?:in|after|for|at least)? ?"
    r"((?:\d[\d.]{0,20} ?(?:ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)\b,? ?(?:and )?){1,4}"
    r"|(?:\d{1,6}(?:\.\d{1,9})?(?:ms|s|m|h|d)){1,4})",
    re.IGNORECASE,
)
_RESETS = (
    (b"x-ratelimit-reset-requests", b"x-ratelimit-remaining-requests"),
    (b"x-ratelimit-reset-tokens", b"x-ratelimit-remaining-tokens"),
    (b"x-ratelimit-reset", b"x-ratelimit-remaining"),
    (b"ratelimit-reset", b"ratelimit-remaining"),
    (b"anthropic-ratelimit-requests-reset", b"anthropic-ratelimit-requests-remaining"),
    (b"anthropic-ratelimit-tokens-reset", b"anthropic-ratelimit-tokens-remaining"),
    (b"anthropic-ratelimit-input-tokens-reset", b"anthropic-ratelimit-input-tokens-remaining"),
    (b"anthropic-ratelimit-output-tokens-reset", b"anthropic-ratelimit-output-tokens-remaining"),
)


def retry_after(headers: Mapping[bytes, bytes], now: float) -> float | None:
    """Return the seconds until a retry, from the head of an answer; None if it does not say.

    In the order of trust: ``retry-after-ms``, ``Retry-After`` (RFC 9110 §10.2.3: seconds or a date), the reset of the
    limit that is used up.  ``now`` (Unix) stands in for an answer without a ``Date``.
    """
    date = _date(headers.get(b"date", b""))
    base = now if date is None else date
    number = _number(headers.get(b"retry-after-ms"))
    if number is not None:
        return sane(number / 1000)
    for name in (b"retry-after", b"x-ratelimit-reset-after"):
        seconds = _wait(headers.get(name, b""), base)
        if seconds is not None:
            return seconds
    return _reset(headers, base)


def in_words(text: str) -> tuple[float, int, int] | None:
    """Return the seconds in a message ("try again in 6m0s", "retry after 12 seconds"), and their place in it."""
    found = _AGAIN.search(text[:2048])
    seconds = span(found[1].encode()) if found else None
    return None if found is None or seconds is None else (seconds, found.start(), found.end())


def span(text: bytes) -> float | None:
    """``duration``, bounded."""
    cleaned = text.lower().replace(b"and", b"").replace(b",", b"").strip()
    return sane(duration(b"".join(cleaned.split())))


def duration(text: bytes) -> float | None:
    """Return the seconds of ``20ms``, ``1s``, ``6m0s``, ``12 seconds``; None for anything else."""
    at, total = 0, 0.0
    for part in _PART.finditer(text):
        if part.start() != at:
            return None
        unit = b"ms" if part[2].startswith((b"ms", b"milli")) else part[2][:1]
        total += float(part[1]) * _UNITS[unit]
        at = part.end()
    return total if at and at == len(text) else None


def sane(seconds: float | None) -> float | None:
    """Return a plausible wait: None for a negative one, at most ``LONGEST_S``."""
    return None if seconds is None or not seconds >= 0 else min(seconds, LONGEST_S)


def _wait(value: bytes, base: float) -> float | None:
    value = value.strip()
    if not value:
        return None
    number = _number(value)
    if number is None:
        number = duration(value.lower())
    if number is not None:
        return sane(number)
    date = _date(value)
    return None if date is None else sane(max(date - base, 0.0))


def _reset(headers: Mapping[bytes, bytes], base: float) -> float | None:
    waits = []
    for name, left in _RESETS:
        value = headers.get(name, b"").strip()
        if not value or headers.get(left, b"0").strip() != b"0":
            continue
        number = _number(value)
        seconds = _wait(value, base) if number is None else sane(_instant(number, base))
        if seconds is not None:
            waits.append(seconds)
    return max(waits, default=None)


def _instant(number: float, base: float) -> float:
    """Read a bare number by its size: seconds from now, or an instant in Unix seconds or milliseconds."""
    if number < 1e9:
        return number
    return max((number / 1000 if number > 1e11 else number) - base, 0.0)


def _number(value: bytes | None) -> float | None:
    text = value.strip() if value else b""
    return float(text) if text and len(text) < 40 and text.replace(b".", b"", 1).isdigit() else None


def _date(value: bytes) -> float | None:
    """Return the Unix seconds of a date in one of the usual forms; None for anything else."""
    text = value[:64].decode("latin-1").strip().lower()
    if found := _FIXED.fullmatch(text):
        day, month, year, clock, zone = found[1], found[2], found[3], found.groups()[3:6], ""
    elif found := _ASCTIME.fullmatch(text):
        month, day, year, clock, zone = found[1], found[2], found[6], found.groups()[2:5], ""
    elif found := _ISO.fullmatch(text):
        year, month, day, clock, zone = found[1], found[2], found[3], found.groups()[3:6], found[7] or "z"
    else:
        return None
    try:
        number = int(month) if month.isdigit() else _MONTHS.index(month) + 1
        full = int(year) + (2000 if len(year) == 2 else 0)
        hour, minute, second = (int(part) for part in clock)
        instant = datetime(full, number, int(day), hour, minute, second, tzinfo=_zone(zone))
    except ValueError:
        return None
    return instant.timestamp()


def _zone(text: str) -> timezone:
    if text in ("", "z"):
        return UTC
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
