"""Which objects under status 200 are errors, which are notices, and which only have a member of such a name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from headgate import errors
from headgate.dialects.openai_chat.errors import complaint, detection
from headgate.wire import codec
from tests.dialects.openai_chat.streams import chunk, events, run


@pytest.mark.parametrize(
    "empty",
    [
        None, False, 0, "", [], {}, [{}], "ok", "Success", {"message": ""}, {"message": "", "type": "", "code": None},
        {"message": "", "type": "", "param": "", "code": None}, {"code": 0, "message": "success"}, {"code": "0"},
        {"code": 200, "message": "OK"}, {"message": None, "code": None, "param": None}, {"msg": " ", "errors": []},
        {"type": None, "message": "", "details": [], "request_id": "r1"}, {"error": {"message": ""}},
    ],
)  # fmt: skip
def test_an_empty_error_beside_an_answer_is_none(empty: Any) -> None:
    assert not detection.says_error(msgspec.Raw(json.dumps(empty, indent=1).encode()))
    answer = codec.as_object(json.dumps({"error": empty, "choices": [{"index": 0}]}).encode())
    assert answer is not None and not detection.is_error(answer)


@pytest.mark.parametrize(
    "error",
    [
        "boom", True, {"message": "boom"}, {"message": "", "code": 500}, {"type": "server_error", "message": ""},
        {"code": "rate_limit_exceeded"}, {"error": {"message": "boom"}}, {"msg": "boom"}, {"what": "boom"}, ["boom"],
        {"status": 503}, {"message": {"text": "boom"}}, [{"message": "boom"}], {"metadata": {"raw": "boom"}},
    ],
)  # fmt: skip
def test_an_error_that_says_something_is_one(error: Any) -> None:
    assert detection.says_error(msgspec.Raw(json.dumps(error).encode()))


def test_no_error_member_is_no_error() -> None:
    assert not detection.says_error(None)


BEDROCK = {
    "throttlingException": errors.RATE_LIMITED,
    "ThrottlingException": errors.RATE_LIMITED,
    "modelStreamErrorException": errors.UPSTREAM_ERROR_EVENT,
    "internalServerException": errors.UPSTREAM_ERROR_EVENT,
    "validationException": errors.UPSTREAM_ERROR_EVENT,
    "serviceUnavailableException": errors.UPSTREAM_OVERLOADED,
    "modelNotReadyException": errors.UPSTREAM_OVERLOADED,
    "modelTimeoutException": errors.UPSTREAM_TIMEOUT,
    "serviceQuotaExceededException": errors.RATE_LIMITED,
    "expiredTokenException": errors.UPSTREAM_AUTH,
}


@pytest.mark.parametrize(
    "body",
    [
        {"Response": {"Error": {"Code": "AuthFailure", "Message": "no"}, "RequestId": "r"}},
        {"Response": {"ErrorMsg": {"Msg": "no", "Code": 4}}},
        {"Note": "n", "ErrorMsg": {"Msg": "no", "Code": 4}, "Choices": None},
        {"fault": {"faultstring": "no"}},
        {"exception": "ValueError: no"},
        {"Error": "no"},
        {"Error": {"Message": "no"}},
        {"code": 11202, "message": "licc limit", "sid": "s"},
        *({name: {"message": "no"}} for name in BEDROCK),
        {"throttlingException": "no"},
        {"ServerFault": {"message": "no"}},
        {"type": "status", "status": "failed", "message": "no"},
        {"type": "status", "message": "The model failed to answer."},
        {"type": "error", "status": "processing", "message": "no"},
        {"type": "done", "message": "no"},
    ],
)  # fmt: skip
def test_other_names_of_an_error(body: dict[str, Any]) -> None:
    top = codec.as_object(json.dumps(body).encode())
    assert top is not None and detection.is_error(top)
    answer = codec.as_object(json.dumps({**body, "choices": [{"index": 0}]}).encode())
    assert answer is not None and not detection.is_error(answer)
    assert complaint.read(json.dumps(body).encode()).message


NOTICES: list[dict[str, Any]] = [
    {"type": "ping"},
    {"type": "status"},
    {"status": "processing"},
    {"event": "keep-alive", "ts": 1},
    {"object": "heartbeat"},
    {"type": "status", "status": "processing", "message": "Thinking..."},
    {"status": "queued", "position": 3, "detail": "3 before you"},
    {"state": "IN_PROGRESS", "progress": 0.5, "msg": "half of it"},
    {"status": "loading", "message": "Model is loading", "estimated_time": 20.0},
    {"type": "info", "text": "x", "model": "m", "id": "1"},
]


@pytest.mark.parametrize(
    "body",
    [
        *NOTICES,
        {"throttlingException": None},
        {"Response": {"Choices": []}},
        {"exception": None},
        {"Error": ""},
        {"fault": {}},
        {"ErrorMsg": {"Msg": ""}},
    ],
)
def test_those_names_without_an_error(body: dict[str, Any]) -> None:
    top = codec.as_object(json.dumps(body).encode())
    assert top is not None and not detection.is_error(top)


GOOD = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"})]


@pytest.mark.parametrize("notice", [*NOTICES, "ping", '"keep-alive"', "null", '""', "PROCESSING"])
def test_a_notice_leaves_no_trace(notice: Any) -> None:
    whole = [*GOOD, chunk({}, "stop"), "[DONE]"]
    plain, stream = run([events(*whole)])
    for at in range(len(whole)):
        out, told = run([events(*whole[:at], notice, notice, *whole[at:])])
        assert (out, told.error, told.skipped, told.events) == (plain, None, 0, stream.events)
    _, stream = run([events(notice)])
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_CUT and stream.events == 0


@pytest.mark.parametrize("name", ["ping", "status", "keep-alive", "heartbeat"])
@pytest.mark.parametrize("data", ["{}", '{"message":"Thinking"}', '{ "time": 1 }'])
def test_a_notice_may_be_the_name_of_its_event(name: str, data: str) -> None:
    out, stream = run([f"event: {name}\ndata: {data}\n\n".encode() + events(*GOOD, chunk({}, "stop"), "[DONE]")])
    assert (out, stream.error) == (run([events(*GOOD, chunk({}, "stop"), "[DONE]")])[0], None)


def test_what_a_notice_has_beside_it_is_kept() -> None:
    out, stream = run([events({"object": "status", "citations": ["x"]}, *GOOD, chunk({}, "stop"), "[DONE]")])
    assert stream.error is None and b'"citations":["x"]' in out
    out, stream = run([b"event: status\n" + events(*GOOD, chunk({}, "stop"), "[DONE]")])
    assert stream.error is None and out == run([events(*GOOD, chunk({}, "stop"), "[DONE]")])[0]


@pytest.mark.parametrize(("name", "kind"), BEDROCK.items())
@pytest.mark.parametrize("begun", [0, 3], ids=["first", "behind text"])
def test_an_exception_in_a_stream_has_its_class_and_its_words(name: str, kind: errors.Kind, begun: int) -> None:
    inner = {"message": "boom", "originalStatusCode": 424, "originalMessage": "x"}
    for body in (
        events({name: inner}),
        events({name: "boom"}),
        events({":exception-type": name, "message": "boom"}),
        f'event: {name}\ndata: {{"message":"boom"}}\n\n'.encode(),
    ):
        out, stream = run([events(*GOOD[:begun]) + body + events("[DONE]")])
        assert stream.error is not None and stream.error.kind is kind, body
        assert ("boom" in stream.error.message or kind is errors.UPSTREAM_AUTH) and b"[DONE]" not in out


def test_an_exception_of_the_context_is_one() -> None:
    _, stream = run([events({"validationException": {"message": "Input is too long for requested model."}})])
    assert stream.error is not None and stream.error.kind is errors.CONTEXT_LENGTH
