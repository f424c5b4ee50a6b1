"""May this call run now: take a Hold, settle it at the end.

What is limited today is what protects the gateway itself: no call is admitted whose receipt could not be written.
"""

from __future__ import annotations

from headgate.errors import JOURNAL_FULL, GatewayError
from headgate.model import Call, Grant, Hold


def take(call: Call, grant: Grant, *, journal_accepts: bool) -> Hold:
    """The lease of one running call.  Raises GatewayError (503) where its receipt would have no room."""
    if not journal_accepts:
        raise GatewayError(
            JOURNAL_FULL,
            "the journal has no room for another receipt (is the disk full, or control behind?); try again shortly",
            retry_after=5,
        )
    return Hold(grant.id, call.prompt.tokens)
