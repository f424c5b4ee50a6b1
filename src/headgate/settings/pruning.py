"""A tree without its faulty values, so that what is sound can be judged in the same pass.

Owns the way back: a list that has lost an item counts differently, and every complaint must name the place that the
operator sees.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

from headgate.settings.file import Location


class Pruned:
    """``root`` is the part of a tree that has no problem yet; the tree itself stays as it is."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root: dict[str, Any] = _copy(root)
        self._gone: dict[Location, list[int]] = {}  # positions that lists have lost, by where the list was
        self._bad: set[Location] = set()

    def drop(self, location: Location) -> None:
        """Takes out the value of ``location`` (as the tree has it), or of the nearest place above that exists."""
        self._bad.add(location)
        at: Any = self.root
        path: list[tuple[Any, str | int, Location, int]] = []
        for depth, part in enumerate(location):
            here = location[:depth]
            key: str | int = part
            if isinstance(at, list) and isinstance(part, int):
                gone = self._gone.get(here, [])
                if part in gone:
                    return  # with what it stood in
                key = part - sum(index < part for index in gone)
            if not _has(at, key):
                break
            path.append((at, key, here, part if isinstance(part, int) else 0))
            at = at[key]
        if path:
            holder, key, here, position = path[-1]
            del holder[key]
            if isinstance(holder, list):
                insort(self._gone.setdefault(here, []), position)

    def original(self, location: Location) -> Location:
        """The place in the tree of one in ``root``."""
        found: tuple[str | int, ...] = ()
        for part in location:
            if isinstance(part, int):
                for index in self._gone.get(found, ()):
                    part += index <= part
            found = (*found, part)
        return found

    def is_bad(self, location: Location) -> bool:
        """Whether ``location`` (as the tree has it) or something that it stands in has a problem already."""
        return any(location[:end] in self._bad for end in range(1, len(location) + 1))

    def is_whole(self, location: Location) -> bool:
        """Whether nothing in ``location`` has a problem."""
        return not self.is_bad(location) and not any(bad[: len(location)] == location for bad in self._bad)


def _has(at: Any, key: str | int) -> bool:
    if isinstance(at, list):
        return isinstance(key, int) and key < len(at)
    return isinstance(at, dict) and key in at


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
