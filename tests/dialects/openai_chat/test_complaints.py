"""Which objects under status 200 are errors, and which only have a member of that name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from headgate.dialects.openai_chat.errors import complaint
from headgate.wire import codec


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
    assert not complaint.says_error(msgspec.Raw(json.dumps(empty, indent=1).encode()))
    answer = codec.as_object(json.dumps({"error": empty, "choices": [{"index": 0}]}).encode())
    assert answer is not None and not complaint.is_error(answer)


@pytest.mark.parametrize(
    "error",
    [
        "boom", True, {"message": "boom"}, {"message": "", "code": 500}, {"type": "server_error", "message": ""},
        {"code": "rate_limit_exceeded"}, {"error": {"message": "boom"}}, {"msg": "boom"}, {"what": "boom"}, ["boom"],
        {"status": 503}, {"message": {"text": "boom"}}, [{"message": "boom"}], {"metadata": {"raw": "boom"}},
    ],
)  # fmt: skip
def test_an_error_that_says_something_is_one(error: Any) -> None:
    assert complaint.says_error(msgspec.Raw(json.dumps(error).encode()))


def test_no_error_member_is_no_error() -> None:
    assert not complaint.says_error(None)


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
    ],
)  # fmt: skip
def test_other_names_of_an_error(body: dict[str, Any]) -> None:
    top = codec.as_object(json.dumps(body).encode())
    assert top is not None and complaint.is_error(top)
    answer = codec.as_object(json.dumps({**body, "choices": [{"index": 0}]}).encode())
    assert answer is not None and not complaint.is_error(answer)
    assert complaint.read(json.dumps(body).encode()).message


@pytest.mark.parametrize(
    "body",
    [{"Response": {"Choices": []}}, {"exception": None}, {"Error": ""}, {"fault": {}}, {"ErrorMsg": {"Msg": ""}}],
)
def test_those_names_without_an_error(body: dict[str, Any]) -> None:
    top = codec.as_object(json.dumps(body).encode())
    assert top is not None and not complaint.is_error(top)
