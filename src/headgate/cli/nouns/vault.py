"""``headgate vault``: providers' keys.

A key comes from standard input or a hidden prompt, never from the command line: other users of the machine read those.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from headgate.cli.display.terminal import changed, counting, draw, facts, moment, number, say, show, table, usd, yes
from headgate.cli.display.times import after
from headgate.cli.nouns import vault_keys
from headgate.cli.nouns.providers import CHECK_S, account_table
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.parsing.secrets import read_secret
from headgate.cli.reach.gateway import Gateway, Trouble, at, open_gateway

app = noun("Providers' keys, sealed in the store.")

Ident = Annotated[
    str, typer.Argument(metavar="ID", help="PROVIDER/LABEL, as `vault list` shows it; PROVIDER where it has one key.")
]
Owner = Annotated[str | None, typer.Option(help="The tenant whose key it is; everybody's without.")]
MinuteLimit = Annotated[int | None, typer.Option("--minute-limit", help="Most requests within a minute.")]
DailyLimit = Annotated[int | None, typer.Option("--daily-limit", help="Most requests within a UTC day.")]
SpendLimit = Annotated[
    str | None, typer.Option("--spend-limit", metavar="USD[/day]", help="Most to spend within a month, or a day.")
]
OnSpent = Annotated[str | None, typer.Option("--on-spent", help="park (use it no more, the default) or warn.")]
Expires = Annotated[str | None, typer.Option(help="30d, 12h, or a date like 2027-01-31.")]
NoTest = Annotated[bool, typer.Option("--no-test", help="Do not try the key first.")]
Force = Annotated[bool, typer.Option("--force", help="Store a key that its provider refuses.")]
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
    owner: Owner = None,
    share: Annotated[bool, typer.Option("--share", help="Other tenants may use the owner's key too.")] = False,
    minute_limit: MinuteLimit = None,
    daily_limit: DailyLimit = None,
    spend_limit: SpendLimit = None,
    on_spent: OnSpent = None,
    expires: Expires = None,
    no_test: NoTest = False,
    force: Force = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Store a key: piped in, or asked for without being shown.

    It is tried first; one that its provider refuses is not stored.
    """
    wish: dict[str, Any] = {"provider": provider, **_terms(owner, minute_limit, daily_limit, expires)}
    wish |= {"label": label} if label else {}
    wish |= {"priority": priority} if priority is not None else {}
    wish |= _spend(spend_limit, on_spent)
    wish |= dict.fromkeys([name for name, on in (("free", free), ("share", share), ("force", force)) if on], True)
    wish |= {"test": False} if no_test else {}
    with open_gateway(config, state_dir) as gateway:
        _takes_keys(gateway, provider)
        gateway.let_go()
        wish["key"] = read_secret("key", provider).strip()
        made = _stored(gateway, "POST", "/accounts", wish)
    changed(made, f"stored {made['id']} ({made['hint']}); {_said(made)}", as_json)


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
                ("owner", row["owner"] and f"{row['owner']}{', shared' if row['share'] else ''}"),
                ("requests a minute", row["minute_limit"] and number(row["minute_limit"])),
                ("requests a day", row["daily_limit"] and number(row["daily_limit"])),
                ("spend limit", _limit(row["spend_limit"])),
                ("expires", moment(row["expires"]) or None),
                ("added", moment(row["created"]) or None),
                ("from", row["origin"]),
            ],
        ),
    )


@app.command("edit")
def edit(
    ident: Ident,
    key: Annotated[bool, typer.Option("--key", help="Another key: piped in, or asked for.")] = False,
    priority: Annotated[int | None, typer.Option(help="Higher is used first.")] = None,
    free: Annotated[bool | None, typer.Option("--free/--paid", help="Whether its models cost nothing.")] = None,
    owner: Annotated[str | None, typer.Option(help="The tenant whose key it is, or none.")] = None,
    share: Annotated[bool | None, typer.Option("--share/--no-share", help="Whether other tenants may use it.")] = None,
    minute_limit: Annotated[int | None, typer.Option("--minute-limit", help="0: no limit.")] = None,
    daily_limit: Annotated[int | None, typer.Option("--daily-limit", help="0: no limit.")] = None,
    spend_limit: Annotated[
        str | None, typer.Option("--spend-limit", metavar="USD[/day]", help="For a month, or a day; 0: no limit.")
    ] = None,
    on_spent: OnSpent = None,
    expires: Annotated[str | None, typer.Option(help="30d, 12h, a date, or never.")] = None,
    no_test: NoTest = False,
    force: Force = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Change a key, or what holds for its use."""
    wish = _terms(owner, minute_limit, daily_limit, None if expires == "never" else expires)
    said = {"priority": priority, "free": free, "share": share}
    wish |= {name: value for name, value in said.items() if value is not None}
    wish |= {"owner": None} if owner == "none" else {}
    wish |= {"expires": None} if expires == "never" else {}
    for name in ("minute_limit", "daily_limit"):
        wish |= {name: None} if wish.get(name) == 0 else {}
    wish |= _spend(spend_limit, on_spent)
    if not wish and not key:
        raise Trouble("nothing to change", "headgate vault edit --help", 2)
    wish |= ({"force": True} if force else {}) | ({"test": False} if no_test else {})
    with open_gateway(config, state_dir) as gateway:
        if key:
            gateway.let_go()
            wish["key"] = read_secret("key", ident).strip()
        answer = _stored(gateway, "PATCH", at("/accounts", ident, slashes=True), wish)
    changed(answer, f"changed {answer['id']}", as_json)


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


app.command("rotate")(vault_keys.rotate)
app.command("export")(vault_keys.export)
app.command("import")(vault_keys.import_)
app.command("doctor")(vault_keys.doctor)


def _terms(owner: str | None, minute_limit: int | None, daily_limit: int | None, expires: str | None) -> dict[str, Any]:
    """The wishes that are the same for a new key and for one that is there."""
    wish = {
        "owner": owner,
        "minute_limit": minute_limit,
        "daily_limit": daily_limit,
        "expires": after(expires, time.time()) if expires else None,
    }
    return {name: value for name, value in wish.items() if value is not None}


def _spend(limit: str | None, action: str | None) -> dict[str, Any]:
    """``spend_limit`` of a wish, or nothing: ``20`` a month, ``5/day``, 0 for none.  Raises Trouble."""
    if limit is None or limit == "0":
        if action is not None:
            raise Trouble("--on-spent belongs to a spend limit", "give --spend-limit, like 20 or 5/day", 2)
        return {} if limit is None else {"spend_limit": None}
    amount, _, period = limit.partition("/")
    try:
        wish: dict[str, Any] = {"usd": float(amount), "period": period or "month"}
    except ValueError:
        raise Trouble(f"{limit!r} is no spend limit", "write it like 20 or 5/day", 2) from None
    return {"spend_limit": wish | ({"action": action} if action else {})}


def _limit(limit: dict[str, Any] | None) -> str | None:
    return f"{usd(limit['usd'])} a {limit['period']}, then {limit['action']}" if limit else None


def _stored(gateway: Gateway, method: str, path: str, wish: dict[str, Any]) -> dict[str, Any]:
    try:
        return gateway.call(method, path, wish, timeout_s=CHECK_S)
    except Trouble as trouble:
        if trouble.api_code == "key_refused":
            trouble.step = "give another key, or store this one with --force"
        raise


def _said(made: dict[str, Any]) -> str:
    """What the provider said to the key."""
    tested = made.get("tested")
    if tested is None:
        return f"try it: headgate providers check {made['provider']}"
    return f"it works: {tested['message']}" if tested["ok"] else f"not tried: {tested['message']}"


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
            wish = {"provider": row["provider"], "key": key, "label": _label(row["variable"]), "test": False}
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
