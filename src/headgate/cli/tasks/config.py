"""``headgate config``: the configuration file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.display import terminal
from headgate.cli.display.layout import Drawing, Flexible, Group, Hanging, Text
from headgate.cli.display.terminal import moment, say, table
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.reach.gateway import Gateway
from headgate.cli.trouble import Trouble
from headgate.process import locate
from headgate.wire import proxies

if TYPE_CHECKING:
    from headgate.settings import Origin, Settings

VALUE = 24  # columns of a value; a longer one takes what it needs

app = typer.Typer(help="The configuration file.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check")
def check(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Say whether the configuration file is good.

    Exit code 2 where it is not.  Also says what the running gateway has of it.
    """
    from headgate.settings import ConfigError  # noqa: PLC0415 - late: see late.py

    running = _running(config, state_dir)
    path = None
    problems: list[str] = []
    try:
        path = _file(config, running)
        settings = _load(str(path) if path else config, state_dir)
        if path and settings.tree.blank and running and running["file"] and _same(Path(running["file"]), path):
            problems = [f"{path.name}: is empty now: its last content stays (write {{}} into it to declare nothing)"]
    except (ConfigError, locate.NoSuchFile) as error:
        problems = error.problems if isinstance(error, ConfigError) else [str(error)]
    if sentence := proxies.problem(os.environ):  # `serve` would end with it
        problems.append(sentence)
    if as_json:
        told = {"ok": not problems, "file": str(path) if path else None, "problems": problems, "running": running}
        print(json.dumps(told))
    else:
        print("\n".join(problems) if problems else f"{path or 'no file: the defaults hold'}: good")
        for sentence in _about(running, path, problems):
            print(sentence)
    raise typer.Exit(2 if problems else 0)


def _file(config: str | None, running: dict[str, Any] | None) -> Path | None:
    """The file to check: the one of this place, else the one that the running gateway reads."""
    path = locate.config_file(config, os.environ)
    return path if path or not running or not running["file"] else Path(running["file"])


def _running(config: str | None, state_dir: str | None) -> dict[str, Any] | None:
    """Return the running gateway's answer about its configuration, and its state directory; None if none runs."""
    try:
        with Gateway.find(config, {"state_dir": state_dir} if state_dir else {}, announce=False) as gateway:
            if gateway.running:
                health = gateway.call("GET", "/health")
                return {"state_dir": str(gateway.state_dir), "data_url": health["data_url"], **health["config"]}
    except Trouble:
        pass  # the file can be checked all the same
    return None


def _about(running: dict[str, Any] | None, path: Path | None, problems: list[str]) -> Iterator[str]:
    """Return sentences about the running gateway's use of this file."""
    if running is None:
        return
    read = moment(running["reloaded_at"])
    if running["file"] is None and path and running.get("appeared") and _same(Path(running["appeared"]), path):
        if running["reload_error"]:
            yield f"the running gateway could not read this file, and goes on without one: {running['reload_error']}"
        else:
            yield "the running gateway has not read this file yet"
            yield "  → headgate reload"
    elif running["file"] is None:
        yield f"the running gateway ({running['state_dir']}) reads no file"
        if path is not None:
            yield f"  → put it where the gateway was started, or start it with --config {path}"
    elif path is None or not _same(Path(running["file"]), path):
        yield f"the running gateway ({running['state_dir']}) reads another file: {running['file']}, taken in {read}"
    elif running["reload_error"]:
        yield f"the running gateway could not read this file as it is now; it goes on with what it took in {read}"
        if not problems:  # it holds in this shell
            yield f"  what it said: {running['reload_error']}"
    elif _changed_since(path, running["reloaded_at"]):
        yield f"the file has changed since the running gateway took it in {read}"
    else:
        why = "; the problems above exist in this shell only" if problems else ""
        yield f"the running gateway uses this file as it is now, taken in {read}{why}"
    if running["needs_restart"]:
        yield f"the running gateway needs a restart for: {', '.join(running['needs_restart'])}"


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _changed_since(path: Path, taken_in: float) -> bool:
    try:
        return path.stat().st_mtime > taken_in
    except OSError:
        return True


@app.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="With where each value comes from.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Print the values that are in force.

    File, environment and defaults together; secrets are masked.  Where there is no file here, the one that the running
    gateway reads is shown.
    """
    from headgate.settings import ConfigError, explained, masked  # noqa: PLC0415 - late: see late.py

    try:
        running = _running(config, state_dir)
        path = _file(config, running)
        settings = _load(str(path) if path else config, state_dir)
        if running and str(settings.state_dir) != running["state_dir"]:
            settings = _load(str(path) if path else config, running["state_dir"])
    except ConfigError as error:
        raise Trouble("; ".join(error.problems), "headgate config check", 2) from error
    except locate.NoSuchFile as error:
        raise Trouble(str(error), code=2) from error
    if running and running["data_url"] != settings.data_url:
        say(f"the running gateway listens on {running['data_url']}: its options are its own")
    if origin:
        values = explained(settings)
        terminal.show([asdict(value) for value in values], as_json, lambda: _origins(values))
    elif as_json:
        print(json.dumps(masked(settings)))
    else:
        import yaml  # noqa: PLC0415 - see above

        print(yaml.safe_dump(masked(settings), sort_keys=False, allow_unicode=True), end="")


@app.command("schema")
def schema(config: Config = None, state_dir: StateDir = None, as_json: Json = True) -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from headgate.settings import File  # noqa: PLC0415 - late: see late.py

    print(json.dumps(File.model_json_schema()))


def _origins(values: list[Origin]) -> Drawing:
    """A table where it is piped.  On a terminal, which may be narrow, the keys of a table stand below its name."""
    return Flexible(lambda width: _listed(values) if width is None else _grouped(values))


def _grouped(values: list[Origin]) -> Drawing:
    longest = max((len(value.key.rpartition(".")[2]) for value in values), default=0)
    lines: list[Drawing] = []
    section = ""
    for value in values:
        table_of, _, key = value.key.rpartition(".")
        if table_of and table_of != section:
            lines.append(Hanging(Text(table_of, "bold"), folds=True))
        section = table_of
        shown = json.dumps(value.value, ensure_ascii=False)
        name = f"  {key}" if table_of else key
        line = Text.assemble(f"{name:<{longest + 4}}", f"{shown:<{VALUE}}  ", (value.whence, "dim"))
        lines.append(Hanging(line, 4, folds=True))
    return Group(*lines)


def _listed(values: list[Origin]) -> Drawing:
    return table(
        "!KEY",
        "~VALUE",
        "FROM",
        rows=((value.key, json.dumps(value.value, ensure_ascii=False), value.whence) for value in values),
        empty="",
    )


def _load(config: str | None, state_dir: str | None) -> Settings:
    from headgate.settings import load  # noqa: PLC0415 - late: see late.py

    return load(config, os.environ, {"state_dir": state_dir} if state_dir else {})
