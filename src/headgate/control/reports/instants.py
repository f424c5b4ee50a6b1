"""Instants in queries: Unix seconds or ISO 8601 in, Unix ns out."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from headgate.catalog.money import NANO

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = 1 << 63  # ns: in the year 2262
NO_INSTANT = "Give an instant as Unix seconds or in ISO 8601, such as 2026-01-31T12:00:00Z."


def instant(text: str) -> int:
    """Unix ns of ``text``: Unix seconds or ISO 8601 (UTC where it names no zone).  Raises ValueError with a
    sentence.
    """
    try:
        try:
            seconds = Decimal(text)
        except ArithmeticError:
            moment = datetime.fromisoformat(text)
            since = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - EPOCH
            ns = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
        else:
            ns = int(seconds * NANO)
    except (ValueError, ArithmeticError) as error:
        raise ValueError(NO_INSTANT) from error
    if not 0 <= ns < LATEST:
        raise ValueError(NO_INSTANT)
    return ns
