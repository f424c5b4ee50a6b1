"""``headgate config``: the configuration file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer
import yaml
from rich.console import RenderableType

from headgate.cli import terminal
from headgate.cli.gateway import Trouble
from headgate.cli.options import Config, Json, StateDir
from headgate.cli.terminal import table
from headgate.settings import ConfigError, File, Origin, Settings, explained, load, masked

app = typer.Typer(help="The configuration file.", no_args_is_help=True)


@app.command("check")
def check(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Say whether the configuration holds; exit code 2 where it does not."""
    problems: list[str] = []
    path = None
    try:
        path = _load(config, state_dir).path
    except ConfigError as error:
        problems = error.problems
    if as_json:
        print(json.dumps({"ok": not problems, "file": str(path) if path else None, "problems": problems}))
    else:
        print("\n".join(problems) if problems else f"{path or 'no file: the defaults hold'}: good")
    raise typer.Exit(2 if problems else 0)


@app.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="With where each value comes from.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Print what is in force: file, environment and defaults together; secrets masked."""
    try:
        settings = _load(config, state_dir)
    except ConfigError as error:
        raise Trouble("; ".join(error.problems), "headgate config check", 2) from error
    if origin:
        values = explained(settings)
        terminal.show([asdict(value) for value in values], as_json, lambda: _origins(values))
    elif as_json:
        print(json.dumps(masked(settings)))
    else:
        print(yaml.safe_dump(masked(settings), sort_keys=False, allow_unicode=True), end="")


@app.command("schema")
def schema(config: Config = None, state_dir: StateDir = None, as_json: Json = True) -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    print(json.dumps(File.model_json_schema(), indent=2))


def _origins(values: list[Origin]) -> RenderableType:
    return table(
        "!KEY",
        "VALUE",
        "FROM",
        rows=((value.key, json.dumps(value.value, ensure_ascii=False), value.whence) for value in values),
        empty="",
    )


def _load(config: str | None, state_dir: str | None) -> Settings:
    return load(config, os.environ, {"state_dir": state_dir} if state_dir else {})
