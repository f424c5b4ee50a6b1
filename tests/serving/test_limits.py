"""Limits and budgets over real sockets: what is admitted, what a refusal says, and that nothing stays held."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from headgate.model import (
    Alias,
    AttemptRecord,
    Budget,
    CallGroup,
    CallLimits,
    Closed,
    Grant,
    ModelRow,
    Price,
    Progress,
    Provider,
    Snapshot,
    Spent,
    TargetRef,
    Tenant,
    Timeouts,
)
from headgate.policy.auth import digest
from headgate.process.channel import SpentBefore
from headgate.testing import Provider as Upstream
from headgate.testing import serve_in_thread
from tests.dataplane import TOKEN, DataPlane, upstream
from tests.serving.calls import Answer, ask, closed_by_id, opened, request
from tests.waiting import wait_until

KEY = b"k" * 32
PRICE = Price(1_000_000_000, 10_000_000_000)  # 1 and 10 USD per million tokens
NANO = 1_000_000_000
LOW = Price(1_000_000, 1_000_000)  # 1 nano-USD a token


def gateway(folder: Path, provider: Upstream, grant: Grant, *others: Provider, **snapshot: Any) -> DataPlane:
    """A data process whose token has ``grant``; ``up/…`` is priced."""
    folder.mkdir(exist_ok=True)
    (folder / "instance.key").write_bytes(KEY)
    rows = {row.name: row for row in (upstream(provider.url, price=PRICE), *others)}
    told = bool(snapshot.pop("told_spend", True))
    world = Snapshot(0, {digest(KEY, TOKEN.encode()): grant}, rows, **snapshot)
    return DataPlane(folder, snapshot=world, told_spend=told)


def limits(**figures: int) -> Grant:
    return Grant("t0", "ci", limits=CallLimits(**figures))


def budget(nano: int, mode: str = "hard", period: str = "day") -> Grant:
    return Grant("t0", "ci", budget=Budget(nano, period, mode))


def spent(plane: DataPlane) -> int:
    return sum(max(0, record.cost) for record in plane.records() if isinstance(record, Closed))


def attempts_of(plane: DataPlane, answer: Answer) -> tuple[AttemptRecord, ...]:
    return closed_by_id(plane, answer.headers["x-request-id"]).attempts


def test_a_budget_is_spent_by_what_was_used_and_never_overrun(tmp_path: Path, provider: Upstream) -> None:
    most = 5_000_000
    with gateway(tmp_path / "s", provider, budget(most)) as plane:
        admitted = 0
        while True:
            answer = ask(plane, "up/lorem?rate=10000&ttft=0&tokens=50", stream=admitted % 2 == 0, max_tokens=60)
            if answer.status == 402:
                break
            admitted += 1
        assert most - 700_000 < spent(plane) <= most
        assert admitted > 6
        assert "per day" in answer.error["message"] and answer.headers["x-should-retry"] == "false"


def test_a_soft_budget_is_counted_and_never_refuses(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider, budget(1, "soft")) as plane:
        assert [ask(plane, "up/echo", stream=False).status for _ in range(3)] == [200] * 3


def test_a_hard_budget_pays_for_no_unknown_price(tmp_path: Path, provider: Upstream) -> None:
    dark = upstream(provider.url, "dark")
    aliases = {"mixed": Alias("mixed", (TargetRef("dark/echo"), TargetRef("up/echo")))}
    with gateway(tmp_path / "s", provider, budget(NANO), dark, aliases=aliases) as plane:
        refused = ask(plane, "dark/echo", stream=False)
        assert (refused.status, refused.error["code"]) == (422, "no_qualifying_model")
        answer = ask(plane, "mixed", stream=False)
        assert (answer.status, answer.headers["x-headgate-provider"]) == (200, "up")


def test_a_spend_that_is_not_known_is_not_taken_for_nothing(tmp_path: Path, provider: Upstream) -> None:
    """A data process that has just begun serves hard budgets once it knows what was spent before, and counts that once,
    whichever connection it comes by.
    """
    with gateway(tmp_path / "s", provider, budget(5_000_000), told_spend=False) as plane:
        before = Spent("token:t0", time.time(), 4_000_000, time.time())
        for message in (None, SpentBefore(False, (before,)), SpentBefore(False, (before,))):
            if message is not None:
                plane.tell(message)
            answer = ask(plane, "up/echo", stream=False, max_tokens=60)
            assert (answer.status, answer.error["code"]) == (503, "control_unavailable")
            assert answer.headers["retry-after"] == "1" and "spent" in answer.error["message"]
        plane.tell(SpentBefore(True, (before, Spent("token:gone", time.time(), 1, time.time()))))
        assert ask(plane, "up/echo", stream=False, max_tokens=60).status == 200
        plane.tell(SpentBefore(True, (Spent("token:t0", time.time(), 9_000_000, time.time()),)))  # it is too late
        lorem = "up/lorem?rate=10000&ttft=0&tokens=50"
        assert [ask(plane, lorem, stream=False, max_tokens=60).status for _ in range(2)] == [200, 402]


def test_soft_budgets_are_served_before_their_spend_is_known(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider, budget(1, "soft"), told_spend=False) as plane:
        assert ask(plane, "up/echo", stream=False).status == 200


# ------------------------------------------------------------------------------------- the end of a budget


def test_a_stream_ends_with_a_typed_finish_where_its_budget_ends(tmp_path: Path, provider: Upstream) -> None:
    grant = budget(20_000_000)  # 2,000 tokens of output
    aliases = {"a": Alias("a", (TargetRef("up/lorem?rate=20000&ttft=0&tokens=8000"),))}
    with gateway(tmp_path / "s", provider, grant, aliases=aliases) as plane:
        before = len(provider.requests)
        answer = ask(plane, "a", stream_options={"include_usage": True})
        assert answer.status == 200 and answer.ended and answer.events[-1] == "[DONE]"
        assert answer.finishes == ["length"]
        usage = answer.chunks[-1]["usage"]
        assert 1800 < usage["completion_tokens"] <= 2000
        record = closed_by_id(plane, answer.headers["x-headgate-stream-id"])
        assert (record.outcome, record.code, record.status) == ("budget_exceeded", "budget_exceeded", 200)
        assert record.completion_tokens == usage["completion_tokens"]
        assert record.cost <= 20_000_000
        wait_until(lambda: provider.requests[before].how, why="the upstream goes on")
        assert provider.requests[before].how == "client_closed"
        assert any(isinstance(one, Progress) for one in plane.records())
        assert ask(plane, "a").status == 402


def test_a_whole_answer_is_asked_for_no_more_than_the_budget_pays(tmp_path: Path, provider: Upstream) -> None:
    model = "lorem?rate=90000&ttft=0&tokens=8000"
    row = upstream(provider.url, price=PRICE, models={model: ModelRow(model, max_output=8000, price=PRICE)})
    with gateway(tmp_path / "s", provider, budget(30_000_000), row) as plane:
        answer = ask(plane, f"up/{model}", stream=False)
        assert answer.status == 200
        assert answer.json["choices"][0]["finish_reason"] == "length"
        sent = json.loads(provider.requests[-1].body)["max_tokens"]
        assert answer.json["usage"]["completion_tokens"] == sent == 1024
        answer = ask(plane, f"up/{model}", stream=False, max_tokens=5000)
        assert 1800 < json.loads(provider.requests[-1].body)["max_tokens"] < 2000
        assert closed_by_id(plane, answer.headers["x-request-id"]).cost <= 20_000_000
        assert spent(plane) <= 30_000_000


def test_a_spent_budget_is_served_by_the_alias_for_that(tmp_path: Path, provider: Upstream) -> None:
    free = upstream(provider.url, "free", price=Price(0, 0))
    grant = replace(budget(100), models=("up/echo",), over_budget="cheap")
    aliases = {"cheap": Alias("cheap", (TargetRef("free/echo"),))}
    with gateway(tmp_path / "s", provider, grant, free, aliases=aliases) as plane:
        answer = ask(plane, "up/echo", stream=False)
        assert (answer.status, answer.headers["x-headgate-provider"]) == (200, "free")
        assert answer.headers["x-headgate-requested-model"] == "up/echo"


# ------------------------------------------------------------------------------------- rates


def test_requests_per_minute_and_their_headers(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider, limits(rpm=2, tpm=100_000)) as plane:
        first = ask(plane, "up/echo", stream=False)
        assert first.headers["x-ratelimit-limit-requests"] == first.headers["x-ratelimit-limit"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == first.headers["x-ratelimit-remaining"] == "1"
        assert first.headers["x-ratelimit-reset"] == "60" and first.headers["x-ratelimit-reset-requests"] == "1m0s"
        assert first.headers["x-ratelimit-limit-tokens"] == "100000"
        assert 0 < int(first.headers["x-ratelimit-remaining-tokens"]) < 100_000
        assert ask(plane, "up/echo").headers["x-ratelimit-remaining-requests"] == "0"
        refused = ask(plane, "up/echo")
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60 and "x-should-retry" not in refused.headers
        assert 0 < int(refused.headers["retry-after-ms"]) <= 60_000
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_refused_call_has_no_attempt_and_one_record(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider, limits(rpd=1)) as plane:
        ask(plane, "up/echo")
        before = len(provider.requests)
        refused = ask(plane, "up/echo")
        assert (refused.status, refused.error["code"]) == (429, "daily_rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) <= 86_400
        record = closed_by_id(plane, refused.headers["x-request-id"])
        assert (record.outcome, record.attempts, record.cost) == ("refused", (), 0)
        assert len(provider.requests) == before


def test_tokens_per_minute_are_settled_by_real_usage(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider, limits(tpm=3000)) as plane:
        statuses = [ask(plane, "up/echo", stream=False).status for _ in range(8)]  # each holds 1,024 and uses a few
        assert statuses == [200] * 8
        assert ask(plane, "up/lorem?rate=90000&ttft=0&tokens=4000").status == 200
        refused = ask(plane, "up/echo")
        assert (refused.status, refused.error["code"]) == (429, "tokens_limit_exceeded")
        assert 50 <= int(refused.headers["retry-after"]) <= 60


def test_without_limits_no_headers_and_other_errors_have_them(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "a", provider, Grant("t0", "ci")) as plane:
        assert not [name for name in ask(plane, "up/echo").headers if name.startswith("x-ratelimit")]
    with gateway(tmp_path / "b", provider, limits(rpm=5)) as plane:
        failed = ask(plane, "up/fault/503-always", stream=False)
        assert failed.status == 503 and failed.headers["x-ratelimit-remaining"] == "4"
        bad = ask(plane, "up/echo", stream=False, messages="no list")
        assert bad.status == 400 and bad.headers["x-ratelimit-remaining"] == "4"


def test_limits_of_tenants_and_groups_count_together(tmp_path: Path, provider: Upstream) -> None:
    grant = Grant("t0", "ci", tenant="acme", limits=CallLimits(rpm=100))
    groups = (CallGroup("search", {"team": "search"}, limits=CallLimits(rpm=1)),)
    tenants = {"acme": Tenant("acme", CallLimits(rpm=3))}
    with gateway(tmp_path / "s", provider, grant, tenants=tenants, groups=groups) as plane:

        def asked(team: str) -> Answer:
            return ask(plane, "up/echo", stream=False, headgate={"metadata": {"team": team}})

        assert [asked(team).status for team in ("search", "search", "other", "other", "other")] == [
            200,
            429,
            200,
            200,
            429,
        ]
        assert "'acme'" in asked("other").error["message"]


def test_a_limit_on_a_model_leaves_its_fallback(tmp_path: Path, provider: Upstream) -> None:
    aliases = {"pair": Alias("pair", (TargetRef("up/echo"), TargetRef("next/echo")))}
    groups = (CallGroup("pro", model="up/echo", limits=CallLimits(rpm=1)),)
    row = upstream(provider.url, "next", price=PRICE)
    with gateway(tmp_path / "s", provider, Grant("t0", "ci"), row, aliases=aliases, groups=groups) as plane:
        served = [ask(plane, "pair", stream=False).headers["x-headgate-provider"] for _ in range(3)]
        assert served == ["up", "next", "next"]
        assert ask(plane, "up/echo", stream=False).error["code"] == "rate_limit_exceeded"


# ------------------------------------------------------------------------------------- parallel slots


def cheap(folder: Path, provider: Upstream, grant: Grant, *groups: CallGroup) -> DataPlane:
    """``smart`` leads to up/echo and dear/lorem, ``cheap`` to low/echo, which serves where a budget is spent."""
    aliases = {
        "smart": Alias("smart", (TargetRef("up/echo"), TargetRef("dear/lorem"))),
        "cheap": Alias("cheap", (TargetRef("low/echo"),)),
    }
    others = [upstream(provider.url, name, price=price) for name, price in (("dear", PRICE), ("low", LOW))]
    return gateway(folder, provider, replace(grant, over_budget="cheap"), *others, aliases=aliases, groups=groups)


def test_over_budget_serves_also_where_a_group_limits_a_target(tmp_path: Path, provider: Upstream) -> None:
    group = CallGroup("echo", model="up/echo", limits=CallLimits(rpm=100))
    with cheap(tmp_path / "s", provider, budget(5000), group) as plane:
        answer = ask(plane, "smart", stream=False)
        assert (answer.status, answer.headers["x-headgate-provider"]) == (200, "low")


def test_a_spent_budget_of_a_model_is_not_asked_of_the_alias_that_serves_instead(
    tmp_path: Path, provider: Upstream
) -> None:
    group = CallGroup("echo", model="up/echo", budget=Budget(1, "day"))
    with cheap(tmp_path / "s", provider, Grant("t0", "ci"), group) as plane:
        answer = ask(plane, "up/echo", stream=False)
        assert (answer.status, answer.headers["x-headgate-provider"]) == (200, "low")


def test_a_limit_on_the_alias_that_serves_instead_counts(tmp_path: Path, provider: Upstream) -> None:
    group = CallGroup("low", model="low/echo", limits=CallLimits(rpm=2))
    with cheap(tmp_path / "s", provider, budget(5000), group) as plane:
        assert [ask(plane, "up/echo", stream=False).status for _ in range(3)] == [200, 200, 429]


def free_slot(plane: DataPlane) -> None:
    """The one slot is free again: a call is admitted."""
    wait_until(lambda: ask(plane, "up/echo", stream=False).status == 200, 10, 0.02, "the slot is still taken")


def test_parallel_slots_are_freed_by_cancel_and_end(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider, limits(parallel=1)) as plane:
        with opened(plane, request("up/lorem?rate=20&ttft=0&tokens=5000")) as stream:
            stream.head().until(b"dolor")
            refused = ask(plane, "up/echo")
            assert (refused.status, refused.error["code"]) == (429, "concurrency_limit_exceeded")
            assert refused.headers["retry-after"] == "1"
            stream.leave("rst")
        free_slot(plane)
        assert [ask(plane, "up/echo").status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize(
    "model", ["fault/reset-once?key=a", "fault/cut?after=3&rate=100", "fault/503-always", "fault/accept-silence"]
)
def test_parallel_slots_are_freed_by_failures(tmp_path: Path, provider: Upstream, model: str) -> None:
    patience = Timeouts(connect=1, headers=0.3, first_token=0.3, stall=0.3, total=5)
    with gateway(tmp_path / "s", provider, limits(parallel=1), timeouts=patience) as plane:
        for stream in (True, False):
            ask(plane, f"up/{model}", stream=stream)
            assert ask(plane, "up/echo", stream=False).status == 200


def test_slots_are_freed_when_the_upstream_crashes(tmp_path: Path) -> None:
    with serve_in_thread() as other:
        plane = gateway(tmp_path / "s", other, limits(parallel=1))
        with plane, opened(plane, request("up/lorem?rate=20&ttft=0&tokens=5000")) as stream:
            stream.head().until(b"dolor")
            for connection in tuple(other.connections):
                connection.abort()
            assert stream.rest().status == 200
            free_slot(plane)


def test_a_stopped_budget_frees_its_slot(tmp_path: Path, provider: Upstream) -> None:
    grant = Grant("t0", "ci", limits=CallLimits(parallel=1), budget=Budget(12_000_000, "day"))
    with gateway(tmp_path / "s", provider, grant) as plane:
        assert ask(plane, "up/lorem?rate=20000&ttft=0&tokens=8000").finishes == ["length"]
        refused = ask(plane, "up/echo", max_tokens=1000)
        assert refused.error["code"] == "budget_exceeded", "not the slot"
