"""``headgate budget``: limits and budgets of groups of calls."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import changed, show, table
from headgate.cli.nouns.callers.allowance import (
    Hard,
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
)
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import Trouble, at, open_gateway

app = noun("Budgets and limits of a tag, a session, a model or a user.")

Name = Annotated[str, typer.Argument(help="A name for it, like search.")]


@app.command("list")
def listing(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the budgets of groups of calls, with what is left."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/budgets")
    show(
        rows,
        as_json,
        lambda: table(
            *("!NAME", "!COUNTS", "?LIMITS", "LEFT", "??FROM"),
            rows=(_cells(row) for row in rows),
            empty="no budgets; make one with: headgate budget set NAME --tag team=search --usd 50/day",
        ),
    )


@app.command("set")
def put(
    name: Name,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Like team=search: calls with this tag.")] = None,
    model: Annotated[str | None, typer.Option(help="Calls that this model serves.")] = None,
    session: Annotated[str | None, typer.Option(help="Calls of this session.")] = None,
    user: Annotated[str | None, typer.Option(help="Calls for this user, as clients name it.")] = None,
    budget: Annotated[str | None, typer.Option("--usd", help="50/day, 20/month or 100/total.")] = None,
    hard: Hard = None,
    zone: Zone = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    parallel: Parallel = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a budget, or replace it.  A call counts that has all that is given."""
    pairs = [tag.partition("=") for tag in tags or ()]
    if wrong := ["".join(pair) for pair in pairs if not pair[0] or not pair[2]]:
        raise Trouble(f"{wrong[0]!r} is no tag", "write it NAME=VALUE, like team=search", 2)
    match = {"tag": {key: value for key, _, value in pairs}, "model": model, "session": session, "user": user}
    wish: dict[str, Any] = {
        "match": {key: value for key, value in match.items() if value is not None},
        "limits": limits_wish(rpm=rpm, tpm=tpm, rpd=rpd, parallel=parallel),
        **(budget_wish(budget, hard, zone, "--usd").get("budget") or {}),
    }
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("PUT", at("/budgets", name), wish)
    changed(answer, f"budget {name} is set", as_json)


@app.command("remove")
def remove(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove a budget."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/budgets", name))
    changed(answer, f"removed {name}", as_json)


def _cells(row: dict[str, Any]) -> list[str]:
    match = row["match"]
    counts = [f"{key}={value}" for key, value in match["tag"].items()]
    counts += [f"{key} {match[key]}" for key in ("model", "session", "user") if match[key]]
    left = budget_left(row["standing"]) or budget_text(row["budget"]) or ""
    return [row["name"], ", ".join(counts), limits_text(row["limits"]) or "", left, row["origin"]]
