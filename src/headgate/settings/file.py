"""The configuration file as a plain tree: its place, its values, and the line of each value.

Owns YAML, ``${NAME}`` and the environment's overrides.  Of Headgate's keys it knows only the names of the top-level
scalars; ``schema.py`` has the meaning of a key.  Every complaint carries the YAML path, and the line where the value
comes from the file.  Refuses files that are larger than anybody means: they are read by a gateway that runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headgate.process import locate
from headgate.settings import document, variables
from headgate.settings.document import MAX_BYTES, ConfigError, Location, dotted

__all__ = ["ConfigError", "Location", "Tree", "dotted", "find", "read"]

PREFIX = "HEADGATE_"
# A variable with one underscore is an override only if it names one of these.  Without this list a Kubernetes service
# named "headgate" (HEADGATE_PORT=tcp://…) would break every pod beside it.
TOP_LEVEL_SCALARS = frozenset(
    {"state_dir", "database", "admin_token", "master_key", "master_key_file", "default_model", "unpriced"}
)


_OPTIONS = {"control.port": "--control-port", "logging.level": "--log-level", "logging.format": "--log-format"}


class Tree:
    """Values with their origins, each keyed by location.  Origins are the file's ``lines``, the ``variables`` and
    options that replaced values, and the names that were ``substituted`` into them.  ``presets`` has the row's name
    of a value, or the variable that held its key.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.root: dict[str, Any] = {}
        self.lines: dict[Location, int] = {}
        self.variables: dict[Location, str] = {}
        self.substituted: dict[Location, list[str]] = {}
        self.presets: dict[Location, str] = {}
        self.warnings: list[str] = []  # sentences about what was left out
        self.blank = True  # there is no file, or it holds nothing but comments
        self.problems: list[tuple[Location, str]] = []  # of reading it, each with its place

    def whence(self, location: Location) -> str:
        """Where the value was written, as a suffix for a sentence; the nearest parent's line if need be."""
        for end in range(len(location), 0, -1):
            here = location[:end]
            if name := self.variables.get(here):
                return f" ({name})"
            if preset := self.presets.get(here):
                return f" ({preset})" if preset.startswith("environment") else f" (preset {preset})"
            if line := self.lines.get(here):
                used = "".join(f", from ${{{name}}}" for name in self.substituted.get(here, ()))
                return f" ({self.path.name if self.path else 'file'}, line {line}{used})"
        return ""

    def complain(self, location: Location, sentence: str) -> str:
        return f"{dotted(location)}: {sentence}{self.whence(location)}"


def find(explicit: str | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read (``locate.config_file``).  Raises ConfigError where a file that was named does not exist."""
    try:
        return locate.config_file(explicit, environ)
    except locate.NoSuchFile as error:
        raise ConfigError([str(error)]) from error


def read(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Tree:
    """The tree of ``path`` (None: empty) after substitution and overrides.

    ``overrides`` are dotted paths from the command line (``server.port``); they beat the environment.  Variables that
    are not set are in ``Tree.problems``.  Raises ConfigError where there is no tree.
    """
    tree = Tree(path)
    if path is not None:
        _parse(tree, path)
    tree.root = _substitute(tree, tree.root, (), environ)
    problems: list[str] = []
    for location, text, name in _environment(tree.root, environ):
        _place(tree, location, text, name, problems)
    for key, text in overrides.items():
        location = tuple(key.split("."))
        _place(tree, location, text, _OPTIONS.get(key, f"--{str(location[-1]).replace('_', '-')}"), problems)
    tree.problems += [((), problem) for problem in problems]
    return tree


def _parse(tree: Tree, path: Path) -> None:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from error
    root, tree.lines = document.parse(path.name, text)
    tree.blank = root is None
    tree.root = root or {}


def _substitute(tree: Tree, value: Any, location: Location, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _substitute(tree, item, (*location, name), environ) for name, item in value.items()}
    if isinstance(value, list):
        return [_substitute(tree, item, (*location, i), environ) for i, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    return variables.expand(
        value,
        environ,
        lambda sentence: tree.problems.append((location, tree.complain(location, sentence))),
        lambda name: tree.substituted.setdefault(location, []).append(name),
    )


def _environment(root: dict[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[Location, str, str]]:
    for name in sorted(environ):
        text = environ[name]
        if not name.startswith(PREFIX) or not text:
            continue
        parts = name[len(PREFIX) :].split("__")
        if len(parts) > 1 or parts[0].lower() in TOP_LEVEL_SCALARS:
            yield _spelled(root, parts), text, name


def _spelled(root: Any, parts: list[str]) -> Location:
    """``UP_A`` means the key ``up-a`` where the file has one: variable names know neither case nor dashes."""
    location: list[str | int] = []
    at = root
    for part in parts:
        plain = part.lower()
        name: str | int = plain
        if isinstance(at, list) and plain.isdigit():
            name = int(plain)
            at = at[name] if name < len(at) else None
        else:
            keys = at if isinstance(at, dict) else {}
            name = next((key for key in keys if re.sub(r"[^a-z0-9]", "_", key.lower()) == plain), plain)
            at = keys.get(name)
        location.append(name)
    return tuple(location)


def _place(tree: Tree, location: Location, text: str, name: str, problems: list[str]) -> None:
    at: Any = tree.root
    for part in location[:-1]:
        if isinstance(at, list):
            if not isinstance(part, int) or part >= len(at):
                problems.append(f"{name}: {dotted(location)} names no entry of the file's list")
                return
            at = at[part]
        else:
            if at.get(part) is None:
                at[str(part)] = {}
            at = at[part]
        if not isinstance(at, dict | list):
            problems.append(f"{name}: {dotted(location)} is below a plain value")
            return
    last = location[-1]
    if isinstance(at, list) and not (isinstance(last, int) and last < len(at)):
        problems.append(f"{name}: {dotted(location)} names no entry of the file's list")
        return
    old = at.get(last) if isinstance(at, dict) else at[last]
    if isinstance(old, dict | list):
        problems.append(f"{name}: {dotted(location)} is not a plain value; set it in the file")
        return
    at[last] = text
    tree.variables[location] = name
