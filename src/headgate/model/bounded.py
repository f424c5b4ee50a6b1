"""A mapping with a bound, for what is learnt under keys that others choose."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """At most ``most`` entries: ``put`` drops the one that was put longest ago, never all of them.

    Reading is a dict's.
    """

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def put(self, key: K, value: V) -> None:
        """Set ``key``, as the newest entry."""
        if key in self:
            del self[key]
        elif len(self) >= self.most:
            del self[next(iter(self))]
        self[key] = value
