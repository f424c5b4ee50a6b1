"""What a call with failed attempts leaves behind: on its connection, in its receipt, and in its client's stream."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headgate.errors import UPSTREAM_CUT, GatewayError
from headgate.model import (
    Alias,
    AttemptRecord,
    Closed,
    Grant,
    Limits,
    ModelRow,
    Opened,
    Price,
    Provider,
    Snapshot,
    TargetRef,
)
from headgate.policy.auth import digest
from headgate.ports import StreamBridge, Upstream
from headgate.serving.call.receipt import Receipt
from headgate.serving.call.relay import Relay
from headgate.serving.client.egress import Egress
from headgate.serving.loop.wheel import Wheel
from headgate.testing.provider.scripted import Script, ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane, post
from tests.serving.calls import (
    PATH,
    STREAM_HEAD,
    Answer,
    chunk_event,
    chunked,
    document,
    last_closed,
    opened,
    scripted_in_thread,
    transcript,
    whole_json,
    whole_stream,
)
from tests.waiting import wait_until

PRICE = Price(1_000_000_000, 2_000_000_000)  # 1,000 nano-USD a token of the prompt, 2,000 one of the answer
KEY = b"k" * 32
ROLE = chunk_event({"role": "assistant", "content": ""})
HELLO = chunk_event({"content": "Hello "})
WORLD = chunk_event({"content": "world"})
STOP = chunk_event({}, "stop")
USED = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}}\n\n'
FINE = transcript("world")
USAGE = (
    b'data: {"id":"u","object":"chat.completion.chunk","created":1,"model":"m-up","choices":[],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def refused(status: bytes, said: str = "no", *fields: bytes) -> Script:
    body = json.dumps({"error": {"message": said}}).encode()
    return [("expect_request",), ("send", whole_json(body, b"connection: close", *fields, status=status))]


def answered(data: bytes) -> Script:
    return [("expect_request",), ("send", whole_stream(data)), ("expect_close",)]


def broken(*events: bytes) -> Script:
    return [("expect_request",), ("send", STREAM_HEAD + b"".join(map(chunked, events))), ("wait", 0.03), ("reset",)]


def hanging(*events: bytes) -> Script:
    return [("expect_request",), ("send", STREAM_HEAD + b"".join(map(chunked, events))), ("expect_close",)]


@contextlib.contextmanager
def chain(
    state: Path, *upstreams: list[Script], prefill: str = "trailing", keep_alive: float = 10.0, **alias: Any
) -> Iterator[tuple[DataPlane, list[ScriptedUpstream]]]:
    """An alias ``chain`` over providers p0, p1, …, each of which plays its scripts, one for each connection."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(scripted_in_thread(*scripts)) for scripts in upstreams]
        row = ModelRow("m", price=PRICE, prefill=prefill, prefill_trims="no")  # scripts answer no probes
        providers = {
            f"p{i}": Provider(f"p{i}", one.url, auth="none", models={"m": row}) for i, one in enumerate(running)
        }
        alias = {"targets": tuple(TargetRef(f"{name}/m") for name in providers), **alias}
        world = Snapshot(
            tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test")},
            providers=providers,
            aliases={"chain": Alias("chain", **alias)},
        )
        state.mkdir(exist_ok=True)
        (state / "instance.key").write_bytes(KEY)
        yield stack.enter_context(DataPlane(state, snapshot=world, limits=Limits(keep_alive=keep_alive))), running


def request(stream: bool = True, **more: Any) -> bytes:
    messages = [{"role": "user", "content": "Hello, who are you?"}]
    return post(PATH, json.dumps({"model": "chain", "messages": messages, "stream": stream, **more}).encode())


def ask(plane: DataPlane, stream: bool = True, **more: Any) -> Answer:
    with opened(plane, request(stream, **more)) as one:
        return one.rest()


def closed(plane: DataPlane) -> Closed:
    """The receipt of the only call."""
    plane.wait_for(Closed)
    assert [type(record) for record in plane.records() if isinstance(record, Opened | Closed)] == [Opened, Closed]
    return last_closed(plane)


def used(attempt: AttemptRecord) -> tuple[str, str, int, int, int]:
    return attempt.code, attempt.why, attempt.prompt_tokens, attempt.completion_tokens, attempt.cost


# ------------------------------------------------------------------------------------- the connection


@pytest.mark.parametrize(
    ("scripts", "alias"),
    [
        ([[refused(b"400 Bad Request")]], {"early_commit_s": 0.2}),
        ([[broken(ROLE, HELLO)], [[("expect_request",), ("send", whole_json(document("world")))]]], {}),
    ],
    ids=["refused before early_commit_s", "a whole answer continued the stream"],
)
def test_nothing_follows_an_answer(tmp_path: Path, scripts: list[list[Script]], alias: dict[str, Any]) -> None:
    """Neither the head that was due nor a comment is written into a response that has ended."""
    with chain(tmp_path / "s", *scripts, keep_alive=0.2, **alias) as (plane, _), opened(plane, request()) as stream:
        answer = stream.rest()
        assert answer.ended and not stream.buffer
        stream.sock.settimeout(0.8)
        with pytest.raises(TimeoutError):
            stream.sock.recv(1)


def test_head_is_sent_early_while_the_first_attempt_has_to_wait(tmp_path: Path) -> None:
    """The only target has named the time when it may be asked again."""
    scripts = [refused(b"429 Slow", "slow", b"retry-after: 2"), answered(FINE)]
    with chain(tmp_path / "s", scripts, early_commit_s=0.2) as (plane, (only,)):
        assert ask(plane, headgate={"retries": 0}).status == 429
        with opened(plane, request()) as stream:
            assert stream.head().status == 200 and len(only.requests) == 1
            stream.rest().check_stream("world")
        plane.wait_for(Closed, 2)
        assert last_closed(plane).outcome == "delivered"


# ------------------------------------------------------------------------------------- what it cost


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_of_which_nothing_came_costs_nothing(tmp_path: Path, stream: bool) -> None:
    with chain(tmp_path / "s", [refused(b"503 Busy")], [refused(b"503 Busy")], retries=0) as (plane, _):
        assert ask(plane, stream).status == 503
        record = closed(plane)
    assert (record.outcome, record.prompt_tokens, record.completion_tokens, record.cost) == ("failed", 0, 0, 0)
    assert [used(one)[2:] for one in record.attempts] == [(0, 0, -1)] * 2


def test_leaving_during_a_pause_costs_nothing(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [refused(b"429 Slow", "slow", b"retry-after: 2")]) as (plane, (only,)):
        with opened(plane, request()) as stream:
            wait_until(lambda: only.requests)
            time.sleep(0.2)
            stream.leave()
        record = closed(plane)
        time.sleep(2.4)
        assert len(only.requests) == 1
    assert (record.outcome, record.status, record.prompt_tokens, record.cost) == ("cancelled", 499, 0, 0)


def test_an_attempt_has_used_what_it_has_used_itself(tmp_path: Path) -> None:
    """Not what the one before it has; and one that said nothing has used nothing that anybody knows of."""
    scripts = [broken(ROLE)], [answered(ROLE + STOP + USAGE + DONE)], [refused(b"503 Busy")], [answered(FINE)]
    with chain(tmp_path / "s", *([one] for (one,) in scripts)) as (plane, _):
        assert ask(plane).text == "world"
        attempts = [used(one)[::2] for one in closed(plane).attempts]
    silent, hollow, busy, fine = attempts
    assert silent == ("upstream_cut", 0, -1) and hollow == ("upstream_hollow_answer", 7, 11000)
    assert busy == ("upstream_overloaded", 0, -1) and fine[2] > 0


def test_a_hollow_whole_answer_is_itemised(tmp_path: Path) -> None:
    nothing = document("").replace(b'"completion_tokens": 1', b'"completion_tokens": 0')
    hollow = whole_json(nothing.replace(b'"total_tokens": 4', b'"total_tokens": 3'))
    scripts: list[Script] = [[("expect_request",), ("send", hollow)]]
    with chain(tmp_path / "s", scripts, [[("expect_request",), ("send", whole_json(document("hi")))]]) as (plane, _):
        assert ask(plane, stream=False).status == 200
        record = closed(plane)
    assert [used(one) for one in record.attempts] == [
        ("upstream_hollow_answer", "first", 3, 0, 3000), ("", "fallback", 3, 1, 5000),
    ]  # fmt: skip
    assert record.cost == 5000


def test_a_cancelled_continuation_has_used_its_prefill_too(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [broken(ROLE, HELLO)], [hanging(WORLD)]) as (plane, (_, second)):
        with opened(plane, request()) as stream:
            stream.until(b"world")
            stream.leave()
        wait_until(lambda: second.closed_at)
        record = closed(plane)
    first, other = record.attempts
    assert (record.outcome, other.code, other.why) == ("cancelled", "client_closed_request", "continue")
    assert other.prompt_tokens == first.prompt_tokens + first.completion_tokens and other.completion_tokens > 0


# ------------------------------------------------------------------------------------- how a stream goes on


COMPLAINT = b'data: {"error":{"message":"gone"}}\n\n'


def test_an_error_behind_the_finish_reason_takes_nothing_away(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [answered(ROLE + HELLO + STOP + COMPLAINT)], [answered(FINE)]) as (plane, (_, second)):
        ask(plane).check_stream("Hello ")
        assert closed(plane).outcome == "delivered" and not second.requests


THOUGHT = HELLO.replace(b'"content"', b'"reasoning_content"')
THOUGHT_ONLY = document("").replace(b'"content": ""', b'"content": null, "reasoning_content": "hm"')
ONLY_THOUGHTS = {
    "then its finish": (ROLE + THOUGHT + STOP + USED + DONE, "upstream_hollow_answer"),
    "with its finish": (
        ROLE + THOUGHT + chunk_event({"reasoning_content": "!"}, "stop") + USED,
        "upstream_hollow_answer",
    ),
    "without a finish": (ROLE + THOUGHT + USED + DONE, "upstream_hollow_answer"),
    "as tool calls": (ROLE + THOUGHT + chunk_event({}, "tool_calls") + USED + DONE, "upstream_hollow_answer"),
    "then its finish and an error": (ROLE + THOUGHT + STOP + COMPLAINT, "upstream_error"),
}


@pytest.mark.parametrize(("thoughts", "code"), ONLY_THOUGHTS.values(), ids=list(ONLY_THOUGHTS))
def test_nothing_but_reasoning_is_no_answer(tmp_path: Path, thoughts: bytes, code: str) -> None:
    with chain(tmp_path / "s", [answered(thoughts)], [answered(ROLE + THOUGHT + FINE)]) as (plane, _):
        answer = ask(plane)
        answer.check_stream("world")
        assert answer.raw.count(b"reasoning_content") == thoughts.count(
            b"reasoning_content"
        )  # never two chains of thought
        receipt = closed(plane)
    assert receipt.outcome == "delivered"
    failed, fine = receipt.attempts
    assert (failed.code, failed.why, fine.code, fine.why) == (code, "first", "", "restart")
    if USED in thoughts:  # it has come behind the end, and is billed
        assert (failed.prompt_tokens, failed.completion_tokens, failed.cost) == (7, 9, 7_000 + 18_000)


def test_reasoning_and_its_end_at_once_shows_nothing(tmp_path: Path) -> None:
    """As a whole answer to a stream does, too: the fallback is then an ordinary one."""
    at_once = chunk_event({"role": "assistant", "reasoning_content": "hm"}, "stop") + USED + DONE
    for first in (answered(at_once), [("expect_request",), ("send", whole_json(THOUGHT_ONLY)), ("expect_close",)]):
        state = tmp_path / str(len(list(tmp_path.iterdir())))
        with chain(state, [first], [answered(FINE)]) as (plane, _):
            answer = ask(plane)
            answer.check_stream("world")
            assert "x-headgate-fallback-from" in answer.headers and b"reasoning_content" not in answer.raw
            assert [one.why for one in closed(plane).attempts] == ["first", "fallback"]
        with chain(tmp_path / f"{state.name}-alone", [first]) as (plane, _):
            assert ask(plane).status == 502 and closed(plane).outcome == "hollow"


def test_nothing_but_reasoning_twice_is_told(tmp_path: Path) -> None:
    twice = [answered(thoughts) for thoughts, _ in list(ONLY_THOUGHTS.values())[:2]]
    with chain(tmp_path / "s", [twice[0]], [twice[1]]) as (plane, _):
        ask(plane).check_truncated("upstream_hollow_answer")
        receipt = closed(plane)
    assert (receipt.outcome, receipt.status, len(receipt.attempts)) == ("hollow", 200, 2)


def test_reasoning_up_to_the_limit_is_an_answer(tmp_path: Path) -> None:
    """It says itself why there is no text: more of the same request would not help."""
    cut = ROLE + THOUGHT + chunk_event({}, "length") + b"data: [DONE]\n\n"
    with chain(tmp_path / "s", [answered(cut)], [answered(FINE)]) as (plane, (_, second)):
        answer = ask(plane)
        assert answer.raw.endswith(b"data: [DONE]\n\n") and b'"length"' in answer.raw
        assert closed(plane).outcome == "delivered" and not second.requests


def test_one_choice_of_two_may_be_nothing_but_reasoning(tmp_path: Path) -> None:
    other = chunk_event({"content": "x"}).replace(b'"index":0', b'"index":1').replace(b'"index": 0', b'"index": 1')
    ended = STOP.replace(b'"index":0', b'"index":1').replace(b'"index": 0', b'"index": 1')
    both = ROLE + THOUGHT + STOP + other + ended + b"data: [DONE]\n\n"
    with chain(tmp_path / "s", [answered(both)], [answered(FINE)]) as (plane, (_, second)):
        answer = ask(plane, n=2)
        assert answer.raw.endswith(b"data: [DONE]\n\n") and answer.raw.count(b'"stop"') == 2
        assert closed(plane).outcome == "delivered" and not second.requests


def test_a_target_may_refuse_our_field_and_then_the_prefill(tmp_path: Path) -> None:
    second = [refused(b"400 Bad", "unknown field stream_options"), refused(b"400 Bad"), answered(transcript("Hello w"))]
    with chain(tmp_path / "s", [broken(ROLE, HELLO)], second) as (plane, _):
        ask(plane).check_stream("Hello w")
        whys = [one.why for one in closed(plane).attempts]
    assert whys == ["first", "continue", "continue", "restart"]


def test_midstream_error_on_our_field_restarts_nothing(tmp_path: Path) -> None:
    complaint = b'data: {"error":{"code":400,"message":"stream_options"}}\n\n'
    with chain(tmp_path / "s", [answered(ROLE + HELLO + complaint)], [answered(FINE)]) as (plane, _):
        answer = ask(plane)
    answer.check_truncated("upstream_rejected_request")
    assert answer.text == "Hello "


@pytest.mark.parametrize("prefill", ["trailing", "none"])
@pytest.mark.parametrize("said", [(), ("Hel",)], ids=["nothing", "less"])
def test_less_than_the_client_has_is_no_answer(tmp_path: Path, prefill: str, said: tuple[str, ...]) -> None:
    """``[DONE]`` without a finish reason ends a stream that has said something; not one that has yet to say what is
    there already.
    """
    short = b"".join((ROLE, *(chunk_event({"content": one}) for one in said), DONE))
    second = [("expect_request",), ("send", whole_stream(short, b"connection: close")), ("close",)]
    with chain(tmp_path / "s", [broken(ROLE, HELLO)], [second], prefill=prefill) as (plane, _):
        answer = ask(plane)
    answer.check_truncated("upstream_cut")
    assert answer.text == "Hello "


def test_bug_after_a_broken_connection_ends_the_call() -> None:
    """Nobody else would: the deadline has passed and the connection is gone."""

    def close() -> bytes:
        raise RuntimeError("a bug")

    bridge = SimpleNamespace(close=close, error=None)
    relay = Relay(
        cast(Egress, None), cast(Receipt, SimpleNamespace(client_id="x", holding=None)), cast(Wheel, None), 10.0, b""
    )
    pump = relay.begin(cast(Upstream, SimpleNamespace(patience=None)), cast(StreamBridge, bridge))
    pump.failed(GatewayError(UPSTREAM_CUT, "cut"))
    assert pump.done.done and bridge.error.kind.code == "internal_error"
