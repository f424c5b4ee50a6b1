"""``headgate providers``: the providers, their addresses, and the state of their keys."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headgate.catalog import words
from headgate.cli.display.layout import Drawing, Group, Text
from headgate.cli.display.terminal import changed, counting, facts, milliseconds, moment, number, show, table, yes
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import AdminRequest, Gateway, Trouble, at, open_gateway

app = noun("Providers, and the state of their keys.")

CHECK_S = 30.0  # the gateway gives each account 5 s
Name = Annotated[str, typer.Argument(help="A provider's name.")]


@app.command("list")
def listing(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the providers, of every origin."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/providers")
    show(
        rows,
        as_json,
        lambda: table(
            "!NAME",
            "STATUS",
            "??>KEYS",
            ">MODELS",
            "??FROM",
            "?ADDRESS",
            rows=(
                (
                    row["name"],
                    _status(row),
                    str(len(row["accounts"])),
                    "any" if row["models"] is None else number(row["models"]),
                    row["origin"],
                    row["base_url"] or "",
                )
                for row in rows
            ),
            empty="no providers; see: headgate providers presets",
        ),
    )


@app.command("show")
def one(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show a provider and its accounts."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/providers", name))
    show(row, as_json, lambda: _picture(row))


@app.command("presets")
def presets(
    search: Annotated[str | None, typer.Option(help="Part of a name.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the services that Headgate knows.

    A name and a key are enough for these.
    """
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/presets")
    if search:
        rows = [row for row in rows if search.lower() in f"{row['name']} {row['title']}".lower()]
    show(
        rows,
        as_json,
        lambda: table(
            "!NAME",
            "SERVICE",
            "KEY VARIABLE",
            "?TRAINS ON DATA",
            rows=((row["name"], row["title"], ", ".join(row["key_env"]) or "–", row["training"]) for row in rows),
            empty="no service of that name; any OpenAI-compatible one works with: headgate providers add --base-url",
        ),
    )


@app.command("add")
def add(
    name: Name,
    preset: Annotated[str | None, typer.Option(help="One of `providers presets`; else the name, if it is one.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Like https://api.example.com/v1.")] = None,
    auth: Annotated[str | None, typer.Option(help=f"{words.listed(words.Auth)}.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it serves; repeat. Without: any.")] = None,
    quirk: Annotated[list[str] | None, typer.Option(help="A named request edit; repeat.")] = None,
    training: Annotated[
        str | None, typer.Option(help=f"{words.listed(words.Training)}: whether it trains on data.")
    ] = None,
    max_connections: Annotated[int | None, typer.Option("--max-connections")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Add a provider.  Its keys come with: headgate vault add NAME."""
    wish: dict[str, Any] = {
        "name": name,
        "preset": preset,
        "base_url": base_url,
        "auth": auth,
        "models": {one: {} for one in model} if model else None,
        "quirks": quirk or None,
        "training": training,
        "max_connections": max_connections,
    }
    wish = {key: value for key, value in wish.items() if value is not None}
    with open_gateway(config, state_dir) as gateway:
        try:
            made = gateway.call("POST", "/providers", wish)
        except Trouble as trouble:
            if trouble.api_code == "already_exists":
                trouble.step = f"headgate providers remove {name} (its keys go with it), then add it again"
            raise
    step = "" if made["status"] == "ready" else f"; its key comes with: headgate vault add {name}"
    changed(made, f"added {name} ({made['base_url']}){step}", as_json)


@app.command("remove")
def remove(name: Name, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove a provider that was added here."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/providers", name))
    changed(answer, f"removed {name}", as_json)


@app.command("check")
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Those; else all that have a key.")
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Try every account with a real call.

    Exit code 1 where one does not work.
    """
    with open_gateway(config, state_dir) as gateway:
        wanted = names or [row["name"] for row in configured(gateway) if row["status"] == "ready"]
        answers = checked(gateway, wanted)
    failed = [answer for answer in answers if not all(result["ok"] for result in answer["results"])]
    show(answers, as_json, lambda: _results(answers))
    raise typer.Exit(1 if failed else 0)


@app.command("resume")
def resume(
    name: Name,
    account: Annotated[str | None, typer.Option(help="Only this one: its id, or what follows the slash.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Use a provider again at once.

    Rests of keys and ejections of models alike.
    """
    wish = {"account": account.removeprefix(f"{name}/")} if account else {}
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("POST", at("/providers", name, "resume"), wish)
    if answer["told"]:
        changed(answer, f"resumed {', '.join(answer['accounts'])}", as_json)
    else:
        changed(answer, "no gateway runs: nothing is held against anybody", as_json)


def configured(gateway: Gateway) -> list[dict[str, Any]]:
    """All providers but the built-in one, which is no other's."""
    return [row for row in gateway.items("/providers") if row["origin"] != "builtin"]


def checked(gateway: Gateway, names: list[str]) -> list[dict[str, Any]]:
    """The answers to a check of each provider, all at once; with a bar.  Raises Trouble where one cannot be asked."""
    if not names:
        return []
    asks = [AdminRequest("POST", at("/providers", name, "check"), timeout_s=CHECK_S) for name in names]
    with counting("asking providers", len(asks)) as step:
        answers = gateway.together(asks, lambda index: step(names[index]))
    for answer in answers:
        if isinstance(answer, Trouble):
            raise answer
    return [answer for answer in answers if isinstance(answer, dict)]


def _results(answers: list[dict[str, Any]]) -> Drawing:
    return table(
        "",
        "!PROVIDER",
        "ACCOUNT",
        ">STATUS",
        ">TIME",
        ">MODELS",
        "",
        rows=(
            (
                Text("✓", "green") if result["ok"] else Text("✗", "red"),
                answer["provider"],
                result["account"] or "–",
                str(result["status"] or "–"),
                "" if result["latency_ms"] is None else milliseconds(result["latency_ms"]),
                "" if result["models"] is None else number(result["models"]),
                result["message"],
            )
            for answer in answers
            for result in answer["results"]
        ),
        empty="nothing to check: no provider has a key (headgate providers presets, headgate vault add)",
    )


def _picture(row: dict[str, Any]) -> Drawing:
    frame = facts(
        row["name"],
        [
            ("service", row["title"]),
            ("address", row["base_url"]),
            ("status", _status(row)),
            ("problem", row["problem"]),
            ("rests", "; ".join(map(_rest, row.get("rests", ()))) or None),
            ("preset", row["preset"]),
            ("auth", row["auth"]),
            ("quirks", ", ".join(row["quirks"]) or None),
            ("trains on data", row["training"]),
            ("goes on with a text", row["prefill"]),
            ("models", "any id" if row["models"] is None else number(row["models"])),
            ("added", moment(row["created"]) or None),
            ("from", row["origin"]),
        ],
    )
    return Group(frame, account_table(row["accounts"])) if row["accounts"] else frame


def account_table(accounts: list[dict[str, Any]]) -> Drawing:
    """Return accounts without their keys; only the hint of a key may be shown."""
    return table(
        "!ID",
        "KEY",
        "STATE",
        "???>PRIORITY",
        "???FREE",
        "??FROM",
        "?ADDED",
        rows=(
            (
                account["id"],
                account["hint"],
                account["problem"] or _state(account),
                str(account["priority"]),
                yes(account["free"]),
                account["origin"],
                moment(account["created"]),
            )
            for account in accounts
        ),
        empty="no accounts; add one with: headgate vault add PROVIDER",
    )


def _state(account: dict[str, Any]) -> str:
    """``active``, or why it is not used: ``cooling, 159 s``, ``active; gpt-5: denied, 60 s``."""
    own = account.get("rests") or []
    parts = [_rest(rest) for rest in own]
    return "; ".join(parts if any(rest["model"] is None for rest in own) else [account["state"], *parts])


def _rest(rest: dict[str, Any]) -> str:
    model = f"{rest['model']}: " if rest["model"] else ""
    wait = f", {rest['wait_s']:.0f} s" if rest["wait_s"] else ""
    return f"{model}{rest['state']}{wait}"


def _status(row: dict[str, Any]) -> Text:
    shadowed = " (shadowed by the file)" if row["shadowed"] else ""
    colour = "green" if row["status"] == "ready" else "yellow"
    return Text(row["status"].replace("_", " ") + shadowed, colour)
