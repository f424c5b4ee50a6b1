"""``headgate tenant``: what stands above tokens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import changed, facts, moment, number, show, table
from headgate.cli.nouns.callers.allowance import (
    BudgetText,
    Hard,
    OverBudget,
    Parallel,
    Rpd,
    Rpm,
    Tpm,
    Zone,
    budget_left,
    budget_text,
    budget_wish,
    limits_text,
    limits_wish,
    over_budget_wish,
    standing_rows,
)
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import at, open_gateway

app = noun("Tenants: limits and budgets above tokens.")

Name = Annotated[str, typer.Argument(help="Like acme.")]


@app.command("list")
def listing(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the tenants, with what is left of their budgets."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/tenants")
    show(
        rows,
        as_json,
        lambda: table(
            *("!NAME", ">TOKENS", "?LIMITS", "BUDGET LEFT", "??FROM"),
            rows=(
                (
                    row["name"],
                    number(row["tokens"]),
                    limits_text(row["limits"]) or "",
                    budget_left(row["standing"]) or budget_text(row["budget"]) or "",
                    row["origin"],
                )
                for row in rows
            ),
            empty="no tenants; make one with: headgate tenant set NAME --budget 100/month",
        ),
    )


@app.command("show")
def one(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show a tenant's limits, and what is used and left."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/tenants", name))
    show(
        row,
        as_json,
        lambda: facts(
            f"tenant {row['name']}",
            [
                ("tokens", number(row["tokens"])),
                ("limits", limits_text(row["limits"])),
                ("budget", budget_text(row["budget"])),
                ("over budget", row["over_budget"] if row["budget"] else None),
                *(standing_rows({**row["standing"], "holder": "token"}) if row["standing"] else ()),
                ("made", moment(row["created"]) or None),
                ("from", row["origin"]),
            ],
        ),
    )


@app.command("set")
def put(
    name: Annotated[str, typer.Argument(help="A new one, or one that is there.")],
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    parallel: Parallel = None,
    budget: BudgetText = None,
    hard: Hard = None,
    zone: Zone = None,
    over_budget: OverBudget = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a tenant, or replace it: what is not given is no limit."""
    wish: dict[str, Any] = {"limits": limits_wish(rpm=rpm, tpm=tpm, rpd=rpd, parallel=parallel)}
    wish |= budget_wish(budget, hard, zone) | over_budget_wish(over_budget)
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("PUT", at("/tenants", name), wish)
    changed(answer, f"tenant {name} is set", as_json)


@app.command("remove")
def remove(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove a tenant that has no tokens, aliases or prompts."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/tenants", name))
    changed(answer, f"removed {name}", as_json)
