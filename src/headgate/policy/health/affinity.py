"""Remember the account of a target that has a caller's prompt cache.

The first success at a target makes a binding, which lives as long as the cache does.  Each further success on the same
account renews it.  A success on another account of the target does not change it: the caller was spilt there because
the first was limited, and returns later.  Each target has one binding of a caller, independent of the requested name.
If a strategy chooses among several targets, the one with the oldest binding is the caller's home.
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
    """A binding: its account, its beginning, and the expected end of the cache."""

    account: str
    since: float
    until: float


class Affinity:
    """Bindings by the caller's key (``Plan.affinity``) and the target.  An empty key has none."""

    __slots__ = ("_bound",)

    def __init__(self) -> None:
        self._bound: Bounded[tuple[bytes, tuple[str, str]], Binding] = Bounded(MAX_REMEMBERED)

    def find(self, key: bytes, target: tuple[str, str], now: float) -> Binding | None:
        """Return the caller's binding at this target, if its cache still lives."""
        binding = self._bound.get((key, target))
        return binding if binding is not None and now < binding.until else None

    def served(self, key: bytes, bound: Bound, now: float) -> None:
        """Note that ``bound`` has answered this caller."""
        if not key:
            return
        binding = self.find(key, bound.target, now)
        if binding is not None and binding.account != bound.account:
            return
        since = now if binding is None else binding.since
        self._bound.put((key, bound.target), Binding(bound.account, since, now + CACHE_S))
