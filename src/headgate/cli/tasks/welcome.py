"""``headgate welcome``: the text of the first start, for logs that do not hold it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from headgate.cli.display.terminal import print_json, say
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.reach.gateway import Gateway, at, open_gateway
from headgate.cli.reach.line import SAME_USER
from headgate.cli.trouble import Trouble
from headgate.process import statedir, welcome

NAME = "first"
LOREM = "builtin/lorem"


def command(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show the admin token, the first agent token (once) and a line to try it with."""
    with open_gateway(config, state_dir) as gateway:
        url = gateway.addresses()["data"]
        admin, agent = _admin(gateway.state_dir), _first(gateway.state_dir)
        model = _model(gateway)
    if as_json:
        print_json({"data_url": url, "admin_token": admin, "agent_token": agent, "model": model})
    elif agent is not None:
        print(welcome.text(url, admin or "as configured (admin_token)", agent, model))
    else:
        print(f"\n  admin token   {admin or 'as configured (admin_token)'}\n")
        say("the first agent token was shown already; another one comes with: headgate token create NAME")
    if agent is not None:
        with contextlib.suppress(OSError):
            (gateway.state_dir / welcome.FIRST_TOKEN).unlink()


def _admin(state_dir: Path) -> str | None:
    """Raises Trouble where it may not be read."""
    try:
        return statedir.read_token(state_dir / statedir.ADMIN_TOKEN)
    except statedir.StateError as error:
        raise Trouble(str(error), SAME_USER) from error


def _first(state_dir: Path) -> str | None:
    try:
        return statedir.read_token(state_dir / welcome.FIRST_TOKEN)
    except statedir.StateError as error:
        raise Trouble(str(error), SAME_USER) from error


def _model(gateway: Gateway) -> str:
    """``auto`` where it leads to something, else the built-in model."""
    try:
        return "auto" if gateway.call("GET", at("/aliases", "auto", slashes=True))["targets"] else LOREM
    except Trouble:
        return LOREM
