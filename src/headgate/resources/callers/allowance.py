"""What one holder may use: limits, a budget, and what happens when it is spent.

A token, a tenant and a group of calls have the same ones.  Money is USD here and nano-USD in the model.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from headgate.catalog import words
from headgate.catalog.money import nano
from headgate.catalog.names import nearest
from headgate.model import NO_LIMITS, Budget, CallLimits
from headgate.resources.fields import ModelName, Resource, wrong

MAX_USD = 1_000_000_000  # nano-USD of it fit into the 64 bits of every store


def _usd(value: Any) -> Any:
    """Numbers are read by their decimal digits, as prices are."""
    if isinstance(value, bool):
        raise wrong("must be a number: USD")
    return str(value) if isinstance(value, float) else value


def _nano(value: Decimal) -> Decimal:
    if value.scaleb(9) % 1:
        raise wrong("has more than nine decimals: money is kept in nano-USD")
    return value


def _zone(value: str) -> str:
    """A name of the IANA time zone database, as this machine has it."""
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # unknown, a path, a folder
        near = nearest(value, sorted(available_timezones()))
        raise wrong(f"there is no time zone {value[:50]!r}{near or '; write a name like Europe/Berlin'}") from None
    return value


Money = Annotated[Decimal, BeforeValidator(_usd), Field(ge=0, le=MAX_USD, allow_inf_nan=False), AfterValidator(_nano)]
Zone = Annotated[
    str,
    Field(min_length=1, max_length=64, description="Its midnight begins a day: an IANA name.", examples=["UTC"]),
    AfterValidator(_zone),
]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class LimitsTable(Resource):
    """Most requests and tokens in any minute, requests in a day (UTC), calls at a time; null: no limit."""

    rpm: Count | None = None
    tpm: Count | None = None
    rpd: Count | None = None
    parallel: Count | None = None

    def limits(self) -> CallLimits:
        """What the data plane is told."""
        return CallLimits(self.rpm, self.tpm, self.rpd, self.parallel)

    def over(self, limits: CallLimits) -> CallLimits:
        """``limits`` with what is sent here in their place."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        return CallLimits(**{name: said.get(name, getattr(limits, name)) for name in CallLimits.__struct_fields__})


class BudgetTable(Resource):
    """USD per period.  ``hard``: a call that it cannot pay is refused; ``soft``: it is counted and reported only."""

    usd: Money
    period: words.Period = "month"
    mode: words.BudgetMode = "hard"
    zone: Zone = "UTC"

    def budget(self) -> Budget:
        """What the data plane is told."""
        return Budget(nano(self.usd) or 0, self.period, self.mode, self.zone)


class InsteadAlias(Resource):
    """What serves instead."""

    alias: ModelName


def _over_budget(value: Any) -> Any:
    if value != "refuse" and not isinstance(value, dict | InsteadAlias):
        raise wrong("must be refuse, or {alias: NAME} with the alias that serves instead")
    return value


OverBudget = Annotated[
    Literal["refuse"] | InsteadAlias,
    BeforeValidator(_over_budget),
    Field(description="`refuse`, or the alias that serves what the budget cannot pay."),
]


class Allowance(Resource):
    """The fields that a token and a tenant share."""

    limits: LimitsTable = LimitsTable()
    budget: BudgetTable | None = None
    over_budget: OverBudget = "refuse"

    def terms(self) -> dict[str, Any]:
        """Arguments for ``model.Grant`` and ``model.Tenant``."""
        return {"limits": self.limits.limits(), "budget": budget_of(self.budget), "over_budget": self.instead}

    @property
    def instead(self) -> str:
        """The alias that serves where the budget is spent; empty: none."""
        return instead_of(self.over_budget)


def budget_of(table: BudgetTable | None) -> Budget | None:
    return None if table is None else table.budget()


def instead_of(over_budget: Literal["refuse"] | InsteadAlias) -> str:
    return over_budget.alias if isinstance(over_budget, InsteadAlias) else ""


def limits_nothing(limits: CallLimits, budget: Budget | None) -> bool:
    return budget is None and limits == NO_LIMITS
