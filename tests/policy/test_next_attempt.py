"""The sixteen provider faults as a call meets them, and the classes of errors, with manual time."""

from __future__ import annotations

import pytest

from headgate import errors
from headgate.errors import GatewayError, Kind
from headgate.model import ModelRow, Timeouts
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.health.targets import HealthState
from tests.policy.simulation import Simulation, always, error, fine, once, plan, status


def simulation(first: object, second: object = fine, **more: object) -> Simulation:
    return Simulation({"p0": first, "p1": second}, **more)  # type: ignore[arg-type]


# ---- FAULTS.md A


def test_1_a_short_retry_after_is_waited_for() -> None:
    trace = simulation(once(status(429, 2.0))).play(plan())
    assert trace.error is None and trace.providers == ["p0", "p0"]
    assert trace.tries[1][0] >= 1.8 and trace.whys == ["first", "retry"]


def test_2_a_limit_without_a_word_goes_to_the_fallback() -> None:
    trace = simulation(always(status(429))).play(plan())
    assert trace.error is None and trace.providers == ["p0", "p1"] and trace.ended < 3


@pytest.mark.parametrize("failure", [status(500), status(502), error(errors.UPSTREAM_UNREACHABLE)])
def test_3_a_500_is_asked_again(failure: GatewayError) -> None:
    trace = simulation(once(failure)).play(plan())
    assert trace.error is None and trace.providers == ["p0", "p0"] and 0 < trace.tries[1][0] < 2.1
    assert simulation(always(failure)).play(plan()).providers == ["p0", "p0", "p1"]


@pytest.mark.parametrize("code", [503, 529])
def test_4_an_overloaded_one_is_left(code: int) -> None:
    trace = simulation(always(status(code))).play(plan())
    assert trace.error is None and trace.providers == ["p0", "p1"] and trace.whys == ["first", "fallback"]


def test_5_a_reset_is_retried_at_once() -> None:
    trace = simulation(once(error(errors.UPSTREAM_RESET))).play(plan())
    assert trace.error is None and trace.providers == ["p0", "p0"] and trace.ended < 0.1


def test_6_7_a_silent_route_is_tried_once() -> None:
    trace = simulation(always(error(errors.UPSTREAM_TIMEOUT))).play(plan())
    assert trace.error is None and trace.providers == ["p0", "p1"]
    alone = simulation(always(error(errors.UPSTREAM_TIMEOUT))).play(plan(ModelRow("m")))
    assert alone.providers == ["p0"] and alone.error is not None


def test_8_9_a_cut_is_continued_elsewhere() -> None:
    one = plan(ModelRow("m"), ModelRow("m", prefill="trailing"))
    attempts = NextAttempt(one, HealthState(), lambda: 0.5)
    attempts.first(0.0, 600.0)
    step = attempts.after(error(errors.UPSTREAM_CUT), 1.0, continuing=True)
    assert step is not None and (step.attempt.target.provider.name, step.why, step.wait) == ("p1", "continue", 0.0)


def test_12_one_attempt_on_the_model_whose_context_is_too_small() -> None:
    refusal = error(errors.CONTEXT_LENGTH, 400)
    small, large = ModelRow("s", context_window=8192), ModelRow("l", context_window=128_000)
    trace = simulation(always(refusal)).play(plan(small, large))
    assert trace.error is None and trace.providers == ["p0", "p1"]
    same = simulation(always(refusal), always(refusal)).play(plan(small, small))
    assert same.providers == ["p0"] and same.error is refusal
    unknown = simulation(always(refusal)).play(plan(ModelRow("m"), ModelRow("n")))
    assert unknown.providers == ["p0"]
    spelled = plan(ModelRow("s", canonical="c"), ModelRow("l", canonical="c", context_window=128_000))
    assert simulation(always(refusal)).play(spelled).providers == ["p0"]


@pytest.mark.parametrize(
    "kind",
    [errors.CONTENT_FILTER, errors.UPSTREAM_REFUSED, errors.PAYLOAD_TOO_LARGE, errors.UPSTREAM_UNPROCESSABLE],
)
def test_13_a_clients_own_mistake_is_never_retried(kind: Kind) -> None:
    refusal = error(kind, kind.status)
    trace = simulation(always(refusal)).play(plan())
    assert trace.providers == ["p0"] and trace.error is refusal


def test_14_a_refused_prefill_is_asked_afresh_and_remembered() -> None:
    one = plan(ModelRow("m"), ModelRow("m", prefill="trailing"), ModelRow("m", prefill="prefix"))
    health = HealthState()
    attempts = NextAttempt(one, health, lambda: 0.5)
    attempts.first(0.0, 600.0)
    broken = error(errors.UPSTREAM_CUT)
    first = attempts.after(broken, 1.0, continuing=True)
    assert first is not None and first.why == "continue"
    again = attempts.after(error(errors.UPSTREAM_REFUSED, 400), 1.1, continuing=True, spoke=False)
    assert again is not None and (again.attempt, again.why, again.wait) == (first.attempt, "restart", 0.0)
    assert not health.takes_prefill(first.attempt.target, 2.0)
    assert health.takes_prefill(first.attempt.target, 1.1 + 3601)
    second = attempts.after(broken, 2.0, continuing=True)  # the refused one did not count
    assert second is not None and (second.attempt.target.provider.name, second.why) == ("p2", "continue")
    assert attempts.after(broken, 3.0, continuing=True) is None


def test_15_an_outage_of_a_minute() -> None:
    down = simulation(lambda now, visit: status(503) if now < 1060 else None)
    one = plan()
    served = []
    for index in range(20):
        down.now = 1000.0 + 4 * index
        trace = down.play(one)
        assert trace.error is None
        served.append((down.now - 1000, trace.providers))
    back = min(at for at, providers in served if providers == ["p0"])
    assert 60 <= back <= 90
    probes = [at for at, providers in served if at < 60 and providers[0] == "p0"]
    assert len(probes) <= 8
    straight = [providers for at, providers in served if 8.5 < at < 60 and providers == ["p1"]]
    assert len(straight) >= 8
    assert all(providers == ["p0"] for at, providers in served if at > back)
    assert all(len(providers) <= 2 for _, providers in served)


# ---- ROUTING, Attempts and deadlines


@pytest.mark.parametrize("code", [401, 402, 429])
def test_the_next_account_before_the_next_target(code: int) -> None:
    several = Simulation({"p0/0": always(status(code)), "p0/1": fine, "p1": fine}, chance=lambda: 0.0)
    several.upstreams["p0"] = fine
    one = plan(keys=2)
    trace = several.play(one)
    assert [account for _, _, account, _ in trace.tries] == ["p0/0", "p0/1"]
    assert trace.whys == ["first", "account"]
    assert [account for _, _, account, _ in several.play(one).tries] == ["p0/1"], "and it is remembered"


@pytest.mark.parametrize("kind", [errors.UPSTREAM_DENIED, errors.UNAFFORDABLE, errors.OVER_ITS_LIMIT])
def test_refused_request_goes_to_the_next_account(kind: Kind) -> None:
    several = Simulation({"p0/0": always(error(kind, 403)), "p0/1": fine, "p0": fine, "p1": fine})
    one = plan(keys=2)
    assert several.play(one).error is None
    assert several.health.quiet


@pytest.mark.parametrize(
    "kind", [errors.UPSTREAM_MODEL_NOT_FOUND, errors.UPSTREAM_HOLLOW, errors.POOL_FULL, errors.NO_PROVIDER_KEY]
)
def test_the_next_target(kind: Kind) -> None:
    trace = simulation(always(error(kind))).play(plan())
    assert trace.error is None and trace.providers == ["p0", "p1"]


def test_a_long_retry_after_goes_elsewhere_and_holds() -> None:
    limited = simulation(always(status(429, 20.0)))
    one = plan()
    assert limited.play(one).providers == ["p0", "p1"]
    assert limited.play(one).providers == ["p1"]
    limited.now += 21
    assert limited.play(one).whys == ["probe", "fallback"]


def test_where_there_is_no_other_it_is_waited_for() -> None:
    alone = simulation(lambda now, visit: status(429, 20.0) if now < 1020 else None)
    trace = alone.play(plan(ModelRow("m")))
    assert trace.error is None and [round(at) for at, *_ in trace.tries] in ([0, 20], [0, 21])


def test_but_not_past_the_deadline_nor_for_ever() -> None:
    for wait, timeout in ((20.0, 10.0), (300.0, 600.0)):
        trace = simulation(always(status(429, wait))).play(plan(ModelRow("m")), timeout)
        assert trace.providers == ["p0"] and trace.error is not None and trace.ended < 1


def test_call_waits_while_all_targets_cool() -> None:
    alone = simulation(lambda now, visit: status(429, 30.0) if now < 1030 else None)
    one = plan(ModelRow("m"))
    assert alone.play(one, timeout=5.0).error is not None
    told = alone.play(one, timeout=5.0)
    assert told.tries == [] and told.error is not None and told.error.kind is errors.RATE_LIMITED
    assert told.error.retry_after is not None and 29 < told.error.retry_after <= 30
    waited = alone.play(one)
    assert waited.error is None and waited.tries[0][0] > 29 and waited.whys == ["first"]


def test_our_own_guess_is_no_reason_to_refuse() -> None:
    alone = simulation(lambda now, visit: status(429) if visit < 3 else None)
    one = plan(ModelRow("m"))
    assert len(alone.play(one).tries) == 3  # two retries with a pause
    assert alone.play(one).providers == ["p0"]


def test_an_account_without_money_is_not_waited_for() -> None:
    pool = Simulation({"p0/0": always(status(402)), "p0/1": always(status(429))}, chance=lambda: 0.0)
    trace = pool.play(plan(ModelRow("m"), keys=2))
    assert [account for _, _, account, _ in trace.tries] == ["p0/0", "p0/1", "p0/1", "p0/1"]


def test_every_key_dead() -> None:
    alone = simulation(lambda now, visit: status(401) if now < 1300 else None)
    one = plan(ModelRow("m"))
    assert alone.play(one).providers == ["p0"]
    told = alone.play(one)
    assert told.tries == [] and told.error is not None and told.error.kind is errors.UPSTREAM_AUTH
    alone.now += 61
    assert alone.play(one).providers == ["p0"], "once a minute where nothing else could serve"
    assert alone.play(one).tries == []
    alone.now = 1301.0
    assert alone.play(one).error is None
    assert alone.health.quiet


def test_a_dead_key_is_probed_after_1_5_then_every_15_minutes() -> None:
    two = simulation(always(status(401)))
    one = plan()
    assert two.play(one).providers == ["p0", "p1"]
    began, probes = two.now, []
    for second in range(1, 60 * 60):
        two.now = began + second
        if two.play(one).providers == ["p0", "p1"]:
            probes.append(second)
    assert [probe // 60 for probe in probes] == [1, 6, 21, 36, 51]


def test_a_parked_account_is_left_alone_until_it_is_revived() -> None:
    two = simulation(fine)
    one = plan()
    two.health.park("p0/0")
    assert two.play(one).providers == ["p1"]
    two.health.park("p1/0")
    told = two.play(one)
    assert told.tries == [] and told.error is not None and told.error.kind is errors.NO_PROVIDER_KEY
    two.health.revive("p0/0")
    assert two.play(one).providers == ["p0"]


def test_retries_are_bounded_by_the_plan() -> None:
    assert simulation(always(status(500))).play(plan(retries=0)).providers == ["p0", "p1"]
    assert simulation(always(status(429, 1.0))).play(plan(retries=1)).providers == ["p0", "p0", "p1"]
    assert simulation(always(status(429, 1.0))).play(plan(retries=2)).providers == ["p0", "p0", "p0", "p1"]


def test_six_attempts_are_enough() -> None:
    rows = tuple(ModelRow("m") for _ in range(9))
    failing = Simulation({f"p{index}": always(status(503)) for index in range(9)})
    assert len(failing.play(plan(*rows)).tries) == 6


def test_the_retry_budget_of_a_pool() -> None:
    broken = Simulation({"p0": always(error(errors.UPSTREAM_RESET))})
    broken.takes_s = 0.0
    one = plan(ModelRow("m"))
    retries = sum(len(broken.play(one).tries) - 1 for _ in range(1000))
    assert 190 <= retries <= 220  # a fifth of the calls, and ten at once


def test_short_deadline_is_not_held_against_the_target() -> None:
    health = HealthState()
    attempts = NextAttempt(plan(), health, lambda: 0.5)
    attempts.first(0.0, 0.5)
    assert attempts.after(error(errors.UPSTREAM_TIMEOUT), 0.5) is None
    assert health.quiet
    attempts = NextAttempt(plan(), health, lambda: 0.5)
    attempts.first(0.0, Timeouts().total)
    attempts.after(error(errors.UPSTREAM_TIMEOUT), Timeouts().total)
    assert not health.quiet


def test_the_end_of_a_call_never_comes_nearer() -> None:
    attempts = NextAttempt(plan(), HealthState(), lambda: 0.0)
    attempts.first(0.0, 2.0)
    assert attempts.extend(10.0) == 10.0 and attempts.extend(2.0) == 10.0
    assert attempts.after(status(503), 9.0) is not None
    assert attempts.after(status(503), 9.96) is None


def test_a_failure_that_says_when() -> None:
    trace = simulation(once(status(500, 2.0))).play(plan())
    assert trace.providers == ["p0", "p0"] and trace.tries[1][0] >= 2.0
    assert simulation(once(status(500, 20.0))).play(plan()).providers == ["p0", "p1"]
    alone = simulation(once(status(500, 20.0))).play(plan(ModelRow("m")))
    assert alone.providers == ["p0", "p0"] and alone.tries[1][0] >= 20.0


# ---- continuation


def steps(one: object, failures: int = 3, **more: bool) -> list[tuple[str, str]]:
    attempts = NextAttempt(one, HealthState(), lambda: 0.5)  # type: ignore[arg-type]
    attempts.first(0.0, 600.0)
    found = []
    for at in range(failures):
        step = attempts.after(error(errors.UPSTREAM_CUT), 1.0 + at, continuing=True, **more)
        if step is None:
            break
        found.append((step.attempt.target.provider.name, step.why))
    return found


PLAIN, ABLE = ModelRow("m"), ModelRow("m", prefill="trailing")


@pytest.mark.parametrize(
    ("rows", "prefill", "expected"),
    [
        ((PLAIN, ABLE), True, [("p1", "continue"), ("p1", "continue")]),
        ((ABLE, PLAIN), True, [("p0", "continue"), ("p0", "continue")]),
        ((ABLE, ABLE), True, [("p1", "continue"), ("p0", "continue")]),
        ((PLAIN, PLAIN), True, [("p1", "restart"), ("p0", "restart")]),
        ((PLAIN,), True, [("p0", "restart"), ("p0", "restart")]),
        ((ABLE, ABLE), False, [("p1", "restart"), ("p0", "restart")]),
    ],
)
def test_who_goes_on(rows: tuple[ModelRow, ...], prefill: bool, expected: list[tuple[str, str]]) -> None:
    assert steps(plan(*rows), prefill=prefill) == expected


def test_a_silent_attempt_to_go_on_does_not_count() -> None:
    attempts = NextAttempt(plan(*[ABLE] * 5), HealthState(), lambda: 0.0)
    attempts.first(0.0, 600.0)
    went = []
    for now, spoke in ((1.0, True), (2.0, False), (3.0, False), (4.0, True), (5.0, False), (6.0, True)):
        step = attempts.after(error(errors.UPSTREAM_OVERLOADED), now, continuing=True, spoke=spoke)
        went.append(step.attempt.target.provider.name if step is not None else "")
    assert went == ["p1", "p2", "p3", "p4", "p0", ""]


def test_target_silent_twice_does_not_continue() -> None:
    attempts = NextAttempt(plan(ABLE), HealthState(), lambda: 0.0)
    attempts.first(0.0, 600.0)
    went = [
        attempts.after(error(errors.UPSTREAM_FAILED), now, continuing=True, spoke=spoke) is not None
        for now, spoke in ((1.0, True), (2.0, False), (3.0, False))
    ]
    assert went == [True, True, False]


@pytest.mark.parametrize("code", [429, 500, 502, 503])
@pytest.mark.parametrize(("asks", "waits"), [(1.0, True), (20.0, True), (61.0, False)])
def test_continuation_waits_for_retry_after(code: int, asks: float, waits: bool) -> None:
    attempts = NextAttempt(plan(ABLE), HealthState(), lambda: 0.0)
    attempts.first(0.0, 600.0)
    assert attempts.after(error(errors.UPSTREAM_CUT), 1.0, continuing=True) is not None
    step = attempts.after(status(code, asks), 2.0, continuing=True, spoke=False)
    assert (step is not None) == waits
    if step is not None:
        assert (step.wait, step.why) == (asks, "continue")
    other = NextAttempt(plan(ABLE, ABLE), HealthState(), lambda: 0.0)
    other.first(0.0, 600.0)
    assert other.after(error(errors.UPSTREAM_CUT), 1.0, continuing=True) is not None
    elsewhere = other.after(status(code, asks), 2.0, continuing=True, spoke=False)
    assert elsewhere is not None and (elsewhere.attempt.target.provider.name, elsewhere.wait) == ("p0", 0.0)


def test_a_wait_to_go_on_ends_before_the_call_does() -> None:
    attempts = NextAttempt(plan(ABLE), HealthState(), lambda: 0.0)
    attempts.first(0.0, 10.0)
    assert attempts.after(error(errors.UPSTREAM_CUT), 1.0, continuing=True) is not None
    assert attempts.after(status(429, 9.0), 2.0, continuing=True, spoke=False) is None


def test_going_on_ends_where_the_request_itself_is_refused() -> None:
    attempts = NextAttempt(plan(ABLE, ABLE), HealthState(), lambda: 0.5)
    attempts.first(0.0, 600.0)
    assert attempts.after(error(errors.CONTENT_FILTER, 400), 1.0, continuing=True) is None


def test_ejected_target_continues_last() -> None:
    health = HealthState()
    one = plan(ABLE, ABLE, ABLE)
    for _ in range(3):
        health.failed(one.attempts[1], error(errors.UPSTREAM_CUT), 0.0)
    attempts = NextAttempt(one, health, lambda: 0.5)
    attempts.first(0.0, 600.0)
    step = attempts.after(error(errors.UPSTREAM_CUT), 1.0, continuing=True)
    assert step is not None and step.attempt.target.provider.name == "p2"


def test_broken_target_continues_after_the_others() -> None:
    attempts = NextAttempt(plan(*[ModelRow("m", prefill="trailing")] * 3), HealthState(), lambda: 0.0)
    assert attempts.first(0.0, 600.0).attempt.target.provider.name == "p0"
    went = []
    for now in (1.0, 2.0):
        step = attempts.after(error(errors.UPSTREAM_CUT), now, continuing=True)
        assert step is not None and step.why == "continue"
        went.append(step.attempt.target.provider.name)
    assert went == ["p1", "p2"]
