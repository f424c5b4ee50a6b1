"""Limits, budgets and what is used of them, as the nouns that have them show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from headgate.catalog.money import usd
from headgate.control.api.parts import Admin
from headgate.control.api.views import View, view_of
from headgate.control.telemetry.live import holder_standings
from headgate.model import Budget, CallGroup, CallLimits, Tenant
from headgate.policy.admission.standings import BudgetStanding, HolderStanding, LimitStanding

LimitStandingView = view_of(LimitStanding)
BudgetStandingView = view_of(BudgetStanding)


class LimitsView(view_of(CallLimits)):  # type: ignore[misc]
    """null: no limit."""


class BudgetView(View):
    usd: float = Field(description="Per period.")
    period: str
    mode: str
    zone: str


class HolderStandingView(view_of(HolderStanding)):  # type: ignore[misc]
    """What one holder has used and has left; null: it has no such limit."""

    rpm: LimitStandingView | None  # type: ignore[valid-type]
    tpm: LimitStandingView | None  # type: ignore[valid-type]
    rpd: LimitStandingView | None  # type: ignore[valid-type]
    parallel: LimitStandingView | None  # type: ignore[valid-type]
    budget: BudgetStandingView | None  # type: ignore[valid-type]


def view_of_budget(budget: Budget | None) -> BudgetView | None:
    return None if budget is None else BudgetView.of(budget, usd=usd(budget.amount))


def view_of_standing(one: HolderStanding) -> HolderStandingView:
    limits = ("rpm", "tpm", "rpd", "parallel")
    found = {name: None if (value := getattr(one, name)) is None else LimitStandingView.of(value) for name in limits}
    budget = None if one.budget is None else BudgetStandingView.of(one.budget)
    view: HolderStandingView = HolderStandingView.of(one, **found, budget=budget)
    return view


def of_holder(holder: Tenant | CallGroup, standing: HolderStanding | None, created: int | None) -> dict[str, Any]:
    """The members that the views of tenants and of budgets have in common."""
    return {
        "limits": LimitsView.of(holder.limits),
        "budget": view_of_budget(holder.budget),
        "standing": None if standing is None else view_of_standing(standing),
        "managed_by_file": holder.origin == "file",
        "created": created,
    }


async def used(admin: Admin, keys: Sequence[str]) -> dict[str, HolderStanding] | None:
    """What holders have used, by the keys of their counters; None where no data process answers."""
    return await holder_standings(admin.link, keys)
