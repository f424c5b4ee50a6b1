"""The queue of an alias over real sockets: who waits, in which order, for how long, and what ends the wait."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from headgate.model import (
    Account,
    Alias,
    Budget,
    CallLimits,
    Closed,
    ConnectionLimits,
    Grant,
    Opened,
    Price,
    Snapshot,
    TargetRef,
    Tenant,
)
from headgate.policy.admission.queue import WEIGHTS
from headgate.policy.auth import digest
from headgate.process.channel import Patch
from headgate.testing import Provider as Upstream
from headgate.testing.provider import lorem
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import MESSAGES, Answer, Stream, ask, closed_by_id, opened, request
from tests.waiting import wait_until

KEY = b"k" * 32
ENDLESS = "lorem?rate=50&ttft=0&tokens=100000"
TIERS = ("slow", "medium", "fast", "ludicrous")


def token(name: str) -> str:
    return f"hg_test_{name:_<32}"


def key_of(name: str) -> bytes:
    return digest(KEY, token(name).encode())


def alias(name: str, model: str, **fields: Any) -> Alias:
    return Alias(name, (TargetRef(model),), **{"queue_size": 40, "queue_wait_s": 60.0, **fields})


GRANTS = [
    Grant("three", "three", limits=CallLimits(parallel=3)),
    Grant("one", "one", limits=CallLimits(parallel=1)),
    Grant("other", "other", limits=CallLimits(parallel=1)),
    Grant("minute", "minute", limits=CallLimits(rpm=1)),
    Grant("day", "day", limits=CallLimits(rpd=1)),
    Grant("poor", "poor", budget=Budget(1)),
    Grant("bulk", "bulk", tier="slow", tiers=("slow", "medium")),
    Grant("free", "free"),
    Grant("acme", "acme", tenant="acme", limits=CallLimits(parallel=1)),
]


def world(provider: Upstream) -> Snapshot:
    rows = [
        upstream(provider.url, price=Price(1_000_000_000, 1_000_000_000)),
        upstream(provider.url, "engine", pool=ConnectionLimits(max_connections=2, wait_s=0.2)),
        upstream(provider.url, "keyed", auth="bearer", accounts=(Account("keyed/0", minute_limit=1, daily_limit=100),)),
    ]
    aliases = [
        alias("q", "up/echo"), alias("hold", f"up/{ENDLESS}"), alias("small", "up/echo", queue_size=2),
        alias("hurried", "up/echo", queue_wait_s=0.4), alias("engine-q", "engine/echo"),
        alias("engine-hold", f"engine/{ENDLESS}"), alias("keyed-q", "keyed/echo", queue_wait_s=3.0),
        alias("early", "up/echo", early_commit_s=0.1), alias("none", "up/echo", queue_size=0),
        Alias(
            "torn", (TargetRef("engine/fault/cut?after=20&rate=0"), TargetRef("up/lorem?rate=0&ttft=0&tokens=40")),
            queue_size=5,
        ),
        Alias("either", (TargetRef("engine/echo"), TargetRef("up/echo")), queue_size=5),
    ]  # fmt: skip
    return Snapshot(
        1,
        {key_of(grant.name): grant for grant in GRANTS},
        {row.name: row for row in rows},
        {one.name: one for one in aliases},
        tenants={"acme": Tenant("acme")},
    )


@contextlib.contextmanager
def gateway(folder: Path, provider: Upstream) -> Iterator[DataPlane]:
    folder.mkdir(exist_ok=True)
    (folder / "instance.key").write_bytes(KEY)
    with DataPlane(folder, snapshot=world(provider), keys={"keyed/0": "sk-k"}) as plane:
        yield plane


@pytest.fixture(scope="module")
def gate(provider: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with gateway(tmp_path_factory.mktemp("queue") / "s", provider) as plane:
        yield plane
        assert queued(plane) == 0 and plane.process.poll() is None


def queued(plane: DataPlane) -> int:
    with opened(plane, b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n") as stream:
        return int(stream.rest().json["queued"])


def until_queued(plane: DataPlane, number: int) -> None:
    wait_until(lambda: queued(plane) == number, why=f"not {number} calls wait")


@contextlib.contextmanager
def held(plane: DataPlane, name: str, model: str = "hold", calls: int = 1) -> Iterator[list[Stream]]:
    """So many running streams.  Those that have not left leave at the end."""
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(calls):
            sent = request(model, token=token(name), headgate={})
            streams.append(stack.enter_context(opened(plane, sent, timeout=60)).head())
            assert streams[-1].status == 200
        yield streams


@contextlib.contextmanager
def waiting(plane: DataPlane, name: str, *models: str, **fields: Any) -> Iterator[list[Stream]]:
    """Calls that have been sent, and wait."""
    before = queued(plane)
    with contextlib.ExitStack() as stack:
        sent = [request(model, token=token(name), **{"stream": False, "headgate": {}, **fields}) for model in models]
        streams = [stack.enter_context(opened(plane, data, timeout=60)) for data in sent]
        until_queued(plane, before + len(models))
        yield streams


def one(plane: DataPlane, name: str, model: str = "q", *headers: str, **fields: Any) -> Answer:
    return ask(plane, model, *headers, token=token(name), **{"stream": False, "headgate": {}, **fields})


def asked(provider: Upstream, after: int) -> list[dict[str, Any]]:
    """The requests that came after so many, in order."""
    return [json.loads(one.body) for one in list(provider.requests)[after:]]


def timings(answer: Answer) -> dict[str, float]:
    parts = (part.strip().partition(";dur=") for part in answer.headers["server-timing"].split(","))
    return {name: float(milliseconds) for name, _, milliseconds in parts}


# ------------------------------------------------------------------------------------- order


def test_twenty_callers_of_three_slots_are_served_by_tier(gate: DataPlane, provider: Upstream) -> None:
    seen = len(provider.requests)
    with held(gate, "three", calls=3) as running, contextlib.ExitStack() as stack:
        callers = []
        for number in range(20):
            tier = TIERS[number % 4]
            messages = [{"role": "user", "content": f"{tier} {number}"}]
            data = request("q", token=token("three"), stream=False, messages=messages, headgate={"tier": tier})
            callers.append(stack.enter_context(opened(gate, data, timeout=60)))
            until_queued(gate, number + 1)
        running[0].leave()
        answers = [caller.rest() for caller in callers]
    assert [answer.status for answer in answers] == [200] * 20
    served = [one["messages"][-1]["content"] for one in asked(provider, seen + 3)]
    expected = sorted(range(20), key=lambda number: (-WEIGHTS[TIERS[number % 4]], number))
    assert served == [f"{TIERS[number % 4]} {number}" for number in expected]


def test_the_wait_is_on_the_receipt_and_in_the_headers(gate: DataPlane) -> None:
    with held(gate, "one") as running, waiting(gate, "one", "q", include_route_trace=True) as callers:
        time.sleep(0.3)  # the wait that is measured
        running[0].leave()
        answer = callers[0].rest()
    phases = timings(answer)
    assert answer.status == 200 and phases["queue"] >= 250
    assert phases["auth"] + phases["route"] + phases["gateway"] < 250
    record = closed_by_id(gate, answer.headers["x-request-id"])
    assert record.queue_us >= 250_000 and record.outcome == "delivered"
    assert answer.json["route_trace"]["queued_ms"] >= 250
    assert "queued_ms" not in one(gate, "one", include_route_trace=True).json["route_trace"]


def test_a_newcomer_waits_behind_those_who_wait(gate: DataPlane, provider: Upstream) -> None:
    """Of two waiting calls only one may run: a third does not take the slot that comes free."""
    with held(gate, "one") as running, waiting(gate, "one", "hold", "q", stream=True) as callers:
        running[0].leave()
        callers[0].head()  # the first of them has the slot now
        with waiting(gate, "one", "q") as later:
            seen = len(provider.requests)
            callers[0].leave()
            assert callers[1].rest().status == later[0].rest().status == 200
            assert [one["stream"] for one in asked(provider, seen)] == [True, False]


# ------------------------------------------------------------------------------------- bounds


def test_a_full_queue_refuses_with_a_time_to_come_again(gate: DataPlane) -> None:
    with held(gate, "one") as running, waiting(gate, "one", "small", "small") as callers:
        refused = one(gate, "one", "small")
        assert (refused.status, refused.error["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"] == "1" and "'one' may run 1 calls at a time" in refused.error["message"]
        assert (record := closed_by_id(gate, refused.headers["x-request-id"])).outcome == "refused"
        assert record.code == "queue_full"
        with held(gate, "acme") as others, waiting(gate, "acme", "small", "small") as theirs:  # a tenant has its own
            others[0].leave()
            assert [caller.rest().status for caller in theirs] == [200, 200]
        running[0].leave()
        assert [caller.rest().status for caller in callers] == [200, 200]


def test_a_call_that_has_waited_long_enough_reads_the_limits_own_refusal(gate: DataPlane) -> None:
    with held(gate, "one"):
        refused = one(gate, "one", "hurried")
        assert (refused.status, refused.error["code"]) == (429, "concurrency_limit_exceeded")
        assert "has waited 0." in refused.error["message"] and "queue of hurried" in refused.error["message"]
        assert refused.headers["retry-after"] == "1" and timings(refused)["queue"] >= 250
        record = closed_by_id(gate, refused.headers["x-request-id"])
        assert (record.outcome, record.attempts) == ("refused", ()) and record.queue_us >= 250_000
        begun = time.monotonic()
        assert one(gate, "one", "q", headgate={"timeout_ms": 300}).status == 429
        assert one(gate, "one", "q", "x-stainless-read-timeout: 0.3").status == 429
        assert time.monotonic() - begun < 30, "the call's own deadline ends its wait, and its client's"


def test_a_limit_that_cannot_give_way_in_time_refuses_at_once(gate: DataPlane) -> None:
    for name, code in (("minute", "rate_limit_exceeded"), ("day", "daily_rate_limit_exceeded")):
        assert one(gate, name, "hurried").status == 200
        refused = one(gate, name, "hurried")
        assert (refused.status, refused.error["code"]) == (429, code)
        assert "queue" not in timings(refused) and "has waited" not in refused.error["message"]


def test_a_spent_budget_is_never_waited_for(gate: DataPlane) -> None:
    refused = one(gate, "poor")
    assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
    assert "queue" not in timings(refused)


def test_an_alias_without_a_queue_refuses(gate: DataPlane) -> None:
    with held(gate, "one"):
        assert one(gate, "one", "none").error["code"] == "concurrency_limit_exceeded"


# ------------------------------------------------------------------------------------- targets


def test_calls_wait_for_a_connection_of_their_target_by_tier(gate: DataPlane, provider: Upstream) -> None:
    with held(gate, "free", "engine-hold", 2) as running:
        refused = one(gate, "free", "engine-q", headgate={"timeout_ms": 400})
        assert (refused.status, refused.error["code"]) == (503, "upstream_pool_full")
        spilled = one(gate, "free", "either")
        assert spilled.status == 200 and spilled.headers["x-headgate-provider"] == "up"
        seen = len(provider.requests)
        with contextlib.ExitStack() as stack:
            callers = []
            for number, tier in enumerate(TIERS):
                messages = [{"role": "user", "content": tier}]
                data = request(
                    "engine-q", token=token("free"), stream=False, messages=messages, headgate={"tier": tier}
                )
                callers.append(stack.enter_context(opened(gate, data, timeout=60)))
                until_queued(gate, number + 1)
            running[0].leave()
            assert [caller.rest().status for caller in callers] == [200] * 4
        served = [one["messages"][-1]["content"] for one in asked(provider, seen)]
        assert served == list(reversed(TIERS))


def test_calls_of_an_account_at_its_minute_limit_are_refused_if_the_minute_is_longer_than_the_wait(
    gate: DataPlane, provider: Upstream
) -> None:
    assert one(gate, "free", "keyed-q").status == 200
    seen = len(provider.requests)
    refused = one(gate, "free", "keyed-q")
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) > 50 and len(provider.requests) == seen


def test_a_stream_that_breaks_goes_on_as_without_a_queue(gate: DataPlane) -> None:
    answer = one(gate, "free", "torn", stream=True)
    answer.check_stream(lorem.text(40))
    assert answer.headers["x-headgate-provider"] == "engine"


# ------------------------------------------------------------------------------------- tiers


def test_a_token_may_use_only_its_tiers(gate: DataPlane) -> None:
    refused = one(gate, "bulk", "q", headgate={"tier": "fast"})
    assert (refused.status, refused.error["code"]) == (403, "tier_not_allowed")
    assert refused.error["param"] == "headgate.tier" and "slow, medium" in refused.error["message"]
    assert one(gate, "bulk", "up/echo", headgate={"tier": "medium"}).status == 200
    wrong = one(gate, "free", "q", headgate={"tier": "fastest"})
    assert (wrong.status, wrong.error["param"]) == (400, "headgate.tier")


# ------------------------------------------------------------------------------------- the official client


def test_the_official_client_waits_and_reads_a_full_queue_as_a_rate_limit(gate: DataPlane) -> None:
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=token("one"), max_retries=0, timeout=30) as client:
        tier: Any = {"headgate": {"tier": "fast"}}
        with held(gate, "one") as running, waiting(gate, "one", "small") as callers:
            with ThreadPoolExecutor(1) as threads:
                asked = threads.submit(
                    client.chat.completions.create, model="small", messages=MESSAGES, extra_body=tier, stream=False
                )
                until_queued(gate, 2)
                with pytest.raises(openai.RateLimitError) as full:
                    client.chat.completions.create(model="small", messages=MESSAGES)
                assert full.value.code == "queue_full" and full.value.response.headers["retry-after"] == "1"
                running[0].leave()
                assert asked.result(30).choices[0].message.content == "say something please"
            assert callers[0].rest().status == 200


# ------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_gives_its_place_up(gate: DataPlane, provider: Upstream, how: str) -> None:
    with held(gate, "one") as running, waiting(gate, "one", "q", "q") as callers:
        seen = len(provider.requests)
        callers[0].leave(how)
        until_queued(gate, 1)
        running[0].leave()
        assert callers[1].rest().status == 200 and len(provider.requests) == seen + 1
    gone = [record for record in gate.records() if isinstance(record, Closed) and record.outcome == "cancelled"]
    assert gone[-1].attempts == () or gone[-2].attempts == ()


def test_an_early_head_is_followed_by_the_answer_or_by_an_error(gate: DataPlane) -> None:
    with held(gate, "one") as running, waiting(gate, "one", "early", stream=True) as callers:
        callers[0].head().until(b": keep-alive")
        assert callers[0].status == 200 and callers[0].headers["x-headgate-requested-model"] == "early"
        running[0].leave()
        callers[0].rest().check_stream("say something please")
    with held(gate, "one"):
        answer = one(gate, "one", "early", stream=True, headgate={"timeout_ms": 700})
        assert answer.status == 200 and answer.ended
        assert answer.events[-1]["error"]["code"] == "concurrency_limit_exceeded"
        assert b"[DONE]" not in answer.raw


def test_nothing_is_sent_to_a_stream_that_waits_without_an_early_head(gate: DataPlane) -> None:
    with held(gate, "one") as running, waiting(gate, "one", "q", stream=True) as callers:
        callers[0].sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            callers[0].sock.recv(1)
        callers[0].sock.settimeout(30)
        running[0].leave()
        assert callers[0].rest().status == 200


def test_a_repeat_of_a_waiting_call_reads_its_answer(gate: DataPlane, provider: Upstream) -> None:
    data = request("q", "Idempotency-Key: waits", token=token("one"), stream=False, headgate={})
    with held(gate, "one") as running, opened(gate, data, timeout=60) as first:
        until_queued(gate, 1)
        with opened(gate, data, timeout=60) as second:
            seen = len(provider.requests)
            running[0].leave()
            answers = [first.rest(), second.rest()]
    assert [answer.status for answer in answers] == [200, 200] and answers[0].raw == answers[1].raw
    assert len(provider.requests) == seen + 1


# ------------------------------------------------------------------------------------- the process


def test_a_drain_refuses_those_who_wait_and_lets_the_running_end(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider) as plane, contextlib.ExitStack() as stack:
        sent = request("up/lorem?rate=200&ttft=0.3&tokens=200", token=token("one"), headgate={})
        running = stack.enter_context(opened(plane, sent, timeout=60)).head()
        callers = stack.enter_context(waiting(plane, "one", "q", "q"))
        os.kill(plane.process.pid, signal.SIGTERM)
        for caller in callers:
            answer = caller.rest()
            assert (answer.status, answer.error["code"]) == (503, "draining")
            assert answer.headers["retry-after"] == "1" and "still waiting" in answer.error["message"]
        assert running.rest().ended
        assert plane.process.wait(30) == 0
        outcomes = [record.outcome for record in plane.records() if isinstance(record, Closed)]
        assert sorted(outcomes) == ["delivered", "refused", "refused"]


def test_a_killed_process_leaves_no_trace_of_those_who_wait(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider) as plane:
        with held(plane, "one"), waiting(plane, "one", "q", "q") as callers:
            assert plane.stop(signal.SIGKILL) == -signal.SIGKILL
            for caller in callers:
                with pytest.raises((EOFError, ConnectionError)):
                    caller.head()
        assert len([record for record in plane.records() if isinstance(record, Opened)]) == 1
        plane.start()
        assert one(plane, "one").status == 200 and queued(plane) == 0


def test_waiting_calls_are_tried_by_a_new_configuration(tmp_path: Path, provider: Upstream) -> None:
    with gateway(tmp_path / "s", provider) as plane, contextlib.ExitStack() as stack:
        stack.enter_context(held(plane, "one"))
        stack.enter_context(held(plane, "other"))
        callers = stack.enter_context(waiting(plane, "one", "q", "q"))
        others = stack.enter_context(waiting(plane, "other", "q"))
        wider = Grant("one", "one", limits=CallLimits(parallel=3))
        plane.tell(Patch(1, 2, ((key_of("one"), wider),), (key_of("other"),)))
        assert [caller.rest().status for caller in callers] == [200, 200]
        refused = others[0].rest()
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
