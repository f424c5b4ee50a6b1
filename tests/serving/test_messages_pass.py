"""Messages clients of a Messages provider: what passes beside the events, byte for byte, and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headgate.model import Grant, Limits, Provider, Snapshot
from headgate.policy.auth import digest
from headgate.testing import Script
from headgate.testing.provider.scripted import ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane, post
from tests.dialects.anthropic_messages import streams
from tests.dialects.anthropic_messages.streams import HELLO, PLAIN, end, events
from tests.serving.calls import STREAM_HEAD, Answer, chunked, opened, whole_json, whole_stream
from tests.serving.calls import scripted_in_thread as running
from tests.serving.test_failed_attempts import KEY

SECRET = "sk-ant-0123456789abcdef"
QUESTION = {"model": "up/m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
LIMITS = b"anthropic-ratelimit-unified-5h-status: allowed\r\nrequest-id: req_up\r\nx-odd: 1"


def plane(state: Path, *upstreams: ScriptedUpstream, limits: Limits | None = None, **more: Any) -> DataPlane:
    """Providers up, up1, …"""
    state.mkdir()
    (state / "instance.key").write_bytes(KEY)
    names = ["up", *(f"up{i}" for i in range(1, len(upstreams)))]
    providers = {
        name: Provider(name, one.url, dialect="anthropic_messages", auth="none", **more)
        for name, one in zip(names, upstreams, strict=True)
    }
    snapshot = Snapshot(tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test")}, providers=providers)
    return DataPlane(state, snapshot=snapshot, limits=limits)


def ask(gate: DataPlane, *headers: str, **members: Any) -> Answer:
    with opened(gate, post("/v1/messages?beta=true", json.dumps({**QUESTION, **members}).encode(), *headers)) as one:
        return one.rest()


def refuses(status: bytes, error: dict[str, Any], fields: bytes = LIMITS) -> Script:
    body = json.dumps(error).encode()
    return [("expect_request",), ("send", whole_json(body, fields + b"\r\nconnection: close", status=status))]


def test_refusal_of_a_request_passes_as_it_is(tmp_path: Path) -> None:
    inner = {"type": "invalid_request_error", "message": "messages.3: thinking blocks cannot be modified", "odd": [1]}
    error = {"type": "error", "error": inner, "request_id": "req_up", "details": None}
    leaking = {"type": "error", "error": {"type": "invalid_request_error", "message": f"the key {SECRET} is odd"}}
    scripts = [refuses(b"400 Bad Request", error), refuses(b"400 Bad Request", leaking)]
    with running(*scripts) as upstream, plane(tmp_path / "s", upstream) as gate:
        refusal = ask(gate)
        assert (refusal.status, refusal.json) == (400, error)
        assert refusal.headers["anthropic-ratelimit-unified-5h-status"] == "allowed"
        assert refusal.headers["request-id"] == "req_up" and "x-odd" not in refusal.headers
        redacted = ask(gate)
    assert SECRET not in redacted.raw.decode() and redacted.json["error"]["type"] == "invalid_request_error"


def test_failure_of_the_account_is_the_gateways(tmp_path: Path) -> None:
    error = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
    limited = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    fields = LIMITS + b"\r\nretry-after: 40"
    scripts = [refuses(b"401 Unauthorized", error), refuses(b"429 Too Many Requests", limited, fields)]
    with running(*scripts) as upstream, plane(tmp_path / "s", upstream) as gate:
        denied = ask(gate, headgate={"retries": 0})
        assert denied.status == 502 and denied.json["error"]["type"] == "api_error"
        assert "x-api-key" not in denied.json["error"]["message"]
        slow = ask(gate, headgate={"retries": 0})
    assert slow.status == 429 and slow.json["error"]["type"] == "rate_limit_error"
    assert slow.headers["retry-after"] == "40" and "x-should-retry" not in slow.headers
    assert slow.headers["anthropic-ratelimit-unified-5h-status"] == "allowed"


def test_limits_come_with_answers(tmp_path: Path) -> None:
    stream: Script = [("expect_request",), ("send", whole_stream(events(*PLAIN), LIMITS + b"\r\nconnection: close"))]
    with running(stream) as upstream, plane(tmp_path / "s", upstream) as gate:
        answer = ask(gate, stream=True)
    assert answer.headers["anthropic-ratelimit-unified-5h-status"] == "allowed" and "x-odd" not in answer.headers
    assert streams.parse(answer.raw)[-1] == {"type": "message_stop"}


def test_row_and_client_may_both_name_betas(tmp_path: Path) -> None:
    scripts: list[Script] = [
        [("expect_request",), ("send", whole_stream(events(*PLAIN), b"connection: close"))] for _ in range(2)
    ]
    headers = {"anthropic-beta": "row-1", "anthropic-version": "2023-06-01"}
    with running(*scripts) as upstream, plane(tmp_path / "s", upstream, headers=headers) as gate:
        ask(gate, "anthropic-beta: mine-1,mine-2", "anthropic-version: 2023-06-01", stream=True)
    sent = [field for field in upstream.requests[0].headers if field[0].startswith("anthropic-")]
    assert sorted(sent) == [
        ("anthropic-beta", "mine-1,mine-2"), ("anthropic-beta", "row-1"), ("anthropic-version", "2023-06-01"),
    ]  # fmt: skip


def test_client_gets_pings_where_its_upstream_is_silent(tmp_path: Path) -> None:
    silent: Script = [
        ("expect_request",),
        ("send", STREAM_HEAD + chunked(events(*HELLO[:4]))),
        ("wait", 1.5),
        ("send", chunked(events(*HELLO[4:], end("end_turn"), streams.DONE)) + b"0\r\n\r\n"),
    ]
    limits = Limits(keep_alive=0.3)
    with running(silent) as upstream, plane(tmp_path / "s", upstream, limits=limits) as gate:
        answer = ask(gate, stream=True)
    found = streams.parse(answer.raw)
    streams.check_order(found)
    assert b"keep-alive" not in answer.raw
    assert sum(one["type"] == "ping" for one in found) >= 2


def test_resumed_stream_has_its_events(tmp_path: Path) -> None:
    script: Script = [("expect_request",), ("send", whole_stream(events(*PLAIN), b"connection: close"))]
    with running(script) as upstream, plane(tmp_path / "s", upstream) as gate:
        answer = ask(gate, stream=True, headgate={"resumable_s": 5})
        ident = answer.headers["x-headgate-stream-id"]
        head = f"GET /v1/streams/{ident} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        with opened(gate, head.encode()) as again:
            replayed = again.rest()
    assert replayed.status == 200
    assert streams.parse(replayed.raw) == streams.parse(answer.raw)
