"""``headgate explain``: where a request would go and why not elsewhere; where one went."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.cli.display.layout import Drawing, Group, Text, Value
from headgate.cli.display.terminal import facts, show, table, usd
from headgate.cli.nouns import requests
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.reach.gateway import Trouble, open_gateway

_GREETING = [{"role": "user", "content": "Hello!"}]
_COLOURS = {"well": "green", "active": "green", "probe": "yellow", "failing": "yellow"}
HOW = "headgate explain request.json (- for standard input), --model NAME, or the id of a request"


def explain(
    what: Annotated[
        str | None, typer.Argument(metavar="REQUEST", help="A file with a request's body, - , or a request's id.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Under this name; alone: any small request.")
    ] = None,
    token: Annotated[str | None, typer.Option(help="As the holder of this token (its name or id).")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show where a request would go, or where one went.

    In which order, and why not elsewhere.  The id of a request shows what became of it.

    It sends no request.  Exit code 1 where the request would be refused.
    """
    body = _body(what, model)
    if body is None:
        requests.one(str(what), config, state_dir, as_json)
        return
    with open_gateway(config, state_dir) as gateway:
        route = gateway.call("POST", "/explain", body, params={"token": token})
    show(route, as_json, lambda: _picture(route))
    raise typer.Exit(1 if route["code"] else 0)


def _body(what: str | None, model: str | None) -> dict[str, Any] | None:
    """The request; None where ``what`` is the id of one.  Raises Trouble (2)."""
    if what is None:
        if model is None:
            raise Trouble("nothing to explain", HOW, 2)
        return {"model": model, "messages": _GREETING}
    path = Path(what)
    if what != "-" and not path.is_file() and path.suffix != ".json" and len(path.parts) == 1:
        if model is not None:
            raise Trouble(f"there is no file {what}, and a request that was made has its model", HOW, 2)
        return None
    try:
        body = json.loads(sys.stdin.read() if what == "-" else path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{what} cannot be read: {error}", HOW, 2) from error
    except ValueError as error:
        raise Trouble(f"{what} is not JSON: {error}", HOW, 2) from error
    if not isinstance(body, dict):
        raise Trouble(f"{what} is no request: a JSON object with messages", HOW, 2)
    return body if model is None else {**body, "model": model}


# ------------------------------------------------------------------------------------- what is shown


def _picture(route: dict[str, Any]) -> Drawing:
    refused = Text(f"{route['message']} ({route['code']})", "red") if route["code"] else None
    parts: list[Drawing] = [
        facts(
            route["requested_model"],
            [
                ("alias", route["alias"]),
                ("strategy", route["strategy"] if route["alias"] else None),
                ("health", None if route["live"] else "unknown: no data process answers"),
                ("refused", refused),
            ],
        )
    ]
    tried = [one for one in route["candidates"] if one["place"] is not None]
    left_out = [one for one in route["candidates"] if one["place"] is None]
    if tried:
        parts.append(
            table(
                ">TURN",
                "!TARGET",
                "STATE",
                "??ACCOUNTS",
                "???GOES ON",
                "?>COST",
                rows=(_turn(one, live=route["live"]) for one in tried),
                empty="",
            )
        )
    if left_out:
        parts.append(table("!LEFT OUT", "WHY", rows=((_target(one), _reason(one)) for one in left_out), empty=""))
    return Group(*parts)


def _turn(one: dict[str, Any], *, live: bool) -> list[Value]:
    return [
        str(one["place"]),
        _target(one),
        _state(one) if live else "",
        Text(", ").join(_account(account, live=live) for account in one["accounts"]),
        one["prefill"],
        usd(one["cost_usd"]) if one["cost_usd"] is not None else "",
    ]


def _target(one: dict[str, Any]) -> str:
    sent = f" (as {one['upstream_model']})" if one["upstream_model"] != one["model"] else ""
    return f"{one['provider']}/{one['model']}{sent}"


def _reason(one: dict[str, Any]) -> str:
    return str(one["reason"] or "").partition(": ")[2]


def _account(account: dict[str, Any], *, live: bool) -> Text:
    if not live or account["state"] == "active":
        return Text(account["id"])
    return Text(f"{account['id']} ").append(_state(account))


def _state(one: dict[str, Any]) -> Text:
    wait = f", {one['wait_s']:.0f} s" if one["wait_s"] else ""
    return Text(one["state"] + wait, _COLOURS.get(one["state"], "red"))
