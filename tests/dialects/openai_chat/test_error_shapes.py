"""The shapes of foreign errors: the message, the field at fault and the refusal of a field of ours in each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate import errors
from headgate.dialects.openai_chat import failure
from headgate.dialects.openai_chat.dialect import BACKEND
from headgate.dialects.openai_chat.errors.failures import stream_failure
from headgate.errors import GatewayError
from headgate.policy.health.targets import blames_our_field

REFUSED = errors.UPSTREAM_REFUSED


def raw(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def fail(status: int, body: Any) -> GatewayError:
    return failure(status, {}, raw(body), provider="up")


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


PLAIN = "temperature must be below 2"


@pytest.mark.parametrize(
    "body",
    [
        said(PLAIN),
        [said(PLAIN)],
        {"error": PLAIN},
        {"error": [PLAIN]},
        {"error": json.dumps(said(PLAIN))},
        {"error": {"message": json.dumps({"error": {"message": PLAIN}})}},
        {"error": {"message": "400 Bad Request: " + json.dumps({"error": {"message": PLAIN}})}},
        {"error": {"error": {"message": PLAIN}}},
        {"errors": [{"message": PLAIN}]},
        {"errors": [PLAIN]},
        {"errors": PLAIN},
        {"message": PLAIN},
        {"message": {"message": PLAIN}},
        {"msg": PLAIN},
        {"error_msg": PLAIN, "error_code": 336003},
        {"error_message": PLAIN},
        {"errorMessage": PLAIN},
        {"Message": PLAIN},
        {"detail": PLAIN},
        {"detail": [{"msg": PLAIN}]},
        {"detail": {"error": {"message": PLAIN}}},
        {"detail": json.dumps([{"msg": PLAIN}])},
        {"base_resp": {"status_code": 2013, "status_msg": PLAIN}},
        {"header": {"code": 10163, "message": PLAIN, "sid": "x"}},
        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x", "message": PLAIN}}},
        {"Response": {"Error": {"Code": "InvalidParameterValue", "Message": PLAIN}, "RequestId": "1"}},
        {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": PLAIN},
        {"statusCode": 400, "error": "Bad Request", "message": PLAIN},
        {"error": "invalid_request", "error_description": PLAIN},
        {"fault": {"faultstring": PLAIN, "detail": {"errorcode": "x"}}},
        {"success": False, "errors": [{"code": 7003, "message": PLAIN}], "result": None, "messages": []},
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(said(PLAIN))}}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": said(PLAIN)}}},
        {"code": 400, "data": {"message": PLAIN}},
        b'data: {"error":{"message":"' + PLAIN.encode() + b'"}}\n\ndata: [DONE]\n\n',
        b'event:error\ndata:{"code":"InvalidParameter","message":"' + PLAIN.encode() + b'"}\n\n',
        b'id: 1\nevent: error\n:HTTP_STATUS/400\ndata: {"message":"' + PLAIN.encode() + b'"}',
        b"\xef\xbb\xbf" + raw(said(PLAIN)),
        raw(said(PLAIN)) + b"\n" + raw(said("more")),
        b"<?xml version='1.0'?><Error><Code>X</Code><Message>" + PLAIN.encode() + b"</Message></Error>",
        b"  " + PLAIN.encode() + b"\n",
        raw(PLAIN),
        {"error": {"message": str(said(PLAIN, code=None))}},
        {"detail": f"Error code: 400 - {said(PLAIN, code=None, param='n')}"},
        {"detail": f"Error code: 400 - {[said(PLAIN, code=None)]}"},
        {"detail": "Error code: 400 - " + json.dumps(said(PLAIN))},
        {"message": str([{"type": "x", "msg": PLAIN, "input": ("a", {"b": None})}])},
        {"message": f"[{{'type': 'x', 'loc': (), 'msg': '{PLAIN}', 'ctx': {{'error': ValueError('no')}}}}]"},
        str(said(PLAIN, ok=True)).encode(),
    ],
)  # fmt: skip
def test_one_message_in_every_shape(body: Any) -> None:
    error = fail(400, body)
    assert error.message == PLAIN and error.kind is REFUSED
    streamed = stream_failure(raw(body), provider="up")
    assert streamed.message.removeprefix("up: ") == PLAIN


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xab\x56\x4a", bytes(range(256)), b"\x00" * 40,
        b"{", b"[]", b"{}",
        b'{"error":{}}', b'{"error":null}', b'{"truncated": "at', b"<html><body>secret</body></html>", b"data: \n\n",
        b'{"error":{"message":"{\\"half\\": "}}', b'{"message": 7}', "ÿþe\u0000r\u0000r\u0000".encode("utf-16"),
        b'{"error":{"message":"<html><body>internal</body></html>"}}', b'[[[[[[[[[["deep"]]]]]]]]]]', b"[" * 5000,
        b"[{'" * 3000, b"{'a': " + b"-" * 3000 + b"1}", b"{'a': '" + b"x" * 70_000 + b"'}", b"{'a': '\\d', 'b': 1j}",
        b"data: [DONE]\n\n", b"null", b"\xff\xfe\xfd\xfc\xfb\xfa",
    ],
)  # fmt: skip
def test_what_is_no_text_is_not_told(body: bytes) -> None:
    assert fail(400, body).message == "up answered with status 400."


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"detail": [{"loc": ["body", "presence_penalty"], "msg": "Extra inputs are not permitted"}]},
         "presence_penalty", "presence_penalty: Extra inputs are not permitted"),
        ({"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "no"}, {"loc": ["body", "n"], "msg": "be 1"}]},
         "messages.0.role", "messages.0.role: no; n: be 1"),
        ({"message": str([{"type": "missing", "loc": ("body", "messages", 0, "content"), "msg": "Field required"}])},
         "messages.0.content", "messages.0.content: Field required"),
        ({"message": "[{'type': 'x', 'loc': ('body', 'n'), 'msg': 'be 1', 'ctx': {'error': ValueError('x')}}]"},
         "n", "n: be 1"),
        ({"detail": f"Error code: 422 - {said('no', param='n')}"}, "n", "no"),
        ({"message": "Not allowed: {'a': 'b'}"}, None, "Not allowed: {'a': 'b'}"),
        ({"message": "Not allowed: [{'a': 'b'}]"}, None, "Not allowed: [{'a': 'b'}]"),
        ({"errors": {"$.n": ["must be 1"]}, "title": "One or more validation errors occurred."}, None,
         "One or more validation errors occurred."),
        ({"error": {"message": "no", "param": "n"}}, "n", "no"),
        ({"errors": [{"detail": "no", "source": {"pointer": "/messages/0"}}]}, "/messages/0", "no"),
        ({"errors": [{"message": "no", "field": "n"}]}, "n", "no"),
    ],
)  # fmt: skip
def test_the_field_at_fault(body: Any, param: str | None, message: str) -> None:
    error = fail(422, body)
    assert (error.param, error.message) == (param, message)


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs"}]},
        {"detail": [{"loc": ["body", "stream_options", "include_usage"], "msg": "no"}]},
        [{"error": {"message": "Unknown name", "details": [{"fieldViolations": [{"field": "stream_options"}]}]}}],
        {"errors": [{"message": "not allowed", "field": "stream_options"}]},
        {"errors": {"stream_options": ["is not allowed"]}},
        {"errors": {"$.stream_options.include_usage": ["is not allowed"]}},
        {"error": {"message": "Unknown parameter", "param": "stream_options"}},
        {"error": {"message": "Unknown parameter", "param": "stream_options.include_usage"}},
        {"error": "Extra parameters ['stream_options'] are not allowed"},
        {"message": "property 'stream_options' is unsupported"},
        {"msg": "json: unknown field \"stream_options\""},
        {"error": {"message": json.dumps({"detail": [{"loc": ["body", "stream_options"], "msg": "no"}]})}},
        b"stream_options is not supported",
        [{"error": {"message": "Unknown name \"streamOptions\": Cannot find field."}}],
        {"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra inputs', 'input': "
                    "{'include_usage': True}}]"},
        {"detail": "Error code: 400 - {'error': {'message': 'no', 'param': 'stream_options', 'code': None}}"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 400, 422, 409, 500])
def test_a_refusal_of_a_field_that_we_added_names_it(status: int, body: Any) -> None:
    error = stream_failure(raw(body), provider="up") if status == 200 else fail(status, body)
    assert blames_our_field(error, BACKEND.usage_fields)


def test_half_a_character_in_a_python_value_can_be_passed_on() -> None:
    error = fail(400, b"{'message': 'a\\ud800b', '\\udc00': '\\udfff'}")
    assert error.message == "a?b"
    error.message.encode()
