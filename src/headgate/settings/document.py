"""YAML as it was written: every key is its text, and so is every plain value, until somebody wants a number of it.

Owns the reading of the file's bytes.  YAML 1.1 reads ``no`` as false, ``4.10`` as the number 4.1, ``0125`` as 85 and
``12:30`` as 750.  Here, names and strings keep their text.  The meaning of a plain value by YAML's rules stays with
it (``Plain.meant``), for the few places that take any value.  Refuses what YAML lets pass: duplicate keys, loops,
aliases that make a small file a large one, and files that are larger than anybody means.
"""

from __future__ import annotations

from typing import Any

import yaml

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML without libyaml: the same language, slower
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Location = tuple[str | int, ...]

MAX_BYTES = 4 << 20
MAX_NODES = 200_000  # with every alias written out: nine lines of nine aliases each are four hundred million
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
# Others (!!set, !!omap) would make of a table something that is none
_TABLES = frozenset({_TAG + "map", _TAG + "seq"})
_SCALARS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "timestamp", "value"))
_NULL, _MERGE = _TAG + "null", _TAG + "merge"


class ConfigError(ValueError):
    """The configuration cannot be meant.  ``problems`` are sentences, each naming its key.  ``store``: they are about
    the database.
    """

    def __init__(self, problems: list[str], *, store: bool = False) -> None:
        self.problems = problems
        self.store = store
        super().__init__("; ".join(problems))


class Plain(str):
    """A value without quotes: its text.  ``meant`` is what YAML reads in it."""

    meant: Any

    @classmethod
    def of(cls, text: str, meant: Any) -> Plain:
        made = cls(text)
        made.meant = meant
        return made


def dotted(location: Location) -> str:
    """``("providers", "up-a", "keys", 0)`` → ``providers.up-a.keys.0``."""
    return ".".join(str(part) for part in location)


def typed(value: Any) -> Any:
    """A tree with what its plain values mean."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return value.meant if isinstance(value, Plain) else value


def texts(value: Any) -> Any:
    """A tree with the plain values' texts."""
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [texts(item) for item in value]
    return str(value) if isinstance(value, Plain) else value


def parse(name: str, text: bytes) -> tuple[dict[str, Any] | None, dict[Location, int]]:
    """The document and the line of every place in it; None where there is nothing but blanks and comments.  ``name``
    is the file's, for sentences.  Raises ConfigError.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError([f"{name}: is larger than {MAX_BYTES >> 20} MB, the limit of a configuration"])
    loader = _Loader(text)
    try:
        _refuse_depth(name, text)
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL):
            return None, {}
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError([f"{name}: the top level must be keys and values (server:, providers:, …)"])
        walk = _Walk(loader)
        walk.note(node, (), ())
        return walk.value_of(node), walk.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError([f"{name}{where}: not YAML: {error.problem or error}"]) from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([f"{name}: not YAML: {' '.join(str(error).split())}"]) from error
    finally:
        loader.dispose()


def _refuse_depth(name: str, text: bytes) -> None:
    """Before anything is composed: libyaml's composer calls itself, and thirty thousand brackets end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                where = f", line {event.start_mark.line + 1}" if event.start_mark else ""
                raise ConfigError([f"{name}{where}: is nested deeper than {MAX_DEPTH} levels"])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Walk:
    """Notes every line and judges every node, then makes values of them."""

    def __init__(self, loader: _Loader) -> None:
        self.lines: dict[Location, int] = {}
        self._loader = loader
        self._left = MAX_NODES

    def note(self, node: yaml.Node, location: Location, above: tuple[int, ...]) -> None:
        """``node`` and all below it; ``above`` are the ids of the nodes that it is in."""
        line = node.start_mark.line + 1
        if location:
            self.lines.setdefault(location, line)
        if id(node) in above:
            raise ConfigError([f"{dotted(location)}: refers to itself (line {line})"])
        self._left -= 1
        if self._left < 0 or len(above) > MAX_DEPTH:
            most = f"{MAX_NODES} values" if self._left < 0 else f"{MAX_DEPTH} levels"
            raise ConfigError([f"{dotted(location)}: the file has more than {most}, its aliases written out"])
        if isinstance(node, yaml.ScalarNode):
            self._judge(node, location)
            return
        if node.tag not in _TABLES:
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
            if key.value in seen and key.tag != _MERGE:
                raise ConfigError([f"{dotted(here)}: stands twice (line {line})"])
            seen.add(key.value)
            self.lines[here] = line
            if key.tag != _MERGE:
                self._judge(key, here)
            self.note(value, here, inside)

    def _judge(self, node: yaml.ScalarNode, location: Location) -> None:
        """A tag that stands there and means nothing here (``!include``, ``!!binary``, ``!!python/…``)."""
        if node.tag not in _SCALARS and node.tag not in (_NULL, _MERGE):
            tag = node.tag.replace(_TAG, "!!")
            raise ConfigError(
                [f"{dotted(location)}: the tag {tag} means nothing here (line {node.start_mark.line + 1})"]
            )

    def value_of(self, node: yaml.Node) -> Any:
        """After ``note``: no loop is left, and no odd tag."""
        if isinstance(node, yaml.SequenceNode):
            return [self.value_of(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            self._loader.flatten_mapping(node)  # <<: merged values stand first, so that the table's own win
            return {key.value: self.value_of(value) for key, value in node.value}
        return self._scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == _NULL and not node.style:  # quoted, it is a text
            return None
        return node.value if node.tag == _TAG + "str" else Plain.of(node.value, self._meaning(node))

    def _meaning(self, node: yaml.ScalarNode) -> Any:
        """Any value that JSON has; a date is its text."""
        if node.tag not in (_TAG + "int", _TAG + "float", _TAG + "bool"):
            return node.value
        try:
            return self._loader.construct_object(node)
        except (ValueError, KeyError, OverflowError, yaml.YAMLError):
            return node.value
