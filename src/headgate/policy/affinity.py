"""Which account holds a caller's prompt cache.

A binding is made by the first success and lives as long as the cache does; each further success on the same account
renews it.  A success elsewhere (it was limited, it failed) leaves it as it is: the caller spills, and returns.
Bounded: the least recently used goes first.  ``now`` is monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

MAX_REMEMBERED = 65_536
CACHE_S = 300.0


class Bound(NamedTuple):
    """``target`` is (provider, upstream model), ``account`` its credential (``accounts.key_of``)."""

    target: tuple[str, str]
    account: str


class Affinity:
    """By the caller's key (``Plan.affinity``); the empty key is nobody's."""

    __slots__ = ("_bound",)

    def __init__(self) -> None:
        self._bound: OrderedDict[bytes, tuple[Bound, float]] = OrderedDict()

    def find(self, key: bytes, now: float) -> Bound | None:
        """Where the caller's cache lies, if it still lives."""
        kept = self._bound.get(key)
        if kept is None:
            return None
        if kept[1] <= now:
            del self._bound[key]
            return None
        return kept[0]

    def served(self, key: bytes, bound: Bound, now: float) -> None:
        """``bound`` has answered this caller."""
        if not key or self.find(key, now) not in (None, bound):
            return
        self._bound[key] = (bound, now + CACHE_S)
        self._bound.move_to_end(key)
        if len(self._bound) > MAX_REMEMBERED:
            self._bound.popitem(last=False)
