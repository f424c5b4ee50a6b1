"""``headgate models``: the models, with their capabilities and prices."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from headgate.cli.display.generations import of_today
from headgate.cli.display.terminal import UNKNOWN, changed, facts, number, say, short, show, table, usd, yes
from headgate.cli.parsing.options import Config, Json, StateDir, listed, noun
from headgate.cli.reach.gateway import Trouble, at, open_gateway

app = noun("Models, with their capabilities and prices.")

MOST = 2000
FIRST = 30  # of a table that nobody asked to be longer
Ident = Annotated[str, typer.Argument(metavar="ID", help="Like openai/gpt-4o-mini.")]


class Sort(StrEnum):
    usage = "usage"
    name = "name"
    provider = "provider"
    context = "context"
    cost = "cost"


@app.command("list")
def listing(
    provider: Annotated[str | None, typer.Option(help="Only this provider's.")] = None,
    search: Annotated[str | None, typer.Option("--search", "-s", help="Part of an id or a title.")] = None,
    capability: Annotated[str | None, typer.Option(help="tools, json_schema, vision, reasoning, …")] = None,
    free: Annotated[bool, typer.Option("--free", help="Only those that cost nothing.")] = False,
    configured: Annotated[bool, typer.Option("--configured", help="Only those that a key is there for.")] = False,
    show_all: Annotated[bool, typer.Option("--all", "-a", help="Everything, of any age and kind.")] = False,
    sort: Annotated[Sort | None, typer.Option(help="What comes first.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, max=MOST, help="How many at most.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the models that can be asked for, the newest first.

    Prices are USD per million tokens, in and out.

    Without --all or a search: chat models of configured providers, without retired ones and those of generations ago.
    """
    everything = show_all or bool(search or capability)
    query = {
        "provider": provider,
        "search": search,
        "capability": capability,
        "free_only": True if free else None,
        "configured_only": True if configured or not (everything or provider) else None,
        "sort_by": sort.value if sort else None,
        "limit": MOST,
    }
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("GET", "/catalog", params=query)
        total = 0 if everything else gateway.call("GET", "/catalog", params={"limit": 1})["total"]
    found = [row for row in answer["data"] if not row["headgate"]["alias"]]
    known = len(found) if provider or free or everything else total - len(answer["data"]) + len(found)
    rows = found if everything else of_today(found)
    if sort:
        ids = {row["id"] for row in rows}
        rows = [row for row in found if row["id"] in ids]
    rows = rows[: limit or (MOST if everything or as_json else FIRST)]
    show(
        rows,
        as_json,
        lambda: table(
            "!ID",
            "?>CONTEXT",
            ">IN",
            ">OUT",
            "???CAN",
            "??>USES (30 D)",
            rows=(_cells(row) for row in rows),
            empty="no model matches; to list all: headgate models --all"
            if provider or search or capability or free or configured
            else "no model; add a provider: headgate providers presets",
        ),
    )
    if rows and all(row["owned_by"] == "builtin" for row in rows) and not (provider or as_json):
        say("no other model can be called yet: headgate vault add openai (or groq, …), or headgate providers presets")
    if known > len(rows):
        say(f"{known - len(rows)} more: headgate models --all, or --search WORD")


@app.command("show")
def one(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show everything that is known of a model."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/catalog", ident, slashes=True))
    show(row, as_json, lambda: _picture(row))


@app.command("set")
def put(
    ident: Ident,
    input_price: Annotated[float | None, typer.Option("--input-price", min=0, help="USD per million tokens.")] = None,
    output_price: Annotated[float | None, typer.Option("--output-price", min=0, help="USD per million tokens.")] = None,
    cached_price: Annotated[float | None, typer.Option("--cached-price", min=0, help="Cached input.")] = None,
    cache_write_price: Annotated[float | None, typer.Option("--cache-write-price", min=0, help="To the cache.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Context window in tokens.")] = None,
    max_output: Annotated[int | None, typer.Option("--max-output", min=1, help="Output tokens at most.")] = None,
    capabilities: Annotated[str | None, typer.Option(help="tools, vision, …, with commas.")] = None,
    title: Annotated[str | None, typer.Option(help="Its name for people.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Say what a model costs and can do.

    For models that the price list is wrong or silent about.  It replaces the former values whole.
    """
    price = {
        "input": input_price,
        "output": output_price,
        "cached_input": cached_price,
        "cache_write": cache_write_price,
    }
    price = {name: value for name, value in price.items() if value is not None}
    wish = {
        "price": price or None,
        "context_window": context,
        "max_output": max_output,
        "capabilities": listed(capabilities),
        "title": title,
    }
    wish = {name: value for name, value in wish.items() if value is not None}
    if not wish:
        raise Trouble("nothing to set", "give --input-price, --output-price, --context, …", 2)
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("PUT", at("/catalog", ident, slashes=True), wish)
    changed(answer, f"set {ident}", as_json)


@app.command("unset")
def unset(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Take back what was set for a model."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/catalog", ident, slashes=True))
    changed(answer, f"unset {ident}", as_json)


def _cells(row: dict[str, Any]) -> list[str]:
    block = row["headgate"]
    price = block.get("price") or {}
    return [
        row["id"],
        short(block.get("context_window")) if block.get("context_window") else "",
        _per_million(price.get("input")),
        _per_million(price.get("output")),
        ", ".join(block.get("capabilities") or ()),
        number(block["uses_30d"]) if block.get("uses_30d") else "",
    ]


def _per_million(price: float | None) -> str:
    return "?" if price is None else "free" if price == 0 else f"{price:.4g}"


def _picture(row: dict[str, Any]) -> Any:
    block = row["headgate"]
    price = block.get("price") or {}
    return facts(
        row["id"],
        [
            ("title", block.get("title")),
            ("kind", block.get("kind")),
            ("providers", ", ".join(block.get("providers") or ()) or None),
            ("can be called", yes(block["configured"]) if "configured" in block else None),
            ("context", f"{number(block['context_window'])} tokens" if block.get("context_window") else UNKNOWN),
            ("max output", f"{number(block['max_output'])} tokens" if block.get("max_output") else UNKNOWN),
            ("capabilities", ", ".join(block.get("capabilities") or ()) or None),
            *((f"{name} price", _price(price.get(name))) for name in ("input", "output")),
            *(
                (f"{name.replace('_', ' ')} price", _price(price[name]))
                for name in ("cached_input", "cache_write")
                if price.get(name) is not None
            ),
            ("price from", price.get("source") or None),
            ("trains on data", block.get("training")),
            ("aliases", ", ".join(block.get("aliases") or ()) or None),
            ("uses (30 d)", number(block["uses_30d"]) if block.get("uses_30d") is not None else None),
            ("from", block.get("origin")),
        ],
    )


def _price(price: float | None) -> str:
    return UNKNOWN if price is None else f"{usd(price)} per million tokens"
