"""``headgate requests``: the calls, with models, outcomes, timings and cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from headgate.cli.display.layout import Drawing, Flexible, Group, Text
from headgate.cli.display.terminal import (
    UNKNOWN,
    draw,
    facts,
    milliseconds,
    moment,
    number,
    print_csv,
    print_json,
    short,
    show,
    table,
    usd,
    width,
)
from headgate.cli.display.timeline import timeline
from headgate.cli.display.times import before
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import PAGE, Gateway, at, open_gateway

app = noun("Requests: models, outcomes, timings and cost.")

FOLLOW_S = 1.0
WIDE = 110  # columns: below, an id takes a line of its own
_GROUPS = ("usage", "timings_ms")
_COLOURS = {"delivered": "green", "cancelled": "yellow", "budget_exceeded": "yellow", None: "cyan"}


@app.command("list")
def listing(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    token: Annotated[str | None, typer.Option(help="Of this token (its name or id).")] = None,
    model: Annotated[str | None, typer.Option(help="Served by this model.")] = None,
    requested: Annotated[str | None, typer.Option(help="Asked for under this name.")] = None,
    provider: Annotated[str | None, typer.Option(help="Served by this provider.")] = None,
    outcome: Annotated[str | None, typer.Option(help="delivered, failed, cancelled, …")] = None,
    code: Annotated[str | None, typer.Option(help="With this error code.")] = None,
    stream: Annotated[bool | None, typer.Option("--stream/--no-stream", help="Streamed ones, or the others.")] = None,
    label: Annotated[str | None, typer.Option(help="With this x-request-id of the client's own.")] = None,
    continued: Annotated[
        bool | None, typer.Option("--continued/--no-continued", help="Broken streams that went on, or the others.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 1h, 7d, or a date like 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="Until then: as --since.")] = None,
    min_cost: Annotated[float | None, typer.Option("--min-cost", help="That cost as much (USD).")] = None,
    min_duration: Annotated[float | None, typer.Option("--min-duration", help="That took as long (seconds).")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl+C.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with every column of a receipt.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List requests, the latest first.

    With --follow new ones are shown as they end.
    """
    if follow and as_csv:
        raise typer.BadParameter("--csv is of requests that are there; use --json with --follow")
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
        "continued": continued,
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
    if as_csv:
        print_csv([counted(row) for row in rows])
        return
    show(rows, as_json, lambda: _rows(rows, any(value is not None for value in filters.values())))


@app.command("show")
def one(
    ident: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A request's id, with or without chatcmpl-, or the client's own x-request-id."
        ),
    ],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show one request: its timeline, its attempts, its cost."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/requests", ident))
    show(row, as_json, lambda: picture(row))


# ------------------------------------------------------------------------------------- lists


def _follow(gateway: Gateway, filters: dict[str, Any], limit: int, as_json: bool) -> None:
    """The latest ``limit``, then each request once, when it has ended; those that were there before only where they
    still run.  Until Ctrl+C.  Raises Trouble where no gateway runs: nothing would come, and the store would be held.
    """
    gateway.addresses()
    columns = width()
    wide = columns is None or columns >= WIDE
    if not as_json:
        draw(Text(_heading(wide), "bold"))
    shown: set[str] = set()
    rows = gateway.items("/requests", filters, max(limit, PAGE))
    fresh = rows[:limit]
    while True:
        ended = [row for row in reversed(fresh) if row["outcome"] is not None and row["id"] not in shown]
        if as_json:
            for row in ended:
                print_json(row)
        else:
            for row in ended:
                draw(_line(row, wide))
        sys.stdout.flush()
        shown = {row["id"] for row in rows if row["outcome"] is not None}
        time.sleep(FOLLOW_S)
        rows = fresh = gateway.items("/requests", filters, PAGE)


def _heading(wide: bool) -> str:
    """Over the lines of --follow."""
    ident = f"{'ID':<33}  " if wide else ""
    return f"{'TIME':<8}  {ident}{'OUTCOME':<9}  {'TOOK':>8}  {'IN+OUT':>9}  {'COST':>10}  MODEL"


def _line(row: dict[str, Any], wide: bool) -> Text:
    """One request, in columns that stay where they are; the id below it where there is no room for it beside."""
    line = Text(f"{_clock(row):<11}  " if len(_clock(row)) > 8 else f"{_clock(row):<8}  ")
    line.append(f"{row['id']:<33}  " if wide else "").append(f"{row['outcome']:<9}", _colour(row))
    took, cost = milliseconds(row["timings_ms"]["total"]), usd(row["cost_usd"])
    line.append(f"  {took:>8}  {_tokens(row):>9}  {cost:>10}  {_model(row)}")
    line.append(f" ({row['code']})" if row["code"] else "")
    line.append(" (continued)" if row["continued"] else "")
    return line if wide else line.append(f"\n          {row['id']}", "dim")


def _rows(rows: list[dict[str, Any]], filtered: bool) -> Drawing:
    """The id has a column of its own where there is room, as where the output is piped; else a line of its own."""

    def drawn(width: int | None) -> Drawing:
        wide = width is None or width >= WIDE
        return table(
            "!TIME",
            *(("!ID",) if wide else ()),
            "OUTCOME",
            "?>TOOK",
            "???>IN+OUT",
            "??>COST",
            "????>CONTINUED",
            "MODEL" if wide else "MODEL, ID",
            rows=(
                (
                    _clock(row),
                    *((row["id"],) if wide else ()),
                    Text(_outcome(row) if wide else row["outcome"] or "running", _colour(row)),
                    milliseconds(row["timings_ms"]["total"]) if row["outcome"] else "",
                    _tokens(row),
                    usd(row["cost_usd"]),
                    f"{len(row['continued'])}×" if row["continued"] else "",
                    _model(row) if wide else _under(_model(row), row),
                )
                for row in rows
            ),
            empty="no request matches" if filtered else 'no requests yet; make one with: headgate chat "Hello"',
        )

    return Flexible(drawn)


def _under(model: str, row: dict[str, Any]) -> Text:
    """The model, an error's code and the id in one cell."""
    code = (f" ({row['code']})", _colour(row)) if row["code"] else ""
    return Text.assemble(model, code, "\n", (row["id"], "dim"))


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
    return f"{row['outcome']} ({row['code']})" if row["code"] not in ("", None, row["outcome"]) else str(row["outcome"])


def _tokens(row: dict[str, Any]) -> str:
    used = row["usage"]
    return f"{short(used['prompt_tokens'])}+{short(used['completion_tokens'])}"


def _model(row: dict[str, Any]) -> str:
    """Return the requested model, and the serving model if that has another name."""
    asked = row["requested_model"] or "–"
    if row["cache"] == "hit":
        return f"{asked} → cache"
    served = f"{row['provider']}/{row['model']}"
    return str(asked if not row["provider"] or served == asked else f"{asked} → {served}")


# ------------------------------------------------------------------------------------- one


def picture(row: dict[str, Any]) -> Drawing:
    """One request, as ``requests show`` has it."""
    used = row["usage"]
    parts: list[Drawing] = [
        facts(
            row["id"],
            [
                ("asked for", row["requested_model"] or None),
                (_answerer(row), f"{row['provider']}/{row['model']}" if row["provider"] else None),
                ("outcome", Text(_outcome(row), _colour(row))),
                ("status", str(row["status"]) if row["status"] else None),
                ("at", f"{moment(row['created'])}{_manner(row)}"),
                ("token", row.get("token")),
                ("label", row.get("label")),
                (
                    "tokens",
                    f"{number(used['prompt_tokens'])} in (of them cached {number(used['cached_tokens'])}), "
                    f"{number(used['completion_tokens'])} out (of them reasoning {number(used['reasoning_tokens'])})",
                ),
                ("counted by", _BASES.get(used["basis"], used["basis"])),
                ("cost", _priced(row)),
                ("response cache", _cache(row)),
                ("all attempts cost", usd(row["upstream_cost_usd"]) if len(row["attempts"]) > 1 else None),
                *(("continued", _seam(seam)) for seam in row["continued"]),
                ("not continued", row["not_continued"]),
                ("skipped events", _skipped(row["skipped_events"]) if row["skipped_events"] else None),
                *(("written by", _share(share)) for share in row["shares"]),
                *_others(row),
            ],
        ),
        timeline(row),
    ]
    if len(row["attempts"]) > 1 or (row["attempts"] and row["outcome"] != "delivered"):
        parts.append(_attempts(row["attempts"]))
    return Group(*parts)


# The members that ``picture`` and the timeline draw; a receipt's other columns get a line each
_DRAWN = frozenset((
    "object", "id", "requested_model", "provider", "model", "outcome", "code", "status", "created", "stream", "token",
    "label", "usage.prompt_tokens", "usage.completion_tokens", "usage.cached_tokens", "usage.reasoning_tokens",
    "usage.total_tokens", "usage.basis", "cost_usd", "price_snapshot", "upstream_cost_usd", "continued",
    "not_continued", "skipped_events", "shares", "attempts", "timings_ms.total", "timings_ms.queue",
    "timings_ms.connect", "timings_ms.ttfb", "timings_ms.ttft",
))  # fmt: skip


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """One request without the groups: ``usage.prompt_tokens``, ``timings_ms.total``."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= {f"{name}.{inner}": one for inner, one in value.items()} if name in _GROUPS else {name: value}
    return found


def counted(row: dict[str, Any]) -> dict[str, Any]:
    """A request in the cells of one line: of a list (the attempts) its length."""
    cells = {name: len(value) if isinstance(value, list) else value for name, value in flat(row).items()}
    del cells["object"]
    return cells


def _others(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in flat(row).items():
        if name not in _DRAWN and value not in (None, ""):
            yield name.rpartition(".")[2].replace("_", " "), _cell(name, value)


def _cell(name: str, value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{key}={one}" for key, one in value.items())
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return usd(value) if name.endswith("_usd") else number(value)
        case _:
            return str(value)


def _manner(row: dict[str, Any]) -> str:
    """How the answer was asked for; of a refused call that is not kept."""
    return "" if row["outcome"] == "refused" else ", streamed" if row["stream"] else ", whole"


def _seam(seam: dict[str, Any]) -> str:
    return f"after {number(seam['after'])} characters, by {seam['to']} for {seam['from']} ({seam['why']})"


def _skipped(events: int) -> str:
    return f"{number(events)} of the provider's stream could not be read"


def _share(share: dict[str, Any]) -> str:
    cost = usd(share["cost_usd"]) if share["cost_usd"] is not None else UNKNOWN
    return f"{share['provider']}/{share['model']}: {number(share['completion_tokens'])} tokens, {cost}"


def _answerer(row: dict[str, Any]) -> str:
    """A provider has served where something of its answer reached the client."""
    came = row["outcome"] == "delivered" or row["timings_ms"]["ttft"] is not None
    return "served by" if came else "asked" if row["outcome"] is None else "last asked"


_BASES = {
    "provider": "the provider's report",
    "counted": "the model's tokenizer",
    "estimated": "estimate",
    "cached": "the stored answer",
}


def _cache(row: dict[str, Any]) -> str | None:
    saved = row["saved_usd"]
    return f"hit, {usd(saved)} saved" if row["cache"] == "hit" and saved is not None else row["cache"]


def _priced(row: dict[str, Any]) -> str:
    if row["cost_usd"] is None:
        return f"{UNKNOWN} (no price is known for this model)"
    source = row.get("price_snapshot")
    return f"{usd(row['cost_usd'])}{f' (price: {source})' if source else ''}"


def _attempts(attempts: list[dict[str, Any]]) -> Drawing:
    return table(
        ">ATTEMPT",
        "!AT",
        "WHY",
        ">STATUS",
        "CODE",
        ">IN+OUT",
        ">COST",
        rows=(
            (
                str(index),
                f"{attempt['provider']}/{attempt['model']}"
                + (f" ({attempt['account']})" if attempt["account"] else ""),
                attempt["why"],
                str(attempt["status"] or "–"),
                attempt["code"] or "",
                f"{number(attempt['prompt_tokens'])}+{number(attempt['completion_tokens'])}",
                usd(attempt["cost_usd"]) if attempt["cost_usd"] is not None else "",
            )
            for index, attempt in enumerate(attempts, 1)
        ),
        empty="no attempts",
    )
