"""Receipt ids: 24 hex digits, and the prefix that a dialect puts before them.

An id has three parts: milliseconds since 1970 (11 digits), a salt of the process that took the call (7), and a counter
(6).  So ids are ordered by time, and an id names the process of a running call.  Records and the store hold bare ids;
clients see them with the prefix of the API that they speak (``chatcmpl-``).
"""

from __future__ import annotations

import re

LENGTH = 24
TIME = 11  # digits that hold the time
SALT_END = 18  # where the salt behind them ends

_ID = re.compile(r"(?:[a-z]{1,16}[-_])?([0-9a-f]{24})")


def bare(ident: str) -> str | None:
    """Return the id without its prefix; None if ``ident`` is not a receipt id."""
    match = _ID.fullmatch(ident)
    return match[1] if match else None


def first_of(ns: int) -> str:
    """The lowest id, or the beginning of it, in the millisecond of this instant (Unix ns)."""
    return f"{ns // 1_000_000:011x}"


def salt_digits(salt: int) -> str:
    """Return the digits that stand for a process in its ids: the lowest 28 bits of ``salt``."""
    return f"{salt & 0xFFFFFFF:07x}"


def salt_of(ident: str) -> str:
    """The salt in a bare id."""
    return ident[TIME:SALT_END]
