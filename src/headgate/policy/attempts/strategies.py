"""Order a plan's targets before any of them has failed: (plan, health, chance) → TargetProgress.

``priority`` is the chain's own order.  The router has ordered ``cheapest``, because that depends on the call.
``weighted``, ``fastest`` and ``balanced`` depend on chance and on measured latency.  In an unordered plan, the target
with the caller's prompt cache goes first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from math import inf

from headgate.model import Candidate, Plan, Target
from headgate.policy.attempts.progress import TargetProgress
from headgate.policy.health.targets import HealthState, key_of_target

EXPLORED = 0.01  # of the calls go to a random target: otherwise a slow one would never be measured again
BEST = 3
EXPECTED_OUTPUT = 256  # tokens; only the order of magnitude matters
LEARNING = frozenset(("fastest", "balanced"))
CHOSEN = frozenset(("weighted", "fastest", "balanced"))
FALLBACK = 1000  # ranks of a request's fallback_models begin here, after all of the name's own targets
LIKELY = 0.5  # all accounts are equally likely: take the middle one

Chance = Callable[[], float]


def intended_target(plan: Plan, first: Target) -> Target:
    """Return the target that the client's request means; ``first`` is the first of the order.

    It is ``first``, unless only the client's fallbacks are left.  Then it is the first of the name's own targets.
    """
    candidates = plan.candidates
    if not candidates or not candidates[0].reason:
        return first
    fallen_back = any(one.target is first and one.rank >= FALLBACK for one in candidates)
    return candidates[0].target if fallen_back else first


def order(plan: Plan, health: HealthState, now: float, chance: Chance | None) -> list[TargetProgress]:
    """Return the plan's targets in the order to try, each with its accounts in the order to try.

    Without ``chance``: the likeliest order.
    """
    pools: dict[int, TargetProgress] = {}
    for attempt in plan.attempts:
        pool = pools.get(id(attempt.target))
        if pool is None:
            pools[id(attempt.target)] = TargetProgress(attempt.target, [attempt])
        else:
            pool.attempts.append(attempt)
    found = list(pools.values())
    if plan.ordered:
        return found
    since: dict[int, float] = {}  # the targets with this caller's prompt cache
    for one in found:
        binding = health.affinity.find(plan.affinity, key_of_target(one.target), now) if plan.affinity else None
        if binding is not None:
            since[id(one.target)] = binding.since
        if len(one.attempts) > 1:
            preferred = binding.account if binding is not None else None
            turn = LIKELY if chance is None else chance()
            one.attempts = health.accounts.in_order(one.attempts, preferred, now, turn, plan.tenant)
    if plan.alias.strategy not in CHOSEN or len(found) == 1:
        return found
    known = {id(candidate.target): candidate for candidate in plan.candidates}
    ordered: list[TargetProgress] = []
    for _, group in groupby(found, lambda one: known[id(one.target)].rank):
        chosen = _choose(plan, list(group), known, health, chance)
        chosen.sort(key=lambda one: since.get(id(one.target), inf))
        ordered += chosen
    return ordered


def _choose(
    plan: Plan, found: list[TargetProgress], known: dict[int, Candidate], health: HealthState, chance: Chance | None
) -> list[TargetProgress]:
    if len(found) == 1:
        return found
    if plan.alias.strategy == "weighted":
        return _by_weight(found, [float(known[id(one.target)].weight) for one in found], chance)
    costs = scores(plan.alias.strategy, [known[id(one.target)] for one in found], health)
    places = sorted(range(len(found)), key=lambda index: costs[index])
    ranked = [found[index] for index in places]
    if chance is not None and chance() < EXPLORED:
        ranked.insert(0, ranked.pop(int(chance() * len(ranked))))
    elif plan.alias.strategy == "balanced":
        ranked[:BEST] = _by_weight(ranked[:BEST], [costs[index] ** -2 for index in places[:BEST]], chance)
    return ranked


def scores(strategy: str, candidates: list[Candidate], health: HealthState) -> list[float]:
    """Return the figures that a strategy sorts by, the least first, above 0.

    ``fastest``: seconds; ``balanced``: money × seconds.

    A target without a measurement counts as twice as quick as the quickest, so that it gets one.  Unknown prices
    count as the highest.
    """
    seconds = [_seconds(health, candidate.target) for candidate in candidates]
    quickest = min((one for one in seconds if one), default=1.0)
    seconds = [one or quickest / 2 for one in seconds]
    if strategy == "fastest":
        return seconds
    paid = [candidate.cost for candidate in candidates if candidate.cost] or [1]
    free = min(paid) / 10  # above 0, so that the speed of free targets still counts
    costs = [max(paid) if candidate.cost is None else candidate.cost or free for candidate in candidates]
    return [cost * one for cost, one in zip(costs, seconds, strict=True)]


def _seconds(health: HealthState, target: Target) -> float:
    known = health.latency(target)
    return max(1e-3, known.first + EXPECTED_OUTPUT * known.between) if known is not None else 0.0


def _by_weight(found: list[TargetProgress], weights: list[float], chance: Chance | None) -> list[TargetProgress]:
    """Return a random order in which heavier targets come earlier.  Weight 0 comes last."""
    pairs = list(zip(found, weights, strict=True))
    if chance is None:
        return [one for one, _ in sorted(pairs, key=lambda pair: -pair[1])]
    ordered: list[TargetProgress] = []
    while pairs:
        place = _draw([weight for _, weight in pairs], chance())
        ordered.append(pairs.pop(place)[0])
    return ordered


def _draw(weights: list[float], chance: float) -> int:
    point = chance * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    return 0
