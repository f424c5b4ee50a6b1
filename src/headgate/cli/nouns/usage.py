"""``headgate usage``: requests, tokens and cost; and whether the ledger holds.

An unknown price is shown as unknown, never counted as 0.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import UNKNOWN, bar, number, print_csv, say, short, show, table, usd
from headgate.cli.display.times import before
from headgate.cli.parsing import exports
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import Gateway, Trouble, open_gateway

app = noun("Requests, tokens and cost, by model or anything else; the ledger and its checks.")

BAR = 12
DAY = timedelta(days=1)
LONG_S = 600.0  # of a check or a correction of a large store
_EXACT = ("tenant", "session", "user", "tag", "hour")  # groups that are added up to the instant

Since = Annotated[str | None, typer.Option(help="From then on: 7d, or a date like 2026-01-31; else 30d.")]
Until = Annotated[str | None, typer.Option(help="Until then: as --since.")]


class By(StrEnum):
    model = "model"
    provider = "provider"
    token = "token"
    tenant = "tenant"
    alias = "alias"
    session = "session"
    user = "user"
    tag = "tag"
    day = "day"
    hour = "hour"
    outcome = "outcome"


@app.command("list")
def listing(
    by: Annotated[By, typer.Option("--by", help="Group by this; alias: the requested name.")] = By.model,
    since: Since = "30d",
    until: Until = None,
    token: Annotated[str | None, typer.Option(help="Only of this token (its name or id).")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only of this provider.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.")] = None,
    user: Annotated[str | None, typer.Option(help="Only of this user of a client's.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="NAME=VALUE", help="Only with this tag; NAME: any value.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show requests, tokens and cost, by model or anything else.

    Days count whole (UTC), but for tenants, sessions, users, tags and hours.
    """
    query = {
        "group_by": "requested" if by is By.alias else by.value,
        **_window(since, until),
        "token": token,
        "model": model,
        "provider": provider,
        "tenant": tenant,
        "session": session,
        "user": user,
        "tag": tag,
    }
    with open_gateway(config, state_dir) as gateway:
        report = gateway.call("GET", "/usage", params=query)
    rows = report["data"]
    if as_csv:
        print_csv(rows)
        return
    show(rows, as_json, lambda: _table(by, rows))
    if not as_json:
        exact = by in _EXACT or any((tenant, session, user, tag))
        said = "" if exact else _whole_days(report)
        said = "; ".join(part for part in (said, _cached(report["cache"])) if part)
        more = f"only the {len(rows)} with the most requests" if report["has_more"] else ""
        if said or more:
            say("; ".join(part for part in (said, more) if part))


@app.command("verify")
def verify(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Check the ledger; ends with 1 where something does not hold.

    Entries add up to 0, holds are those of running calls, and what receipts and journal say is posted.
    """
    with open_gateway(config, state_dir) as gateway:
        found = gateway.call("GET", "/usage/verify", timeout_s=LONG_S)
    lines = [
        (check["name"], "yes" if check["ok"] else "NO", "; ".join(check["found"]) or None) for check in found["checks"]
    ]
    show(found, as_json, lambda: table("!CHECK", "HOLDS", "FOUND", rows=lines, empty=""))
    if not found["ok"]:
        raise typer.Exit(1)


@app.command("reprice")
def reprice(
    since: Since = "30d",
    until: Until = None,
    apply: Annotated[bool, typer.Option("--apply", help="Post the differences to the ledger.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what today's prices would change for past calls.  Receipts keep what was charged."""
    window = {name: None if at is None else str(at) for name, at in _window(since, until).items()}
    with open_gateway(config, state_dir) as gateway:
        found = gateway.call("POST", "/usage/reprice", {**window, "apply": apply}, timeout_s=LONG_S)
    rows = [
        (
            f"{one['provider']}/{one['model']}", number(one["requests"]), usd(one["charged_usd"]),
            usd(one["corrected_usd"]), _signed(one["difference_usd"]),
        )
        for one in found["data"]
    ]  # fmt: skip
    headings = ("!MODEL", ">REQUESTS", ">CHARGED", ">TODAY", ">DIFFERENCE")
    show(found, as_json, lambda: table(*headings, rows=rows, empty="every call was charged at today's price"))
    if as_json:
        return
    if found["unknown"]:
        say(f"{found['unknown']} calls are left alone: their models have no price today")
    if found["posted"]:
        say(f"{found['posted']} corrections were posted to the ledger")
    elif rows and not apply:
        say("nothing was changed; post the differences with --apply")


@app.command("reconcile")
def reconcile(
    file: Annotated[Path, typer.Argument(help="OpenAI's or Anthropic's export: JSON of their APIs, or CSV; -: stdin.")],
    provider: Annotated[
        list[str] | None, typer.Option("--provider", help="The provider's name here, where it is another; repeatable.")
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Put a provider's own figures beside the ledger's.

    By day (UTC), with the part of them that is recorded here.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        whose, rows = exports.read(text)
    except (OSError, ValueError) as error:
        raise Trouble(f"{file}: {getattr(error, 'strerror', None) or error}", code=2) from error
    with open_gateway(config, state_dir) as gateway:
        names = provider or _names(gateway, whose)
        found = gateway.call("POST", "/usage/reconcile", {"providers": names, "rows": _by_day(rows)}, timeout_s=LONG_S)
    lines = [*found["data"], {"day": "all", **found["total"]}]
    headings = ("!DAY", ">THEIR COST", ">COST HERE", ">DIFFERENCE", "?>THEIR TOKENS", "?>TOKENS HERE", ">CAPTURED")
    show(found, as_json, lambda: table(*headings, rows=map(_compared, lines), empty="the export has no days"))


def _names(gateway: Gateway, whose: str) -> list[str]:
    """The providers of this gateway that are the export's: by their preset, or their name."""
    found = [one["name"] for one in gateway.items("/providers") if whose in (one.get("preset"), one["name"])]
    return found or [whose]


def _by_day(rows: list[exports.Row]) -> list[dict[str, Any]]:
    """An export has a line for every project, key and model of a day; the API takes a day's sums."""
    days: dict[str, dict[str, Any]] = {}
    for row in rows:
        day = days.setdefault(row["day"], {"day": row["day"]})
        if "cost_usd" in row:
            day["cost_usd"] = row["cost_usd"] + day.get("cost_usd", 0)
        for name in ("input_tokens", "output_tokens"):
            if name in row:
                day[name] = row[name] + day.get(name, 0)
    return [{name: str(value) if name == "cost_usd" else value for name, value in day.items()} for day in days.values()]


def _compared(line: dict[str, Any]) -> tuple[Any, ...]:
    theirs = [line[f"provider_{name}_tokens"] for name in ("input", "output")]
    tokens = None if None in theirs else sum(theirs)
    rate = line["capture_rate"]
    return (
        line["day"], usd(line["provider_cost_usd"]), usd(line["cost_usd"]), _signed(line["difference_usd"]),
        None if tokens is None else short(tokens), short(line["input_tokens"] + line["output_tokens"]),
        UNKNOWN if rate is None else f"{rate:.1%}",
    )  # fmt: skip


def _signed(difference: float | None) -> str:
    if difference is None:
        return UNKNOWN
    return f"-{usd(-difference)}" if difference < 0 else f"+{usd(difference)}" if difference else usd(0)


def _window(since: str | None, until: str | None) -> dict[str, Any]:
    now = time.time()
    return {
        "since": before(since, now) if since else None,
        "until": before(until, now) if until else None,
    }


def _cached(figures: dict[str, Any] | None) -> str:
    if not figures:
        return ""
    asked = figures["hits"] + figures["misses"]
    return f"{figures['hits']} of {asked} calls that use the cache were hits, {usd(figures['saved_usd'])} saved"


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
