"""The order of waiting calls, and the bound of their number: fair by tier, first come first served within one."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.policy.admission.queue import WEIGHTS, QueueLines, QueuePlace

TIERS = ("slow", "medium", "fast", "ludicrous")
KEYS = ("token:a", "tenant:b", "connections:p", "account:p/0/m")
SIZE = 4


def stood(lines: QueueLines, *tiers: str, key: str = "k") -> list[QueuePlace]:
    """Calls that have come one after the other, to one line."""
    places = []
    for tier in tiers:
        place = lines.enter("a", "", tier, 10**6)
        assert place is not None
        lines.stand(place, (key,))
        places.append(place)
    return places


def serve(lines: QueueLines, key: str = "k") -> QueuePlace:
    place = lines.first(key)
    assert place is not None
    lines.leave(place, key)
    return place


def test_a_few_calls_are_served_by_tier_then_by_arrival() -> None:
    lines = QueueLines()
    stood(lines, *TIERS * 5)
    served = [serve(lines) for _ in range(20)]
    assert [place.tier for place in served] == [tier for tier in reversed(TIERS) for _ in range(5)]
    assert all(a.number < b.number for a, b in pairwise(served) if a.tier == b.tier)
    assert not lines and lines.first("k") is None and "k" not in lines


def test_no_tier_starves_where_higher_ones_never_end() -> None:
    """With every tier always waiting, each is served in proportion to its weight."""
    lines = QueueLines()
    stood(lines, *TIERS)
    served: Counter[str] = Counter()
    for _ in range(2 * sum(WEIGHTS.values())):
        tier = serve(lines).tier
        served[tier] += 1
        stood(lines, tier)
    assert all(abs(served[tier] - 2 * weight) <= 1 for tier, weight in WEIGHTS.items()), served


def test_a_tier_loses_nothing_by_calls_that_give_up() -> None:
    lines = QueueLines()
    for place in stood(lines, *["fast"] * 500):
        stood(lines, "medium")
        lines.leave(place)
    stood(lines, "fast")
    assert [serve(lines).tier for _ in range(2)] == ["fast", "medium"]


def test_a_tier_that_was_away_has_saved_nothing_up() -> None:
    """A tier that comes after a thousand calls of another does not go before a thousand of it."""
    lines = QueueLines()
    stood(lines, *["fast"] * 300)
    for _ in range(200):
        serve(lines)
    stood(lines, *["medium"] * 3)
    served = [serve(lines).tier for _ in range(30)]
    assert served.count("medium") <= 3 and served[:9] == ["fast"] * 9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*TIERS, ""]), max_size=400))
def test_a_waiting_tier_is_overtaken_by_no_more_than_the_weights_allow(events: list[str]) -> None:
    """``events``: calls that come, by tier; one is served where there is none.  While a tier waits for its next turn,
    another one has as many as its weight is that of the first, and one more.
    """
    lines = QueueLines()
    waiting: Counter[str] = Counter()
    since: dict[str, Counter[str]] = {}  # by tier: what was served since it waits for its next turn
    for tier in events:
        if tier:
            stood(lines, tier)
            waiting[tier] += 1
            since.setdefault(tier, Counter())
        elif lines:
            served = serve(lines).tier
            waiting[served] -= 1
            since[served] = Counter()
            if not waiting[served]:
                del since[served]
            for other, turns in since.items():
                turns[served] += other != served
                assert turns[served] <= WEIGHTS[served] / WEIGHTS[other] + 1


@pytest.mark.parametrize("size", [0, 1, 3])
def test_the_places_of_a_tenant_at_an_alias_are_bounded(size: int) -> None:
    lines = QueueLines()
    places = [lines.enter("a", "t", "medium", size) for _ in range(size)]
    assert None not in places and lines.enter("a", "t", "ludicrous", size) is None
    if size:
        assert lines.enter("b", "t", "slow", size) and lines.enter("a", "", "slow", size), "others have their own"
        assert lines.depths() == {"a": size + 1, "b": 1}
        lines.leave(places[0])  # type: ignore[arg-type]  # it has entered
        assert lines.enter("a", "t", "slow", size)


class Queue(RuleBasedStateMachine):
    """Against a list of all that waits: who stands where, first come first served within a tier, and the bounds."""

    @initialize()
    def begin(self) -> None:
        self.lines = QueueLines()
        self.waiting: list[QueuePlace] = []

    @rule(alias=st.sampled_from("ab"), tenant=st.sampled_from(["", "t"]), tier=st.sampled_from(TIERS),
          keys=st.sets(st.sampled_from(KEYS), min_size=1, max_size=2))  # fmt: skip
    def enter(self, alias: str, tenant: str, tier: str, keys: set[str]) -> None:
        theirs = sum((one.alias, one.tenant) == (alias, tenant) for one in self.waiting)
        place = self.lines.enter(alias, tenant, tier, SIZE)
        assert (place is None) == (theirs == SIZE)
        if place is not None:
            self.lines.stand(place, tuple(keys))
            self.waiting.append(place)

    @rule(data=st.data(), keys=st.sets(st.sampled_from(KEYS), min_size=1, max_size=3))
    def wait_for_something_else(self, data: st.DataObject, keys: set[str]) -> None:
        if self.waiting:
            self.lines.stand(data.draw(st.sampled_from(self.waiting)), tuple(keys))

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.waiting:
            place = data.draw(st.sampled_from(self.waiting))
            self.waiting.remove(place)
            self.lines.leave(place)

    @rule(key=st.sampled_from(KEYS))
    def serve(self, key: str) -> None:
        place = self.lines.first(key)
        if place is not None:
            self.waiting.remove(place)
            self.lines.leave(place, key)

    @invariant()
    def agrees_with_the_list(self) -> None:
        if not hasattr(self, "lines"):
            return
        for key in KEYS:
            here = [one for one in self.waiting if key in one.keys]
            first = self.lines.first(key)
            assert (key in self.lines) == bool(here) == (first is not None)
            if first is not None:
                assert first.number == min(one.number for one in here if one.tier == first.tier)
        assert self.lines.depths() == Counter(one.alias for one in self.waiting)
        assert bool(self.lines) == bool(self.waiting)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
