"""Receipts' rows → ledger entries.  Pure: no I/O, no clock.

A *transfer* is a set of entries that add up to 0; its id is the receipt's and a phase, so that it is posted once:

- ``hold``: what admission has set aside for a running call; ``hold:<nano-USD>``: it was raised to that.
- ``settle``: the call has ended: its hold is released, its caller pays, its providers are owed.  ``release``: the same
  where nothing is to be paid.  ``lost``: the call's end is unknown, and it is settled with its estimate.
- ``found``: a lost call's end was recorded after all: its estimate is taken back, then it is settled.
- ``reprice:<price id>``: a corrected price (``reprice``).

Debits are positive.  The caller's token is debited with what the call costs, each provider's account credited with what
that charges; the difference is the operator's: failed attempts, continuations.  A tenant's account repeats those of its
tokens, against ``tenants``.  Holds stand in ``held:<token>``, against ``reserved``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from headgate.policy.admission.periods import DAY_NS

TOKEN, TENANT, PROVIDER, HELD = "token:", "tenant:", "provider:", "held:"
TENANTS, RESERVED, OPERATOR = "tenants", "reserved", "operator"
LOST = "lost"

Row = tuple[Any, ...]
_billed = msgspec.json.Decoder(dict[str, int])

# Of a receipt's row, in this order
POSTED = ("created_at", "grant_id", "provider", "outcome", "cost", "tenant", "held", "billed", "closed_at")


class Posted(NamedTuple):
    """A receipt as the ledger reads it; ``outcome`` is None while it runs."""

    created_at: int
    grant: str
    provider: str
    outcome: str | None
    cost: int | None
    tenant: str | None
    held: int | None
    billed: str | None
    closed_at: int | None


# Of an entry, in this order: plain tuples, because there are up to eight a call.  `at` is Unix ns of what is posted,
# `day` that of the receipt: days since 1970-01-01 UTC
ENTRY = ("transfer", "account", "amount", "at", "day")
Entries = list[tuple[str, str, int, int, int]]


def entries(
    before: Mapping[str, Posted],
    opened: Iterable[tuple[str, Posted]],
    raised: Iterable[tuple[str, int]],
    ended: Iterable[tuple[str, Posted]],
) -> Entries:
    """Return the entries of a batch.  ``before``: the store's rows of these calls, by id, where it has any.

    ``opened`` are calls that still run, ``raised`` the holds of calls that run on, ``ended`` the calls that are over,
    in order.  What is in the store already is not posted again.
    """
    found: Entries = []
    known = dict(before)
    for ident, row in opened:
        if ident not in known:
            known[ident] = row
            _hold(found, f"{ident}:hold", row, row.held or 0, row.created_at)
    for ident, held in raised:
        running = known.get(ident)
        if running is not None and running.outcome is None and held > (running.held or 0):
            _hold(found, f"{ident}:hold:{held}", running, held - (running.held or 0), running.created_at)
            known[ident] = running._replace(held=held)
    for ident, row in ended:
        earlier = known.get(ident)
        if earlier is None:
            _settle(found, ident, row, 0)
        elif earlier.outcome is None:
            row = row._replace(created_at=earlier.created_at, grant=earlier.grant, tenant=earlier.tenant)
            _settle(found, ident, row, earlier.held or 0)
        elif earlier.outcome == LOST != row.outcome:
            row = row._replace(created_at=earlier.created_at, grant=earlier.grant, tenant=earlier.tenant)
            _take_back(found, ident, earlier, row.closed_at or row.created_at)
            _settle(found, ident, row, 0)
        else:
            continue
        known[ident] = row
    return found


def _hold(found: Entries, transfer: str, row: Posted, amount: int, at: int) -> None:
    if amount:
        day = row.created_at // DAY_NS
        found.append((transfer, HELD + row.grant, amount, at, day))
        found.append((transfer, RESERVED, -amount, at, day))


def _settle(found: Entries, ident: str, row: Posted, held: int) -> None:
    at = row.closed_at or row.created_at
    phase = LOST if row.outcome == LOST else "settle" if row.cost or row.billed else "release"
    transfer = f"{ident}:{phase}"
    _hold(found, transfer, row, -held, at)
    day = row.created_at // DAY_NS
    for account, amount in charge(row):
        found.append((transfer, account, amount, at, day))


def _take_back(found: Entries, ident: str, lost: Posted, at: int) -> None:
    day = lost.created_at // DAY_NS
    for account, amount in charge(lost):
        found.append((f"{ident}:found", account, -amount, at, day))


def charge(row: Posted) -> list[tuple[str, int]]:
    """Return what an ended call debits and credits: (account, nano-USD)."""
    cost = row.cost or 0
    if row.billed is None:
        if not cost:
            return []
        found = [(TOKEN + row.grant, cost), ((PROVIDER + row.provider) if row.provider else OPERATOR, -cost)]
    else:
        billed = _billed.decode(row.billed)
        found = [(TOKEN + row.grant, cost)] if cost else []
        found += [(PROVIDER + name, -amount) for name, amount in billed.items() if amount]
        if own := sum(billed.values()) - cost:
            found.append((OPERATOR, own))
    if cost and row.tenant:
        found += ((TENANT + row.tenant, cost), (TENANTS, -cost))
    return found


def balances(posted: Entries) -> list[Row]:
    """Return what ``posted`` adds to the accounts: (account, day, nano-USD)."""
    sums: dict[tuple[str, int], int] = {}
    for _transfer, account, amount, _at, day in posted:
        key = (account, day)
        sums[key] = sums.get(key, 0) + amount
    return [(*key, amount) for key, amount in sums.items() if amount]
