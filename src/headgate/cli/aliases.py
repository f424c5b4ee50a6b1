"""``headgate aliases``: names that clients use, and the models behind them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.cli.gateway import at, open_gateway
from headgate.cli.options import Config, Json, StateDir, noun
from headgate.cli.terminal import changed, facts, number, show, table

app = noun("Aliases: names that clients use, and the models behind them.")

Name = Annotated[str, typer.Argument(help="Like headgate/chat.")]


@app.command("list")
def listing(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the aliases with the models that they lead to now."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/aliases")
    show(
        rows,
        as_json,
        lambda: table(
            "!NAME",
            "LEADS TO",
            "FROM",
            ">USES (30 D)",
            rows=(
                (row["name"], _targets(row) or "nothing yet", row["origin"], number(row["uses_30d"])) for row in rows
            ),
            empty="no aliases",
        ),
    )


@app.command("show")
def one(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show what an alias leads to, and why."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/aliases", name, slashes=True))
    show(
        row,
        as_json,
        lambda: facts(
            row["name"],
            [
                ("leads to", _targets(row) or "nothing yet"),
                ("why", row["why"]),
                ("problem", row["problem"]),
                ("use case", row.get("use_case")),
                ("timeouts", ", ".join(f"{key} {value:g} s" for key, value in row["timeouts"].items()) or None),
                ("uses (30 d)", number(row["uses_30d"])),
                ("from", row["origin"]),
            ],
        ),
    )


@app.command("set")
def put(
    name: Name,
    targets: Annotated[list[str], typer.Argument(help="Models, the first one first: openai/gpt-4o-mini.")],
    use_case: Annotated[str | None, typer.Option("--use-case", help="What it is good for.")] = None,
    first_token: Annotated[float | None, typer.Option("--first-token", help="Seconds until the first token.")] = None,
    stall: Annotated[float | None, typer.Option(help="Seconds between two tokens.")] = None,
    total: Annotated[float | None, typer.Option(help="Seconds for all of it.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make an alias, or replace it.  One of a shipped alias's name takes its place."""
    limits = {"first_token": first_token, "stall": stall, "total": total}
    wish: dict[str, Any] = {
        "targets": [{"model": target} for target in targets],
        "use_case": use_case,
        "timeouts": {key: value for key, value in limits.items() if value is not None},
    }
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("PUT", at("/aliases", name, slashes=True), wish)
    changed(answer, f"{name} leads to {', '.join(targets)}", as_json)


@app.command("unset")
def unset(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove an alias that was made here; a shipped one of that name is back."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/aliases", name, slashes=True))
    changed(answer, f"removed {name}", as_json)


def _targets(row: dict[str, Any]) -> str:
    return ", ".join(target["model"] for target in row["targets"])
