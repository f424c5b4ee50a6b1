"""Whose keys serve whom, in which order; keys at their own limits, and their way back.  Manual time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate import errors
from headgate.errors import GatewayError, LimitReached
from headgate.model import Account, Grant, ModelRow, Plan
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.progress import Step
from headgate.policy.health.account_limits import DAY_S, AccountLimits
from headgate.policy.health.targets import HealthState
from headgate.policy.routing.explain import account_states, explain_plan
from headgate.policy.routing.router import Router
from tests.policy.simulation import ANYONE, call, chain, provider, router, status

NOON = 20_000 * DAY_S + DAY_S / 2  # Unix seconds
ACME, OTHER = Grant("a", "of acme", tenant="acme"), Grant("o", "of another", tenant="other")


def of(*keys: Account, grant: Grant = ANYONE) -> Plan:
    return world(*keys).plan(call(), grant)


def world(*keys: Account) -> Router:
    return router(provider("p", ModelRow("m"), keys=keys), aliases=[chain("p/m")])


def ids(plan: Plan) -> list[str]:
    return [attempt.account.id.partition("/")[2] for attempt in plan.attempts if attempt.account is not None]


def next_key(plan: Plan, health: HealthState, now: float) -> str:
    """The account of a call that begins now; its claims are taken."""
    step = begin(plan, health, now)
    assert step.attempt.account is not None
    return step.attempt.account.id.partition("/")[2]


def begin(plan: Plan, health: HealthState, now: float) -> Step:
    step = NextAttempt(plan, health, lambda: 0.0).first(now, now + 600)
    health.commit(step.attempt, step.claims, now)
    return step


def healthy() -> HealthState:
    health = HealthState()
    health.accounts.limits.epoch = NOON
    return health


# -------------------------------------------------------------------------------------------------- whose they are


POOL = (
    Account("p/pool", priority=9),
    Account("p/own", owner="acme"),
    Account("p/shared", owner="lender", share=True, priority=5),
    Account("p/private", owner="other"),
)


def test_a_tenants_own_keys_come_before_pooled_ones() -> None:
    one = world(*POOL)
    assert ids(one.plan(call(), ACME)) == ["own", "pool", "shared"]
    assert ids(one.plan(call(), OTHER)) == ["private", "pool", "shared"]
    assert ids(one.plan(call(), ANYONE)) == ["pool", "shared"]
    assert ids(one.plan(call(), Grant("x", "x", tenant="unknown"))) == ["pool", "shared"]
    assert next_key(one.plan(call(), ACME), healthy(), 0.0) == "own"


def test_a_failing_own_key_is_followed_by_the_pool() -> None:
    plan, health = of(*POOL, grant=ACME), healthy()
    attempts = NextAttempt(plan, health, lambda: 0.0)
    attempts.first(0.0, 600.0)
    following = attempts.after(status(401), 0.1)
    assert following is not None and following.attempt.account is not None
    assert following.attempt.account.id == "p/pool"
    assert next_key(plan, health, 1.0) == "pool"


def test_keys_of_another_tenant_are_no_keys() -> None:
    one = world(Account("p/private", owner="other"))
    for grant in (ACME, ANYONE):
        with pytest.raises(GatewayError) as raised:
            one.plan(call(), grant)
        assert raised.value.kind is errors.NO_PROVIDER_KEY
    assert ids(one.plan(call(), OTHER)) == ["private"]


def test_plans_of_tenants_are_not_mixed_up() -> None:
    one = router(provider("p", keys=POOL), provider("q", ModelRow("m"), keys=1))
    for _turn in range(2):
        assert ids(one.plan(call("p/x"), ACME))[0] == "own"
        assert "private" not in ids(one.plan(call("p/x"), ANYONE))
        assert ids(one.plan(call("p/x"), OTHER))[0] == "private"
        assert ids(one.plan(call("q/m", headgate={"fallback_models": ["p/x"]}), ACME)) == ["0", "own", "pool", "shared"]
        assert "own" not in ids(one.plan(call("q/m", headgate={"fallback_models": ["p/x"]}), ANYONE))


def test_accounts_without_owner_share_one_plan() -> None:
    one = world(Account("p/0"))
    assert one.plan(call(), ACME) is one.plan(call(), ANYONE)


# ----------------------------------------------------------------------------------------------------- their limits


def test_a_key_at_its_minute_limit_is_passed_over_until_the_minute_ends() -> None:
    plan, health = of(Account("p/few", priority=1, minute_limit=2), Account("p/many")), healthy()
    assert [next_key(plan, health, at) for at in (0.0, 30.0, 31.0, 59.0)] == ["few", "few", "many", "many"]
    step = NextAttempt(plan, health, lambda: 0.0)
    step.first(40.0, 640.0)
    assert step.passed_over == {"p/few": "limited"}
    assert [(one.account, one.state, one.wait_s) for one in account_states(health.accounts, 40.0)] == [
        ("p/few", "limited", 21.0)
    ]
    view = explain_plan(plan, health, 40.0).candidates[0]
    assert {one.id: one.state for one in view.accounts} == {"p/few": "limited", "p/many": "active"}
    assert [next_key(plan, health, at) for at in (61.0, 62.0, 91.5)] == ["few", "many", "few"]
    assert account_states(health.accounts, 200.0) == []


def test_a_daily_limit_ends_with_the_utc_day() -> None:
    plan, health = of(Account("p/few", priority=1, daily_limit=1), Account("p/many")), healthy()
    midnight = DAY_S / 2
    assert [next_key(plan, health, at) for at in (0.0, 5.0, midnight - 1, midnight + 1)] == [
        "few", "many", "many", "few"
    ]  # fmt: skip


def test_where_every_key_is_at_its_limit_the_client_is_told_when_to_come_again() -> None:
    plan, health = of(Account("p/one", daily_limit=1), Account("p/two", minute_limit=1)), healthy()
    assert {next_key(plan, health, 0.0), next_key(plan, health, 0.0)} == {"one", "two"}
    with pytest.raises(GatewayError) as raised:
        NextAttempt(plan, health, lambda: 0.0).first(0.5, 1.0)
    assert raised.value.kind is errors.RATE_LIMITED and raised.value.retry_after == 60.5
    waiting = NextAttempt(plan, health, lambda: 0.0).first(30.0, 600.0)
    assert waiting.wait == 31.0, "within the call's deadline the window is waited for"


def test_an_expired_key_is_not_used_and_a_later_date_brings_it_back() -> None:
    health = healthy()
    plan = of(Account("p/old", priority=1, expires=NOON + 10), Account("p/new"))
    assert [next_key(plan, health, at) for at in (0.0, 9.0, 10.0, 1e6)] == ["old", "old", "new", "new"]
    later = of(Account("p/old", priority=1, expires=NOON + 1e7), Account("p/new"))
    assert next_key(later, health, 1e6) == "old"
    alone = of(Account("p/old", expires=NOON + 10))
    with pytest.raises(GatewayError, match="have expired") as raised:
        NextAttempt(alone, health, lambda: 0.0).first(10.0, 600.0)
    assert raised.value.kind is errors.NO_PROVIDER_KEY


def test_a_key_over_its_spend_limit_rests_until_the_period_ends() -> None:
    health = healthy()
    plan = of(Account("p/spent", priority=1, paused_until=NOON + 100), Account("p/other"))
    assert [next_key(plan, health, at) for at in (0.0, 99.0, 100.0)] == ["other", "other", "spent"]
    shown = explain_plan(plan, health, 0.0).candidates[0].accounts
    assert {one.id: one.state for one in shown} == {"p/spent": "overspent", "p/other": "active"}


def test_a_single_key_with_a_limit_is_looked_at_though_everything_is_well() -> None:
    plan, health = of(Account("p/one", minute_limit=3)), healthy()
    assert health.quiet and not plan.ordered
    for at in range(3):
        begin(plan, health, float(at))
    with pytest.raises(GatewayError):
        NextAttempt(plan, health, lambda: 0.0).first(4.0, 5.0)
    assert health.quiet, "its own limits are no failure"


@given(st.lists(st.floats(0.0, 20.0), max_size=60), st.integers(1, 5))
@settings(deadline=None)
def test_no_minute_has_more_requests_than_the_limit(pauses: list[float], limit: int) -> None:
    limits, account = AccountLimits(), Account("a", minute_limit=limit)
    now, sent = 1000.0, []
    for pause in pauses:
        now += pause
        out = limits.why_out(account, now)
        assert out is None or now < out[1] <= now + 61
        if out is None:
            limits.count(account, now)
            sent.append(now)
        assert sum(now - 60 < at <= now for at in sent) <= limit


# ------------------------------------------------------------------------------------- with a queue


def at_once(plan: Plan, health: HealthState, now: float, *full: str) -> Step:
    """The first attempt of a call that may wait in a queue; the providers ``full`` have no free connection."""
    step = NextAttempt(plan, health, lambda: 0.0).first_at_once(
        now, now + 600, lambda attempt: attempt.target.provider.name in full
    )
    health.commit(step.attempt, step.claims, now)
    return step


def reached(plan: Plan, health: HealthState, now: float, *full: str) -> LimitReached:
    with pytest.raises(LimitReached) as raised:
        at_once(plan, health, now, *full)
    return raised.value


def test_a_key_at_its_minute_limit_is_waited_for_in_the_queue_one_call_after_the_other() -> None:
    plan, health = of(Account("p/one", minute_limit=1)), healthy()
    assert at_once(plan, health, 0.0).wait == 0.0
    limit = reached(plan, health, 1.0)
    assert (limit.kind, limit.keys, limit.wait, limit.sooner) == (
        errors.RATE_LIMITED,
        ("account:p/one/m",),
        60.0,
        False,
    )
    assert at_once(plan, health, 61.0).wait == 0.0
    assert reached(plan, health, 61.0).wait == 61.0, "the second of those that waited waits on"
    assert at_once(of(Account("p/one", minute_limit=1), Account("p/two")), health, 61.0).wait == 0.0


def two_providers() -> Plan:
    world = router(
        provider("p", ModelRow("m")), provider("q", ModelRow("m")), aliases=[chain("p/m", "q/m", queue_size=1)]
    )
    return world.plan(call(), ANYONE)


def test_a_target_without_a_free_connection_is_passed_over_and_all_of_them_are_waited_for() -> None:
    plan, health = two_providers(), healthy()
    assert at_once(plan, health, 0.0).attempt.target.provider.name == "p"
    spilled = at_once(plan, health, 0.0, "p")
    assert (spilled.attempt.target.provider.name, spilled.why) == ("q", "fallback")
    limit = reached(plan, health, 0.0, "p", "q")
    assert (limit.kind, limit.keys, limit.wait) == (errors.POOL_FULL, ("connections:p", "connections:q"), None)
    assert limit.sooner and limit.retry_after == 1


def test_a_full_target_is_waited_for_rather_than_an_ejected_one_asked() -> None:
    plan, health = two_providers(), healthy()
    first = plan.attempts[0]
    for at in range(3):
        health.failed(first, GatewayError(errors.UPSTREAM_FAILED, "500"), float(at))
    assert reached(plan, health, 3.0, "q").keys == ("connections:q",)
    assert reached(plan, health, 3.0, "p", "q").keys == ("connections:q",)


def test_the_probe_of_an_exhausted_key_is_waited_for() -> None:
    plan, health = of(Account("p/only")), healthy()
    health.failed(plan.attempts[0], status(429, 700.0), 0.0)
    assert reached(plan, health, 1.0).wait == 699.0
    assert at_once(plan, health, 701.0).wait == 0.0
    limit = reached(plan, health, 702.0)
    assert (limit.keys, limit.wait) == (("account:p/only/m",), 9.0), "another call is trying the key"
    assert at_once(plan, health, 711.0).wait == 0.0


def test_what_waiting_does_not_change_is_refused_with_a_queue_too() -> None:
    health = healthy()
    with pytest.raises(GatewayError, match="have expired") as raised:
        at_once(of(Account("p/old", expires=NOON)), health, 1.0)
    assert not isinstance(raised.value, LimitReached)
    plan = of(Account("p/only"))
    health.failed(plan.attempts[0], status(429), 0.0)  # for how long is our own guess: it is asked all the same
    assert at_once(plan, health, 1.0).attempt.account is not None
    health.failed(plan.attempts[0], status(429, 30.0), 1.0)
    assert reached(plan, health, 2.0).wait == 29.0
