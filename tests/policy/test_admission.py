"""Limits and budgets: what is admitted, what a refusal says, and what a call wants held."""

from __future__ import annotations

import json
import random
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.dialects.openai_chat.request import read
from headgate.errors import GatewayError
from headgate.model import (
    UNLIMITED,
    Alias,
    Attempt,
    Budget,
    Call,
    CallGroup,
    CallLimits,
    Extent,
    Grant,
    ModelRow,
    Plan,
    Price,
    Provider,
    Quota,
    Snapshot,
    Spent,
    Target,
    Tenant,
    Timeouts,
    Usage,
    Want,
)
from headgate.policy import metering
from headgate.policy.admission.calibration import Calibration
from headgate.policy.admission.memory import MemoryCounters
from headgate.policy.admission.meters import MOST_ENTRIES
from headgate.policy.admission.periods import period
from headgate.policy.admission.quotas import QuotaTable, quotas_of
from headgate.policy.admission.wants import Wants
from headgate.wire.rate_limits import fields_of
from tests.policy.meters import spent

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=ZoneInfo("UTC")).timestamp()
PRICE = Price(1_000_000, 2_000_000)  # 1 and 2 nano-USD per token
KNOWN = Target(Provider("up", "http://x"), "m", "m", PRICE, Timeouts())
UNKNOWN = Target(Provider("dark", "http://x"), "m", "m", Price(), Timeouts())


def quota(key: str = "token:t", **limits: int) -> Quota:
    """Limits by name; ``usd``: a hard budget, in nano-USD."""
    usd = limits.pop("usd", None)
    budget = None if usd is None else Budget(usd, "day", "hard", "UTC")
    return Quota(
        key, "the API key 'ci'", **limits, most=UNLIMITED if usd is None else usd,
        timed="rpm" in limits or "tpm" in limits, budget=budget,
    )  # fmt: skip


def want(owner: str, *quotas: Quota, prompt: int = 10, output: int = 20) -> Want:
    return Want(owner, quotas_of(quotas), prompt, Extent(output, output), PRICE)


def refused(counters: MemoryCounters, wanted: Want, now: float) -> GatewayError:
    with pytest.raises(GatewayError) as found:
        counters.take(wanted, now)
    return found.value


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("limits", "code", "wait"),
    [
        ({"rpm": 2}, "rate_limit_exceeded", 50.0),
        ({"tpm": 60}, "tokens_limit_exceeded", 50.0),
        ({"rpd": 2}, "daily_rate_limit_exceeded", 43_190.0),
        ({"parallel": 2}, "concurrency_limit_exceeded", 1.0),
    ],
)
def test_a_limit_refuses_with_the_time_of_the_next_admission(limits: dict[str, int], code: str, wait: float) -> None:
    counters, limit = MemoryCounters(), quota(**limits)
    counters.take(want("a", limit), NOW)
    counters.take(want("b", limit), NOW + 5)
    error = refused(counters, want("c", limit), NOW + 10)
    assert (error.kind.status, error.kind.code) == (429, code)
    assert error.retry_after == pytest.approx(wait, abs=0.01)
    if code != "concurrency_limit_exceeded":
        counters.take(want("d", limit), NOW + 10 + (error.retry_after or 0))


def test_a_minutes_limit_never_asks_for_more_than_a_minute() -> None:
    counters, limit = MemoryCounters(), quota(rpm=1)
    counters.take(want("a", limit), NOW)
    assert refused(counters, want("b", limit), NOW).retry_after == 60.0


def test_a_prompt_over_the_whole_limit_is_not_told_to_wait() -> None:
    error = refused(MemoryCounters(), want("a", quota(tpm=100), prompt=101), NOW)
    assert (error.kind.code, error.retry_after) == ("tokens_limit_exceeded", None)


def test_a_call_whose_output_alone_is_over_the_limit_is_admitted_when_nothing_else_was_used() -> None:
    counters, limit = MemoryCounters(), quota(tpm=100)
    counters.take(want("a", limit, output=500), NOW)
    assert refused(counters, want("b", limit, prompt=1, output=1), NOW + 1).retry_after == pytest.approx(59, abs=0.01)


def test_a_hard_budget_refuses_and_says_what_is_left_and_when_it_resets() -> None:
    counters, limit = MemoryCounters(), quota(usd=125)
    holds = [counters.take(want(name, limit), NOW) for name in ("a", "b")]
    assert [hold.cost for hold in holds] == [50, 50]
    error = refused(counters, want("c", limit), NOW)
    assert (error.kind.status, error.kind.type, error.kind.code) == (402, "billing_error", "budget_exceeded")
    assert error.retry_after is None
    assert error.message == (
        "the API key 'ci' has a budget of 0.000000125 USD per day: 0 USD are spent and 0.0000001 USD are held by "
        "running calls, 0.000000025 USD are left, and this call may cost 0.00000005 USD; "
        "it resets at 2026-11-29T00:00:00+00:00 (UTC)"
    )
    counters.settle(holds[0], Usage(5, 5), 15, NOW)
    counters.take(want("c", limit), NOW)


def test_a_call_that_costs_nothing_is_not_refused_for_money() -> None:
    counters, limit = MemoryCounters(), quota(usd=10)
    hold = counters.take(Want("a", quotas_of((limit,)), 5, Extent(1, 1), PRICE), NOW)
    counters.settle(hold, Usage(100, 100), 300, NOW)
    counters.take(Want("b", quotas_of((limit,)), 10, Extent(10, 10), Price(0, 0)), NOW)


def test_of_several_limits_the_one_that_waits_longest_is_named() -> None:
    counters, limit = MemoryCounters(), quota(rpm=1, rpd=1)
    counters.take(want("a", limit), NOW)
    assert refused(counters, want("b", limit), NOW).kind.code == "daily_rate_limit_exceeded"


def test_all_or_nothing_over_a_tokens_and_a_tenants_limits() -> None:
    counters, token, tenant = MemoryCounters(), quota(rpm=10, parallel=10), quota("tenant:x", rpm=1)
    counters.take(want("a", token, tenant), NOW)
    refused(counters, want("b", token, tenant), NOW)
    assert counters.standing(quotas_of((token,)), NOW).requests_left == 9
    assert len(counters._open) == 1


# ------------------------------------------------------------------------------------- minutes and clocks


@given(st.lists(st.floats(0, 30), max_size=300), st.integers(1, 20))
def test_no_minute_has_more_than_its_limit(gaps: list[float], rpm: int) -> None:
    counters, limit = MemoryCounters(), quota(rpm=rpm)
    now, admitted = NOW, []
    for index, gap in enumerate(gaps):
        now += gap
        try:
            counters.settle(counters.take(want(str(index), limit), now), Usage(), 0, now)
            admitted.append(now)
        except GatewayError:
            assert sum(at > now - 60 for at in admitted) == rpm
    for at in admitted:
        assert sum(at <= other < at + 60 for other in admitted) <= rpm


def test_a_busy_holder_takes_bounded_room_and_no_minute_has_more_than_its_limit() -> None:
    counters, limit = MemoryCounters(), quota(rpm=6000)
    chance = random.Random(4)
    now, admitted = NOW, 0
    for index in range(40_000):
        now += chance.expovariate(500)
        try:
            counters.settle(counters.take(want(str(index), limit), now), Usage(), 0, now)
            admitted += 1
        except GatewayError:
            pass
    entries = counters._meters["token:t"].entries
    assert len(entries) <= MOST_ENTRIES + 600 and sum(entry.requests for entry in entries) <= 6000
    assert admitted >= 6000 * (now - NOW) / 60 * 0.95


def test_a_clock_set_back_lengthens_no_limit() -> None:
    counters, limit = MemoryCounters(), quota(rpm=1)
    counters.take(want("a", limit), NOW + 7200)
    counters.sweep(NOW + 7200)
    counters.sweep(NOW)
    assert refused(counters, want("b", limit), NOW).retry_after == 60.0
    counters.take(want("c", limit), NOW + 60)


@pytest.mark.parametrize(
    ("kind", "zone", "now", "begin", "end"),
    [
        ("month", "Europe/Berlin", "2026-10-31T23:30:00Z", "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00"),
        ("day", "Europe/Berlin", "2026-10-25T10:00:00+01:00", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        ("day", "Europe/Berlin", "2026-03-29T10:00:00+02:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        # Midnight does not exist there on this day
        ("day", "Asia/Beirut", "2022-03-27T10:00:00+03:00", "2022-03-27T01:00:00+03:00", "2022-03-28T00:00:00+03:00"),
        ("day", "UTC", "2026-11-28T23:59:59+00:00", "2026-11-28T00:00:00+00:00", "2026-11-29T00:00:00+00:00"),
        ("month", "UTC", "2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
    ],
)  # fmt: skip
def test_periods_begin_at_midnight_of_their_zone(kind: str, zone: str, now: str, begin: str, end: str) -> None:
    seconds = [datetime.fromisoformat(text).timestamp() for text in (now, begin, end)]
    assert period(kind, zone, seconds[0]) == (seconds[1], seconds[2])
    assert period(kind, zone, seconds[1]) == (seconds[1], seconds[2])
    assert period(kind, zone, seconds[2])[0] == seconds[2]


def test_a_hold_that_outlives_its_period_is_spent_in_the_next_one() -> None:
    counters, limit = MemoryCounters(), quota(usd=100)
    hold = counters.take(want("a", limit), NOW)
    tomorrow = NOW + 86_400
    assert spent(counters, "token:t", tomorrow) == (0, 50)
    counters.settle(hold, Usage(10, 20), 50, tomorrow)
    assert spent(counters, "token:t", tomorrow) == (50, 0)


# ------------------------------------------------------------------------------------- leases


def test_an_expired_lease_is_released_and_a_late_settlement_still_counts() -> None:
    counters, limit = MemoryCounters(), quota(parallel=1, usd=1000)
    hold = counters.take(want("a", limit), NOW)
    assert counters.sweep(NOW + 100) == 0
    assert counters.sweep(hold.expires) == 1
    assert spent(counters, "token:t", hold.expires) == (0, 0)
    counters.take(want("b", limit), hold.expires)
    counters.settle(hold, Usage(10, 20), 50, hold.expires)
    counters.settle(hold, Usage(10, 20), 50, hold.expires)
    assert spent(counters, "token:t", hold.expires) == (50, 50)


def test_an_extension_puts_the_lease_off() -> None:
    counters, limit = MemoryCounters(), quota(usd=10_000)
    hold = counters.take(want("a", limit), NOW)
    counters.extend(hold, 20, NOW + 800)
    assert counters.sweep(NOW + 1000) == 0


def test_idle_holders_are_forgotten_and_spenders_are_not() -> None:
    counters = MemoryCounters()
    for index in range(1000):
        limit = quota(f"token:{index}", rpm=5, usd=1_000_000)
        counters.settle(counters.take(want(str(index), limit), NOW), Usage(), 7 if index < 10 else 0, NOW)
    for _ in range(10):
        counters.sweep(NOW + 86_300 - 43_200)
    assert len(counters._meters) == 1000  # they count the day's requests
    later = NOW + 43_200
    for _ in range(10):
        counters.sweep(later)
    assert len(counters._meters) == 0  # a day's budget is spent by the day
    assert spent(counters, "token:1", later) == (0, 0)


def test_holders_without_a_budget_have_spent_nothing_when_they_get_one() -> None:
    counters, limit = MemoryCounters(), quota(rpm=5)
    counters.settle(counters.take(want("a", limit), NOW), Usage(1, 1), 700, NOW)
    for _ in range(10):
        counters.sweep(NOW + 43_200)
    assert len(counters._meters) == 0
    counters.settle(counters.take(want("b", limit), NOW), Usage(1, 1), 700, NOW)
    counters.take(want("c", quota(usd=1000)), NOW)
    assert spent(counters, "token:t", NOW)[0] == 0


def test_a_minute_has_no_more_than_sixty_seconds_left_when_the_clock_steps_back() -> None:
    counters, limits = MemoryCounters(), (quota("token:a", tpm=1000), quota("token:b", tpm=1000))
    counters.take(want("a", *limits), NOW)
    standing = counters.standing(quotas_of(limits), NOW - 0.5)
    assert standing.tokens_reset <= 60
    assert b"x-ratelimit-limit-tokens: 1000" in fields_of(standing)


def test_counters_begin_with_what_was_used_before() -> None:
    counters, limit = MemoryCounters(), quota(rpm=3, rpd=5, usd=1000)
    midnight = NOW // 86_400 * 86_400
    counters.restore([Spent("token:t", NOW, 900, midnight, 4, ((NOW - 70, 1, 9), (NOW - 30, 2, 50)))], [limit], NOW)
    assert spent(counters, "token:t", NOW) == (900, 0)
    assert counters.standing(quotas_of((limit,)), NOW).requests_left == 1
    counters.take(want("a", limit), NOW)
    assert refused(counters, want("b", limit), NOW).kind.code == "daily_rate_limit_exceeded"


def test_spending_of_a_former_period_is_not_restored() -> None:
    counters, limit = MemoryCounters(), quota(usd=1000)
    counters.restore([Spent("token:t", NOW, 900, NOW - 90_000)], [limit], NOW)
    assert spent(counters, "token:t", NOW) == (0, 0)


# ------------------------------------------------------------------------------------- what a call wants


def call(stream: bool = True, most: int | None = None, words: int = 4, n: int = 1, **members: object) -> Call:
    body: dict[str, object] = {"model": "m", "messages": [{"role": "user", "content": "word " * words}], **members}
    body |= {"stream": stream} | ({"max_tokens": most} if most is not None else {}) | ({"n": n} if n > 1 else {})
    return read(json.dumps(body).encode())


def plan(*targets: Target, alias: Alias | None = None) -> Plan:
    return Plan("m", tuple(Attempt(target, None) for target in targets or (KNOWN,)), alias=alias or Alias(""))


def row(target: Target, **facts: object) -> Target:
    return Target(target.provider, "m", "m", target.price, target.timeouts, ModelRow("m", **facts))  # type: ignore[arg-type]


def wanted(asked: Call, made: Plan, *quotas: Quota) -> Want:
    found = Wants(Calibration()).make("id", quotas_of(quotas), asked, made, asked.prompt.tokens)
    assert found is not None
    return found


def test_a_stream_wants_its_first_step() -> None:
    found = wanted(call(), plan(), quota(usd=1))
    assert (found.extent.output, found.extent.least, found.extent.longest, found.extent.whole) == (
        1024,
        1024,
        UNLIMITED,
        False,
    )
    found = wanted(call(most=100), plan(), quota(usd=1))
    assert (found.extent.output, found.extent.least, found.extent.longest) == (100, 100, 100)
    found = wanted(call(most=3000, n=2), plan(alias=Alias("", hold_tokens=500)), quota(usd=1))
    assert (found.extent.output, found.extent.longest, found.extent.step) == (1000, 6000, 1000)


def test_a_whole_answer_is_covered_to_its_end() -> None:
    found = wanted(call(stream=False, most=3000), plan(), quota(usd=1))
    assert (found.extent.output, found.extent.least, found.extent.share) == (3000, 1024, 1)
    found = wanted(call(stream=False), plan(row(KNOWN, max_output=8192)), quota(usd=1))
    assert (found.extent.output, found.extent.least, found.extent.fewer, found.extent.share) == (8192, 1024, 8192, 4)
    found = wanted(call(stream=False), plan(), quota(usd=1))
    assert (found.extent.output, found.extent.fewer) == (131_072, 4096)


def test_reasoning_that_may_not_be_shown_is_covered_like_a_whole_answer() -> None:
    found = wanted(call(), plan(row(KNOWN, capabilities=("reasoning",), max_output=9000)), quota(usd=1))
    assert (found.extent.whole, found.extent.output) == (True, 9000)


def test_a_whole_answer_that_is_not_affordable_is_capped() -> None:
    counters, limit = MemoryCounters(), quota(usd=20_000)
    found = wanted(call(stream=False, most=16_000), plan(), limit)
    hold = counters.take(found, NOW)
    assert 9900 < hold.cap < 10_000 and hold.cost <= 20_000
    assert metering.cost(Usage(found.prompt, hold.cap + 1), PRICE) > 20_000  # type: ignore[operator]


def test_calls_that_name_no_length_share_what_is_left() -> None:
    """Three of the least fit: three are admitted, though the first could have taken it all."""
    counters, admitted = MemoryCounters(), 0
    found = wanted(call(stream=False), plan(row(KNOWN, max_output=16_000)), quota(usd=3 * 2100 + 1500))
    for index in range(50):
        found.owner = str(index)
        try:
            counters.take(found, NOW)
            admitted += 1
        except GatewayError as error:
            assert error.kind.code == "budget_exceeded"
    assert admitted == 3


def test_a_capped_answer_has_a_length_that_every_model_accepts() -> None:
    hold = MemoryCounters().take(wanted(call(stream=False), plan(), quota(usd=100_000)), NOW)
    assert hold.cap == 4096
    hold = MemoryCounters().take(wanted(call(stream=False), plan(), quota(usd=10_000_000)), NOW)
    assert (hold.cap, hold.covered) == (0, 131_072)


def test_the_dearest_target_decides_and_no_failover_overruns() -> None:
    other = Target(Provider("b", "http://x"), "m", "m", Price(5_000_000, 1_000_000), Timeouts())
    found = wanted(call(most=10), plan(KNOWN, other), quota(usd=1))
    assert (found.price.input, found.price.output) == (5_000_000, 2_000_000)  # type: ignore[union-attr]


@given(
    st.lists(
        st.builds(
            Price, st.integers(0, 10**9), st.integers(0, 10**9), st.none() | st.integers(0, 10**9),
            st.none() | st.integers(0, 10**9),
        ),
        min_size=1, max_size=3,
    ),
    st.integers(0, 10**5), st.integers(0, 10**5), st.data(),
)  # fmt: skip
def test_a_ceiling_is_never_below_what_is_charged(
    prices: list[Price], prompt: int, output: int, data: st.DataObject
) -> None:
    ceiling = metering.ceiling(prices, prompt)
    assert ceiling is not None
    held = metering.ceiling_cost(prompt, output, ceiling)
    assert held == metering.cost(Usage(prompt, output), ceiling)
    cached = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - cached))
    parts = data.draw(st.lists(st.integers(0, output), max_size=2))
    shares = [(data.draw(st.sampled_from(prices)), part) for part in parts]
    shares.append((data.draw(st.sampled_from(prices)), max(0, output - sum(parts))))
    used = Usage(prompt, min(output, sum(part for _, part in shares)), cached, written)
    if sum(part for _, part in shares) <= output:
        assert metering.shared_cost(used, shares) <= held  # type: ignore[operator]


@given(st.builds(Price, st.integers(0, 10**9), st.integers(0, 10**9)), st.integers(0, 10**5), st.integers(0, 10**12))
def test_affordable_tokens_are_the_most_that_the_money_buys(price: Price, prompt: int, money: int) -> None:
    found = metering.affordable(price, prompt, money)
    if found < 0:
        assert metering.cost(Usage(prompt, 0), price) >= money  # type: ignore[operator]
    elif found < UNLIMITED:
        assert metering.cost(Usage(prompt, found), price) <= money  # type: ignore[operator]
        assert metering.cost(Usage(prompt, found + 1), price) >= money  # type: ignore[operator]


def test_an_unknown_price_is_no_target_of_a_hard_budget() -> None:
    assert [one.target for one in Wants(Calibration()).payable(plan(UNKNOWN, KNOWN))] == [KNOWN]
    with pytest.raises(GatewayError) as found:
        Wants(Calibration()).payable(plan(UNKNOWN))
    assert (found.value.kind.status, found.value.kind.code) == (422, "no_qualifying_model")
    assert wanted(call(), plan(UNKNOWN), quota(rpm=5)).price is None


# ------------------------------------------------------------------------------------- which quotas apply


def test_a_call_counts_against_its_token_its_tenant_and_every_group_that_it_matches() -> None:
    groups = (
        CallGroup("search", {"team": "search"}, budget=Budget(1)),
        CallGroup("pro", model="up/m", limits=CallLimits(rpm=2)),
        CallGroup("chat", session="s1", limits=CallLimits(parallel=2)),
        CallGroup("empty"),
    )
    grant = Grant("t", "ci", tenant="acme", limits=CallLimits(rpm=3))
    table = QuotaTable(
        Snapshot(tokens={b"x": grant}, tenants={"acme": Tenant("acme", budget=Budget(5, mode="soft"))}, groups=groups)
    )
    assert not table.empty
    assert [(one.key, one.rpm, one.most) for one in table.of(grant).each] == [
        ("token:t", 3, UNLIMITED), ("tenant:acme", UNLIMITED, UNLIMITED),
    ]  # fmt: skip
    attempts = plan().attempts

    def matching(tags: dict[str, str], session: bytes = b"") -> list[str]:
        tagged = call(headgate={"metadata": tags})
        return [one.key for one in table.matching(tagged, lambda: session, attempts)]

    assert matching({"team": "search", "x": "y"}) == ["group:search", "group:pro"]
    assert matching({"team": "other"}, b"s1") == ["group:pro", "group:chat"]
    assert matching({}, b'"s\\u0031"') == ["group:pro", "group:chat"]  # as the body has it
    assert matching({}, b'"s1') == ["group:pro"]
    assert [one.key for one in table.matching(call(), bytes, plan(UNKNOWN).attempts)] == []


class Scans(dict[bytes, Grant]):
    """Tokens; counts how often all are looked at."""

    count = 0

    def values(self) -> Any:
        self.count += 1
        return super().values()

    def items(self) -> Any:
        self.count += 1
        return super().items()


def test_a_parent_is_found_where_it_was_in_the_snapshot_before() -> None:
    child = Grant("c", "run", parent="p")
    tokens = {b"p": Grant("p", "ci", limits=CallLimits(rpm=3)), b"c": child}
    table = QuotaTable(Snapshot(tokens=tokens))
    changes: list[tuple[dict[bytes, Grant], list[int], bool]] = [
        (tokens, [3], True),
        (tokens | {b"x": Grant("x", "new")}, [3], False),
        (tokens | {b"p": Grant("p", "ci", limits=CallLimits(rpm=4))}, [4], False),
        ({b"p": Grant("y", "other"), b"q": tokens[b"p"], b"c": child}, [3], True),  # the parent has another secret
        ({b"c": child}, [], True),
    ]
    for changed, limits, is_scanned in changes:
        scans = Scans(changed)
        table = QuotaTable(Snapshot(tokens=scans), table)
        before = scans.count
        assert [quota.rpm for quota in table.of(child).each] == limits
        assert (scans.count > before) is is_scanned


def test_a_snapshot_without_limits_counts_nothing() -> None:
    assert QuotaTable(Snapshot(tokens={b"x": Grant("t", "ci")})).empty
    assert QuotaTable(Snapshot(tokens={b"x": Grant("t", "ci")})).of(Grant("t", "ci")).each == ()


def test_a_new_quota_of_a_known_holder_goes_on_with_what_was_used() -> None:
    counters = MemoryCounters()
    hold = counters.take(want("a", quota(usd=1000)), NOW)
    counters.settle(hold, Usage(), 400, NOW)
    changed = Quota("token:t", "x", most=500, budget=Budget(500, "month", "hard", "Europe/Berlin"))
    assert refused(counters, want("b", changed, output=50), NOW).kind.code == "budget_exceeded"


# ------------------------------------------------------------------------------------- calibration


def test_estimates_learn_from_what_providers_report() -> None:
    learnt = Calibration()
    assert learnt.of(KNOWN).factor == 1.0
    for _ in range(50):
        learnt.of(KNOWN).learn(1000, 1300)
    assert learnt.of(KNOWN).factor == pytest.approx(1.3, abs=0.02)
    assert learnt.of(UNKNOWN).factor == 1.0


def test_a_factor_covers_what_varies() -> None:
    learnt, chance = Calibration(), random.Random(1)
    over = 0
    for _ in range(500):
        estimated = chance.randrange(100, 5000)
        reported = round(estimated * chance.uniform(0.8, 1.2))
        over += reported > estimated * learnt.of(KNOWN).factor
        learnt.of(KNOWN).learn(estimated, reported)
    assert over < 150  # of a half, without the margin


def test_one_absurd_report_does_not_decide() -> None:
    learnt = Calibration()
    learnt.of(KNOWN).learn(10, 1_000_000)
    assert learnt.of(KNOWN).factor == 4.0
    learnt.of(KNOWN).learn(0, 10)
