"""``headgate alert`` and ``headgate webhook``: the alerts that were raised, and the webhooks that get them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import moment, number, show, table
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import Trouble, at, open_gateway

alerts = noun("Alerts: budgets, parked accounts and unusual spend.")
webhooks = noun("Show and test the webhooks that get alerts.")


@alerts.command("list")
def list_alerts(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 50,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the alerts of the last 90 days, the newest first."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/alerts", {}, limit)
    show(
        rows,
        as_json,
        lambda: table(
            *("TIME", "?TYPE", "!ALERT", "??PENDING"),
            rows=([moment(row["at"]), row["type"], row["message"], ", ".join(row["pending"])] for row in rows),
            empty="no alerts",
        ),
    )


@webhooks.command("list")
def list_webhooks(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the webhooks, and how their deliveries go."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/webhooks")
    show(
        rows,
        as_json,
        lambda: table(
            *("!NAME", "?HOST", "EVENTS", ">DELIVERED", ">WAITING", ">LOST", "LAST"),
            rows=(_cells(row) for row in rows),
            empty="no webhooks; declare one in headgate.yaml under webhooks:",
        ),
    )


@webhooks.command("test")
def test(
    name: Annotated[str, typer.Argument(help="Its name, as `webhook list` shows it.")],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Send a test alert to a webhook.

    Exit code 1 where it is not taken.
    """
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("POST", at("/webhooks", name, "test"))
    if as_json or answer["ok"]:
        show(answer, as_json, lambda: f"{name}: {answer['message']} after {number(answer['latency_ms'])} ms")
    if not answer["ok"]:
        if as_json:
            raise typer.Exit(1)
        raise Trouble(f"the webhook {name} did not take the alert: {answer['message']}", "check its url", 1)


def _cells(row: dict[str, Any]) -> list[str]:
    last = row["last"]
    state = "" if last is None else f"{moment(row['last_at'])}: {last['message']}"
    events = ", ".join(row["events"]) or "all"
    lost = number(row["given_up"] + row["dropped"])
    return [row["name"], row["host"], events, number(row["delivered"]), number(row["waiting"]), lost, state]
