"""The rules: which alert a figure or a state gives.  Pure: no I/O, no clock.

An alert holds names, ids and figures; no text of a request and no secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from headgate.catalog.money import usd
from headgate.model import HARD, Account
from headgate.policy.admission.standings import CRITICAL, EXCEEDED, WARNING, HolderStanding

BUDGET, ACCOUNT_SPEND, PARKED, RATE = "budget.threshold", "account.spend_threshold", "account.parked", "spend.rate"
LEVELS = {WARNING: 80, CRITICAL: 90, EXCEEDED: 100}
AGAIN_S = 3600.0  # an account that is parked again within this time is not reported again
DAY_S = 86_400
HOURS = 24
EVERYTHING = "gateway"
_WITHIN = {"day": "today", "month": "this month", "total": "in total"}

# Of an account, by its state: the reason's word, and the end of the sentence
REASONS = {
    "dead": ("key_refused", "its key was refused"),
    "exhausted": ("exhausted", "it has no money or no quota left"),
    "parked": ("no_key", "its key is not known"),
    "overspent": ("spend_limit", "its spend limit is reached"),
    "expired": ("expired", "it has expired"),
}


class Alert(Struct, frozen=True):
    """One alert.  It is raised once for ``subject`` within ``scope`` and for each higher ``level``.

    ``until``: Unix seconds until which that is remembered; None: for good, or while the state lasts.
    """

    type: str
    subject: str
    message: str
    data: Mapping[str, Any]
    scope: str = ""
    level: int = 100
    until: float | None = None


def of_budget(key: str, standing: HolderStanding, *, refuses: bool) -> Alert | None:
    """The alert of a budget; None: less than 80 % of it is spent.  ``key`` is its counters'.

    ``refuses``: it has just refused or ended a call.  A hard budget is seldom spent to its last cent, so from 90 % on
    that counts as 100 %.
    """
    budget = standing.budget
    if budget is None or budget.alert is None or budget.usd <= 0:
        return None
    level = LEVELS[budget.alert]
    if refuses and budget.mode == HARD and level == LEVELS[CRITICAL]:
        level = LEVELS[EXCEEDED]
    end = "; calls that it cannot pay are refused" if level == LEVELS[EXCEEDED] and budget.mode == HARD else ""
    data = {
        "holder": standing.holder, "id": key.partition(":")[2], "name": standing.name, "percent": level,
        "spent_usd": budget.spent_usd, "budget_usd": budget.usd, "period": budget.period, "mode": budget.mode,
        "resets": budget.resets,
    }  # fmt: skip
    message = (
        f"The {standing.holder} {standing.name} has reached {level} % of its budget: {_dollars(budget.spent_usd)} of "
        f"{_dollars(budget.usd)} {_WITHIN[budget.period]}{end}."
    )
    return Alert(BUDGET, key, message, data, _scope(budget.resets, budget.usd), level, budget.resets)


def nearest_to_its_end(keys: Iterable[str], standings: Mapping[str, HolderStanding]) -> str | None:
    """The key of the hard budget of which most is spent.  It has refused the call that counts against all of them."""
    shares = {
        key: budget.spent_usd / budget.usd
        for key in keys
        if key in standings and (budget := standings[key].budget) and budget.mode == HARD and budget.usd > 0
    }
    return max(shares, key=lambda key: shares[key], default=None)


def of_account_spend(account: Account, spent: int, end: float) -> Alert | None:
    """The alert of an account's spend limit, whose period ends at ``end``; None: less than 80 % of it is spent."""
    limit = account.spend
    if limit is None or limit.limit <= 0:
        return None
    level = max((level for level in LEVELS.values() if spent * 100 >= limit.limit * level), default=0)
    if not level:
        return None
    data = {
        "account": account.id, "percent": level, "spent_usd": usd(spent), "limit_usd": usd(limit.limit),
        "period": limit.period, "action": limit.action, "resets": end,
    }  # fmt: skip
    parked = "; it is not used until that ends" if level == LEVELS[EXCEEDED] and limit.action == "park" else ""
    message = (
        f"The account {account.id} has reached {level} % of its spend limit: {_dollars(usd(spent) or 0.0)} of "
        f"{_dollars(usd(limit.limit) or 0.0)} {_WITHIN[limit.period]}{parked}."
    )
    return Alert(ACCOUNT_SPEND, account.id, message, data, _scope(end, limit.limit), level, end)


def of_parked(account: str, state: str) -> Alert | None:
    """The alert of an account that is out until something is done about it; None: ``state`` ends by itself."""
    reason = REASONS.get(state)
    if reason is None:
        return None
    word, because = reason
    message = f"The account {account} is not used: {because}."
    return Alert(PARKED, account, message, {"account": account, "reason": word}, word)


def of_rate(key: str, name: str, hour: int, usual: float, now: float) -> Alert:
    """The alert of a spend rate.  ``hour``, ``usual``: nano-USD of the last hour, and of the mean hour before."""
    holder, _, ident = key.partition(":")
    times = hour / usual
    who = "The gateway" if key == EVERYTHING else f"The {holder} {name}"
    spent, mean = usd(hour) or 0.0, usd(int(usual)) or 0.0
    data = {
        "holder": holder, "id": ident, "name": name, "hour_usd": spent, "usual_hour_usd": mean,
        "times": round(times, 1),
    }  # fmt: skip
    message = f"{who} has spent {_dollars(spent)} within an hour, {times:,.1f} times its mean hour of {_dollars(mean)}."
    day = int(now // DAY_S)
    return Alert(RATE, key, message, data, str(day), until=float((day + 1) * DAY_S))


def is_unusual(hour: int, usual: float | None, times: float) -> bool:
    """True where an hour's nano-USD are ``times`` the usual ones.  None: nothing is known of what is usual."""
    return usual is not None and usual > 0 and hour >= times * usual


def _scope(resets: float | None, amount: float) -> str:
    """A budget of another amount begins anew."""
    return f"{'' if resets is None else int(resets)}:{amount:g}"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.2g}"
