"""An upstream's refusal in every shape that real servers give it."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest

from headgate import errors
from headgate.dialects.openai_chat import error_body, error_event, failure
from headgate.dialects.openai_chat.errors.limits import duration
from headgate.errors import GatewayError, Kind
from headgate.wire.redaction import scrub
from tests.dialects.openai_chat.streams import parse
from tests.paths import SHARED

ERRORS = SHARED / "streams" / "errors.json"
NOW = 1_784_000_000.0


def fail(status: int, body: Any = b"", **headers: str) -> GatewayError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return failure(status, fields, raw, provider="up", secrets=("canary-secret",), now=NOW)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "Incorrect API key provided: sk-x"}}, errors.UPSTREAM_AUTH),
        (402, {"error": "Insufficient Balance"}, errors.UPSTREAM_UNPAID),
        (403, {"detail": "forbidden"}, errors.UPSTREAM_DENIED),
        (429, {"error": {"code": "insufficient_quota"}}, errors.QUOTA_SPENT),
        (404, {"error": {"code": "model_not_found", "message": "no"}}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (404, {"error": {"code": "DeploymentNotFound", "message": "x"}}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (404, {"error": "model 'x' not found, try pulling it first"}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (400, {"error": {"message": "Model Not Exist"}}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (400, {"message": "Invalid model: foo", "type": "invalid_model"}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (400, {"error": {"message": "foo/bar is not a valid model ID"}}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (400, {"error": {"message": "The model `a-1.5` has been decommissioned."}}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (400, {"error": {"message": "Model a:b is not supported by any provider"}}, errors.UPSTREAM_MODEL_NOT_FOUND),
        (400, {"error": {"message": "The model failed: invalid value for 'temperature'"}}, errors.UPSTREAM_REFUSED),
        (400, {"error": {"message": "This model does not support image inputs"}}, errors.UPSTREAM_REFUSED),
        (400, {"error": {"message": "'max_tokens' is not supported with this model"}}, errors.UPSTREAM_REFUSED),
        (400, {"error": {"message": "The model produced invalid JSON"}}, errors.UPSTREAM_REFUSED),
        (404, b"<html>not here</html>", errors.UPSTREAM_GARBAGE),
        (404, {"detail": "Not Found"}, errors.UPSTREAM_GARBAGE),
        (400, {"error": {"code": "context_length_exceeded", "message": "x"}}, errors.CONTEXT_LENGTH),
        (400, {"error": {"type": "exceed_context_size_error", "message": "x"}}, errors.CONTEXT_LENGTH),
        (400, {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, errors.CONTEXT_LENGTH),
        (400, {"error": {"code": "content_filter", "message": "x"}}, errors.CONTENT_FILTER),
        (400, {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}, "code": "content_filter"}},
         errors.CONTENT_FILTER),
        (400, {"error": {"message": "API key not valid.", "status": "INVALID_ARGUMENT"}}, errors.UPSTREAM_AUTH),
        (400, {"error": {"message": "'temperature' must be at most 2", "param": "temperature"}},
         errors.UPSTREAM_REFUSED),
        (413, {"error": "too big"}, errors.PAYLOAD_TOO_LARGE),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, errors.UPSTREAM_UNPROCESSABLE),
        (408, b"", errors.UPSTREAM_TIMEOUT),
        (500, b"", errors.UPSTREAM_FAILED),
        (502, b"<html>", errors.UPSTREAM_FAILED),
        (503, b"", errors.UPSTREAM_OVERLOADED),
        (529, b"", errors.UPSTREAM_OVERLOADED),
        (504, b"", errors.UPSTREAM_TIMEOUT),
        (599, b"", errors.UPSTREAM_FAILED),
        (301, b"", errors.UPSTREAM_GARBAGE),
        (204, b"", errors.UPSTREAM_GARBAGE),
        (201, b"{}", errors.UPSTREAM_GARBAGE),
        (100, b"", errors.UPSTREAM_GARBAGE),
    ],
)  # fmt: skip
def test_classes(status: int, body: Any, kind: Kind) -> None:
    error = fail(status, body)
    assert error.kind is kind
    assert error.upstream_status == status
    assert error.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": {"message": "plain"}}, "plain"),
        ({"error": "a string"}, "a string"),
        ({"code": "400", "error": "xai's"}, "xai's"),
        ({"detail": "mistral's"}, "mistral's"),
        ({"id": "1", "message": "cohere's"}, "cohere's"),
        ({"message": {"message": "one down"}}, "one down"),
        ({"detail": [{"msg": "one"}, {"msg": "two"}]}, "one; two"),
        ({"type": "error", "error": {"type": "x", "message": "anthropic's"}}, "anthropic's"),
        ({"error": {"message": "Provider returned error", "code": 400,
                    "metadata": {"raw": '{"error":{"message":"the real one"}}'}}}, "the real one"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "bare text"}}}, "bare text"),
        (b"bare text\nof two lines", "bare text of two lines"),
        (b'"a JSON string"', "a JSON string"),
        (b"<html><body>secret internals</body>", "up answered with status 400."),
        (b'{"truncated', "up answered with status 400."),
        (b"", "up answered with status 400."),
    ],
)  # fmt: skip
def test_messages(body: Any, says: str) -> None:
    assert fail(400, body).message == says


def test_a_mistake_of_the_clients_keeps_its_words_and_its_param() -> None:
    error = fail(400, {"error": {"message": "no such voice", "param": "voice"}})
    assert (error.message, error.param) == ("no such voice", "voice")
    assert fail(500, {"error": {"message": "oops"}}).message == "up: oops"


def test_upstream_401_does_not_blame_the_client() -> None:
    message = fail(401, {"error": {"message": "Incorrect API key provided: sk-abc"}}).message
    assert "API key" not in message
    assert "gateway" in message


def test_messages_are_one_bounded_line() -> None:
    error = fail(400, {"error": {"message": "a\r\nb\x00\x1b[31m" + "c" * 5000}})
    assert len(error.message) == 500
    assert error.message.startswith("a b [31m")


@pytest.mark.parametrize(
    "text",
    [
        "key canary-secret is wrong",
        "Incorrect API key provided: sk-proj-abcdef123456.",
        "Bearer eyJhbGciOi.abc.def is bad",
        "hg_pat_1234_abcdef",
        "?key=AIzaSyA1234567890 in url",
        "AIzaSyA12345678901234567890",
        "gsk_1234567890abcdef",
        "Authorization: Bearer abcdefgh12345678",
        "api_key=abcdef1234567890",
        "invalid key 9f8e7d6c5b4a39281706f5e4d3c2b1a0",
    ],
)
def test_what_looks_like_a_key_is_taken_out(text: str) -> None:
    clean = scrub(text, ("canary-secret",))
    assert "[redacted]" in clean
    for piece in ("canary", "abcdef", "1234", "eyJ", "9f8e"):
        assert piece not in clean


@pytest.mark.parametrize(
    "text", ["The model `gpt-5` does not exist", "ask-me-later", "Missing required key 'messages'"]
)
def test_what_does_not_look_like_a_key_stays(text: str) -> None:
    assert scrub(text, ()) == text


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry_after": "2"}, b"", 2.0),
        ({"retry_after": "1.5"}, b"", 1.5),
        ({"retry_after_ms": "250", "retry_after": "9"}, b"", 0.25),
        ({"retry_after": "Tue, 14 Jul 2026 03:34:10 GMT"}, b"", 50.0),
        ({"retry_after": "Tue, 14 Jul 2020 03:34:10 GMT"}, b"", 0.0),
        ({"retry_after": "soon"}, b"", None),
        ({"retry_after": "Tue, 99 Jul 2026 99:34:10 GMT"}, b"", None),
        ({"x_ratelimit_reset_requests": "6m0s", "x_ratelimit_remaining_requests": "0"}, b"", 360.0),
        ({"x_ratelimit_reset_tokens": "20ms", "x_ratelimit_remaining_tokens": "5"}, b"", None),
        ({"x_ratelimit_reset": "1784000030000"}, b"", 30.0),
        ({"x_ratelimit_reset": "1784000030"}, b"", 30.0),
        ({"x_ratelimit_reset": "30"}, b"", 30.0),
        ({}, b'{"error":{"details":[{"retryDelay": "17s"}]}}', 17.0),
        ({}, b'{"error":{"message":"Please try again in 6.5s. Visit"}}', 6.5),
        ({}, b"", None),
        ({"retry_after": "99999999"}, b"", 900.0),
    ],
)
def test_retry_after(headers: dict[str, str], body: bytes, seconds: float | None) -> None:
    assert fail(429, body, **headers).retry_after == pytest.approx(seconds)


def test_durations() -> None:
    assert duration(b"1h2m3s") == 3723.0
    assert duration(b"12") is None
    assert duration(b"1s later") is None


def test_every_error_has_its_four_keys() -> None:
    error = GatewayError(errors.INVALID_VALUE, "no", param="n")
    wanted = {"message": "no", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}
    assert json.loads(error_body(error)) == {"error": wanted}
    event = error_event(error, "chatcmpl-1")
    assert parse(event) == [{"error": {**wanted, "request_id": "chatcmpl-1"}}]
    assert event.startswith(b'data: {"error":')  # what go-openai looks for


@pytest.mark.skipif(not ERRORS.is_file(), reason="this file of ../shared is absent: streams/errors.json")
def test_every_recorded_error() -> None:
    entries = {entry["file"]: entry for entry in json.loads(ERRORS.read_text())}
    with tarfile.open(ERRORS.parent / "corpus.tar.gz") as archive:
        bodies = {}
        for member in archive:
            name = member.name.removeprefix("./")
            if name in entries:
                file = archive.extractfile(member)
                assert file is not None
                bodies[name] = file.read()
    assert len(bodies) == len(entries)
    for name, body in bodies.items():
        status = int(entries[name]["status"])
        error = fail(status, body)
        said = body.decode().lower()
        if status == 401:
            assert error.kind is errors.UPSTREAM_AUTH, name
        elif status == 404 or "model_not_found" in said or "identifier is invalid" in said:
            assert error.kind is errors.UPSTREAM_MODEL_NOT_FOUND, (name, body)
        elif "maximum context" in said or "context window" in said or "prompt too long" in said:
            assert error.kind is errors.CONTEXT_LENGTH, name
        else:
            assert error.kind is errors.UPSTREAM_REFUSED, (name, body)
        assert not error.message.startswith("up answered"), name


@pytest.mark.parametrize(("status", "seconds"), [(402, 90.0), (429, 90.0), (503, 90.0), (400, None), (404, None)])
def test_a_time_is_read_where_it_means_something(status: int, seconds: float | None) -> None:
    error = failure(status, {b"retry-after": b"90"}, b"{}", provider="up")
    assert error.retry_after == seconds


DATE = "Tue, 14 Jul 2026 03:33:20 GMT"  # an answer's own


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": " 7 "}, 7.0),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "1e3"}, None),
        ({"retry_after": "NaN"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after": "9" * 50}, None),
        ({"retry_after": "99999999999"}, 900.0),
        ({"retry_after": "60000"}, 900.0),
        ({"retry_after": "30s"}, 30.0),
        ({"retry_after": "2m"}, 120.0),
        ({"retry_after": "Tue, 14 Jul 2026 03:34:20 GMT", "date": DATE}, 60.0),
        ({"retry_after": "Tuesday, 14-Jul-26 03:34:20 GMT", "date": DATE}, 60.0),
        ({"retry_after": "Tue Jul 14 03:34:20 2026", "date": DATE}, 60.0),
        ({"retry_after": "2026-07-14T03:34:20Z", "date": DATE}, 60.0),
        ({"retry_after": "2026-07-14T05:34:20+02:00", "date": DATE}, 60.0),
        ({"retry_after": "Tue, 14 Jul 2026 03:34:20 UTC", "date": DATE}, 60.0),
        ({"retry_after": "Tue, 14 Jul 2026 03:30:00 GMT", "date": DATE}, 0.0),
        ({"retry_after": "Fri, 14 Jul 2028 03:34:20 GMT", "date": DATE}, 900.0),
        ({"retry_after": "Tue, 14 Jul 2026 03:34:20 GMT", "date": "no date"}, 60.0),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "-1", "retry_after": "3"}, 3.0),
        ({"x_ratelimit_reset_requests": "2m59.56s"}, 179.56),
        ({"x_ratelimit_reset_requests": "1s", "x_ratelimit_reset_tokens": "6m0s"}, 360.0),
        ({"x_ratelimit_reset": "1784000060", "date": DATE}, 1784000060 - 1784000000),
        ({"x_ratelimit_reset": "1784000060000", "date": DATE}, 60.0),
        ({"anthropic_ratelimit_tokens_reset": "2026-07-14T03:34:20Z", "anthropic_ratelimit_tokens_remaining": "0",
          "date": DATE}, 60.0),
        ({"ratelimit_reset": "12"}, 12.0),
        ({"x_ratelimit_reset": "nonsense"}, None),
    ],
)  # fmt: skip
def test_times_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert fail(429, b"", **headers).retry_after == pytest.approx(seconds)


@pytest.mark.parametrize("skew", [-10_000_000.0, -3600.0, 0.0, 3600.0, 10_000_000.0])
def test_a_wrong_clock_adds_nothing(skew: float) -> None:
    headers = {b"date": DATE.encode(), b"retry-after": b"Tue, 14 Jul 2026 03:34:20 GMT"}
    assert failure(429, headers, b"", provider="up", now=NOW + skew).retry_after == 60.0


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"message": "Please try again in 6m0s."}}, 360.0),
        ({"error": {"message": "Please retry after 12 seconds."}}, 12.0),
        ({"error": {"message": "Rate limit. Try again in 1 minute and 5 seconds"}}, 65.0),
        ({"error": {"message": "Please wait 30 seconds"}}, 30.0),
        ({"error": {"message": "try again in 20ms"}}, 0.02),
        ({"error": {"message": "try again in 999999h"}}, 900.0),
        ({"error": {"message": "try again later"}}, None),
        ([{"error": {"details": [{"@type": "RetryInfo", "retryDelay": "17.5s"}]}}], 17.5),
        ({"error": {"message": "x", "retry_after": 9}}, 9.0),
        ({"error": {"message": "x", "metadata": {"headers": {"X-RateLimit-Reset": "1784000030000"}}}}, 30.0),
    ],
)
def test_times_in_bodies(body: Any, seconds: float | None) -> None:
    assert fail(429, body).retry_after == pytest.approx(seconds)
