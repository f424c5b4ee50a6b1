"""What a reader who meant harm found: one request, or one answer, that took others with it."""

from __future__ import annotations

import json

from headgate.model import Closed
from headgate.wire import records
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import (
    DONE,
    ask,
    chunk_event,
    closed_by_id,
    scripted_in_thread,
    transcript,
    whole_json,
    whole_stream,
)


def test_a_model_name_of_70_kb_is_refused_and_hides_no_record(gate: DataPlane) -> None:
    refused = ask(gate, "up/" + "a" * 70_000)
    assert refused.status == 400 and refused.error["param"] == "model"
    after = ask(gate, "up/echo", stream=False)
    assert isinstance(closed_by_id(gate, after.json["id"]), Closed)


def test_a_record_that_a_reader_would_not_take_is_not_written() -> None:
    try:
        records.encode(Closed("x", 0, "o" * 70_000, 0, "", "", "", 0, 0, 0, 0, "", 0, 0))
    except ValueError as error:
        assert "over the limit" in str(error)
    else:
        raise AssertionError("it would hide everything behind it")


def answer_with(usage: dict[str, object]) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    fields = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return whole_json(json.dumps(fields).encode())


def test_usage_that_no_answer_has_is_not_believed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    figures = [
        {"prompt_tokens": 10**20, "completion_tokens": 1, "total_tokens": 10**20 + 1},
        {"prompt_tokens": -450, "completion_tokens": 451, "total_tokens": 1},
        {"prompt_tokens": 2**63, "completion_tokens": 2**63, "total_tokens": 2**64},
    ]
    for position, usage in enumerate(figures):
        script = [("expect_request",), ("send", answer_with(usage)), ("close",)]
        with (
            scripted_in_thread(script) as scripted,
            DataPlane(tmp_path / f"s{position}", upstream(scripted.url)) as plane,
        ):
            answer = ask(plane, "up/m", stream=False)
            assert answer.status == 200 and answer.json["choices"][0]["message"]["content"] == "hello"
            closed = closed_by_id(plane, answer.json["id"])
            assert closed.outcome == "delivered"
            assert 0 <= closed.prompt_tokens <= 1 << 40 and 0 <= closed.completion_tokens <= 1 << 40


def test_an_error_code_of_odd_digits_ends_the_stream_as_an_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    body = chunk_event({"content": "hello"}) + 'data: {"error":{"message":"x","code":"²²²"}}\n\n'.encode()
    script = [("expect_request",), ("send", whole_stream(body)), ("close",)]
    with scripted_in_thread(script) as scripted, DataPlane(tmp_path / "s", upstream(scripted.url)) as plane:
        answer = ask(plane, "up/m")
        assert DONE not in answer.events and answer.events[-1]["error"]["code"] == "upstream_error"


def test_quoting_upstream_is_retried_and_not_blamed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    complaint = json.dumps({"error": {"message": "Invalid value: 'stream_options'", "type": "invalid_request_error"}})
    refusal = whole_json(complaint.encode(), status=b"400 Bad Request")
    ask_refuse = [("expect_request",), ("send", refusal)]
    script = [*ask_refuse, *ask_refuse, ("expect_request",), ("send", whole_stream(transcript("fine"))), ("close",)]
    with scripted_in_thread(script) as scripted, DataPlane(tmp_path / "s", upstream(scripted.url)) as plane:
        assert ask(plane, "up/m").status == 400
        assert ask(plane, "up/m").text == "fine"
        asked = [b"include_usage" in request.body for request in scripted.requests]
        assert asked == [True, False, True]


def test_what_comes_with_a_later_version_is_refused_not_ignored(gate: DataPlane) -> None:
    for option in ("max_latency_ms", "allow_hosters"):
        refused = ask(gate, "up/echo", stream=False, headgate={option: None})
        assert (refused.status, refused.error["code"]) == (400, "unsupported_option")
        assert refused.error["param"] == f"headgate.{option}"
