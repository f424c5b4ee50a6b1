"""Admission: whether a call may run now.

The only limit today protects the gateway itself: a call is admitted if its receipt can be written.
"""

from __future__ import annotations

from headgate.errors import JOURNAL_FULL, GatewayError
from headgate.model import Call


def take(call: Call, *, journal_accepts: bool) -> int:
    """Return the estimated tokens of a call's prompt.  Raises GatewayError (503) if its receipt would have no room."""
    if not journal_accepts:
        raise GatewayError(
            JOURNAL_FULL,
            "the journal has no room for another receipt (is the disk full, or control behind?); try again shortly",
            retry_after=5,
        )
    return call.prompt.tokens
