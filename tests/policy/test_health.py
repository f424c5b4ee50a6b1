"""Targets that fail, accounts that are refused, callers that return: each with its way back.  Manual time."""

from __future__ import annotations

from random import Random

import pytest

from headgate import errors
from headgate.errors import Kind
from headgate.model import Account, ModelRow
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.progress import Step
from headgate.policy.health.accounts import ACTIVE, OUT, PROBE, Accounts
from headgate.policy.health.affinity import Affinity, Bound
from headgate.policy.health.targets import HealthState, blames_our_field, key_of_target
from tests.policy.simulation import ANYONE, Simulation, always, call, chain, error, fine, plan, provider, router, status

ONE = plan(ModelRow("m"), ModelRow("m"), ModelRow("m"))
TARGETS = [attempt.target for attempt in ONE.attempts]
CUT = error(errors.UPSTREAM_CUT)

ADDED = frozenset(("stream_options", "include_usage"))


def states(health: HealthState, now: float) -> str:
    found = health.ejected(TARGETS, now)
    return "".join({OUT: "x", PROBE: "p"}.get(found.get((target.provider.name, "m"), ""), ".") for target in TARGETS)


def fail(health: HealthState, index: int, now: float, times: int = 1) -> None:
    for _ in range(times):
        health.failed(ONE.attempts[index], CUT, now)


def test_nothing_is_known_of_the_healthy() -> None:
    health = HealthState()
    assert health.quiet
    health.served(ONE.attempts[0], 0.0, 1.0)
    assert health.quiet and health._failing == {}
    fail(health, 0, 1.0)
    assert not health.quiet
    for at in range(200):
        health.served(ONE.attempts[0], at, at + 1.0)
    assert health.quiet


def test_three_failures_in_a_row() -> None:
    health = HealthState()
    fail(health, 0, 0.0, 2)
    health.served(ONE.attempts[0], 0.0, 0.5)
    fail(health, 0, 1.0, 2)
    assert states(health, 1.0) == "..."
    fail(health, 0, 1.0)
    assert states(health, 1.0) == states(health, 5.9) == "x.." and states(health, 6.1) == "p.."


def test_one_probe_at_a_time_then_ten_seconds_then_thirty() -> None:
    health = HealthState()
    now, waits = 0.0, []
    fail(health, 0, now, 3)
    for _ in range(60):
        out = now
        while states(health, now)[0] == "x":
            now += 0.25
        waits.append(now - out)
        health.claim(TARGETS[0], now)
        assert states(health, now)[0] == "x", "others keep away"
        fail(health, 0, now)
    assert waits[0] == 5 and waits[1] == 10 and waits[-1] == 30
    assert set(waits) == {5, 10, 30}
    health.claim(TARGETS[0], now + 31)
    health.served(ONE.attempts[0], now + 31, now + 32)
    assert states(health, now + 32) == "..."


def test_abandoned_probe_expires() -> None:
    health = HealthState()
    fail(health, 0, 0.0, 3)
    health.claim(TARGETS[0], 6.0)
    assert states(health, 15.9)[0] == "x" and states(health, 16.1)[0] == "p"


def test_four_of_five_must_succeed() -> None:
    health = HealthState()
    at = 0.0
    for _ in range(30):
        for failed in (True, False, False):
            if states(health, at)[0] == "x":
                break
            at += 1
            if failed:
                fail(health, 0, at)
            else:
                health.served(ONE.attempts[0], at, at)
    assert states(health, at)[0] == "x" and 19 < at < 25
    health = HealthState()
    for at in range(300):
        if at % 10:
            health.served(ONE.attempts[0], at, at)
        else:
            fail(health, 0, at)
    assert states(health, 300.0) == "..."


def test_what_was_under_way_says_nothing_new() -> None:
    health = HealthState()
    fail(health, 0, 10.0, 3)
    fail(health, 0, 11.0, 5)
    assert states(health, 14.9)[0] == "x" and states(health, 15.1)[0] == "p", "failures of before do not extend it"
    health.served(ONE.attempts[0], 9.0, 12.0)
    assert states(health, 12.0)[0] == "x", "nor does a stream of before end it"


def test_at_most_half_are_ejected() -> None:
    health = HealthState()
    for index in (1, 0, 2):
        fail(health, index, float(index == 0) + 2 * (index == 2), 3)
    assert states(health, 3.0) == ".x."
    assert health.ejected(TARGETS[1:2], 3.0) == {}, "and a call without choice asks what there is"
    assert list(health.ejected(TARGETS[:2], 3.0)) == [("p1", "m")]


@pytest.mark.parametrize(
    "kind",
    [
        errors.RATE_LIMITED, errors.UPSTREAM_AUTH, errors.UPSTREAM_REFUSED, errors.CONTEXT_LENGTH,
        errors.CONTENT_FILTER, errors.PAYLOAD_TOO_LARGE, errors.UPSTREAM_UNPROCESSABLE, errors.POOL_FULL,
        errors.UPSTREAM_MODEL_NOT_FOUND, errors.UPSTREAM_HOLLOW,
    ],
)  # fmt: skip
def test_what_is_no_failure_of_a_target(kind: Kind) -> None:
    health = HealthState()
    for _ in range(50):
        health.failed(ONE.attempts[0], error(kind, kind.status), 1.0)
    assert states(health, 1.0) == "..." and health.failures(TARGETS[0]) is None


def test_old_failures_count_for_nothing_before_they_are_swept() -> None:
    health = HealthState()
    fail(health, 0, 0.0, 3)
    assert states(health, 6.0) == states(health, 64.0) == "p.." and states(health, 66.0) == "..."


def test_a_decision_takes_nothing_until_its_claims_are_committed() -> None:
    health, two = HealthState(), plan()
    for attempt in two.attempts:
        health.failed(attempt, error(errors.UPSTREAM_AUTH, 401), 0.0)
    fail(health, 0, 0.0, 3)
    steps = [NextAttempt(two, health, lambda: 0.5).first(61.0, 600.0) for _ in range(3)]
    assert all(step == Step(two.attempts[0], 0.0, "probe", ("account", "target")) for step in steps)
    health.commit(steps[0].attempt, steps[0].claims, 61.0)
    assert NextAttempt(two, health, lambda: 0.5).first(61.0, 600.0).attempt is two.attempts[1]
    assert all(health.may_retry("p0", 61.0) for _ in range(100))
    for _ in range(10):
        health.commit(two.attempts[0], ("retry",), 61.0)
    assert not health.may_retry("p0", 61.0) and health.may_retry("p0", 61.2) and health.may_retry("p1", 61.0)


def test_old_failures_are_forgotten() -> None:
    health = HealthState()
    fail(health, 0, 0.0, 2)
    health.sweep(100.0)
    assert health.quiet


def test_the_tables_are_bounded() -> None:
    health = HealthState()
    for index in range(5000):
        attempt = plan(ModelRow(f"m{index}")).attempts[0]
        health.failed(attempt, CUT, 0.0)
        health.failed(attempt, status(429), 0.0)
        health.rejects_usage(attempt.target, 0.0)
        health.learn_trims(key_of_target(attempt.target), True, 0.0)
        health.learn_latency(attempt.target, 1.0, None)
    assert len(health._failing) <= 4096 and len(health._refusals) <= 4096 and len(health._trims) <= 4096
    assert len(health._latency) <= 4096 and sum(len(m) for m in health.accounts._by_account.values()) <= 4097


def test_panic_the_least_bad_serves() -> None:
    simulation = Simulation({"p0": always(CUT), "p1": always(CUT)})
    two = plan()
    for _ in range(5):
        assert len(simulation.play(two).tries) == 2, "one of them is out, but there is no other"
    simulation.upstreams["p0"] = fine
    assert simulation.play(two).error is None


def test_what_a_target_cannot_do_is_remembered() -> None:
    health = HealthState()
    able = plan(ModelRow("m", prefill="trailing")).attempts[0].target
    assert health.takes_prefill(able, 0.0) and not health.takes_prefill(TARGETS[0], 0.0)
    health.rejects_prefill(able, 0.0)
    assert not health.takes_prefill(able, 3599.0) and health.takes_prefill(able, 3601.0)
    assert health.asks_usage(able, 0.0)
    health.rejects_usage(able, 0.0)
    assert not health.asks_usage(able, 3599.0) and health.asks_usage(able, 3601.0)
    assert health.quiet


@pytest.mark.parametrize("found", [True, False, None])
def test_a_probe_is_believed_for_a_day(found: bool | None) -> None:
    health, day = HealthState(), 86_400.0
    target = plan(ModelRow("m", prefill="trailing")).attempts[0].target
    assert health.trims(target, 0.0) is None and health.probes_trims(target, 0.0)
    health.learn_trims(key_of_target(target), found, 0.0)
    assert health.trims(target, day - 1) is found and not health.probes_trims(target, day - 1)
    assert health.trims(target, day + 1) is None and health.probes_trims(target, day + 1)


@pytest.mark.parametrize(
    ("row", "origin", "expected"),
    [("yes", None, True), ("no", "yes", False), (None, "yes", True), (None, "no", False), (None, None, None)],
)
def test_what_a_target_says_of_white_space_is_not_probed(
    row: str | None, origin: str | None, expected: bool | None
) -> None:
    one = router(provider("p", ModelRow("m", prefill_trims=row), prefill="trailing", prefill_trims=origin))
    target = one.plan(call("p/m"), ANYONE).attempts[0].target
    health = HealthState()
    health.learn_trims(key_of_target(target), expected is not True, 0.0) if expected is not None else None
    assert health.trims(target, 1.0) is expected and health.probes_trims(target, 1.0) == (expected is None)


def test_whose_field_was_refused() -> None:
    refusal = error(errors.UPSTREAM_REFUSED, 400)
    assert not blames_our_field(refusal, ADDED)
    refusal.fields = frozenset(("body", "stream_options"))
    assert blames_our_field(refusal, ADDED)
    assert not any(blames_our_field(status(other), ADDED) for other in (500, 401))


# ---- accounts


def test_a_429_is_of_the_account_and_the_model() -> None:
    accounts = Accounts()
    accounts.limited("a/0", "m", 30.0, 0.0)
    assert accounts.may("a/0", "m", 29.0) == OUT and accounts.may("a/0", "n", 29.0) == ACTIVE
    assert accounts.may("a/1", "m", 29.0) == ACTIVE
    accounts.limited("a/0", "n", 10.0, 20.0)
    assert accounts.may("a/0", "o", 29.0) == OUT, "a second model: the whole account"
    assert accounts.may("a/0", "o", 30.5) == PROBE
    accounts.claim("a/0", "o", 30.5)
    assert accounts.may("a/0", "m", 31.0) == OUT, "one probe at a time"
    accounts.served("a/0", "o", 30.5)
    assert accounts.may("a/0", "o", 31.0) == ACTIVE and accounts.may("a/0", "m", 31.0) == PROBE


def test_cooldowns_without_a_word_double() -> None:
    accounts = Accounts()
    now, waits = 0.0, []
    for _ in range(10):
        accounts.limited("a/0", "m", None, now)
        standing = accounts.state("a/0", "m", now)
        assert standing is not None
        waits.append(standing.until - now)
        now = standing.until
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]


def test_an_older_answer_does_not_end_a_cooldown() -> None:
    accounts = Accounts()
    accounts.limited("a/0", "m", 30.0, 10.0)
    accounts.served("a/0", "m", began=9.0)
    assert accounts.may("a/0", "m", 11.0) == OUT


def test_states_and_their_ways_back() -> None:
    accounts = Accounts()
    accounts.limited("a/0", "m", 7200.0, 0.0)
    accounts.spent("a/1", None, 0.0)
    accounts.refused("a/2", 0.0)
    accounts.refused("a/3", 0.0, "m")
    accounts.park("a/4")
    found = {account: (model, standing.name, standing.until) for account, model, standing in accounts.listed()}
    assert found == {
        "a/0": ("m", "exhausted", 900.0),
        "a/1": ("", "exhausted", 600.0),
        "a/2": ("", "dead", 60.0),
        "a/3": ("m", "denied", 60.0),
        "a/4": ("", "parked", float("inf")),
    }
    assert accounts.may("a/3", "n", 1.0) == ACTIVE
    accounts.refused("a/3", 1.0, "n")
    assert accounts.may("a/3", "o", 2.0) == ACTIVE, "two models that a key may not use say nothing of a third"
    for account in ("a/0", "a/1", "a/2", "a/3"):
        back = found[account][2] + 1
        assert accounts.may(account, "m", back) == PROBE
        assert accounts.may(account, "m", back + 601) == ACTIVE, "so long ago that it counts for nothing"
        accounts.served(account, "m", back)
        accounts.served(account, "n", back)
        assert accounts.may(account, "m", back + 1) == ACTIVE
    accounts.served("a/4", "m", 7201.0)
    assert accounts.may("a/4", "m", 1e9) == OUT
    accounts.revive("a/4")
    assert not accounts


def test_who_needs_no_key_cannot_have_a_dead_one() -> None:
    health = HealthState()
    health.failed(plan(ModelRow("m"), keys=0).attempts[0], status(401), 0.0)
    assert health.quiet


def limits(limit: int, left: int, kind: str = "requests", prefix: str = "x-ratelimit") -> dict[bytes, bytes]:
    if prefix == "x-ratelimit":
        return {
            f"x-ratelimit-limit-{kind}".encode(): b"%d" % limit,
            f"x-ratelimit-remaining-{kind}".encode(): b"%d" % left,
        }
    return {f"{prefix}-{kind}-limit".encode(): b"%d" % limit, f"{prefix}-{kind}-remaining".encode(): b"%d" % left}


def test_headroom_is_learnt_and_comes_back() -> None:
    accounts, account = Accounts(), Account("a/0")
    accounts.learn_limits(account, {**limits(100, 80), **limits(1000, 200, "tokens")}, 0.0)
    assert accounts.headroom("a/0", 0.0) == pytest.approx(0.2)
    assert accounts.headroom("a/0", 30.0) == pytest.approx(0.6) and accounts.headroom("a/0", 61.0) == 1.0
    accounts.learn_limits(account, limits(50, 5, "input-tokens", "anthropic-ratelimit"), 70.0)
    assert accounts.headroom("a/0", 70.0) == pytest.approx(0.1)
    for useless in ({}, limits(0, 0), {b"x-ratelimit-limit": b"x", b"x-ratelimit-remaining": b"1"}):
        accounts.learn_limits(account, useless, 70.0)
    assert accounts.headroom("a/0", 70.0) == pytest.approx(0.1)


def served_by(simulation: Simulation, one: object, calls: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for _ in range(calls):
        account = simulation.play(one).tries[-1][2]  # type: ignore[arg-type]
        assert account is not None
        found[account] = found.get(account, 0) + 1
    return found


def test_a_pool_rotates_by_headroom() -> None:
    simulation = Simulation({"p0": fine}, chance=Random(1).random)
    one = plan(ModelRow("m"), keys=3, affinity="none")
    found = served_by(simulation, one, 60)
    assert sorted(found) == ["p0/0", "p0/1", "p0/2"] and min(found.values()) >= 10
    simulation.health.accounts.learn_limits(Account("p0/1"), limits(100, 3), simulation.now)
    assert "p0/1" not in served_by(simulation, one, 30)
    simulation.now += 120
    assert "p0/1" in served_by(simulation, one, 30)


# ---- affinity


def test_a_caller_stays_spills_and_returns() -> None:
    simulation = Simulation({"p0": fine}, chance=Random(2).random)
    one = plan(ModelRow("m"), keys=3)
    assert one.affinity
    home = next(iter(served_by(simulation, one, 1)))
    assert served_by(simulation, one, 10) == {home: 10}
    simulation.upstreams[home] = lambda now, visit: status(429, 20.0) if visit == 0 else None
    assert list(served_by(simulation, one, 5)) != [home]
    simulation.now += 21
    assert served_by(simulation, one, 5) == {home: 5}


def test_a_binding_lives_as_long_as_the_cache() -> None:
    affinity, here, there = Affinity(), Bound(("p", "m"), "p/0"), Bound(("p", "m"), "p/1")

    def account(key: bytes, now: float) -> str | None:
        kept = affinity.find(key, ("p", "m"), now)
        return kept.account if kept is not None else None

    affinity.served(b"k", here, 0.0)
    affinity.served(b"k", there, 200.0)
    assert account(b"k", 299.0) == "p/0"
    affinity.served(b"k", here, 299.0)
    assert account(b"k", 598.0) == "p/0" and account(b"k", 600.0) is None
    affinity.served(b"k", there, 600.0)
    assert account(b"k", 601.0) == "p/1"
    affinity.served(b"", there, 0.0)
    for index in range(70_000):
        affinity.served(b"%d" % index, here, 700.0)
    assert len(affinity._bound) == 65_536 and account(b"", 0.0) is None


def test_a_caller_has_a_home_at_every_pool() -> None:
    """One pool's binding says nothing of another's, and a pool is the same one under whatever name."""
    gate = router(
        *(provider(name, ModelRow("m"), keys=8) for name in ("p", "q")),
        aliases=[chain("p/m", "q/m"), chain("q/m", name="other")],
    )
    simulation = Simulation({"p": fine, "q": fine}, chance=Random(3).random)

    def home(model: str) -> str | None:
        (found,) = {simulation.play(gate.plan(call(model, user="u"), ANYONE)).tries[0][2] for _ in range(10)}
        return found

    homes = [home("p/m"), home("q/m")]
    assert [home("chat"), home("other"), home("p/m"), home("q/m")] == [*homes, *homes]
    simulation.upstreams["p"] = lambda now, visit: status(503)
    assert simulation.play(gate.plan(call("chat", user="u"), ANYONE)).tries[-1][2] == homes[1], (
        "spilt: to its home there"
    )


def test_of_several_homes_the_oldest_is_it() -> None:
    gate = router(*(provider(name, ModelRow("m")) for name in "abc"), aliases=[
        chain("a/m", "b/m", "c/m", strategy="weighted")
    ])  # fmt: skip
    simulation = Simulation(dict.fromkeys("abc", fine), chance=Random(4).random)
    one = gate.plan(call(user="u"), ANYONE)
    (home,) = simulation.play(one).providers
    simulation.upstreams[home] = lambda now, visit: status(503) if visit == 1 else None
    (_, spilt) = simulation.play(one).providers
    assert spilt != home and {simulation.play(one).providers[0] for _ in range(10)} == {home}


def test_unspliceable_answer_is_no_failure() -> None:
    health = HealthState()
    for _ in range(5):
        health.failed(ONE.attempts[0], error(errors.UPSTREAM_DIVERGED), 0.0)
    assert health.quiet and states(health, 0.0) == "..."
