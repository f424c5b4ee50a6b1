"""``headgate requests``: what was asked, what came of it, where the time went."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from headgate.cli.gateway import PAGE, Gateway, at, open_gateway
from headgate.cli.options import Config, Json, StateDir, noun
from headgate.cli.terminal import UNKNOWN, bar, console, facts, milliseconds, moment, number, short, show, table, usd
from headgate.cli.times import before

app = noun("Requests: what was asked, what came of it, where the time went.")

FOLLOW_S = 1.0
BAR = 40
WIDE = 110  # columns
# A timeline's phases: each lasts from the one before it to its own end
_PHASES = (
    ("queue", "waited"),
    ("connect", "connected"),
    ("ttfb", "headers"),
    ("ttft", "first token"),
    ("total", "end"),
)
_COLOURS = {"delivered": "green", "cancelled": "yellow", None: "cyan"}


@app.command("list")
def listing(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    token: Annotated[str | None, typer.Option(help="Of this token (its id).")] = None,
    model: Annotated[str | None, typer.Option(help="Served by this model.")] = None,
    requested: Annotated[str | None, typer.Option(help="Asked for under this name.")] = None,
    provider: Annotated[str | None, typer.Option(help="Served by this provider.")] = None,
    outcome: Annotated[str | None, typer.Option(help="delivered, failed, cancelled, …")] = None,
    code: Annotated[str | None, typer.Option(help="With this error code.")] = None,
    stream: Annotated[bool | None, typer.Option("--stream/--no-stream", help="Streamed ones, or the others.")] = None,
    label: Annotated[str | None, typer.Option(help="With this x-request-id of the client's own.")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 1h, 7d, or a date like 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="Until then: as --since.")] = None,
    min_cost: Annotated[float | None, typer.Option("--min-cost", help="That cost as much (USD).")] = None,
    min_duration: Annotated[float | None, typer.Option("--min-duration", help="That took as long (seconds).")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl+C.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List requests, the latest first; --follow shows new ones as they end."""
    now = time.time()
    filters = {
        "token": token,
        "model": model,
        "requested": requested,
        "provider": provider,
        "outcome": outcome,
        "code": code,
        "stream": stream,
        "label": label,
        "since": before(since, now) if since else None,
        "until": before(until, now) if until else None,
        "min_cost_usd": min_cost,
        "min_duration_ms": None if min_duration is None else min_duration * 1000,
    }
    with open_gateway(config, state_dir) as gateway:
        if follow:
            _follow(gateway, filters, limit, as_json)
            return
        rows = gateway.items("/requests", filters, limit)
    show(rows, as_json, lambda: _rows(rows))


@app.command("show")
def one(
    ident: Annotated[str, typer.Argument(metavar="ID", help="chatcmpl-…, or the client's own x-request-id.")],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show one request: its timeline, its attempts, its cost."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/requests", ident))
    show(row, as_json, lambda: _picture(row))


# ------------------------------------------------------------------------------------- lists


def _follow(gateway: Gateway, filters: dict[str, Any], limit: int, as_json: bool) -> None:
    """The latest ``limit``, then each request once, when it has ended; those that were there before only where they
    still run.  Until Ctrl+C.  Raises Trouble where no gateway runs: nothing would come, and the store would be held.
    """
    gateway.addresses()
    shown: set[str] = set()
    rows = gateway.items("/requests", filters, max(limit, PAGE))
    fresh = rows[:limit]
    while True:
        ended = [row for row in reversed(fresh) if row["outcome"] is not None and row["id"] not in shown]
        if as_json:
            for row in ended:
                print(json.dumps(row, ensure_ascii=False))
        elif ended:
            _lines(ended)
        sys.stdout.flush()
        shown = {row["id"] for row in rows if row["outcome"] is not None}
        time.sleep(FOLLOW_S)
        rows = fresh = gateway.items("/requests", filters, PAGE)


def _lines(rows: Iterable[dict[str, Any]]) -> None:
    """One line each, of columns that stay where they are."""
    screen = console()
    for row in rows:
        line = Text(f"{_clock(row)}  ")
        line.append(f"{row['outcome']:<10}", _colour(row))
        took, cost = milliseconds(row["timings_ms"]["total"]), usd(row["cost_usd"])
        line.append(f" {took:>8}  {_tokens(row):>9}  {cost:>10}  {_model(row)}")
        screen.print(line, overflow="ignore", no_wrap=True)


def _rows(rows: list[dict[str, Any]]) -> RenderableType:
    """The id has a column of its own where there is room, as where the output is piped; else a line of its own."""
    wide = console().width >= WIDE
    return table(
        "!TIME",
        *(("!ID",) if wide else ()),
        "OUTCOME",
        ">TOOK",
        ">IN+OUT",
        ">COST",
        "MODEL" if wide else "!MODEL, ID",
        rows=(
            (
                _clock(row),
                *((row["id"],) if wide else ()),
                Text(_outcome(row), _colour(row)),
                milliseconds(row["timings_ms"]["total"]) if row["outcome"] else "",
                _tokens(row),
                usd(row["cost_usd"]),
                _model(row) if wide else Text.assemble(_model(row), "\n", (row["id"], "dim")),
            )
            for row in rows
        ),
        empty="no requests",
    )


def _clock(row: dict[str, Any]) -> str:
    """The time of a day, with the day where it is not today."""
    at = time.localtime(row["created"])
    today = at[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%m-%d %H:%M", at)


def _colour(row: dict[str, Any]) -> str:
    return _COLOURS.get(row["outcome"], "red")


def _outcome(row: dict[str, Any]) -> str:
    if row["outcome"] is None:
        return "running"
    return f"{row['outcome']} ({row['code']})" if row["code"] else str(row["outcome"])


def _tokens(row: dict[str, Any]) -> str:
    used = row["usage"]
    return f"{short(used['prompt_tokens'])}+{short(used['completion_tokens'])}"


def _model(row: dict[str, Any]) -> str:
    """What was asked for, and what served where that is another name."""
    asked = row["requested_model"] or "–"
    served = f"{row['provider']}/{row['model']}"
    return str(asked if not row["provider"] or served == asked else f"{asked} → {served}")


# ------------------------------------------------------------------------------------- one


def _picture(row: dict[str, Any]) -> RenderableType:
    used = row["usage"]
    parts: list[RenderableType] = [
        facts(
            row["id"],
            [
                ("asked for", row["requested_model"]),
                ("served by", f"{row['provider']}/{row['model']}" if row["provider"] else None),
                ("outcome", Text(_outcome(row), _colour(row))),
                ("status", str(row["status"]) if row["status"] else None),
                ("at", f"{moment(row['created'])}, {'streamed' if row['stream'] else 'whole'}"),
                ("token", row.get("token")),
                ("label", row.get("label")),
                (
                    "tokens",
                    f"{number(used['prompt_tokens'])} in (of them cached {number(used['cached_tokens'])}), "
                    f"{number(used['completion_tokens'])} out (of them reasoning {number(used['reasoning_tokens'])})",
                ),
                ("counted by", _BASES.get(used["basis"], used["basis"])),
                ("cost", _priced(row)),
            ],
        ),
        _timeline(row["timings_ms"]),
    ]
    if len(row["attempts"]) > 1 or (row["attempts"] and row["outcome"] != "delivered"):
        parts.append(_attempts(row["attempts"]))
    return Group(*parts)


_BASES = {"provider": "the provider's report", "counted": "the model's tokenizer", "estimated": "estimate"}


def _priced(row: dict[str, Any]) -> str:
    if row["cost_usd"] is None:
        return f"{UNKNOWN} (no price is known for this model)"
    source = row.get("price_snapshot")
    return f"{usd(row['cost_usd'])}{f' (price: {source})' if source else ''}"


def _timeline(timings: dict[str, float | None]) -> RenderableType:
    """Each phase as a bar from the end of the one before to its own; a phase that was never reached has none."""
    total = timings["total"] or max((value for value in timings.values() if value), default=0) or 1.0
    rows = []
    begun = 0.0
    for key, name in _PHASES:
        until = timings.get(key)
        if until is None:
            continue
        start = round(min(begun, total) / total * BAR)
        drawn = " " * start + (bar((until - begun) / total, BAR) if until > begun else "▏")
        rows.append((name, milliseconds(until), Text(drawn, "green" if key == "total" else "blue")))
        begun = max(begun, until)
    return table("REACHED", ">AFTER", "", rows=rows, empty="no timings yet")


def _attempts(attempts: list[dict[str, Any]]) -> RenderableType:
    return table(
        "ATTEMPT",
        "AT",
        "WHY",
        ">STATUS",
        "CODE",
        ">BEGAN",
        ">TOOK",
        ">IN + OUT",
        ">COST",
        rows=(
            (
                str(index),
                f"{attempt['provider']}/{attempt['model']}"
                + (f" ({attempt['account']})" if attempt["account"] else ""),
                attempt["why"],
                str(attempt["status"] or "–"),
                attempt["code"] or "",
                milliseconds(attempt["started_ms"]),
                milliseconds(attempt["ended_ms"] - attempt["started_ms"]),
                f"{number(attempt['prompt_tokens'])} + {number(attempt['completion_tokens'])}",
                usd(attempt["cost_usd"]) if attempt["cost_usd"] is not None else "",
            )
            for index, attempt in enumerate(attempts, 1)
        ),
        empty="no attempts",
    )
