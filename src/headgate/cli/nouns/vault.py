"""``headgate vault``: providers' keys.

A key comes from standard input or a hidden prompt, never from the command line: other users of the machine read those.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import changed, counting, draw, facts, moment, say, show, table, yes
from headgate.cli.nouns.providers import account_table
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import Gateway, Trouble, at, open_gateway

app = noun("Providers' keys, sealed in the store.")

Ident = Annotated[
    str, typer.Argument(metavar="ID", help="PROVIDER/LABEL, as `vault list` shows it; PROVIDER where it has one key.")
]
MASK_FROM = 20  # characters: a shorter key would be half shown
FOUND, STORED, ALREADY, NO_KEY = "to store", "stored", "already there", "cannot be a key"


@app.command("list")
def listing(
    provider: Annotated[str | None, typer.Option(help="Only this provider's.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the accounts.  Keys are never shown."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items("/accounts", {"provider": provider})
    show(rows, as_json, lambda: account_table(rows))


@app.command("add")
def add(
    provider: Annotated[str, typer.Argument(help="A provider, or the name of a preset.")],
    label: Annotated[str | None, typer.Option(help="To tell several keys of one provider apart.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher is used first.")] = None,
    free: Annotated[bool, typer.Option("--free", help="Its models cost nothing.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Store a key: piped in, or asked for without being shown."""
    wish: dict[str, Any] = {"provider": provider}
    wish |= {"label": label} if label else {}
    wish |= {"priority": priority} if priority is not None else {}
    wish |= {"free": True} if free else {}
    with open_gateway(config, state_dir) as gateway:
        _takes_keys(gateway, provider)
        gateway.let_go()
        wish["key"] = _key(provider)
        made = gateway.call("POST", "/accounts", wish)
    changed(made, f"stored {made['id']} ({made['hint']}); try it: headgate providers check {provider}", as_json)


@app.command("show")
def one(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show an account.  Its key is never shown."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at("/accounts", ident, slashes=True))
    show(
        row,
        as_json,
        lambda: facts(
            row["id"],
            [
                ("provider", row["provider"]),
                ("key", row["hint"]),
                ("state", row["state"]),
                ("problem", row["problem"]),
                ("priority", str(row["priority"])),
                ("free", yes(row["free"])),
                ("added", moment(row["created"]) or None),
                ("from", row["origin"]),
            ],
        ),
    )


@app.command("remove")
def remove(ident: Ident, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove a key for good."""
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at("/accounts", ident, slashes=True))
    changed(answer, f"removed {answer['id']}", as_json)


@app.command("import-env")
def import_env(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be stored.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Store the keys of this terminal's environment.

    Those are OPENAI_API_KEY, GROQ_API_KEY and the others of `headgate providers presets`.
    """
    with open_gateway(config, state_dir) as gateway:
        found = _found(gateway, os.environ)
        gateway.let_go()
        new = [] if dry_run else [row for row in found if row["state"] == FOUND]
        if not as_json:
            draw(_plan(found))
        if new:
            if not yes and not _agreed(len(new)):
                raise Trouble("nothing was stored", "answer y, or give --yes")
            _store(gateway, new)
    refused = [row for row in new if row["state"] != STORED]
    if as_json:
        show(found, True, lambda: "")
    elif new:
        for row in refused:
            say(f"{row['provider']}: {row['state']}")
        say(f"stored {len(new) - len(refused)}; try them: headgate providers check")
    if refused:
        raise typer.Exit(1)


def _takes_keys(gateway: Gateway, provider: str) -> None:
    """Raises Trouble where a key for ``provider`` would be typed in vain."""
    there = {row["name"]: row for row in gateway.items("/providers")}
    known = {**dict.fromkeys((row["name"] for row in gateway.items("/presets")), None), **there}
    if provider not in known:
        from headgate.catalog.names import nearest  # noqa: PLC0415 - late: see late.py

        near = nearest(provider, known)
        sentence = f"there is no provider and no service {provider!r}{near}"
        raise Trouble(sentence, "headgate providers presets, or headgate providers add NAME --base-url URL", 2)
    if (row := there.get(provider)) and row["auth"] == "none" and row["origin"] != "detected":
        raise Trouble(f"provider {provider} needs no key (auth is none)", code=2)


def _key(provider: str) -> str:
    key = getpass.getpass(f"key of {provider} (not shown): ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise Trouble("no key was given", f"headgate vault add {provider} < FILE, or type it at the prompt", 2)
    return key.strip()


def _found(gateway: Gateway, environ: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the environment's keys for the presets: of each the variable that a gateway would use, else the first
    that is set.  Keys are not in it.
    """
    from headgate.catalog.presets import first_key, unfilled  # noqa: PLC0415 - late: see late.py

    stored = {row["id"] for row in gateway.items("/accounts") if row["origin"] != "environment"}
    there = {row["name"] for row in gateway.items("/providers")}
    found = []
    for preset in gateway.items("/presets"):
        good = first_key(preset["key_env"], environ)
        name = good[0] if good else next((name for name in preset["key_env"] if environ.get(name, "").strip()), None)
        if name is None:
            continue
        missing = () if preset["name"] in there else unfilled(preset["base_url"], environ)
        if f"{preset['name']}/{_label(name)}" in stored:
            state = ALREADY
        elif good is None:
            state = NO_KEY
        else:
            state = f"has no address: set {' and '.join(missing)}" if missing else FOUND
        hint = masked(environ[name].strip())
        found.append({"provider": preset["name"], "variable": name, "hint": hint, "state": state})
    return found


def _plan(found: list[dict[str, str]]) -> Any:
    return table(
        "!PROVIDER",
        "VARIABLE",
        "KEY",
        "",
        rows=((row["provider"], row["variable"], row["hint"], row["state"]) for row in found),
        empty="no provider key in this environment; the variables: headgate providers presets",
    )


def _store(gateway: Gateway, rows: list[dict[str, str]]) -> None:
    """Each row's ``state`` says what became of it: one that is refused stops no other."""
    with counting("storing", len(rows)) as step:
        for row in rows:
            key = os.environ[row["variable"]].strip()
            wish = {"provider": row["provider"], "key": key, "label": _label(row["variable"])}
            try:
                gateway.call("POST", "/accounts", wish)
                row["state"] = STORED
            except Trouble as trouble:
                if not trouble.api_code:  # it was not the API that refused: the next one would fare no better
                    raise
                row["state"] = trouble.sentence
            step(row["provider"])


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise Trouble("nobody can be asked here", "give --yes to store them, --dry-run to look", 2)
    return typer.confirm(f"Store {'this key' if count == 1 else f'these {count} keys'}?", err=True)


def _label(variable: str) -> str:
    """The account's label says where it came from: a second import finds it again."""
    return variable.lower().replace("_", "-")


def masked(key: str) -> str:
    """As the gateway masks: the first three and the last four characters, of keys that are long enough."""
    return f"{key[:3]}…{key[-4:]}" if len(key) >= MASK_FROM else f"{len(key)} characters"
