"""Every command but ``serve``, as Typer sees them.  Parses, calls, prints; decides nothing."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from headgate import __version__
from headgate.cli import chat as chatting
from headgate.cli import serve as serving
from headgate.cli.running import Trouble, find
from headgate.settings import ConfigError, File, load, masked

app = typer.Typer(
    name="headgate",
    help="A streaming-first, OpenAI-compatible gateway for language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tokens = typer.Typer(help="Agent tokens: who may use the gateway.", no_args_is_help=True)
configuration = typer.Typer(help="The configuration file.", no_args_is_help=True)
app.add_typer(tokens, name="token")
app.add_typer(configuration, name="config")

Config = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Configuration file.")]
StateDir = Annotated[str | None, typer.Option("--state-dir", metavar="DIR", help="State directory of the gateway.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run() -> int:
    """Runs the command line.  Returns the exit code; errors are one line and the next step on standard error."""
    try:
        app()
    except Trouble as trouble:
        print(f"headgate: {trouble.sentence}", file=sys.stderr)
        if trouble.step:
            print(f"  → {trouble.step}", file=sys.stderr)
        return trouble.code
    except KeyboardInterrupt:
        return 130
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headgate {__version__}")
        raise typer.Exit


@app.callback()
def headgate(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """A streaming-first, OpenAI-compatible gateway for language models."""


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Start the gateway (headgate serve --help)."""
    raise typer.Exit(serving.serve(context.args))


@app.command()
def chat(
    message: Annotated[str, typer.Argument(help="What to say; - reads standard input.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Alias or model.")] = "auto",
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Another gateway's base URL (without /v1).")] = None,
    token: Annotated[str | None, typer.Option("--token", envvar="HEADGATE_TOKEN", help="Agent token.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Ask a model, and see the answer as it streams; speed and first-token time go to standard error."""
    text = sys.stdin.read() if message == "-" else message
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {"model": model, "messages": [*messages, {"role": "user", "content": text}]}
    running = None if url else find(config, state_dir)
    base = url.rstrip("/").removesuffix("/v1") if url else running.data_url if running else ""
    transcript = chatting.chat(running, base, token, body, live=not as_json)
    if as_json:
        print(transcript.as_json())
    else:
        print(transcript.summary(), file=sys.stderr)


@app.command()
def conform(
    url: Annotated[str, typer.Argument(help="The endpoint's base URL, like https://api.example.com/v1.")],
    token: Annotated[str | None, typer.Option("--token", envvar="HEADGATE_TOKEN", help="Its API key.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A chat model; else the first it lists.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what needs many more calls.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that an answer may take.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Check any OpenAI-compatible endpoint against the contract; exit code 1 where it breaks it."""
    from headgate.cli.conform import conform as check  # noqa: PLC0415 - late: the other commands start without it

    raise typer.Exit(check(url, token, model, as_json=as_json, quick=quick, timeout=timeout))


# ------------------------------------------------------------------------------------- tokens


@tokens.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    expires: Annotated[str | None, typer.Option(help="30d, 12h, or a date like 2027-01-31.")] = None,
    models: Annotated[str | None, typer.Option(help="Allowed models and aliases, with commas; else all.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a token.  It is shown once: only its digest is kept."""
    body: dict[str, Any] = {"name": name}
    if expires:
        body["expires"] = instant(expires, time.time())
    if models:
        body["models"] = [part.strip() for part in models.split(",") if part.strip()]
    made = find(config, state_dir).call("POST", "/tokens", body)
    print(json.dumps(made) if as_json else made["token"])
    _pending(made)


@tokens.command("list")
def token_list(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the tokens: what the file declares and what was made here."""
    rows = find(config, state_dir).call("GET", "/tokens")["data"]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("ID", "NAME", "FROM", "MODELS", "EXPIRES", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        expires = row.get("expires")
        until = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M") if expires else "never"
        table.add_row(row["id"], row["name"], row.get("origin", ""), ", ".join(row.get("models") or ()) or "all", until)
    # Piped output must not be folded to a terminal's width that nobody has.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@tokens.command("revoke")
def token_revoke(
    ident: Annotated[str, typer.Argument(metavar="ID", help="The public id, as `token list` shows it.")],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """End a token, within a second.  Running streams go on."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", ident):
        raise Trouble(f"{ident!r} is not a token's id", "headgate token list", 2)
    answer = find(config, state_dir).call("DELETE", f"/tokens/{ident}")
    print(json.dumps(answer) if as_json else f"revoked {ident}")
    _pending(answer)


def _pending(answer: dict[str, Any]) -> None:
    if answer.get("effective") is False:
        print("not yet in effect: the data process has not confirmed it within a second", file=sys.stderr)


def instant(text: str, now: float) -> float:
    """``30d``, ``12h``, ``45m`` from now, or an ISO date or instant (UTC where it names no zone), as Unix seconds."""
    if match := re.fullmatch(r"(\d+)([mhdw])", text):
        return now + int(match[1]) * {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}[match[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Trouble(f"{text!r} is no time", "write 30d, 12h, or a date like 2027-01-31", 2) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# ------------------------------------------------------------------------------------- configuration


@configuration.command("check")
def config_check(config: Config = None, as_json: Json = False) -> None:
    """Say whether the configuration holds; exit code 2 where it does not."""
    problems: list[str] = []
    path = None
    try:
        path = load(config, os.environ).path
    except ConfigError as error:
        problems = error.problems
    if as_json:
        print(json.dumps({"ok": not problems, "file": str(path) if path else None, "problems": problems}))
    else:
        print("\n".join(problems) if problems else f"{path or 'no file: the defaults hold'}: good")
    raise typer.Exit(2 if problems else 0)


@configuration.command("show")
def config_show(config: Config = None, as_json: Json = False) -> None:
    """Print what is in force: file, environment and defaults together; secrets masked."""
    try:
        settings = masked(load(config, os.environ))
    except ConfigError as error:
        raise Trouble("; ".join(error.problems), "headgate config check", 2) from error
    print(json.dumps(settings) if as_json else yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), end="")
    if as_json:
        print()


@configuration.command("schema")
def config_schema(as_json: Json = True) -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    print(json.dumps(File.model_json_schema(), indent=2 if as_json else 1))
