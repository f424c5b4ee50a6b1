"""``headgate cache``: what the response cache holds, and how to empty it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import changed, count, facts, number, show
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import open_gateway

app = noun("Show and empty the response cache.")

MB = 1 << 20


@app.command("show")
def shown(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show what the response cache holds, and how often it had an answer."""
    with open_gateway(config, state_dir) as gateway:
        found = gateway.call("GET", "/cache")
    show(found, as_json, lambda: _picture(found))


@app.command("clear")
def clear(
    alias: Annotated[str | None, typer.Option(help="Only answers to calls of this alias or model.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Drop stored answers.  The next calls go to their providers."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", "/cache", params={"alias": alias})
    changed(answer, f"dropped {count(answer['cleared'], 'answer')}", as_json)


def _picture(found: dict[str, Any]) -> Any:
    asked = found["hits"] + found["misses"]
    share = f" ({found['hits'] / asked:.0%} of {number(asked)})" if asked else ""
    return facts(
        "response cache",
        [
            ("answers", number(found["entries"])),
            ("memory", f"{found['bytes'] / MB:.1f} of {found['max_bytes'] / MB:.0f} MB"),
            ("hits", f"{number(found['hits'])}{share}"),
            ("stored", number(found["stored"])),
            ("made room", number(found["evicted"])),
            ("processes", number(found["processes"])),
        ],
    )
