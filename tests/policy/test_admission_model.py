"""Admission against a naive model: a list of all that happened, from which every figure is counted anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from headgate.errors import GatewayError
from headgate.model import UNLIMITED, Budget, Extent, Hold, Price, Provider, Quota, Target, Timeouts, Usage, Want
from headgate.policy import metering
from headgate.policy.admission.memory import LEAST_STEP, MemoryCounters
from headgate.policy.admission.quotas import quotas_of
from tests.policy.meters import spent

PRICE = Price(1_000_000, 3_000_000)  # 1 and 3 nano-USD per token
ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia")
# Around changes of the clock, months' ends, and the day that Samoa left out
EDGES = [
    datetime(2026, 3, 29, 0, 59, 30, tzinfo=ZoneInfo("UTC")).timestamp(),
    datetime(2026, 10, 31, 22, 59, 50, tzinfo=ZoneInfo("UTC")).timestamp(),
    datetime(2017, 10, 15, 2, 59, 55, tzinfo=ZoneInfo("UTC")).timestamp(),
    datetime(2011, 12, 30, 9, 59, 30, tzinfo=ZoneInfo("UTC")).timestamp(),
    datetime(2022, 3, 26, 21, 59, 40, tzinfo=ZoneInfo("UTC")).timestamp(),
]
TARGETS = {name: Target(Provider("p", "http://x"), name, name, PRICE, Timeouts()) for name in ("m", "other")}


def cost(prompt: int, output: int) -> int:
    return metering.cost(Usage(prompt, output), PRICE) or 0


@dataclass
class Amount:
    """Tokens that count from ``at`` on, for a minute."""

    at: float
    tokens: int


@dataclass
class Taken:
    """One admitted call, as the model knows it."""

    want: Want
    at: float
    covered: int
    expires: float
    amounts: dict[str, list[Amount]]
    open: bool = True
    over: bool = False
    charged: list[tuple[float, int]] = field(default_factory=list)
    not_counted: set[str] = field(default_factory=set)

    @property
    def held(self) -> int:
        return cost(self.want.prompt, self.covered) if self.open else 0


class Model:
    """All that happened; every figure is a sum over it."""

    def __init__(self) -> None:
        self.calls: list[Taken] = []

    def of(self, quota: Quota) -> list[Taken]:
        return [one for one in self.calls if any(known.key == quota.key for known in one.want.quotas.each)]

    def requests(self, quota: Quota, now: float) -> int:
        return sum(one.at > now - 60 and quota.key not in one.not_counted for one in self.of(quota))

    def today(self, quota: Quota, now: float) -> int:
        return sum(
            int(one.at // 86400) == int(now // 86400) and quota.key not in one.not_counted for one in self.of(quota)
        )

    def tokens(self, quota: Quota, now: float) -> int:
        return sum(one.tokens for call in self.of(quota) for one in call.amounts[quota.key] if one.at > now - 60)

    def running(self, quota: Quota) -> int:
        return sum(one.open for one in self.of(quota))

    def held(self, quota: Quota) -> int:
        return sum(one.held for one in self.of(quota))

    def spent(self, quota: Quota, now: float) -> int:
        budget = quota.budget
        if budget is None:
            return 0
        return sum(
            amount
            for one in self.of(quota)
            if quota.key not in one.not_counted
            for at, amount in one.charged
            if _period(budget, at) == _period(budget, now)
        )

    def room(self, quota: Quota, now: float) -> int:
        if quota.most == UNLIMITED:
            return UNLIMITED
        return max(0, quota.most - self.spent(quota, now) - self.held(quota))

    def covers(self, want: Want, now: float) -> int:
        """Tokens of output that the hold covers; -1: the call is refused."""
        for quota in want.quotas.each:
            weight = want.prompt + want.extent.least
            if (
                self.requests(quota, now) >= quota.rpm
                or self.today(quota, now) >= quota.rpd
                or self.running(quota) >= quota.parallel
                or want.prompt > quota.tpm
                or self.tokens(quota, now) + min(weight, quota.tpm) > quota.tpm
            ):
                return -1
        room = min((self.room(quota, now) for quota in want.quotas.each), default=UNLIMITED)
        if cost(want.prompt, want.extent.output) * want.extent.share <= room:
            return want.extent.output
        if cost(want.prompt, want.extent.least) > room:
            return -1
        covered = want.extent.least
        while (
            covered < min(want.extent.output, want.extent.fewer)
            and cost(want.prompt, covered + 1) <= room // want.extent.share
        ):
            covered += 1
        return covered


def _period(budget: Budget, at: float) -> object:
    local = datetime.fromtimestamp(at, ZoneInfo(budget.zone))
    return {"day": (local.year, local.month, local.day), "month": (local.year, local.month), "total": 0}[budget.period]


limits = st.one_of(st.just(UNLIMITED), st.integers(1, 5))
budgets = st.one_of(
    st.none(),
    st.builds(
        Budget, st.integers(0, 6000), st.sampled_from(["day", "month", "total"]), st.sampled_from(["hard", "soft"]),
        st.sampled_from(ZONES),
    ),
)  # fmt: skip


@st.composite
def quotas(draw: st.DrawFn, key: str, model: str = "") -> Quota:
    budget = draw(budgets)
    rpm, tpm = draw(limits), draw(st.one_of(st.just(UNLIMITED), st.integers(50, 3000)))
    most = budget.amount if budget is not None and budget.mode == "hard" else UNLIMITED
    timed = rpm < UNLIMITED or tpm < UNLIMITED
    return Quota(
        key,
        key,
        rpm,
        tpm,
        draw(st.one_of(st.just(UNLIMITED), st.integers(1, 12))),
        draw(limits),
        most,
        timed,
        budget,
        model,
    )


class Admission(RuleBasedStateMachine):
    holds = Bundle("holds")

    @initialize(
        now=st.sampled_from(EDGES),
        token=quotas("token:a"), tenant=quotas("tenant:b"), group=quotas("group:c", "m"),
    )  # fmt: skip
    def begin(self, now: float, token: Quota, tenant: Quota, group: Quota) -> None:
        self.now = now
        self.quotas = (token, tenant, group)
        self.counters = MemoryCounters()
        self.model = Model()
        self.count = 0

    @rule(
        seconds=st.one_of(
            st.floats(0, 2), st.floats(50, 70), st.floats(0, 90_000), st.sampled_from([1.0, 60.0, 59.999])
        )
    )
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        target=holds, prompt=st.integers(0, 400), least=st.integers(1, 300), more=st.integers(0, 900),
        share=st.sampled_from([1, 4]), whole=st.booleans(), which=st.sampled_from([(0,), (0, 1), (0, 1, 2), (1, 2)]),
        lease=st.sampled_from([10.0, 900.0]), fewer=st.sampled_from([UNLIMITED, 200]),
        cancelled=st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    def take(
        self,
        prompt: int,
        least: int,
        more: int,
        share: int,
        whole: bool,
        which: tuple[int, ...],
        lease: float,
        fewer: int,
        cancelled: bool,
    ) -> tuple[Hold, Taken] | None:
        self.count += 1
        fewer = max(fewer, least)
        output, longest = (least + more, least + more) if whole else (least, UNLIMITED)
        extent = Extent(output, least, longest, fewer, share, 100, whole)
        quotas = quotas_of(tuple(self.quotas[place] for place in which))
        want = Want(f"call-{self.count}", quotas, prompt, extent, PRICE, lease)
        expected = self.model.covers(want, self.now)
        before = self.figures()
        try:
            hold = self.counters.take(want, self.now)
        except GatewayError as error:
            assert expected < 0, error.message
            assert self.figures() == before, "a refused call has changed something"
            self.admitted_later(error, want)
            return None
        assert hold.covered == expected
        assert hold.cost == cost(prompt, hold.covered)
        if cancelled:
            self.counters.cancel(hold)
            assert self.figures() == before, "a call that was taken back has left something"
            self.counters.settle(hold, Usage(prompt, 1), 1, self.now)  # does nothing any more
            return None
        amounts = {
            quota.key: [Amount(self.now, min(prompt + least, quota.tpm))] if quota.timed else []
            for quota in want.quotas.each
        }
        taken = Taken(want, self.now, hold.covered, self.now + lease, amounts)
        self.model.calls.append(taken)
        return hold, taken

    def admitted_later(self, error: GatewayError, want: Want) -> None:
        """A Retry-After is true: at that time the limit that is named admits the call, if nothing happens before."""
        if error.kind.status == 402:
            assert error.retry_after is None
        elif error.retry_after is not None and error.kind.code != "concurrency_limit_exceeded":
            later = self.now + error.retry_after
            for quota in want.quotas.each:
                if error.kind.code == "rate_limit_exceeded":
                    assert self.model.requests(quota, later) < quota.rpm
                elif error.kind.code == "daily_rate_limit_exceeded":
                    assert self.model.today(quota, later) < quota.rpd
                else:
                    weight = min(want.prompt + want.extent.least, quota.tpm)
                    assert self.model.tokens(quota, later) + weight <= quota.tpm

    @rule(pair=holds, tokens=st.integers(0, 1500))
    def extend(self, pair: tuple[Hold, Taken] | None, tokens: int) -> None:
        if pair is None:
            return
        hold, taken = pair
        want = taken.want
        reach = hold.reach
        if tokens < reach or taken.over or tokens >= want.extent.longest:
            assert self.counters.extend(hold, tokens, self.now) >= min(reach, UNLIMITED)
            return
        if not taken.open:
            taken.open = True  # its call is still there
        covered = min(tokens + want.extent.step, want.extent.longest)
        room = min(self.model.room(quota, self.now) for quota in want.quotas.each) + taken.held
        while covered > tokens and cost(want.prompt, covered) > room:
            covered -= 1
        if covered < min(tokens + want.extent.step, want.extent.longest) and covered - tokens < LEAST_STEP:
            assert self.counters.extend(hold, tokens, self.now) == 0
            return
        assert self.counters.extend(hold, tokens, self.now) == (covered if covered < want.extent.longest else UNLIMITED)
        for quota in want.quotas.each:
            if quota.timed:
                taken.amounts[quota.key].append(Amount(self.now, covered - taken.covered))
        taken.covered = covered
        taken.expires = max(taken.expires, self.now + want.lease_s)

    @rule(
        pair=consumes(holds), prompt=st.integers(0, 500), output=st.integers(0, 1500), within=st.booleans(),
        served=st.sampled_from(["m", "other", ""]), twice=st.booleans(),
    )  # fmt: skip
    def settle(
        self, pair: tuple[Hold, Taken] | None, prompt: int, output: int, within: bool, served: str, twice: bool
    ) -> None:
        if pair is None:
            return
        hold, taken = pair
        if within:
            prompt, output = min(prompt, taken.want.prompt), min(output, taken.covered)
        charged = cost(prompt, output)
        self.counters.settle(hold, Usage(prompt, output), charged, self.now, TARGETS.get(served))
        if twice:
            self.counters.settle(hold, Usage(prompt, output), charged, self.now, TARGETS.get(served))
        self.settled(taken, prompt + output, charged, served)

    def settled(self, taken: Taken, used: int, charged: int, served: str) -> None:
        taken.open, taken.over = False, True
        taken.charged.append((self.now, charged))
        for quota in taken.want.quotas.each:
            amounts = taken.amounts[quota.key]
            reserved = sum(one.tokens for one in amounts)
            if quota.model and quota.model != served:
                taken.not_counted.add(quota.key)
                if amounts:
                    amounts[-1].tokens -= min(reserved, amounts[-1].tokens)
            elif amounts and used < reserved:
                amounts[-1].tokens -= min(reserved - used, amounts[-1].tokens)
            elif amounts and used > reserved:
                amounts.append(Amount(self.now, used - reserved))

    @rule()
    def sweep(self) -> None:
        self.counters.sweep(self.now)
        for one in self.model.calls:
            if one.open and one.expires <= self.now:
                one.open = False

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        for quota, figures in zip(self.quotas, self.figures(), strict=True):
            assert figures[3:] == (self.model.spent(quota, self.now), self.model.held(quota)), quota.key
            if quota.timed:
                assert figures[0] == self.model.tokens(quota, self.now)
                assert figures[1] == self.model.requests(quota, self.now)
            assert figures[2] == self.model.running(quota)

    @invariant()
    def nothing_is_overrun(self) -> None:
        """From the log alone: no minute and no day has more than its limit."""
        if not hasattr(self, "model"):
            return
        for quota in self.quotas:
            calls = self.model.of(quota)
            for one in calls:
                if quota.key not in one.not_counted:
                    window = [
                        other
                        for other in calls
                        if one.at - 60 < other.at <= one.at and quota.key not in other.not_counted
                    ]
                    assert len([other for other in window if other is not one]) < max(quota.rpm, 1)
            assert self.model.running(quota) <= quota.parallel or quota.parallel == UNLIMITED or self.reopened(quota)

    def reopened(self, quota: Quota) -> bool:
        """A call that outlived its lease goes on beside the one that took its place."""
        return any(one.expires < self.now or one.want.lease_s < 900 for one in self.model.of(quota))

    def figures(self) -> list[tuple[int, ...]]:
        found = []
        for quota in self.quotas:
            meter = self.counters._meters.get(quota.key)
            if meter is not None:
                meter.catch_up(self.now)
            used, held = spent(self.counters, quota.key, self.now)
            found.append(
                (meter.tokens, meter.requests, meter.running, used, held)
                if meter is not None
                else (0, 0, 0, used, held)
            )
        return found

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for one in self.model.calls:
            hold = self.counters._open.get(one.want.owner)
            if hold is not None:
                self.counters.settle(hold, Usage(), 0, self.now)
        assert not self.counters._open
        for quota in self.quotas:
            assert spent(self.counters, quota.key, self.now)[1] == 0, "holds remain"


Admission.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_admission_agrees_with_its_model = Admission.TestCase
