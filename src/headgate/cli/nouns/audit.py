"""``headgate audit``: every change, who made it, and whether the log is whole."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import moment, show, table
from headgate.cli.display.times import before
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import open_gateway

app = noun("Changes: who made them, when, and what they changed.")

SHOWN = 60  # characters of a difference


@app.command("list")
def listing(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 50,
    actor: Annotated[str | None, typer.Option(help="Only by this user.")] = None,
    noun: Annotated[str | None, typer.Option(help="Only of provider, alias, token, user, session, …")] = None,
    ident: Annotated[str | None, typer.Option("--id", help="Only of the object with this id.")] = None,
    action: Annotated[str | None, typer.Option(help="Only created, changed, deleted, …")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 1h, 7d, or a date like 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="Until then: as --since.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the changes, the newest first."""
    now = time.time()
    params = {
        "actor": actor,
        "noun": noun,
        "id": ident,
        "action": action,
        "since": before(since, now) if since else None,
        "until": before(until, now) if until else None,
    }
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/audit", params, limit)
    show(
        rows,
        as_json,
        lambda: table(
            *("#", "TIME", "!WHO", "!WHAT", "?CHANGE"),
            rows=(_cells(row) for row in rows),
            empty="no changes",
        ),
    )


@app.command("verify")
def verify(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Check the whole log.  Exit code 1 where a row was changed or is missing."""
    with open_gateway(config, state_dir) as gateway:
        state = gateway.call("GET", "/audit/verify", timeout_s=600)
    show(state, as_json, lambda: _verdict(state))
    if not state["sound"]:
        raise typer.Exit(1)


def _verdict(state: dict[str, Any]) -> str:
    if state["sound"]:
        return f"the audit log is whole: {state['rows']} rows, head {state['head']}"
    sound = f"the {state['rows']} rows before it are sound"
    return f"the audit log is broken at row {state['broken']}: {state['reason']}; {sound}"


def _cells(row: dict[str, Any]) -> list[str]:
    who = row["actor"] if row["actor_kind"] == "user" else row["actor"] or row["actor_kind"]
    old, new = row["before"] or {}, row["after"] or {}
    name = old.get("name") or new.get("name") or row["id"]  # an id says little
    what = " ".join(filter(None, (row["noun"], name, row["action"])))
    return [str(row["seq"]), moment(row["at"]), who, what, _difference(old, new)]


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The fields that differ, as ``name: old → new``."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            was = f"{_short(old[name])} → " if name in old else ""
            found.append(f"{name}: {was}{_short(new[name]) if name in new else 'gone'}")
    text = ", ".join(found)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
