"""What a holder may use, has used and has left, as its holder and the operator see it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from headgate.catalog.money import usd
from headgate.model import UNLIMITED, Grant, Quota, QuotaUse, Tenant
from headgate.policy.admission.quotas import QuotaTable
from headgate.ports import Counters

WARNING, CRITICAL, EXCEEDED = "warning", "critical", "exceeded"
_ALERTS = ((1.0, EXCEEDED), (0.9, CRITICAL), (0.8, WARNING))  # shares of the budget, the greatest first


class LimitStanding(Struct, frozen=True):
    """One limit: the most, what counts now, and what is left."""

    limit: int
    used: int
    left: int


class BudgetStanding(Struct, frozen=True):
    """USD of the present period.  ``held_usd``: set aside for running calls.  ``resets``: Unix seconds, null: never.
    ``alert``: warning from 80 % on, critical from 90 %, exceeded from 100 %, else null.
    """

    usd: float
    period: str
    mode: str
    zone: str
    spent_usd: float
    held_usd: float
    left_usd: float
    resets: float | None
    alert: str | None


class HolderStanding(Struct, frozen=True):
    """``holder``: token | parent | tenant | group.  A limit that is not set is null."""

    holder: str
    name: str
    rpm: LimitStanding | None = None
    tpm: LimitStanding | None = None
    rpd: LimitStanding | None = None
    parallel: LimitStanding | None = None
    budget: BudgetStanding | None = None


def of_grant(table: QuotaTable, counters: Counters, grant: Grant, now: float) -> list[HolderStanding]:
    """Return what a token's calls count against: its own, its parent's and its tenant's limits and budgets."""
    found = []
    for holder in table.holders(grant):
        if (quota := table.quota(holder)) is not None:
            of = "tenant" if isinstance(holder, Tenant) else "token" if holder.id == grant.id else "parent"
            found.append(standing(of, holder.name, quota, counters.use(quota, now)))
    return found


def of_keys(table: QuotaTable, counters: Counters, keys: Iterable[str], now: float) -> dict[str, HolderStanding]:
    """Return the standings of holders by the keys of their counters, of those that have any."""
    found = {}
    for key in keys:
        if (holder := table.named(key)) is not None:
            name, quota = holder
            found[key] = standing(key.partition(":")[0], name, quota, counters.use(quota, now))
    return found


def standing(of: str, name: str, quota: Quota, use: QuotaUse) -> HolderStanding:
    """Return a holder's standing."""
    return HolderStanding(
        of, name, _limit(quota.rpm, use.requests), _limit(quota.tpm, use.tokens), _limit(quota.rpd, use.today),
        _limit(quota.parallel, use.running), _budget(quota, use),
    )  # fmt: skip


def most_urgent(standings: Iterable[HolderStanding]) -> str | None:
    """Return the alert of the budget that is nearest to its end, or None."""
    found = {one.budget.alert for one in standings if one.budget is not None}
    return next((alert for _share, alert in _ALERTS if alert in found), None)


def _limit(limit: int, used: int) -> LimitStanding | None:
    return None if limit == UNLIMITED else LimitStanding(limit, used, max(0, limit - used))


def _budget(quota: Quota, use: QuotaUse) -> BudgetStanding | None:
    budget = quota.budget
    if budget is None:
        return None
    left = max(0, budget.amount - use.spent - use.held)
    alert = next((alert for share, alert in _ALERTS if use.spent >= share * budget.amount), None)
    return BudgetStanding(
        _usd(budget.amount), budget.period, budget.mode, budget.zone, _usd(use.spent), _usd(use.held), _usd(left),
        use.resets, alert,
    )  # fmt: skip


def _usd(amount: int) -> float:
    return usd(amount) or 0.0
