"""The response cache on real sockets: what is asked of providers, what clients get, and what is on record."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from headgate.model import Limits
from headgate.testing import Provider, serve_in_thread
from headgate.testing.provider import lorem
from headgate.testing.provider.tools import CALLS
from tests.caching.plane import (
    ACME,
    ACME_TOO,
    ALONE,
    ALONE_TOO,
    CHAT,
    FAST,
    LIMITED,
    MESSAGES,
    NARROW,
    OTHER,
    SPENT,
    alias,
    ask,
    body,
    cache_of,
    counts,
    plane,
    priced,
    question,
    reload,
    send,
    world,
)
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import DONE, Answer, closed_by_id, opened, post
from tests.serving.resuming import numbered
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serve_in_thread() as provider:
        yield provider


@pytest.fixture(scope="module")
def gate(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with plane(tmp_path_factory.mktemp("cache") / "s", priced(provider)) as running:
        yield running
        assert running.process.poll() is None, "the data process ended during the tests"


@pytest.fixture
def words(request: pytest.FixtureRequest) -> str:
    """A question that no other test asks."""
    return str(request.node.name)


def text_of(answer: Answer, path: str, stream: bool) -> str:
    if not stream:
        found = answer.json
        return found["choices"][0]["message"]["content"] if path == CHAT else found["content"][0]["text"]
    if path == CHAT:
        assert answer.events[-1] == DONE and answer.finishes == ["stop"]
        return answer.text
    lines = [json.loads(line[6:]) for line in answer.raw.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1]["type"] == "message_stop"
    return "".join(one["delta"].get("text", "") for one in lines if one["type"] == "content_block_delta")


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_second_call_is_a_hit_in_either_form(
    gate: DataPlane, provider: Provider, words: str, path: str, stream: bool, again: bool
) -> None:
    before = counts(gate, provider)
    first = ask(gate, "cached", words, path=path, stream=stream)
    second = ask(gate, "cached", words, path=path, stream=again)
    assert (cache_of(first), cache_of(second)) == ("miss", "hit")
    assert counts(gate, provider) == (before[0] + 2, before[1] + 1)
    assert text_of(first, path, stream) == text_of(second, path, again) == lorem.text(24)
    assert second.headers["x-headgate-attempts"] == "0" and second.headers["x-headgate-provider"] == "up"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_a_hit_has_its_own_id_and_the_usage_of_the_answer(gate: DataPlane, words: str) -> None:
    first, second = (ask(gate, "cached", words).json for _ in range(2))
    ours, theirs = first.pop("headgate"), second.pop("headgate")
    assert first.pop("id") != second.pop("id") and first.pop("created") <= second.pop("created")
    assert first == second
    assert (ours["cache_hit"], ours["attempts"], ours["cost_basis"]) == (False, 1, "provider")
    assert (theirs["cache_hit"], theirs["attempts"], theirs["cost_basis"]) == (True, 0, "cached")
    assert ours["cost_usd"] > 0 and theirs["cost_usd"] == 0
    assert (theirs["provider"], theirs["provider_model"]) == (ours["provider"], ours["provider_model"])


def test_the_receipt_of_a_hit_costs_nothing_and_says_what_it_saved(gate: DataPlane, words: str) -> None:
    miss, hit = (closed_by_id(gate, ask(gate, "cached", words).headers["x-request-id"]) for _ in range(2))
    assert (miss.cache, miss.saved, len(miss.attempts)) == ("miss", -1, 1)
    assert (hit.cache, hit.saved, hit.attempts) == ("hit", miss.cost, ())
    assert (hit.outcome, hit.status, hit.code, hit.cost, hit.basis) == ("delivered", 200, "", 0, "cached")
    assert (hit.provider, hit.model, hit.price_id) == ("", "", "") and miss.provider == "up"
    assert (hit.prompt_tokens, hit.completion_tokens) == (miss.prompt_tokens, miss.completion_tokens) and miss.cost > 0


def test_only_a_call_that_asks_for_it_uses_the_cache(gate: DataPlane, provider: Provider, words: str) -> None:
    before = counts(gate, provider)[1]
    assert [cache_of(ask(gate, "plain", words)) for _ in range(2)] == [None, None]
    wish = {"headgate": {"cache": {"ttl_s": 60}}}
    assert [cache_of(ask(gate, "plain", words, **wish)) for _ in range(2)] == ["miss", "hit"]
    refused = {"headgate": {"cache": {"enabled": False}}}
    assert [cache_of(ask(gate, "cached", words, **refused)) for _ in range(2)] == [None, None]
    assert counts(gate, provider)[1] == before + 5


@pytest.mark.parametrize(
    ("cache", "param"),
    [
        ({"ttl_s": 59}, "headgate.cache.ttl_s"),
        ({"ttl_s": 86_401}, "headgate.cache.ttl_s"),
        ({"ttl_s": "60"}, "headgate.cache.ttl_s"),
        ({"enabled": 1}, "headgate.cache.enabled"),
        ({"pace": "slow"}, "headgate.cache.pace"),
        ({"mode": "semantic"}, "headgate.cache.mode"),
        ([], "headgate.cache"),
    ],
)
def test_an_invalid_wish_is_refused(gate: DataPlane, words: str, cache: object, param: str) -> None:
    answer = ask(gate, "plain", words, headgate={"cache": cache})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_value", param)


def test_answers_belong_to_a_tenant_or_to_a_token_without_one(gate: DataPlane, words: str) -> None:
    found = [(token, cache_of(ask(gate, "cached", words, token=token))) for token in (ACME, ACME_TOO, OTHER, ALONE)]
    assert found == [(ACME, "miss"), (ACME_TOO, "hit"), (OTHER, "miss"), (ALONE, "miss")]
    assert cache_of(ask(gate, "cached", words, token=ALONE_TOO)) == "miss"
    assert cache_of(ask(gate, "cached", words, token=ALONE)) == "hit"


def test_a_token_that_may_not_use_the_model_gets_no_stored_answer(gate: DataPlane, words: str) -> None:
    assert cache_of(ask(gate, "cached", words)) == "miss"
    refused = ask(gate, "cached", words, token=NARROW)
    assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
    unknown = ask(gate, "cached", words, token="hg_test_unknown")
    assert unknown.status == 401


def test_the_name_that_was_asked_for_is_part_of_the_key(gate: DataPlane, words: str) -> None:
    wish = {"headgate": {"cache": {}}}
    assert [cache_of(ask(gate, name, words, **wish)) for name in ("plain", "cached", FAST)] == ["miss"] * 3


def test_a_hit_counts_as_a_request_and_not_as_tokens(gate: DataPlane, words: str) -> None:
    answers = [ask(gate, "cached", words, token=LIMITED) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [cache_of(answer) for answer in answers[:3]] == ["miss", "hit", "hit"]
    left = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers[:3]]
    wait_until(lambda: left[1] == left[2] > left[0] - 1_000)
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:3]] == ["2", "1", "0"]
    assert answers[3].error["code"] == "rate_limit_exceeded"
    refused = closed_by_id(gate, answers[3].headers["x-request-id"])
    assert (refused.outcome, refused.cache, refused.saved) == ("refused", "hit", -1), "it was given no answer"


def test_a_hit_is_given_where_the_budget_is_spent(gate: DataPlane, words: str) -> None:
    assert cache_of(ask(gate, "cached", words, token=SPENT, max_tokens=30)) == "miss"
    number = 0
    while (answer := ask(gate, "plain", f"{words} {number}", token=SPENT, max_tokens=3000)).status == 200:
        number += 1
    assert answer.error["code"] == "budget_exceeded"
    assert cache_of(ask(gate, "cached", words, token=SPENT, max_tokens=30)) == "hit"


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        ("hollow", True), ("hollow", False), ("outage", True), ("outage", False), ("cut?after=3", True),
        ("content-filter-finish", True), ("content-filter-finish", False), ("bad-json-event", True),
        ("close-without-finish", True), ("403", False),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_sound_is_not_stored(gate: DataPlane, words: str, fault: str, stream: bool) -> None:
    stored = question(gate, "cache")["cache_stored"]
    once = {"retries": 0, "on_midstream_failure": "error", "cache": {}}
    for _ in range(2):
        answer = ask(gate, f"up/fault/{fault}", words, stream=stream, headgate=once)
        assert answer.headers.get("x-headgate-cache") != "hit"
    assert question(gate, "cache")["cache_stored"] == stored


def test_a_continued_stream_is_not_stored(gate: DataPlane, provider: Provider, words: str) -> None:
    model = "up/fault/cut?after=3"
    wish = {"cache": {}, "fallback_models": [FAST]}
    for _ in range(2):
        assert cache_of(ask(gate, model, words, stream=True, headgate=wish)) == "miss"


def test_what_an_earlier_attempt_left_is_not_in_the_stored_answer(gate: DataPlane, words: str) -> None:
    wish = {"cache": {}, "retries": 0, "fallback_models": [FAST]}
    first, second = (ask(gate, "up/fault/outage", words, stream=True, headgate=wish) for _ in range(2))
    assert (cache_of(first), cache_of(second)) == ("miss", "hit")
    assert first.text == second.text == lorem.text(24)
    assert first.headers["x-headgate-fallback-from"] and "x-headgate-fallback-from" not in second.headers


@pytest.mark.parametrize(
    ("model", "fields"),
    [("up/engine", {"n": 2}), ("cached", {"filler": "x" * (1 << 20)}), ("cached", {"conversation": "c"})],
)
def test_a_call_that_cannot_be_cached_passes_the_cache_by(
    gate: DataPlane, words: str, model: str, fields: dict[str, Any]
) -> None:
    for _ in range(2):
        answer = ask(gate, model, words, headgate={"cache": {}}, **fields)
        assert cache_of(answer) == "bypass" and answer.json["headgate"]["cache_hit"] is False
    assert closed_by_id(gate, answer.headers["x-request-id"]).cache == "bypass"


def test_tool_calls_are_given_again(gate: DataPlane, words: str) -> None:
    def answers(stream: bool) -> Answer:
        return ask(gate, "up/fault/parallel-tools", words, stream=stream, headgate={"cache": {}})

    first, hit, whole = answers(True), answers(True), answers(False)
    assert [cache_of(one) for one in (first, hit, whole)] == ["miss", "hit", "hit"]
    assert first.finishes == hit.finishes == ["tool_calls"]
    assert [one["choices"] for one in hit.chunks] == [one["choices"] for one in first.chunks]
    message = whole.json["choices"][0]["message"]
    assert len(message["tool_calls"]) == len(CALLS) and whole.json["choices"][0]["finish_reason"] == "tool_calls"


def test_an_idempotency_key_repeats_a_hit(gate: DataPlane, provider: Provider, words: str) -> None:
    before = counts(gate, provider)
    key = f"Idempotency-Key: {words}"
    assert cache_of(ask(gate, "cached", words, stream=True)) == "miss"
    hit, repeat = (ask(gate, "cached", words, key, stream=True) for _ in range(2))
    assert cache_of(hit) == cache_of(repeat) == "hit" and hit.raw == repeat.raw
    assert repeat.headers["x-headgate-idempotent-replay"] == "true"
    assert counts(gate, provider) == (before[0] + 2, before[1] + 1)


def test_a_hit_can_be_resumed(gate: DataPlane, words: str) -> None:
    assert cache_of(ask(gate, "resumable", words, stream=True)) == "miss"
    hit = ask(gate, "resumable", words, stream=True)
    events = numbered(hit.raw)
    assert cache_of(hit) == "hit" and len(events) > 20
    path = hit.headers["x-headgate-stream-url"] + "&after=5"
    with opened(gate, f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()) as stream:
        assert numbered(stream.rest().raw) == events[5:]


def test_a_stream_is_played_at_its_pace_where_that_is_asked(gate: DataPlane, words: str) -> None:
    def seconds(**fields: object) -> float:
        begun = time.monotonic()
        answer = ask(gate, "paced", words, stream=True, **fields)
        assert answer.text == lorem.text(12)
        return time.monotonic() - begun

    assert seconds() > 0.4  # of the provider: 12 tokens at 20 a second
    assert seconds() > 0.3
    at_once = seconds(headgate={"cache": {"pace": "at_once"}})
    assert at_once < seconds()


def test_a_client_that_leaves_a_played_stream_ends_it(gate: DataPlane, words: str) -> None:
    ask(gate, "paced", words, stream=True)
    data = json.dumps(body("paced", words, stream=True)).encode()
    with opened(gate, post(CHAT, data, token=ACME)) as stream:
        ident = stream.head().headers["x-headgate-stream-id"]
        stream.leave("rst")
    closed = closed_by_id(gate, ident)
    assert (closed.outcome, closed.cost, closed.cache, closed.attempts) == ("cancelled", 0, "hit", ())


def test_identical_calls_at_once_are_all_answered(gate: DataPlane, words: str) -> None:
    found: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(gate, "cached", words, stream=True))) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {answer.text for answer in found} == {lorem.text(24)}
    assert cache_of(ask(gate, "cached", words)) == "hit"


def test_the_official_client_reads_hits(gate: DataPlane, words: str) -> None:
    messages = body("", words)["messages"]
    wish = {"headgate": {"cache": {"ttl_s": 60}}}
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=ACME, max_retries=0, timeout=20) as client:
        create = client.chat.completions.with_raw_response.create
        whole = [create(model=FAST, messages=messages, extra_body=wish) for _ in range(2)]
        assert [one.headers["x-headgate-cache"] for one in whole] == ["miss", "hit"]
        first, second = (one.parse() for one in whole)
        assert first.choices == second.choices and first.usage == second.usage and first.id != second.id
        chunks = list(
            client.chat.completions.create(
                model=FAST, messages=messages, stream=True, stream_options={"include_usage": True}, extra_body=wish
            )
        )
        assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == lorem.text(24)
        assert chunks[-1].usage == second.usage and chunks[-1].model_extra["headgate"]["cache_hit"] is True
        with client.chat.completions.stream(
            model="up/fault/parallel-tools", messages=messages, extra_body=wish
        ) as stream:
            calls = stream.get_final_completion().choices[0].message.tool_calls
        again = client.chat.completions.create(model="up/fault/parallel-tools", messages=messages, extra_body=wish)
        assert [call.function.arguments for call in again.choices[0].message.tool_calls or ()] == [
            call.function.arguments for call in calls or ()
        ]


def test_a_trace_of_a_hit_names_the_cache(gate: DataPlane, words: str) -> None:
    for status in ("miss", "hit"):
        trace = ask(gate, "cached", words, include_route_trace=True).json["route_trace"]
        assert trace["cache"] == status and len(trace["attempts"]) == (status == "miss")


def test_a_changed_chain_is_another_key(provider: Provider, words: str, tmp_path: Path) -> None:
    row = priced(provider)
    with plane(tmp_path / "s", row) as gate:
        assert [cache_of(ask(gate, "cached", words)) for _ in range(2)] == ["miss", "hit"]
        shorter = "up/lorem?rate=0&ttft=0&tokens=5"
        reload(gate, 1, world(row, alias("cached", shorter, cache_enabled=True)))
        changed = ask(gate, "cached", words)
        assert cache_of(changed) == "miss" and text_of(changed, CHAT, False) == lorem.text(5)
        reload(gate, 2, world(row))
        assert cache_of(ask(gate, "cached", words)) == "hit"


def test_control_sees_and_clears_the_cache(provider: Provider, words: str, tmp_path: Path) -> None:
    with plane(tmp_path / "s", priced(provider)) as gate:
        for name in ("cached", "resumable"):
            ask(gate, name, words)
        figures = question(gate, "cache")
        assert (figures["cache_entries"], figures["cache_misses"], figures["cache_hits"]) == (2, 2, 0)
        assert 0 < figures["cache_bytes"] < figures["cache_max_bytes"]
        assert question(gate, "cache_clear", requested="cached") == {"cleared": 1}
        assert cache_of(ask(gate, "resumable", words)) == "hit"
        assert cache_of(ask(gate, "cached", words)) == "miss"
        assert question(gate, "cache_clear") == {"cleared": 2}
        assert question(gate, "cache")["cache_bytes"] == 0


def test_old_answers_make_room_and_large_ones_are_not_stored(provider: Provider, words: str, tmp_path: Path) -> None:
    model = "up/echo"
    with plane(tmp_path / "s", priced(provider), limits=Limits(cache_max=32 << 10)) as gate:
        wish = {"headgate": {"cache": {}}}
        for number in range(60):
            assert cache_of(ask(gate, model, f"{words} {number}", **wish)) == "miss"
        figures = question(gate, "cache")
        assert 0 < figures["cache_entries"] < 60 and figures["cache_bytes"] <= 32 << 10
        assert figures["cache_evicted"] == 60 - figures["cache_entries"]
        assert cache_of(ask(gate, model, f"{words} 59", **wish)) == "hit"
        assert cache_of(ask(gate, model, f"{words} 0", **wish)) == "miss"
        long = " ".join(f"{number:x}{number * 7919:x}" for number in range(1500))
        assert [cache_of(ask(gate, model, long, **wish)) for _ in range(2)] == ["miss", "miss"]


def test_without_memory_there_is_no_cache(provider: Provider, words: str, tmp_path: Path) -> None:
    with plane(tmp_path / "s", upstream(provider.url), limits=Limits(cache_max=0)) as gate:
        assert [cache_of(ask(gate, "cached", words)) for _ in range(2)] == ["bypass", "bypass"]


def test_the_order_of_members_does_not_matter(gate: DataPlane, words: str) -> None:
    first = json.dumps(body("cached", words, temperature=0.5, seed=1)).encode()
    members = list(json.loads(first).items())
    second = json.dumps(dict(reversed(members)), indent=3).encode()
    assert [cache_of(send(gate, data)) for data in (first, second)] == ["miss", "hit"]
    assert cache_of(send(gate, first.replace(b"0.5", b"0.50"))) == "miss"
