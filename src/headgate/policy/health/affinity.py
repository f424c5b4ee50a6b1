"""Which account of a target holds a caller's prompt cache.

A binding is made by the first success at a target and lives as long as the cache does; each further success on the same
account renews it.  A success on another account of it (the first was limited) leaves it as it is: the caller spills,
and returns.  Other targets have bindings of their own, whatever name they were reached by: where a strategy chooses
among several, the oldest is the caller's home.
Bounded: the least recently used goes first.  ``now`` is monotonic seconds.
"""

from __future__ import annotations

from typing import NamedTuple

from headgate.model.bounded import Bounded

MAX_REMEMBERED = 65_536
CACHE_S = 300.0


class Bound(NamedTuple):
    """``target`` is (provider, upstream model), ``account`` its credential (``accounts.key_of``)."""

    target: tuple[str, str]
    account: str


class Binding(NamedTuple):
    """A binding: to which account, since when, and how long the cache is believed to live."""

    account: str
    since: float
    until: float


class Affinity:
    """By the caller's key (``Plan.affinity``) and the target; the empty key is nobody's."""

    __slots__ = ("_bound",)

    def __init__(self) -> None:
        self._bound: Bounded[tuple[bytes, tuple[str, str]], Binding] = Bounded(MAX_REMEMBERED)

    def find(self, key: bytes, target: tuple[str, str], now: float) -> Binding | None:
        """Where at this target the caller's cache lies, if it still lives."""
        binding = self._bound.get((key, target))
        return binding if binding is not None and now < binding.until else None

    def served(self, key: bytes, bound: Bound, now: float) -> None:
        """``bound`` has answered this caller."""
        if not key:
            return
        binding = self.find(key, bound.target, now)
        if binding is not None and binding.account != bound.account:
            return
        since = now if binding is None else binding.since
        self._bound.put((key, bound.target), Binding(bound.account, since, now + CACHE_S))
