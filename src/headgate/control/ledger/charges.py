"""What the providers charge for one call, beside what its caller pays.  Pure."""

from __future__ import annotations

from headgate.model import Closed

# Of tokens, and of nano-USD (a million dollars), in one call.  More is a fault of whoever reported it, and must not
# make a sum that the store's integers cannot hold.
MOST = 1 << 50


def billed_by(closed: Closed) -> dict[str, int] | None:
    """nano-USD by provider, of all attempts; None where that is the call's cost, at the provider that served.

    Attempts whose price is unknown are left out.  The last attempt has no figures of its own where it used what the
    call did.
    """
    attempts = closed.attempts
    cost = closed.cost if 0 <= closed.cost <= MOST else 0  # as the row has it
    last = attempts[-1]
    if len(attempts) == 1 and last.provider == closed.provider and last.cost in (-1, cost):
        return None
    billed: dict[str, int] = {}
    for attempt in attempts:
        if attempt.cost > 0:
            billed[attempt.provider] = billed.get(attempt.provider, 0) + min(attempt.cost, MOST)
    if cost and last.cost < 0 and not (last.prompt_tokens or last.completion_tokens):
        for provider, share in _shares(closed, cost):
            billed[provider] = billed.get(provider, 0) + share
    return None if billed == ({closed.provider: cost} if cost else {}) else billed


def _shares(closed: Closed, cost: int) -> list[tuple[str, int]]:
    """Who is paid for an answer whose last attempt says nothing of its own."""
    if closed.shares:
        return [(share.provider, share.cost) for share in closed.shares[-1:] if share.cost > 0]
    return [(closed.provider, cost)]
