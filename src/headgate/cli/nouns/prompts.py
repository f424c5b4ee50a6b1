"""``headgate prompt``: messages that clients name instead of sending them."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.catalog import words
from headgate.cli.display.terminal import changed, facts, moment, show, table
from headgate.cli.parsing.options import Config, Json, StateDir, noun
from headgate.cli.reach.gateway import Trouble, at, open_gateway

app = noun("Saved prompts: messages that clients name, in versions.")

COLLECTION = "/prompts"
Name = Annotated[str, typer.Argument(help="Like support.")]
Tenant = Annotated[str | None, typer.Option(help="Whose prompt it is; without it, one for all tokens.")]
Number = Annotated[str, typer.Argument(help="A version's number or label, or latest.")]
Wanted = Annotated[str, typer.Option("--version", help="A number, a label, or latest.")]
SOURCE = "A text, or JSON with messages and variables (as show --json prints); -: standard input."


@app.command("list")
def listing(tenant: Tenant = None, config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the prompts."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items(COLLECTION, _of(tenant))
    show(
        rows,
        as_json,
        lambda: table(
            *("!NAME", "?TENANT", ">LATEST", "LABELS", "?VARIABLES", "??FROM"),
            rows=(
                (
                    row["name"],
                    row["tenant"] or "",
                    str(row["latest"]),
                    ", ".join(f"{label} {number}" for label, number in row["labels"].items()),
                    _variables(row["variables"]),
                    row["origin"],
                )
                for row in rows
            ),
            empty='no prompts; make one with: headgate prompt set NAME --system "…"',
        ),
    )


@app.command("show")
def one(
    name: Name,
    version: Wanted = "latest",
    tenant: Tenant = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show one version with its texts."""
    with open_gateway(config, state_dir) as gateway:
        row = gateway.call("GET", at(COLLECTION, name, "versions", version), params=_of(tenant))
    show(
        row,
        as_json,
        lambda: facts(
            f"prompt {name}, version {row['version']}",
            [
                ("for", f"tenant {row['tenant']}" if row["tenant"] else "all tokens"),
                ("labels", ", ".join(row["labels"]) or None),
                ("variables", _variables(row["variables"]) or None),
                ("note", row["note"]),
                ("made", moment(row["created"]) or None),
                *((message["role"], message["content"]) for message in row["messages"]),
            ],
        ),
    )


@app.command("set")
def put(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help=SOURCE)] = None,
    role: Annotated[str, typer.Option(help=f"Of a text: {words.listed(words.PromptRole)}.")] = "system",
    system: Annotated[str | None, typer.Option(help="The system message, instead of a file.")] = None,
    user: Annotated[str | None, typer.Option(help="A user's message behind it.")] = None,
    variables: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME[=DEFAULT]", help="A variable; needed without a default.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="What is new in this version.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="Give this version a label too.")] = None,
    tenant: Tenant = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a prompt, or its next version.

    {{name}} in a text is replaced by that variable's value.  Nothing is made where the latest version is the same.
    """
    wish = _wish(file, role, system, user)
    for pair in variables or ():
        key, equals, default = pair.partition("=")
        wish["variables"][key] = default if equals else None
    wish |= {"note": note} if note else {}
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("POST", at(COLLECTION, name, "versions"), wish, params=_of(tenant))
        number = answer["version"]
        if labels:
            sent = {"labels": dict.fromkeys(labels, number)}
            labelled = gateway.call("PATCH", at(COLLECTION, name), sent, params=_of(tenant))
            answer |= {"labels": labels, "effective": labelled["effective"], "pending": labelled["pending"]}
    sentence = f"prompt {name} has version {number}" if answer["made"] else f"version {number} of {name} is the same"
    changed(answer, sentence, as_json)


@app.command("versions")
def versions(
    name: Name, tenant: Tenant = None, config: Config = None, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """List a prompt's versions, the latest first."""
    with open_gateway(config, state_dir) as gateway:
        rows = gateway.items(at(COLLECTION, name, "versions"), _of(tenant))
    show(
        rows,
        as_json,
        lambda: table(
            *(">VERSION", "MADE", "LABELS", "?NOTE", "??>CHARACTERS"),
            rows=(
                (
                    str(row["version"]),
                    moment(row["created"]),
                    ", ".join(row["labels"]),
                    row["note"] or "",
                    str(sum(len(message["content"]) for message in row["messages"])),
                )
                for row in rows
            ),
            empty="no versions",
        ),
    )


@app.command("label")
def label(
    name: Name,
    word: Annotated[str, typer.Argument(metavar="LABEL", help="Like production.")],
    version: Annotated[str, typer.Argument(help="The version that it names from now on.")] = "latest",
    remove_: Annotated[bool, typer.Option("--remove", help="Take the label away instead.")] = False,
    tenant: Tenant = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Give a version a label, for clients to name it by.

    Calls that name the label are served by that version at once.
    """
    with open_gateway(config, state_dir) as gateway:
        number: int | None = None
        if not remove_:
            found = gateway.call("GET", at(COLLECTION, name, "versions", version), params=_of(tenant))
            number = found["version"]
        answer = gateway.call("PATCH", at(COLLECTION, name), {"labels": {word: number}}, params=_of(tenant))
    sentence = f"{word} is version {number} of {name}" if number else f"{name} has no label {word}"
    changed(answer, sentence, as_json)


@app.command("diff")
def diff(
    name: Name,
    before: Number,
    after: Number = "latest",
    tenant: Tenant = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two versions, line by line."""
    with open_gateway(config, state_dir) as gateway:
        rows = [
            gateway.call("GET", at(COLLECTION, name, "versions", version), params=_of(tenant))
            for version in (before, after)
        ]
    old, new = rows
    first, second = (f"{name} {row['version']}" for row in rows)
    lines = list(difflib.unified_diff(_lines(old), _lines(new), first, second, lineterm=""))
    answer = {"from": old["version"], "to": new["version"], "diff": lines}
    show(answer, as_json, lambda: "\n".join(lines) or "they are the same")


@app.command("render")
def render(
    name: Name,
    values: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="A variable, as a client would send it.")
    ] = None,
    version: Wanted = "latest",
    tenant: Tenant = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show the messages that a client's request would get.  Sends nothing."""
    pairs = [pair.partition("=") for pair in values or ()]
    if wrong := [pair[0] for pair in pairs if not pair[1]]:
        raise Trouble(f"{wrong[0]!r} has no value", "write it NAME=VALUE", 2)
    wish = {"version": version, "variables": {key: value for key, _, value in pairs}}
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("POST", at(COLLECTION, name, "render"), wish, params=_of(tenant))
    title = f"prompt {name}, version {answer['version']}"
    rows = [(message["role"], message["content"]) for message in answer["messages"]]
    show(answer, as_json, lambda: facts(title, rows))


@app.command("remove")
def remove(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="Only this version; else all of them.")] = None,
    tenant: Tenant = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Remove a prompt, or one of its versions.

    A version that a label names stays, and so does the only one.
    """
    names = (name,) if version is None else (name, "versions", str(version))
    with open_gateway(config, state_dir) as gateway:
        answer = gateway.call("DELETE", at(COLLECTION, *names), params=_of(tenant))
    changed(answer, f"removed {name}" if version is None else f"removed version {version} of {name}", as_json)


def _of(tenant: str | None) -> dict[str, Any]:
    return {} if tenant is None else {"tenant": tenant}


def _variables(known: dict[str, str | None]) -> str:
    return ", ".join(name if default is None else f"{name}={default}" for name, default in known.items())


def _lines(row: dict[str, Any]) -> list[str]:
    """A version as lines, for a comparison."""
    found = [f"variable {name}" + ("" if value is None else f"={value}") for name, value in row["variables"].items()]
    for message in row["messages"]:
        found += [f"[{message['role']}]", *message["content"].splitlines()]
    return found


def _wish(file: Path | None, role: str, system: str | None, user: str | None) -> dict[str, Any]:
    """A version's body, from a file or from texts."""
    given = [("system", system), ("user", user)]
    messages = [{"role": role, "content": text} for role, text in given if text is not None]
    if (file is None) is not bool(messages):
        raise Trouble("give either a file or --system and --user", "headgate prompt set --help", 2)
    if file is None:
        return {"messages": messages, "variables": {}}
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", code=2) from error
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and "messages" in whole:
        known = {key: value for key in ("messages", "variables", "note") if (value := whole.get(key)) is not None}
        if not isinstance(known.setdefault("variables", {}), dict):
            raise Trouble(f"{file}: its variables must be an object of names and defaults", code=2)
        return known
    return {"messages": [{"role": role, "content": text.removesuffix("\n")}], "variables": {}}
