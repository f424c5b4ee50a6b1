"""A call's usage, cost and shares as folds of its ended attempts, as properties; and how often an attempt ends."""

from __future__ import annotations

import time
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.dialects import tally
from headgate.model import (
    NOTHING,
    Attempt,
    Closed,
    Grant,
    Plan,
    Price,
    Provider,
    Target,
    Timeouts,
    Usage,
    Used,
)
from headgate.policy import metering
from headgate.policy.metering import Ended, cost, cost_of, shares_of, usage_of
from headgate.serving.call.receipt import Ids, Receipt
from headgate.serving.uplink.journal import Journal

COUNTS = st.integers(0, 5000)
BASES = st.sampled_from(["provider", "estimated"])
MONEY = st.none() | st.integers(0, 60_000_000_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt, completion = draw(COUNTS), draw(COUNTS)
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return Usage(prompt, completion, cached, written, draw(st.integers(0, completion)), draw(BASES))


@st.composite
def targets(draw: st.DrawFn) -> Target:
    name = draw(st.sampled_from("abc"))
    price = Price(draw(MONEY), draw(MONEY), draw(MONEY))
    return Target(Provider(name, "http://x"), "m", "m", price, Timeouts())


@st.composite
def calls(draw: st.DrawFn) -> list[Ended]:
    """What attempts bring one after the other: nothing, a part of the answer, or its rest by any kind of report."""
    ended: list[Ended] = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["nothing", "part", "rest"]))
        billed = draw(usages())
        before = usage_of(ended)
        if kind == "nothing":
            used = Used(NOTHING.delivered, billed)
        elif before == NOTHING.delivered:
            used = Used(billed, billed)
        else:
            added = tally.added(
                before, draw(st.none() | st.just(billed)), draw(COUNTS), behind=draw(COUNTS), done=kind == "rest",
                afresh=draw(st.booleans()), thoughts=draw(st.booleans()),
            )  # fmt: skip
            used = Used(added, billed)
        ended.append(Ended(draw(targets()), used))
    return ended


@settings(max_examples=50, deadline=None)
@given(calls())
def test_usage_is_the_sum_of_what_was_delivered(ended: list[Ended]) -> None:
    usage = usage_of(ended)
    parts = [one.used.delivered for one in ended]
    for name in ("prompt", "completion", "cached", "cache_write", "reasoning"):
        assert getattr(usage, name) == sum(getattr(part, name) for part in parts)
    assert usage.prompt >= 0 and usage.completion >= 0 and usage.cached >= 0


@settings(max_examples=50, deadline=None)
@given(calls())
def test_shares_add_up_to_the_call(ended: list[Ended]) -> None:
    usage, total, shares = usage_of(ended), cost_of(ended), shares_of(ended)
    if shares:
        assert len({(one.provider, one.model) for one in shares}) == len(shares) > 1
        assert sum(one.prompt_tokens for one in shares) == usage.prompt
        assert sum(one.completion_tokens for one in shares) == usage.completion
        assert all(one.completion_tokens >= 0 for one in shares)
        costs = [one.cost for one in shares]
        assert set(costs) == {-1} if total is None else sum(costs) == total
    elif all(one.used.delivered.completion >= 0 for one in ended):
        assert len({one.target.provider.name for one in ended if one.used.delivered.completion}) < 2


@given(targets(), usages(), st.lists(targets(), max_size=3))
def test_one_attempt_that_delivers_costs_its_usage_at_its_price(
    target: Target, usage: Usage, failed: list[Target]
) -> None:
    ended = [*(Ended(one, NOTHING) for one in failed), Ended(target, Used(usage, usage))]
    assert usage_of(ended) == usage and cost_of(ended) == cost(usage, target.price) and shares_of(ended) == ()


@given(usages(), usages(), st.booleans())
def test_usage_of_an_answer_that_was_said_again_is_what_its_last_provider_counts(
    before: Usage, reported: Usage, behind: bool
) -> None:
    added = tally.added(before, reported, 7, done=True, afresh=True, thoughts=False)
    assert before.plus(added) == reported


@given(usages(), usages(), COUNTS, st.booleans())
def test_the_prompt_that_its_provider_has_counted_stays(before: Usage, reported: Usage, new: int, afresh: bool) -> None:
    before.basis = "provider"
    for known in (reported, None):
        total = before.plus(tally.added(before, known, new, done=False, afresh=afresh, thoughts=False))
        assert (total.prompt, total.cached, total.cache_write) == (before.prompt, before.cached, before.cache_write)
        assert total.completion >= before.completion


@given(usages(), usages(), COUNTS)
def test_reasoning_of_each_part_is_kept(before: Usage, reported: Usage, new: int) -> None:
    for known, more in ((reported, reported.reasoning), (None, 0)):
        total = before.plus(tally.added(before, known, new, done=True, afresh=False, thoughts=False))
        assert total.reasoning == before.reasoning + more


class _Writes:
    """A journal that only remembers."""

    accepting = True
    running = 0

    def __init__(self) -> None:
        self.records: list[object] = []

    def write(self, record: object) -> None:
        self.records.append(record)


@settings(max_examples=50, deadline=None)
@given(calls())
def test_receipt_has_the_fold_of_its_attempts(ended: list[Ended]) -> None:
    """Each attempt ends once, whatever came of it, and the record of the call is what its attempts add up to."""
    journal = _Writes()
    receipt = Receipt(Ids(1), "x-", cast(Journal, journal), time.monotonic())
    receipt.grant = Grant("t", "tests")
    attempts = [Attempt(one.target, None) for one in ended]
    receipt.open(Plan("m", tuple(attempts)), stream=True)
    for number, (attempt, one) in enumerate(zip(attempts, ended, strict=True), 1):
        receipt.begin(attempt)
        receipt.end(200, "" if number == len(ended) else "upstream_cut", one.used)
    receipt.close("finish", "delivered", 200, "")
    closed = journal.records[-1]
    assert isinstance(closed, Closed)
    usage, total = usage_of(ended), cost_of(ended)
    assert (closed.prompt_tokens, closed.completion_tokens, closed.basis) == (
        usage.prompt, usage.completion, usage.basis,
    )  # fmt: skip
    assert closed.cost == (-1 if total is None else total) and closed.shares == shares_of(ended)
    assert [(one.prompt_tokens, one.completion_tokens) for one in closed.attempts] == [
        (one.used.billed.prompt, one.used.billed.completion) for one in ended
    ]
    assert receipt.answered_all and receipt.number == len(ended)


def test_rounding_happens_once() -> None:
    half = Price(500_000, 500_000)  # half a nano-USD a token
    one, other = (Target(Provider(name, "http://x"), "m", "m", half, Timeouts()) for name in "ab")
    ended = [Ended(one, Used(Usage(1, 1), Usage(1, 1))), Ended(other, Used(Usage(0, 1), Usage(2, 1)))]
    assert metering.cost_of(ended) == 2  # of 1.5, rounded half up
    assert [share.cost for share in metering.shares_of(ended)] == [1, 1]
