"""Strategies over thousands of seeded draws, and the properties that no sequence of failures may break."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate import errors
from headgate.errors import GatewayError, Retry
from headgate.model import Account, Alias, ModelRow, Plan, Price, TargetRef
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.strategies import intended_target, order
from headgate.policy.health.targets import HealthState
from tests.policy.simulation import ANYONE, Simulation, call, chain, error, fine, plan, provider, router, status


def firsts(one: Plan, health: HealthState, draws: int = 4000, seed: int = 1) -> Counter[str]:
    chance = Random(seed).random
    return Counter(order(one, health, 0.0, chance)[0].target.provider.name for _ in range(draws))


def priced(strategy: str, *prices: int, affinity: str = "none") -> Plan:
    rows = [ModelRow("m", price=Price(price, price)) for price in prices]
    gate = router(
        *(provider(f"p{index}", row) for index, row in enumerate(rows)),
        aliases=[chain(*(f"p{index}/m" for index in range(len(rows))), strategy=strategy, affinity=affinity)],
    )
    return gate.plan(call(max_tokens=100), ANYONE)


def learnt(one: Plan, *seconds: float) -> HealthState:
    health = HealthState()
    for attempt, first in zip(one.attempts, seconds, strict=False):
        health.learn_latency(attempt.target, first, 0.0)
    return health


def test_weighted_by_chance() -> None:
    refs = (TargetRef("a/m", 3), TargetRef("b/m", 1), TargetRef("c/m", 0))
    gate = router(*(provider(name, ModelRow("m")) for name in "abc"), aliases=[Alias("w", refs, strategy="weighted")])
    one = gate.plan(call("w"), ANYONE)
    found = firsts(one, HealthState())
    assert found["c"] == 0 and 2.6 < found["a"] / found["b"] < 3.5
    assert {len(order(one, HealthState(), 0.0, Random(9).random)) for _ in range(10)} == {3}


def test_fastest_measures_unknown_targets() -> None:
    one = priced("fastest", 1, 1, 1)
    found = firsts(one, learnt(one, 0.9, 0.2, 0.5))
    assert found["p1"] > 3900 and 0 < found["p0"] < 60, "one in a hundred explores"
    assert firsts(one, learnt(one, 0.9, 0.2))["p2"] > 3900


def test_balanced_is_money_times_time_among_the_best_three() -> None:
    one = priced("balanced", 10**9, 2 * 10**9, 10**9, 10**12)
    found = firsts(one, learnt(one, 0.5, 0.5, 1.0, 0.5))
    assert found["p3"] < 60
    assert 3 < found["p0"] / found["p1"] < 5 and 3 < found["p0"] / found["p2"] < 5  # 1/cost²
    free = priced("balanced", 0, 0)
    assert firsts(free, learnt(free, 0.1, 1.0))["p0"] > 3800, "what costs nothing still has its speed"


def test_latency_is_learnt_from_calls_of_one_attempt() -> None:
    one = priced("fastest", 1, 1)
    simulation = Simulation({"p0": lambda now, visit: status(503) if visit == 0 else None, "p1": fine})
    simulation.play(one)
    assert all(simulation.health.latency(attempt.target) is None for attempt in one.attempts)
    simulation.play(one)
    assert sum(simulation.health.latency(attempt.target) is not None for attempt in one.attempts) == 1


def test_the_time_between_tokens_is_learnt_from_streams() -> None:
    one = priced("fastest", 1, 1)
    for tokens, expected in ((0, 0.0), (1, 0.0), (21, 0.1)):
        health = HealthState()
        attempts = NextAttempt(one, health, lambda: 0.5)
        target = attempts.first(10.0, 60.0).attempt.target
        attempts.succeeded(12.5, 10.5, tokens)
        known = health.latency(target)
        assert known is not None and (known.first, known.between) == (0.5, expected)


def test_a_caller_returns_to_the_target_with_its_cache() -> None:
    one = priced("weighted", 1, 1, 1, affinity="prompt_cache")
    simulation = Simulation({f"p{index}": fine for index in range(3)}, chance=Random(5).random)
    home = simulation.play(one).providers
    assert all(simulation.play(one).providers == home for _ in range(20))


def test_fallback_models_stay_behind_whatever_the_strategy() -> None:
    gate = router(
        *(provider(name, ModelRow("m")) for name in "abcd"), aliases=[chain("a/m", "b/m", strategy="weighted")]
    )
    one = gate.plan(call(headgate={"fallback_models": ["d/m", "c/m"], "preferred_providers": ["c"]}), ANYONE)
    for seed in range(20):
        names = [leg.target.provider.name for leg in order(one, HealthState(), 0.0, Random(seed).random)]
        assert sorted(names[:2]) == ["a", "b"] and names[2:] == ["d", "c"]


def test_who_was_meant_where_only_fallbacks_are_left() -> None:
    gate = router(
        provider("a", ModelRow("m", max_output=10)), provider("b", ModelRow("m")), provider("c", ModelRow("n")),
        aliases=[chain("a/m", "b/m")],
    )  # fmt: skip

    def whom(model: str, **members: object) -> str:
        one = gate.plan(call(model, headgate={"fallback_models": ["c/n", "b/m"]}, **members), ANYONE)
        first = one.attempts[0].target
        assert (intended_target(one, first) is first) is one.ordered, "an ordered plan has no other"
        return intended_target(one, first).provider.name

    assert (whom("a/m"), whom("a/m", max_tokens=11)) == ("a", "a")
    assert (whom("chat"), whom("chat", max_tokens=11)) == ("a", "b"), "a chain's own second is no fallback"
    plain = plan()
    assert intended_target(plain, plain.attempts[0].target) is plain.attempts[0].target


def test_a_preferred_provider_comes_before_the_strategys_choice() -> None:
    gate = router(*(provider(name, ModelRow("m")) for name in "abc"), aliases=[
        chain("a/m", "b/m", "c/m", strategy="weighted")
    ])  # fmt: skip
    one = gate.plan(call(headgate={"preferred_providers": ["c"]}), ANYONE)
    assert firsts(one, HealthState(), 200) == {"c": 200}


# ---- what may never happen

FAILURES = st.sampled_from(
    [None, None, *(status(code) for code in (400, 401, 402, 403, 404, 413, 422, 429, 500, 502, 503, 529))]
    + [status(429, wait) for wait in (0.0, 1.0, 3.0, 10.0, 120.0, 5000.0)]
    + [
        error(kind)
        for kind in (
            errors.UPSTREAM_RESET, errors.UPSTREAM_UNREACHABLE, errors.UPSTREAM_TIMEOUT, errors.UPSTREAM_HOLLOW,
            errors.UPSTREAM_CUT, errors.UPSTREAM_ERROR_EVENT, errors.CONTENT_FILTER, errors.CONTEXT_LENGTH,
            errors.POOL_FULL,
        )
    ]
)  # fmt: skip
ROWS = st.lists(
    st.builds(
        ModelRow,
        id=st.sampled_from(["m", "n"]),
        context_window=st.sampled_from([None, 8000, 32000]),
        prefill=st.sampled_from(["none", "trailing"]),
    ),
    min_size=1,
    max_size=8,
)


@st.composite
def simulations(draw: st.DrawFn) -> tuple[Plan, Random]:
    one = plan(
        *draw(ROWS),
        keys=draw(st.integers(0, 3)),
        strategy=draw(st.sampled_from(["priority", "weighted", "cheapest", "fastest", "balanced"])),
        retries=draw(st.integers(0, 5)),
    )
    return one, Random(draw(st.integers(0, 1000)))


def untils(health: HealthState) -> dict[tuple[str, str], float]:
    return {(account, model): standing.until for account, model, standing in health.accounts.listed()}


@settings(max_examples=300, deadline=None)
@given(simulations(), st.lists(st.tuples(FAILURES, st.floats(0, 40), st.booleans()), max_size=60), st.floats(0.05, 100))
def test_no_sequence_of_failures_breaks_the_rules(
    simulation: tuple[Plan, Random], script: list[tuple[GatewayError | None, float, bool]], timeout: float
) -> None:
    one, random = simulation
    health = HealthState()
    now = 500.0
    outcomes = iter(script)
    while True:
        attempts = NextAttempt(one, health, random.random)
        deadline = now + timeout
        try:
            step = attempts.first(now, deadline)
        except GatewayError as refusal:
            assert refusal.kind in (errors.RATE_LIMITED, errors.UPSTREAM_AUTH, errors.NO_PROVIDER_KEY)
            now += max(1.0, refusal.retry_after or 61.0)
            if next(outcomes, None) is None:
                return
            continue
        made, continuations, refused = 0, 0, Counter[int]()
        while step is not None:
            made += 1
            assert made <= 6
            assert step.wait >= 0 and now + step.wait < deadline
            assert step.attempt in one.attempts
            continuations += step.why in ("continue", "restart")
            assert continuations <= 2
            now += step.wait
            outcome = next(outcomes, None)
            if outcome is None:
                return
            failure, took, seen = outcome
            now += took
            before = untils(health)
            if failure is None:
                attempts.succeeded(now, now, 7)
                break
            target = step.attempt.target
            refused[id(target)] += failure.kind is errors.CONTEXT_LENGTH
            assert refused[id(target)] <= 1
            step = attempts.after(failure, now, continuing=seen or continuations > 0)
            if failure.retry is Retry.NEVER and failure.kind is not errors.CONTEXT_LENGTH:
                assert step is None
            after = untils(health)
            assert all(after.get(key, until) >= until for key, until in before.items()), "cooldowns only extend"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("mno"), FAILURES, st.floats(0, 4000)), max_size=40))
def test_every_account_has_a_way_back(script: list[tuple[int, str, GatewayError | None, float]]) -> None:
    health = HealthState()
    gate = router(provider("a", *(ModelRow(name) for name in "mno"), keys=3))
    plans = {name: gate.plan(call(name), ANYONE) for name in "mno"}
    now = 0.0
    for account, model, failure, took in script:
        attempt = plans[model].attempts[account]
        now += took
        if failure is None:
            health.served(attempt, now, now)
        else:
            health.failed(attempt, failure, now)
    for one in plans.values():
        for attempt in one.attempts:
            assert attempt.account is not None
            later = now + 2 * 3600
            assert health.accounts.may(attempt.account.id, attempt.target.upstream_model, later) != "out"
            health.served(attempt, later, later)
    health.sweep(now + 24 * 3600)
    assert health.quiet


@settings(max_examples=100, deadline=None)
@given(st.sets(st.sampled_from("abcd"), max_size=3), st.integers(0, 100), st.lists(FAILURES, min_size=6, max_size=6))
def test_no_attempt_on_an_excluded_provider(out: set[str], seed: int, script: list[GatewayError | None]) -> None:
    gate = router(
        *(provider(name, ModelRow("m"), keys=[Account(f"{name}/0")]) for name in "abcd"),
        aliases=[chain("a/m", "b/m", strategy="weighted")],
    )
    one = gate.plan(call(headgate={"excluded_providers": sorted(out), "fallback_models": ["m"]}), ANYONE)
    attempts = NextAttempt(one, HealthState(), Random(seed).random)
    step = attempts.first(0.0, 600.0)
    for failure in script:
        if step is None:
            break
        assert step.attempt.target.provider.name not in out
        step = attempts.after(failure, 1.0) if failure is not None else None
