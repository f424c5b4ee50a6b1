"""Where every value in force comes from, for ``headgate config show --origin``.  It reads what is masked already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headgate.settings.file import Location, Tree, dotted


@dataclass(frozen=True, slots=True)
class Origin:
    """One value.  ``key`` is its dotted name, ``value`` a plain value of the masked configuration, ``whence`` a phrase:
    ``default``, ``headgate.yaml, line 12``, ``environment variable X``, ``preset groq``, ``command line --port``.
    """

    key: str
    value: Any
    whence: str


def origins(tree: Tree, shown: dict[str, Any]) -> list[Origin]:
    """Every leaf of ``shown`` (see ``settings.masked``), in its order.  Empty tables and lists are leaves."""
    return [Origin(dotted(location), value, _whence(tree, location)) for location, value in _leaves(shown, ())]


def _leaves(value: Any, location: Location) -> Iterator[tuple[Location, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*location, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            yield from _leaves(item, (*location, index))
    else:
        yield location, value


def _whence(tree: Tree, location: Location) -> str:
    """The nearest place that says so: of the value itself, or of the list or short form that it stands in."""
    for end in range(len(location), 0, -1):
        here = location[:end]
        if name := tree.variables.get(here):
            return f"command line {name}" if name.startswith("--") else f"environment variable {name}"
        if preset := tree.presets.get(here):
            return preset if preset.startswith("environment") else f"preset {preset}"
        if here in tree.lines and _says(tree.root, location, here):
            used = tree.substituted.get(location) or tree.substituted.get(here)
            note = f" (${{{'}, ${'.join(used)}}})" if used else ""
            return f"{tree.path.name if tree.path else 'file'}, line {tree.lines[here]}{note}"
    return "default"


def _says(root: Any, location: Location, here: Location) -> bool:
    """Whether what stands at ``here`` decides the value at ``location``: it is that value, or not a table at all."""
    at = root
    for part in here:
        at = at.get(part) if isinstance(at, dict) else at[part] if isinstance(part, int) and part < len(at) else None
    for part in location[len(here) :]:
        if not isinstance(at, dict):
            return at is not None
        if part not in at:
            return False
        at = at[part]
    return True
