"""``headgate usage``: requests, tokens and cost.  An unknown price is shown as unknown, never counted as 0."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import UNKNOWN, bar, number, say, short, show, table, usd
from headgate.cli.display.times import before
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.reach.gateway import open_gateway

BAR = 12
DAY = timedelta(days=1)


class By(StrEnum):
    model = "model"
    provider = "provider"
    token = "token"
    alias = "alias"
    day = "day"
    outcome = "outcome"


def usage(
    by: Annotated[By, typer.Option("--by", help="Group by this; alias: the requested name.")] = By.model,
    since: Annotated[str | None, typer.Option(help="From then on: 7d, or a date like 2026-01-31; else 30d.")] = "30d",
    until: Annotated[str | None, typer.Option(help="Until then: as --since.")] = None,
    token: Annotated[str | None, typer.Option(help="Only of this token (its name or id).")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only of this provider.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show requests, tokens and cost, by model or anything else.  Days count whole (UTC)."""
    now = time.time()
    query = {
        "group_by": "requested" if by is By.alias else by.value,
        "since": before(since, now) if since else None,
        "until": before(until, now) if until else None,
        "token": token,
        "model": model,
        "provider": provider,
    }
    with open_gateway(config, state_dir) as gateway:
        report = gateway.call("GET", "/usage", params=query)
    rows = report["data"]
    show(rows, as_json, lambda: _table(by, rows))
    if not as_json:
        say(_whole_days(report) + (f"; only the {len(rows)} with the most requests" if report["has_more"] else ""))


def _whole_days(report: dict[str, Any]) -> str:
    """Which days were added up: `--since 1h` is all of today."""
    ends = (report["since"], report["until"])
    first, after = (None if end is None else datetime.fromtimestamp(end, UTC) for end in ends)
    begin = f"from {first.date()}" if first else "from the first call"
    return f"{begin} to {(after - DAY).date() if after else 'now'}, whole days (UTC)"


def _table(by: By, rows: list[dict[str, Any]]) -> Any:
    most = max((_weight(row) for row in rows), default=0) or 1
    return table(
        f"!{by.value.upper()}",
        ">REQUESTS",
        "??>FAILED",
        "?>IN",
        "?>OUT",
        ">COST",
        "???",
        rows=(
            (
                str(row["group"] or "–"),
                number(row["requests"]),
                number(row["failed"]),
                short(row["prompt_tokens"]),
                short(row["completion_tokens"]),
                _cost(row),
                bar(_weight(row) / most, BAR),
            )
            for row in rows
        ),
        empty="no requests in that time",
    )


def _weight(row: dict[str, Any]) -> int:
    """The bar's length: tokens, which are known for every call, where costs are not."""
    return int(row["prompt_tokens"]) + int(row["completion_tokens"])


def _cost(row: dict[str, Any]) -> str:
    """Return the known cost; a plus marks further calls without a price."""
    if row["unpriced_requests"]:
        return UNKNOWN if not row["cost_usd"] else f"{usd(row['cost_usd'])} + {UNKNOWN}"
    return usd(row["cost_usd"])
