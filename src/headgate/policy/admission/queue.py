"""The order of the calls that wait: by tier, and within a tier as they came.

A call stands in the line of each thing that holds it up: a quota, a provider's connections, an account.  So a call
waits behind those that want the same, and behind no others.

A line's order is self-clocked fair queueing (Golestani, 1994).  While calls of several tiers wait, each tier is served
in proportion to its weight.  A tier is served next when the line's virtual time has come to its tag, and each of its
calls moves the tag on by 1/weight.  So a few calls of a higher tier all go first.  Yet between two calls of ``slow``
there are at most 1,000 of ``ludicrous``, 100 of ``fast`` and 10 of ``medium``: no tier starves.  Strict priority would
starve one, and ageing would need a time after which a slow call is as urgent as a fast one; the weights are that rule.

Calls that leave without being served do not move the tag: a tier whose clients give up loses nothing by it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from operator import attrgetter
from typing import Final

from headgate.model import Grant

WEIGHTS: Final[Mapping[str, int]] = {"slow": 1, "medium": 10, "fast": 100, "ludicrous": 1000}
USUAL: Final = "medium"

_number = attrgetter("number")


def tier_of(named: str | None, grant: Grant) -> str:
    """Return the tier of a call: that which it names, else its token's, else medium, or the highest allowed one."""
    if named or grant.tier:
        return named or grant.tier
    if not grant.tiers or USUAL in grant.tiers:
        return USUAL
    return max(grant.tiers, key=lambda tier: WEIGHTS[tier])


class QueuePlace:
    """One waiting call's.  ``number``: smaller than those of calls that came later."""

    __slots__ = ("alias", "keys", "number", "tenant", "tier")

    def __init__(self, number: int, alias: str, tenant: str, tier: str) -> None:
        self.number = number
        self.alias = alias
        self.tenant = tenant
        self.tier = tier
        self.keys: tuple[str, ...] = ()  # of the lines that it stands in


class TierQueue:
    """The calls of one tier in a line.  ``tag``: the virtual time at which the first is served; ``served``: the tag of
    the last that was.
    """

    __slots__ = ("places", "served", "step", "tag")

    def __init__(self, weight: int) -> None:
        self.step = 1 / weight
        self.places: list[QueuePlace] = []
        self.served = 0.0
        self.tag = 0.0


class FairLine:
    """The calls that wait for one thing."""

    __slots__ = ("_now", "_tiers")

    def __init__(self) -> None:
        self._now = 0.0  # virtual time: the tag that was served last
        self._tiers = {tier: TierQueue(weight) for tier, weight in WEIGHTS.items()}

    def __bool__(self) -> bool:
        return any(tier.places for tier in self._tiers.values())

    def add(self, place: QueuePlace) -> None:
        tier = self._tiers[place.tier]
        if not tier.places:
            tier.tag = max(self._now, tier.served) + tier.step
        insort(tier.places, place, key=_number)

    def first(self) -> QueuePlace | None:
        """Return the call that is served next."""
        waiting = [tier for tier in self._tiers.values() if tier.places]
        return min(waiting, key=lambda tier: (tier.tag, tier.step)).places[0] if waiting else None

    def remove(self, place: QueuePlace, *, served: bool) -> None:
        tier = self._tiers[place.tier]
        del tier.places[bisect_left(tier.places, place.number, key=_number)]
        if served:
            self._now = max(self._now, tier.tag)
            tier.served = tier.tag
            tier.tag += tier.step


class QueueLines:
    """Every line.  ``size`` of an alias bounds the calls of each of its tenants: a tenant that floods an alias takes
    no place of another.  Calls without a tenant share one bound.
    """

    def __init__(self) -> None:
        self._lines: dict[str, FairLine] = {}
        self._taken: dict[tuple[str, str], int] = {}
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._taken)

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._lines)

    def enter(self, alias: str, tenant: str, tier: str, size: int) -> QueuePlace | None:
        """Return a place for a call that stands in no line yet; None if there is none left."""
        taken = self._taken.get((alias, tenant), 0)
        if taken >= size:
            return None
        self._taken[alias, tenant] = taken + 1
        self._number += 1
        return QueuePlace(self._number, alias, tenant, tier)

    def stand(self, place: QueuePlace, keys: tuple[str, ...]) -> None:
        """Put a call into the lines of ``keys``, and into no others.  In those that it stands in it keeps its place."""
        for key in place.keys:
            if key not in keys:
                self._remove(place, key, served=False)
        for key in keys:
            if key not in place.keys:
                self._lines.setdefault(key, FairLine()).add(place)
        place.keys = keys

    def leave(self, place: QueuePlace, served: str = "") -> None:
        """Give back a call's place.  ``served``: the key of the line in which its turn came; empty: it gave up."""
        for key in place.keys:
            self._remove(place, key, served=key == served)
        place.keys = ()
        holder = place.alias, place.tenant
        self._taken[holder] -= 1
        if not self._taken[holder]:
            del self._taken[holder]

    def first(self, key: str) -> QueuePlace | None:
        """Return the call that is served next in this line."""
        line = self._lines.get(key)
        return None if line is None else line.first()

    def depths(self) -> dict[str, int]:
        """Return the number of waiting calls of each alias that has any."""
        found: dict[str, int] = {}
        for (alias, _tenant), number in self._taken.items():
            found[alias] = found.get(alias, 0) + number
        return found

    def _remove(self, place: QueuePlace, key: str, *, served: bool) -> None:
        line = self._lines[key]
        line.remove(place, served=served)
        if not line:
            del self._lines[key]
