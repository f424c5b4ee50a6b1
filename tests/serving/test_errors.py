"""What an upstream's failure becomes: a real status before the first byte, an error event after; never its secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.model import Closed, Limits
from headgate.testing import Provider
from headgate.testing.provider import lorem
from tests.dataplane import DataPlane, post, read_response, upstream
from tests.serving.calls import Answer, ask, last_closed, opened, request

CANARY = "sk-canary-7f3a9c51e2"

# fault → status, code: streamed, before anything was visible; and whole, where it differs
BEFORE: dict[str, tuple[int, str]] = {
    "429-always": (429, "rate_limit_exceeded"),
    "503-always": (503, "upstream_overloaded"),
    "503-priced": (503, "upstream_overloaded"),
    "500-once?key={key}": (502, "upstream_failed"),
    "context-length": (400, "context_length_exceeded"),
    "content-filter": (400, "content_filter"),
    "401": (502, "upstream_auth_failed"),
    "403": (502, "upstream_model_denied"),
    "error-before-first-token": (502, "upstream_error"),
    "error-in-200?after=0": (502, "upstream_error"),
    "hollow": (502, "upstream_hollow_answer"),
    "html": (502, "upstream_invalid_response"),
    "empty-200": (502, ""),
    "204": (502, "upstream_invalid_response"),
    "redirect": (502, "upstream_invalid_response"),
    "garbage-status-line": (502, "upstream_invalid_response"),
    "huge-head?kib=200": (502, "upstream_invalid_response"),
}
AFTER: dict[str, tuple[str, int]] = {  # code, tokens that the client has seen
    "cut": ("upstream_cut", 40),
    "cut?reset=1": ("upstream_cut", 40),
    "half-close?for=1": ("upstream_cut", 20),
    "close-without-finish": ("upstream_cut", 60),
    "error-in-200": ("upstream_error", 10),
    "event-error": ("", 10),
    "error-field": ("upstream_error", 10),
    "error-string": ("upstream_error", 10),
    "error-in-chunk": ("upstream_error", 10),
    "bad-chunk?rate=200": ("upstream_invalid_response", 30),
    "truncated-json": ("upstream_cut", 60),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", BEFORE)
def test_before_the_first_byte(gate: DataPlane, fault: str, stream: bool) -> None:
    status, code = BEFORE[fault]
    answer = ask(gate, "up/fault/" + fault.format(key=f"{stream}"), stream=stream)
    assert answer.headers["content-type"] == "application/json" and answer.ended
    assert (answer.status, answer.error["code"]) == (status, code or answer.error["code"])
    record = last_closed(gate)
    assert record.outcome == ("hollow" if fault == "hollow" else "failed")
    assert (record.status, record.code) == (status, answer.error["code"]) and len(record.attempts) == 1
    assert answer.headers["x-request-id"] == f"chatcmpl-{record.id}"
    if status in (429, 503):
        assert int(answer.headers.get("retry-after", "1")) >= 1


@pytest.mark.parametrize("fault", AFTER)
def test_after_the_first_byte(gate: DataPlane, fault: str) -> None:
    code, tokens = AFTER[fault]
    answer = ask(gate, f"up/fault/{fault}")
    found = answer.check_truncated(code or answer.events[-1]["error"]["code"])
    assert answer.text == lorem.text(tokens) and found["message"]
    record = last_closed(gate)
    assert (record.outcome, record.code, record.status) == ("truncated", found["code"], 200)
    assert record.completion_tokens >= tokens and answer.headers["x-headgate-stream-id"] == f"chatcmpl-{record.id}"


def test_an_answer_over_the_limit(provider: Provider, tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(provider.url), limits=Limits(max_answer=10_000)) as plane:
        assert ask(plane, "up/lorem?rate=0&ttft=0&tokens=500", stream=False).status == 200
        answer = ask(plane, "up/lorem?rate=0&ttft=0&tokens=5000", stream=False)
        assert (answer.status, answer.error["code"]) == (502, "upstream_answer_too_large")
        assert ask(plane, "up/lorem?rate=0&ttft=0&tokens=5000").text == lorem.text(5000), "a stream has no such limit"


def test_refusals_of_ours(gate: DataPlane) -> None:
    cases = [
        (request("up/echo", token="hg_wrong"), 401, "invalid_api_key"),
        (request("nobody/echo"), 404, "model_not_found"),
        (request("up/none"), 404, "model_not_found"),
        (post("/v1/chat/completions", b"{"), 400, "invalid_json"),
        (post("/v1/chat/completions", b'{"model":"up/echo","messages":"x"}'), 400, ""),
        (request("up/echo", "Content-Encoding: gzip"), 415, "unsupported_content_encoding"),
    ]
    for data, status, code in cases:
        with opened(gate, data) as stream:
            answer = stream.rest()
            assert (answer.status, answer.error["code"]) == (status, code or answer.error["code"]), data[-80:]
            if status == 401:
                assert answer.headers["www-authenticate"] == "Bearer"


def test_a_refusal_with_a_known_token_has_its_receipt(gate: DataPlane) -> None:
    before = len([r for r in gate.records() if isinstance(r, Closed)])
    answer = ask(gate, "nobody/nothing", "X-Request-Id: refused-1")
    record = last_closed(gate)
    assert len([r for r in gate.records() if isinstance(r, Closed)]) == before + 1
    assert (record.outcome, record.status, record.code) == ("refused", 404, "model_not_found")
    assert answer.status == 404 and answer.headers["x-request-id"] == "refused-1"


# ------------------------------------------------------------------------------- secrets


def test_a_key_that_an_upstream_quotes_goes_nowhere(
    provider: Provider, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not to the client, not into the log, not onto the disk."""
    state = tmp_path / "s"
    answers: list[Answer] = []
    with DataPlane(state, upstream(provider.url, auth="bearer"), keys={"up/0": CANARY}) as plane:
        for status in (400, 401, 404, 422, 429, 500):
            for stream in (True, False):
                answers.append(ask(plane, f"up/fault/secret-in-error?status={status}", stream=stream))
        answers.append(ask(plane, "up/fault/secret-in-event"))
        answers.append(ask(plane, "up/fault/secret-in-event?after=0"))
        answers.append(ask(plane, "up/fault/secret-in-event", stream=False))
        assert provider.requests[-1].headers["authorization"] == f"Bearer {CANARY}"
        plane.stop()
    for answer in answers:
        shown = answer.raw.decode() + str(answer.headers)
        assert CANARY not in shown and "canary" not in shown, shown
    logged = "".join(capfd.readouterr())
    assert "draining" in logged, "the log was not caught: nothing would be proven"
    assert "canary" not in logged
    files = [path for path in state.rglob("*") if path.is_file()]
    assert files and not any(b"canary" in path.read_bytes() for path in files)


def test_nor_one_that_travels_in_the_query_or_breaks_on_the_way(
    provider: Provider, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row = upstream(provider.url, auth="query")
    dead = upstream("http://127.0.0.1:9/v1", name="dead", auth="query")
    with DataPlane(tmp_path / "s", row, dead, keys={"up/0": CANARY, "dead/0": CANARY}) as plane:
        for model in ("up/fault/garbage-status-line", "up/fault/cut", "up/fault/reset-once?key=q", "dead/m"):
            answer = ask(plane, model)
            assert CANARY not in answer.raw.decode() + str(answer.headers)
        assert CANARY in provider.requests[-1].path
        plane.stop()
    assert CANARY not in "".join(capfd.readouterr())


def test_an_upstreams_401_is_not_the_clients(gate: DataPlane) -> None:
    for fault in ("401", "403"):
        for stream in (True, False):
            answer = ask(gate, f"up/fault/{fault}", stream=stream)
            assert answer.status == 502 and "www-authenticate" not in answer.headers
            assert "Incorrect API key" not in answer.error["message"] and last_closed(gate).attempts[0].status == int(
                fault
            )


def test_bad_requests_on_one_connection_harm_no_other(gate: DataPlane) -> None:
    with opened(gate, request("up/lorem?rate=100&ttft=0&tokens=60")) as running:
        running.head()
        for data in (
            b"\x16\x03\x01garbage\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            post("/v1/chat/completions", b"\xff\xfe"),
        ):
            with gate.connect() as sock:
                sock.sendall(data)
                assert read_response(sock)[0] in (400, 401)
        running.rest().check_stream(lorem.text(60))
