"""``headgate aliases``: names that clients use, and the models behind them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.catalog import words
from headgate.cli.display.terminal import changed, count, facts, number, show, table
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import Trouble, at, open_gateway

app = noun("Aliases: names that clients use, and the models behind them.")

Name = Annotated[str, typer.Argument(help="Like headgate/chat.")]
Targets = Annotated[
    list[str] | None,
    typer.Argument(help="Models, the first one first: openai/gpt-4o-mini.  Only auto may go without."),
]
STRATEGY = f"{words.listed(words.Strategy)}: the order of the targets."
WEIGHT = "For weighted: one for each model, in their order."
ON_MIDSTREAM_FAILURE = f"{words.listed(words.OnMidstreamFailure)}, for a stream that breaks."
ON_DISCONNECT = f"{words.listed(words.OnDisconnect)}, for a call whose client leaves."
RESUMABLE_S = "Seconds that a stream waits for a client that has left."
HOLD_TOKENS = "Of an answer, which a budget holds at first."
CACHE = "Seconds, 60 to 86400, that answers are stored in the response cache."
CACHE_PACE = f"{words.listed(words.CachePace)}, for streams from the cache."
QUEUE_SIZE = "Calls of one tenant that may wait for a limit; 0: they are refused."
QUEUE_WAIT_S = "Seconds that a call may wait."
PRIVACY = f"{words.listed(words.Privacy)}: the providers that may be used."


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
            "?FROM",
            "??>QUEUE",
            "??>USES (30 D)",
            rows=(
                (
                    row["name"],
                    _targets(row) or "nothing yet",
                    row["origin"],
                    f"{row['queued']}/{row['queue']['size']}" if row["queue"]["size"] else "",
                    number(row["uses_30d"]),
                )
                for row in rows
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
                ("strategy", row["strategy"]),
                ("otherwise", ", ".join(_departures(row)) or None),
                ("queue", _queue(row)),
                ("uses (30 d)", number(row["uses_30d"])),
                ("from", row["origin"]),
            ],
        ),
    )


@app.command("set")
def put(
    name: Name,
    targets: Targets = None,
    use_case: Annotated[str | None, typer.Option("--use-case", help="Its purpose.")] = None,
    first_token: Annotated[float | None, typer.Option("--first-token", help="Seconds until the first token.")] = None,
    stall: Annotated[float | None, typer.Option(help="Seconds between two tokens.")] = None,
    total: Annotated[float | None, typer.Option(help="Seconds for all of it.")] = None,
    strategy: Annotated[str | None, typer.Option(help=STRATEGY)] = None,
    weights: Annotated[list[int] | None, typer.Option("--weight", help=WEIGHT)] = None,
    retries: Annotated[int | None, typer.Option(help="Of one model, at most 2.")] = None,
    on_midstream_failure: Annotated[str | None, typer.Option(help=ON_MIDSTREAM_FAILURE)] = None,
    on_disconnect: Annotated[str | None, typer.Option(help=ON_DISCONNECT)] = None,
    resumable_s: Annotated[float | None, typer.Option(help=RESUMABLE_S)] = None,
    tool_calls: Annotated[str | None, typer.Option(help="stream, or hold until they are complete.")] = None,
    structured: Annotated[str | None, typer.Option(help="error, or buffer structured answers.")] = None,
    privacy: Annotated[str | None, typer.Option(help=PRIVACY)] = None,
    hold_tokens: Annotated[int | None, typer.Option("--hold-tokens", help=HOLD_TOKENS)] = None,
    unpriced: Annotated[str | None, typer.Option(help="allow, or refuse targets whose price is not known.")] = None,
    cache: Annotated[float | None, typer.Option("--cache", metavar="SECONDS", help=CACHE)] = None,
    cache_pace: Annotated[str | None, typer.Option("--cache-pace", help=CACHE_PACE)] = None,
    queue_size: Annotated[int | None, typer.Option(help=QUEUE_SIZE)] = None,
    queue_wait_s: Annotated[float | None, typer.Option(help=QUEUE_WAIT_S)] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make an alias, or replace it.

    One of a shipped alias's name takes its place.
    """
    targets = targets or []
    conduct = {
        "strategy": strategy,
        "retries": retries,
        "on_midstream_failure": on_midstream_failure,
        "on_disconnect": on_disconnect,
        "resumable_s": resumable_s,
        "tool_calls": tool_calls,
        "structured": structured,
        "privacy": privacy,
        "hold_tokens": hold_tokens,
        "unpriced": unpriced,
    }
    if weights and len(weights) != len(targets):
        sentence = f"{count(len(weights), 'weight')} for {count(len(targets), 'model')}"
        raise Trouble(sentence, "give one --weight for each", code=2)
    wish: dict[str, Any] = {
        "targets": [
            {"model": target, "weight": weight}
            for target, weight in zip(targets, weights or [1] * len(targets), strict=True)
        ],
        "use_case": use_case,
        "timeouts": _given({"first_token": first_token, "stall": stall, "total": total}),
        "queue": _given({"size": queue_size, "wait_s": queue_wait_s}),
        "cache": _given({"enabled": cache is not None or None, "ttl_s": cache, "pace": cache_pace}),
        **_given(conduct),
    }
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("PUT", at("/aliases", name, slashes=True), wish)
    changed(answer, f"{name} leads to {', '.join(targets) or 'what is configured'}", as_json)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


@app.command("unset")
def unset(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove an alias that was made here.

    A shipped one of that name is back then.
    """
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/aliases", name, slashes=True))
    changed(answer, f"removed {name}", as_json)


# As ``resources.alias`` has them, whose libraries take longer to import than this takes to print
USUAL: dict[str, Any] = {
    "on_midstream_failure": "continue", "on_disconnect": "cancel", "resumable_s": 0, "early_commit_s": None,
    "tool_calls": "stream", "structured": "error", "affinity": "prompt_cache", "privacy": "any", "retries": None,
    "hold_tokens": 1024, "unpriced": None,
}  # fmt: skip


def _departures(row: dict[str, Any]) -> list[str]:
    """Return the settings of this alias that differ from the defaults."""
    found = [f"{key} {row[key]}" for key, usual in USUAL.items() if row[key] != usual]
    cache = row["cache"]
    return [*found, f"cache {cache['ttl_s']:g} s, {cache['pace']}"] if cache["enabled"] else found


def _queue(row: dict[str, Any]) -> str | None:
    queue = row["queue"]
    return f"{queue['size']} calls, up to {queue['wait_s']:g} s; {row['queued']} wait" if queue["size"] else None


def _targets(row: dict[str, Any]) -> str:
    return ", ".join(target["model"] for target in row["targets"])
