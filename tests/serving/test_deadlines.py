"""Each deadline of an attempt on its own, keep-alive comments, and what does and does not count as progress."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.model import Closed, ConnectionLimits, Grant, Limits
from headgate.model import Provider as Row
from headgate.testing import Provider, Script
from headgate.testing.provider import lorem
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import (
    STREAM_HEAD,
    Answer,
    ask,
    chunk_event,
    chunked,
    opened,
    request,
    scripted_in_thread,
    timeouts,
)
from tests.waiting import wait_until

SLACK = 10.0  # no deadline ends early; which one has ended a call is told by its error, not by its time


def plane_with(state: Path, row: Row, keep_alive: float = 10.0, **seconds: float) -> DataPlane:
    state.mkdir(exist_ok=True)
    key = state / "instance.key"
    key.write_bytes(b"k" * 32)
    world = timeouts(key.read_bytes(), {row.name: row}, Grant("t0", "test"), **seconds)
    return DataPlane(state, limits=Limits(keep_alive=keep_alive), snapshot=world)


@pytest.fixture
def quick(provider: Provider, tmp_path: Path) -> Iterator[DataPlane]:
    """Deadlines far apart, so that each can be told by its time."""
    with plane_with(
        tmp_path / "s", upstream(provider.url), connect=0.3, headers=0.6, first_token=1.2, stall=0.9, total=3.0
    ) as plane:
        yield plane


def timed(plane: DataPlane, model: str, **fields: object) -> tuple[Answer, float]:
    begun = time.monotonic()
    answer = ask(plane, model, **fields)
    return answer, time.monotonic() - begun


def check_504(answer: Answer, phase: str) -> None:
    assert answer.status == 504 and answer.error["code"] == "upstream_timeout"
    assert phase in answer.error["message"]


def test_headers(quick: DataPlane) -> None:
    answer, took = timed(quick, "up/fault/accept-silence")
    check_504(answer, "response head")
    assert 0.55 < took < 0.6 + SLACK
    answer, took = timed(quick, "up/fault/mid-header-stall")
    check_504(answer, "response head")
    assert 0.55 < took < 0.6 + SLACK, "half a head is no head"


def test_first_token_timeout_counts_from_the_head(quick: DataPlane) -> None:
    answer, took = timed(quick, "up/fault/late-first-token")
    check_504(answer, "first token")
    assert 1.15 < took < 1.2 + SLACK


def test_stall_in_mid_stream_is_an_error_event(quick: DataPlane) -> None:
    answer, took = timed(quick, "up/fault/stall?after=20")
    error = answer.check_truncated("upstream_timeout")
    assert "next token" in error["message"] and answer.text == lorem.text(20)
    assert 0.85 < took < 0.9 + SLACK
    record = quick.wait_for(Closed)[0]
    assert isinstance(record, Closed)
    assert (record.outcome, record.code, record.basis) == ("truncated", "upstream_timeout", "estimated")
    assert 20 <= record.completion_tokens <= 40


def test_a_stall_deadline_that_is_shorter_than_the_first_token_s(provider: Provider, tmp_path: Path) -> None:
    with plane_with(tmp_path / "s", upstream(provider.url), first_token=30, stall=0.5) as plane:
        answer, took = timed(plane, "up/fault/stall?after=1")
        answer.check_truncated("upstream_timeout")
        assert 0.45 < took < 0.5 + SLACK


def test_heartbeats_are_no_progress(quick: DataPlane) -> None:
    answer, took = timed(quick, "up/fault/heartbeats-only?every=0.1")
    check_504(answer, "first token")
    assert took < 1.2 + SLACK
    answer, took = timed(quick, "up/fault/heartbeats-only?every=0.1&after=5")
    answer.check_truncated("upstream_timeout")
    assert 0.85 < took < 0.9 + SLACK and answer.text == lorem.text(5)


def test_total_bounds_a_stream_that_flows(quick: DataPlane) -> None:
    answer, took = timed(quick, "up/lorem?rate=10&ttft=0&tokens=500")
    error = answer.check_truncated("upstream_timeout")
    assert "whole answer" in error["message"] and 2.95 < took < 3.0 + SLACK
    assert answer.text == lorem.text(len(answer.text.split()))


def test_total_is_all_that_a_whole_answer_has(quick: DataPlane) -> None:
    answer, took = timed(quick, "up/lorem?rate=0&ttft=2", stream=False)  # longer than headers, first token and stall
    assert answer.status == 200 and took > 2
    answer, took = timed(quick, "up/fault/accept-silence", stream=False)
    check_504(answer, "whole answer")
    assert 2.95 < took < 3.0 + SLACK


@pytest.mark.parametrize("stream", [True, False])
def test_timeout_ms_bounds_the_whole_call(gate: DataPlane, stream: bool) -> None:
    answer, took = timed(gate, "up/fault/accept-silence", stream=stream, headgate={"timeout_ms": 400})
    check_504(answer, "")
    assert 0.38 < took < 0.4 + SLACK


def test_timeout_ms_bounds_a_running_stream(gate: DataPlane) -> None:
    answer, took = timed(gate, "up/lorem?rate=20&ttft=0&tokens=500", headgate={"timeout_ms": 600})
    answer.check_truncated("upstream_timeout")
    assert 0.58 < took < 0.6 + SLACK


def test_timeout_ms_bounds_the_wait_for_a_connection(provider: Provider, tmp_path: Path) -> None:
    row = upstream(provider.url, pool=ConnectionLimits(max_connections=1, wait_s=20))
    with DataPlane(tmp_path / "s", row) as plane, opened(plane, request("up/lorem?rate=20&ttft=0&tokens=500")) as busy:
        busy.head()
        answer, took = timed(plane, "up/echo", headgate={"timeout_ms": 300})
        assert answer.status in (503, 504) and took < 0.3 + SLACK


@pytest.mark.parametrize(("fields", "seconds"), [({}, 1.0), ({"headgate": {"timeout_ms": 250}}, 0.25)])
def test_connect_includes_the_handshake_and_is_bounded(
    tmp_path: Path, fields: dict[str, object], seconds: float
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        row = upstream(f"https://127.0.0.1:{deaf.getsockname()[1]}/v1")
        with plane_with(tmp_path / "s", row, connect=1.0) as plane:
            answer, took = timed(plane, "up/m", **fields)
            assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
            assert "connection" in answer.error["message"] and seconds - 0.05 < took < seconds + SLACK


def test_keep_alive_comments_fill_the_silence_and_reset_nothing(provider: Provider, tmp_path: Path) -> None:
    with plane_with(tmp_path / "s", upstream(provider.url), keep_alive=0.2, stall=1.5, first_token=1.0) as plane:
        answer, took = timed(plane, "up/fault/stall?after=3")
        answer.check_truncated("upstream_timeout")
        assert 1.45 < took < 1.5 + SLACK
        assert 2 <= answer.raw.count(b": keep-alive\n\n") <= 8
        answer, took = timed(plane, "up/fault/late-first-token")
        check_504(answer, "first token")  # before the head there is nothing to write a comment into
        flowing = ask(plane, "up/lorem?rate=50&ttft=0&tokens=40")
        assert b": keep-alive" not in flowing.raw, "a stream that flows needs none"


def test_comments_keep_a_stream_alive(provider: Provider, tmp_path: Path) -> None:
    """Events each 0.3 s with a stall of 1.2: progress is what counts, and it is counted."""
    with plane_with(tmp_path / "s", upstream(provider.url), stall=1.2, first_token=1.2) as plane:
        ask(plane, "up/lorem?rate=3.3&ttft=0&tokens=6").check_stream(lorem.text(6))


def test_a_client_that_does_not_read_is_no_stall_of_the_upstream(provider: Provider, tmp_path: Path) -> None:
    data = request("up/lorem?rate=0&ttft=0&tokens=60000")
    with (
        plane_with(tmp_path / "s", upstream(provider.url), stall=0.4) as plane,
        opened(plane, data, timeout=30) as stream,
    ):
        time.sleep(1.5)
        stream.rest().check_stream(lorem.text(60_000))


def test_a_deadline_closes_the_upstream_at_once(tmp_path: Path) -> None:
    beginning = STREAM_HEAD + chunked(chunk_event({"content": "x"}))
    script: Script = [("expect_request",), ("send", beginning), ("expect_close",)]
    with scripted_in_thread(script) as up, plane_with(tmp_path / "s", upstream(up.url), stall=0.3) as plane:
        answer, _ = timed(plane, "up/m")
        answer.check_truncated("upstream_timeout")
        wait_until(lambda: up.closed_at)
