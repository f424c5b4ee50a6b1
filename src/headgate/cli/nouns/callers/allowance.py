"""Options and figures of what has limits and a budget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import moment, number, usd
from headgate.cli.trouble import Trouble

Rpm = Annotated[int | None, typer.Option("--rpm", min=0, help="Most requests in any minute; 0: no limit.")]
Tpm = Annotated[int | None, typer.Option("--tpm", min=0, help="Most tokens in any minute; 0: no limit.")]
Rpd = Annotated[int | None, typer.Option("--rpd", min=0, help="Most requests in a day (UTC); 0: no limit.")]
Parallel = Annotated[int | None, typer.Option("--parallel", min=0, help="Most calls at a time; 0: no limit.")]
BudgetText = Annotated[str | None, typer.Option("--budget", help="USD: 5/day, 20/month or 100/total; none: no budget.")]
Hard = Annotated[
    bool | None, typer.Option("--hard/--soft", help="Refuse calls that the budget cannot pay, or only count them.")
]
Zone = Annotated[str | None, typer.Option("--zone", help="Its days begin at midnight there, like Europe/Berlin.")]
OverBudget = Annotated[str | None, typer.Option("--over-budget", help="The alias that serves then; else refuse.")]

LIMITS = {
    "rpm": "requests a minute",
    "tpm": "tokens a minute",
    "rpd": "requests today",
    "parallel": "calls at a time",
}
_BUDGET = re.compile(r"\$?([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/(day|month|total))?")


def limits_wish(**limits: int | None) -> dict[str, int | None]:
    """The limits that were given; 0 takes one away."""
    return {name: value or None for name, value in limits.items() if value is not None}


def budget_wish(text: str | None, hard: bool | None, zone: str | None, option: str = "--budget") -> dict[str, Any]:
    """``budget`` of a wish, or nothing.  ``option``: what the text is given with.  Raises Trouble."""
    if text is None:
        if hard is not None or zone is not None:
            raise Trouble("--hard, --soft and --zone belong to a budget", f"give {option}, like 5/month", 2)
        return {}
    if text == "none":
        return {"budget": None}
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise Trouble(f"{text!r} is no budget", "write USD and a period: 5/day, 20/month or 100/total", 2)
    mode = "soft" if hard is False else "hard"
    return {"budget": {"usd": match[1], "period": match[2] or "month", "mode": mode, "zone": zone or "UTC"}}


def over_budget_wish(alias: str | None) -> dict[str, Any]:
    """``over_budget`` of a wish, or nothing."""
    if alias is None:
        return {}
    return {"over_budget": "refuse" if alias == "refuse" else {"alias": alias}}


def budget_text(budget: Mapping[str, Any] | None) -> str | None:
    """``$5.00 per month (hard, UTC)``."""
    if budget is None:
        return None
    per = "in total" if budget["period"] == "total" else f"per {budget['period']}"
    return f"{usd(budget['usd'])} {per} ({budget['mode']}, {budget['zone']})"


def limits_text(limits: Mapping[str, Any]) -> str | None:
    """``2 rpm, 1000 tpm``."""
    return ", ".join(f"{number(limits[name])} {name}" for name in LIMITS if limits.get(name)) or None


def standing_rows(standing: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What one holder has used and has left."""
    whose = "" if standing["holder"] == "token" else f"{standing['holder']}'s "
    for name, words in LIMITS.items():
        if limit := standing[name]:
            used, most, left = (number(limit[key]) for key in ("used", "limit", "left"))
            yield f"{whose}{words}", f"{used} of {most}, {left} left"
    if budget := standing["budget"]:
        held = f", {usd(budget['held_usd'])} held by running calls" if budget["held_usd"] else ""
        resets = f", again {moment(budget['resets'])}" if budget["resets"] else ""
        alert = f" ({budget['alert']})" if budget["alert"] else ""
        spent = f"{usd(budget['spent_usd'])} spent{held}, {usd(budget['left_usd'])} left{resets}{alert}"
        yield f"{whose}budget", spent


def budget_left(standing: Mapping[str, Any] | None) -> str:
    """What is left, for a column."""
    budget = standing and standing["budget"]
    return f"{usd(budget['left_usd'])} of {usd(budget['usd'])}" if budget else ""
