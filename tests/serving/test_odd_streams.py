"""Streams that do not keep to their protocol, over sockets: nothing is lost, and what is skipped is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headgate.dialects.openai_chat.stream import delivery
from headgate.testing.provider.scripted import Script
from tests.dataplane import TOKEN, post
from tests.serving.calls import STREAM_HEAD, chunk_event, chunked, document, opened, whole_json
from tests.serving.test_failed_attempts import (
    COMPLAINT,
    DONE,
    FINE,
    HELLO,
    ROLE,
    STOP,
    USED,
    WORLD,
    answered,
    ask,
    broken,
    chain,
    closed,
)

PATH = "/v1/chat/completions"
UNREADABLE = b'data: {"choices":[{"index":0,"delta":{"content":"\\q"}}]}\n\n'
TOOL_RESULT = [{"role": "user", "content": "x"}, {"role": "tool", "content": "5", "tool_call_id": "a"}]


def slowly(*pieces: bytes, gap: float = 0.75) -> Script:
    steps: list[Any] = [("expect_request",), ("send", STREAM_HEAD + chunked(pieces[0]))]
    for piece in pieces[1:]:
        steps += [("wait", gap), ("send", chunked(piece))]
    return [*steps, ("send", b"0\r\n\r\n"), ("expect_close",)]


EARLY = {
    "on every chunk": [chunk_event({"content": text}, "stop") for text in ("a", "b", "c", "d")],
    "on the role": [
        chunk_event({"role": "assistant"}, "stop"),
        *(chunk_event({"content": text}) for text in ("ab", "cd")),
        STOP,
    ],
}


@pytest.mark.parametrize("pieces", EARLY.values(), ids=list(EARLY))
def test_a_finish_reason_before_the_end_ends_nothing(tmp_path: Path, pieces: list[bytes]) -> None:
    """Nor does a pause after it, as long as those are in which an end without ``[DONE]`` would be taken for one."""
    assert 0.75 * len(pieces) > delivery.QUIET_S
    with chain(tmp_path / "s", [slowly(*pieces, DONE)]) as (plane, _):
        ask(plane).check_stream("abcd")
        assert closed(plane).outcome == "delivered"


def test_break_after_early_finish_continues_elsewhere(tmp_path: Path) -> None:
    early = [ROLE, chunk_event({"content": "Hel"}, "stop"), chunk_event({"content": "lo "}, "stop")]
    with chain(tmp_path / "s", [broken(*early)], [answered(ROLE + WORLD + STOP + DONE)]) as (plane, (_, second)):
        ask(plane).check_stream("Hello world")
        assert len(second.requests) == 1


def test_events_that_cannot_be_read_are_told_everywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = ROLE + HELLO + UNREADABLE + UNREADABLE + WORLD + STOP + USED + DONE
    with chain(tmp_path / "s", [answered(odd)]) as (plane, _):
        answer = ask(plane, stream_options={"include_usage": True}, include_route_trace=True)
        record = closed(plane)
    assert answer.text == "Hello world" and answer.raw.endswith(DONE)
    assert [one["skipped_events"] for one in answer.chunks[-1]["route_trace"]["attempts"]] == [2]
    assert (record.outcome, record.code) == ("delivered", "events_skipped")
    assert [(one.code, one.skipped) for one in record.attempts] == [("", 2)]
    assert "2 event(s) of p0/m could not be read" in capfd.readouterr().err


def test_a_stream_that_is_read_for_a_whole_answer_tells_them_too(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [answered(ROLE + HELLO + UNREADABLE + WORLD + STOP + DONE)]) as (plane, _):
        assert ask(plane, stream=False).json["choices"][0]["message"]["content"] == "Hello world"
        assert closed(plane).code == "events_skipped"


def test_skipped_events_of_an_attempt_that_failed_are_its_own(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [answered(UNREADABLE + COMPLAINT)], [answered(FINE)]) as (plane, _):
        ask(plane).check_stream("world")
        record = closed(plane)
    assert [(one.code != "", one.skipped) for one in record.attempts] == [(True, 1), (False, 0)]
    assert (record.outcome, record.code) == ("delivered", "")


def test_unseen_torn_call_goes_to_another_target(tmp_path: Path) -> None:
    torn = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"fun\n\n' + chunk_event({}, "tool_calls")
    with chain(tmp_path / "s", [answered(ROLE + torn + DONE)], [answered(FINE)]) as (plane, (_, second)):
        ask(plane).check_stream("world")
        assert len(second.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_behind_a_tools_result_is_an_answer(tmp_path: Path, stream: bool) -> None:
    first = answered(ROLE + STOP + USED + DONE) if stream else [("expect_request",), ("send", whole_json(document("")))]
    with chain(tmp_path / "s", [first], [answered(FINE)]) as (plane, (_, second)):
        answer = ask(plane, stream, messages=TOOL_RESULT)
        if stream:
            answer.check_stream("")
        else:
            assert answer.json["choices"][0]["message"]["content"] == ""
        assert closed(plane).outcome == "delivered" and not second.requests


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("targets", [1, 2])
def test_nothing_at_all_is_not_to_be_asked_for_again(tmp_path: Path, stream: bool, targets: int) -> None:
    nothing = answered(ROLE + STOP + DONE) if stream else [("expect_request",), ("send", whole_json(document("")))]
    with chain(tmp_path / "s", *[[nothing]] * targets) as (plane, _):
        answer = ask(plane, stream)
        assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
        assert closed(plane).outcome == "hollow"


@pytest.mark.parametrize(("stream", "finish"), [(True, None), (False, None), (True, "timeout"), (False, "error")])
def test_a_failure_inside_a_choice_is_another_targets_turn(tmp_path: Path, stream: bool, finish: str | None) -> None:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish or "stop"}
    if finish is None:
        choice["error"] = {"code": 502, "message": "Network connection lost."}
    if stream:
        first = answered(
            ROLE + b"data: " + json.dumps({"choices": [{**choice, "delta": {}}]}).encode() + b"\n\n" + DONE
        )
    else:
        body = {"choices": [{**choice, "message": {"role": "assistant", "content": "Hal"}}]}
        first = [("expect_request",), ("send", whole_json(json.dumps(body).encode()))]
    second = answered(FINE) if stream else [("expect_request",), ("send", whole_json(document("world")))]
    with chain(tmp_path / "s", [first], [second]) as (plane, _):
        answer = ask(plane, stream)
        assert (answer.text if stream else answer.json["choices"][0]["message"]["content"]) == "world"
        assert [one.code != "" for one in closed(plane).attempts] == [True, False]


@pytest.mark.parametrize("half", ["\\ud83d", "\\uDe00\\ud83d"])
def test_half_a_character_in_a_request_is_named(tmp_path: Path, half: str) -> None:
    body = b'{"model":"chain","messages":[{"role":"user","content":"x%b"}]}' % half.encode()
    with (
        chain(tmp_path / "s", [answered(FINE)]) as (plane, (upstream,)),
        opened(plane, post(PATH, body, token=TOKEN)) as one,
    ):
        answer = one.rest()
        assert (answer.status, answer.error["code"]) == (400, "invalid_json")
        assert half[:6] in answer.error["message"] and "surrogate pair" in answer.error["message"]
        assert not upstream.requests
