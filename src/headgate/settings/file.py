"""The configuration file as a plain tree: where it lies, what it says, and where in it each value stands.

Owns YAML, ``${NAME}`` and the environment's overrides.  Knows no key of Headgate's but the names of
the top-level scalars: what a key means is ``schema.py``'s business.  Every complaint carries the YAML path, and the
line where the value comes from the file.  Refuses files that are larger than anybody means: they are read by a gateway
that runs.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from headgate import locate

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML without libyaml: the same language, slower
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Location = tuple[str | int, ...]

PREFIX = "HEADGATE_"
# Without this list a Kubernetes service named "headgate" (HEADGATE_PORT=tcp://…) would break every pod beside it:
# a variable with one underscore is an override only where it names one of these.
TOP_LEVEL_SCALARS = frozenset({"state_dir", "database", "admin_token", "default_model", "unpriced"})

MAX_BYTES = 4 << 20
MAX_NODES = 200_000  # with every alias written out: nine lines of nine aliases each are four hundred million
MAX_DEPTH = 32

_OPTIONS = {"control.port": "--control-port", "logging.level": "--log-level", "logging.format": "--log-format"}

# Others (!!set, !!omap) would make of a table something that is none
_PLAIN = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_MERGE = "tag:yaml.org,2002:merge"
_VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")


class ConfigError(ValueError):
    """The configuration cannot be meant.  ``problems`` are sentences, each naming its key.  ``store``: they are about
    the database.
    """

    def __init__(self, problems: list[str], *, store: bool = False) -> None:
        self.problems = problems
        self.store = store
        super().__init__("; ".join(problems))


def dotted(location: Location) -> str:
    """``("providers", "up-a", "keys", 0)`` → ``providers.up-a.keys.0``."""
    return ".".join(str(part) for part in location)


class Tree:
    """Values with their origins, each keyed by location: the file's ``lines``, the ``variables`` and options that
    replaced values, the names that were ``substituted`` into them, and the ``presets`` (a row's name, or the variable
    that held its key) that values were taken from.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.root: dict[str, Any] = {}
        self.lines: dict[Location, int] = {}
        self.variables: dict[Location, str] = {}
        self.substituted: dict[Location, list[str]] = {}
        self.presets: dict[Location, str] = {}
        self.problems: list[tuple[Location, str]] = []  # of reading it, each with its place

    def whence(self, location: Location) -> str:
        """Where the value was written, as a suffix for a sentence; the nearest parent's line if need be."""
        for end in range(len(location), 0, -1):
            if name := self.variables.get(location[:end]):
                return f" ({name})"
            if line := self.lines.get(location[:end]):
                return f" ({self.path.name if self.path else 'file'}, line {line})"
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
    if len(text) > MAX_BYTES:
        raise ConfigError([f"{path.name}: is larger than {MAX_BYTES >> 20} MB, the limit of a configuration"])
    loader = _Loader(text)
    try:
        _refuse_depth(path, text)
        node = loader.get_single_node()
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError([f"{path.name}: the top level must be keys and values (server:, providers:, …)"])
        _Walk(tree, loader).note(node, (), ())
        tree.root = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError([f"{path.name}{where}: not YAML: {error.problem or error}"]) from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([f"{path.name}: not YAML: {' '.join(str(error).split())}"]) from error
    finally:
        loader.dispose()


def _refuse_depth(path: Path, text: bytes) -> None:
    """Before anything is composed: libyaml's composer calls itself, and thirty thousand brackets end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                where = f", line {event.start_mark.line + 1}" if event.start_mark else ""
                raise ConfigError([f"{path.name}{where}: is nested deeper than {MAX_DEPTH} levels"])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Walk:
    """Notes every line, and refuses what YAML lets pass: duplicate keys (the last would win unseen), loops, aliases
    that make a small file a large one, and values that are not what their tag says.
    """

    def __init__(self, tree: Tree, loader: _Loader) -> None:
        self._tree = tree
        self._loader = loader
        self._left = MAX_NODES

    def note(self, node: yaml.Node, location: Location, above: tuple[int, ...]) -> None:
        """``node`` and all below it; ``above`` are the ids of the nodes that it is in."""
        line = node.start_mark.line + 1
        if location:
            self._tree.lines.setdefault(location, line)
        if id(node) in above:
            raise ConfigError([f"{dotted(location)}: refers to itself (line {line})"])
        self._left -= 1
        if self._left < 0 or len(above) > MAX_DEPTH:
            most = f"{MAX_NODES} values" if self._left < 0 else f"{MAX_DEPTH} levels"
            raise ConfigError([f"{dotted(location)}: the file has more than {most}, its aliases written out"])
        if isinstance(node, yaml.ScalarNode):
            self._read(node, location)
            return
        if node.tag not in _PLAIN:
            raise ConfigError([f"{dotted(location) or 'the file'}: no value here is a {node.tag} (line {line})"])
        inside = (*above, id(node))
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.note(item, (*location, index), inside)
        elif isinstance(node, yaml.MappingNode):
            self._keys(node, location, inside)

    def _keys(self, node: yaml.MappingNode, location: Location, inside: tuple[int, ...]) -> None:
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError([f"{dotted(location)}: keys must be plain names (line {line})"])
            here = (*location, key.value)
            if key.value in seen and key.value != "<<":
                raise ConfigError([f"{dotted(here)}: stands twice (line {line})"])
            seen.add(key.value)
            self._tree.lines[here] = line
            if key.tag != _MERGE:
                self._read(key, here)
            self.note(value, here, inside)

    def _read(self, node: yaml.ScalarNode, location: Location) -> None:
        """Here, where its place is known: PyYAML raises whatever comes, and forgets where."""
        try:
            self._loader.construct_object(node)
        except yaml.MarkedYAMLError:
            raise
        except Exception as error:
            kind = node.tag.rpartition(":")[2]
            sentence = f"{dotted(location)}: is not a {kind} (line {node.start_mark.line + 1})"
            raise ConfigError([sentence]) from error


def _substitute(tree: Tree, value: Any, location: Location, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_key(name): _substitute(tree, item, (*location, _key(name)), environ) for name, item in value.items()}
    if isinstance(value, list):
        return [_substitute(tree, item, (*location, i), environ) for i, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1]:  # $${NAME} is a literal ${NAME}
            return match[0][1:]
        tree.substituted.setdefault(location, []).append(match[2])
        found = environ.get(match[2]) or (match[4] if match[3] else environ.get(match[2]))
        if found is None:
            sentence = f"the environment variable {match[2]} is not set; set it, or write ${{{match[2]}:-default}}"
            tree.problems.append((location, tree.complain(location, sentence)))
            return ""
        return found

    return _VARIABLE.sub(replace, value)


def _key(name: Hashable) -> str:
    """YAML reads ``4o:`` as text but ``1:``, ``on:`` and ``null:`` as something else; our keys are all names."""
    return name if isinstance(name, str) else str(name).lower() if name is None or isinstance(name, bool) else str(name)


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
