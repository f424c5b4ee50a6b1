"""``headgate invite``: links with which others put a key into the vault."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import changed, moment, say, show, table
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import at, open_gateway

app = noun("Links with which others lend a key.")


@app.command("create")
def create(
    provider: Annotated[str, typer.Argument(help="A provider, or the name of a preset.")],
    label: Annotated[str | None, typer.Option(help="Of the account that it makes.")] = None,
    note: Annotated[str | None, typer.Option(help="A line for the contributor.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a link.  It is shown once, and good once, for 72 hours.

    Its holder pastes a key on a page of the control plane (control.public_url); the operator never sees it.
    """
    wish: dict[str, Any] = {"provider": provider}
    wish |= ({"label": label} if label else {}) | ({"note": note} if note else {})
    with open_gateway(config, state_dir) as gateway:
        made = gateway.call("POST", "/invites", wish)
    changed(made, made["link"], as_json)
    if not as_json:
        say(f"good once, until {moment(made['expires'])}; the key becomes {provider}/{made['label']}")


@app.command("list")
def listing(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the invites, the newest first."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/invites")
    show(
        rows,
        as_json,
        lambda: table(
            *("!ID", "PROVIDER", "STATE", "?ACCOUNT", "??NOTE", "EXPIRES"),
            rows=(
                (row["id"], row["provider"], row["state"], row["account"] or "", row["note"], moment(row["expires"]))
                for row in rows
            ),
            empty="no invites; make one with: headgate invite create PROVIDER",
        ),
    )


@app.command("revoke")
def revoke(
    ident: Annotated[str, typer.Argument(metavar="ID", help="As `invite list` shows it.")],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """End an unused link."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/invites", ident))
    changed(answer, f"revoked {ident}", as_json)
