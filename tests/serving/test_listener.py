"""The listener, spoken to with bytes.  No upstream is needed: /livez and unauthenticated calls answer by themselves."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from headgate.model import Limits
from tests.dataplane import TOKEN, DataPlane, post, read_response
from tests.waiting import wait_until

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
SMALL = Limits(
    max_body=10_000, max_head=4096, max_header_fields=20, header_timeout=0.5, body_timeout=1.0, idle_timeout=1.5,
    max_connections=50, drain=3.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory):
    with DataPlane(
        tmp_path_factory.mktemp("state") / "s", limits=SMALL, cors_origins=("https://app.example",)
    ) as plane:
        yield plane


def closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(65536) == b""
    except ConnectionResetError:
        return True


def test_keep_alive_serves_request_after_request(plane: DataPlane) -> None:
    with plane.connect() as sock:
        for _ in range(5):
            sock.sendall(LIVEZ)
            status, headers, body, rest = read_response(sock)
            assert (status, json.loads(body), rest) == (200, {"status": "ok"}, b"")
            assert "connection" not in headers and "date" in headers


def test_pipelined_requests_are_answered_in_order(plane: DataPlane) -> None:
    unknown = [b"GET /nothing/%d HTTP/1.1\r\nHost: t\r\n\r\n" % n for n in range(40)]
    with plane.connect() as sock:
        sock.sendall(b"".join(unknown))
        rest = b""
        for n in range(40):
            status, _, body, rest = read_response(sock, rest)
            assert status == 404 and f"/nothing/{n}" in json.loads(body)["error"]["message"]


def test_one_byte_at_a_time(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for (
            byte
        ) in b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert read_response(sock)[0] == 401


def test_expect_100_continue(plane: DataPlane) -> None:
    request = post("/v1/chat/completions", b"{}", "Expect: 100-continue")
    head, body = request[:-2], request[-2:]
    with plane.connect() as sock:
        sock.sendall(head)
        assert read_response(sock)[0] == 100
        sock.sendall(body)
        assert read_response(sock)[0] == 400


def test_expect_is_not_answered_when_the_body_is_too_large(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 20000\r\n\r\n"
        )
        status, headers, body, _ = read_response(sock)
        assert status == 413 and headers["connection"] == "close"
        assert json.loads(body)["error"]["code"] == "payload_too_large"


def test_http_1_0_closes_unless_asked_to_keep_alive(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_response(sock)[1]["connection"] == "close"
        assert closed(sock)
    with plane.connect() as sock:
        sock.sendall(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert read_response(sock)[1]["connection"] == "keep-alive"
        sock.sendall(LIVEZ)
        assert read_response(sock)[0] == 200


def test_connection_close_is_honoured(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert read_response(sock)[1]["connection"] == "close"
        assert closed(sock)


def test_head_has_the_length_but_no_body(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.sendall(b"HEAD /livez HTTP/1.1\r\nHost: t\r\n\r\n" + LIVEZ)
        data = b""
        while data.count(b"\r\n\r\n") < 2 or not data.endswith(b"}"):
            data += sock.recv(65536)
        first, _, second = data.partition(b"\r\n\r\n")
        assert b"Content-Length: 15" in first and second.startswith(b"HTTP/1.1 200")


def test_cors_preflight_and_answer(plane: DataPlane) -> None:
    ask = (
        b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: t\r\nOrigin: %b\r\n"
        b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n"
    )
    with plane.connect() as sock:
        sock.sendall(ask % b"https://app.example")
        status, headers, _, _ = read_response(sock)
        assert status == 204
        assert headers["access-control-allow-origin"] == "https://app.example"
        assert headers["access-control-allow-headers"] == "authorization,x-stainless-os"
        assert "POST" in headers["access-control-allow-methods"] and headers["vary"] == "Origin"
        sock.sendall(ask % b"https://evil.example")
        status, headers, _, _ = read_response(sock)
        assert status == 204 and not any(name.startswith("access-control") for name in headers)
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\nOrigin: https://app.example\r\n\r\n")
        assert read_response(sock)[1]["access-control-allow-origin"] == "https://app.example"


def test_wrong_method_and_unknown_path(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.sendall(b"GET /v1/chat/completions HTTP/1.1\r\nHost: t\r\n\r\n")
        status, headers, body, _ = read_response(sock)
        assert (status, headers["allow"]) == (405, "POST, OPTIONS")
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        sock.sendall(b"GET /v1/files HTTP/1.1\r\nHost: t\r\n\r\n")
        assert read_response(sock)[0] == 404


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/v1/chat/completions"])
def test_websocket_is_told_to_post(plane: DataPlane, path: str) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n"
    with plane.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\n{upgrade}\r\n".encode())
        status, headers, body, _ = read_response(sock)
        assert (status, headers["upgrade"], headers["allow"]) == (426, "HTTP/1.1", "POST, OPTIONS")
        assert json.loads(body)["error"]["code"] == "websocket_not_supported"
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        assert read_response(sock)[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="CL+TE",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            id="TE+CL",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", id="two lengths"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", id="length twice"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3, 3\r\n\r\nabc", id="length list"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +3\r\n\r\nabc", id="signed length"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0x3\r\n\r\nabc", id="hex length"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999999\r\n\r\n", id="huge length"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="TE list"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="TE unknown"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="TE twice",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", id="space before colon"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
            id="bad chunk size",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            id="chunk too long",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", id="bare LF chunk"
        ),
        pytest.param(b"GET / HTTP/1.1\nHost: t\n\n", id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n", id="obs-fold"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n", id="NUL"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n", id="bare CR"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: t\r\nX y: a\r\n\r\n", id="space in name"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nAccept: x\r\n\r\n", id="no host"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", id="two keys"
        ),
        pytest.param(b"G\x00T / HTTP/1.1\r\nHost: t\r\n\r\n", id="method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS hello"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="h2 preface"),
    ],
)
def test_what_is_not_exactly_one_request_is_400_and_closed(plane: DataPlane, request_bytes: bytes) -> None:
    with plane.connect() as sock:
        sock.sendall(request_bytes + LIVEZ)  # what a smuggler would hide behind it
        status, headers, body, rest = read_response(sock)
        assert status == 400, body
        assert headers["connection"] == "close"
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
        assert rest == b"" and closed(sock)


def test_a_large_head_is_431(plane: DataPlane) -> None:
    for field in (b"X: " + b"a" * 5000, b"\r\n".join(b"x-%d: 1" % n for n in range(30))):
        with plane.connect() as sock:
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n" + field + b"\r\n\r\n")
            assert read_response(sock)[0] == 431 and closed(sock)
    with plane.connect() as sock:  # without an end: the limit must not wait for one
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 8000)
        assert read_response(sock)[0] == 431


def test_a_large_body_is_413_sized_and_chunked(plane: DataPlane) -> None:
    for framing in (b"Content-Length: 20000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n4e20\r\n"):
        with plane.connect() as sock:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
            sock.sendall(head + framing + b"x" * 20000)
            status, _, body, _ = read_response(sock)
            assert status == 413 and json.loads(body)["error"]["code"] == "payload_too_large"
            assert closed(sock)


def test_slow_heads_and_bodies_get_408(plane: DataPlane) -> None:
    for start, limit in (
        (b"GET /livez HTTP/1.1\r\nHost: t\r\n", SMALL.header_timeout),
        (post("/v1/chat/completions", b"123456789")[:-9], SMALL.body_timeout),
    ):
        with plane.connect() as sock:
            began = time.monotonic()
            sock.sendall(start)
            sock.settimeout(0.1)
            data = b""
            while b"\r\n\r\n" not in data:  # drip: the deadline is for the whole, not for the next byte
                sock.sendall(b"x") if b"Content-Length" in start and time.monotonic() - began < limit * 0.8 else None
                try:
                    data += sock.recv(4096)
                except TimeoutError:
                    assert time.monotonic() - began < limit + 30
            assert data.startswith(b"HTTP/1.1 408") and time.monotonic() - began > limit * 0.8


def test_silent_connections_are_closed(plane: DataPlane) -> None:
    with plane.connect() as idle:
        idle.sendall(LIVEZ)
        read_response(idle)
        began = time.monotonic()
        assert closed(idle) and time.monotonic() - began > 1.0
    with plane.connect() as mute:  # never says anything
        assert closed(mute)


def test_too_many_connections_are_503_and_others_go_on(plane: DataPlane) -> None:
    socks = [plane.connect() for _ in range(SMALL.max_connections)]
    try:
        time.sleep(0.1)
        with plane.connect() as one_more:
            assert read_response(one_more)[0] == 503
        socks[0].sendall(LIVEZ)
        assert read_response(socks[0])[0] == 200
    finally:
        for sock in socks:
            sock.close()
    wait_until(lambda: livez(plane) == 200)


def livez(plane: DataPlane) -> int:
    with plane.connect() as sock:
        sock.sendall(LIVEZ)
        return read_response(sock)[0]


def test_an_offered_upgrade_is_ignored(plane: DataPlane) -> None:
    body = b"{}"
    with plane.connect() as sock:
        sock.sendall(
            post(
                "/v1/chat/completions",
                body,
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABk",
            )
        )
        assert read_response(sock)[0] == 400  # messages are missing: it was read
        sock.sendall(LIVEZ)
        assert read_response(sock)[0] == 200


def test_absolute_form_and_connect(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.sendall(b"GET http://gate.example/livez?x=1 HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        assert read_response(sock)[0] == 200
        sock.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert read_response(sock)[0] == 405


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("", "missing_api_key"),
        ("Authorization: Basic abc", "invalid_token_format"),
        ("Authorization: Bearer", "invalid_token_format"),
        ("Authorization: Bearer a\xe9b", "invalid_token_format"),
        ("Authorization: Bearer " + "x" * 1100, "invalid_token_format"),
        ("Authorization: Bearer ' OR 1=1 --", "invalid_api_key"),
        (f"Authorization: Bearer {TOKEN}x", "invalid_api_key"),
        ("x-api-key: ", "invalid_token_format"),
        ("x-api-key: a\xe9b", "invalid_token_format"),
        (f"x-api-key: {TOKEN}x", "invalid_api_key"),
        (f"X-Api-Key: {TOKEN}x\r\nAuthorization: Basic abc", "invalid_api_key"),
        (f"api-key: {TOKEN}", "missing_api_key"),
    ],
)
def test_who_is_not_known_is_401(plane: DataPlane, field: str, code: str) -> None:
    with plane.connect() as sock:
        line = field + "\r\n" if field else ""
        sock.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n{line}Content-Length: 2\r\n\r\n{{}}".encode("latin-1")
        )
        status, headers, body, _ = read_response(sock)
        assert (status, json.loads(body)["error"]["code"]) == (401, code)
        assert headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "fields",
    [
        f"x-api-key: {TOKEN}",
        f"X-API-KEY:   {TOKEN}  ",
        f"authorization: bEaReR {TOKEN}",
        f"x-api-key: {TOKEN}\r\nAuthorization: Bearer {TOKEN}",
        f"x-api-key: {TOKEN}\r\nAuthorization: Basic dXNlcjpwYXNz",  # a proxy's own, in front of us
        f"x-api-key: {TOKEN}\r\nAuthorization: Bearer another-service's",
        f"x-api-key: another-service's\r\nAuthorization: Bearer {TOKEN}",
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "models", "requests/x", "usage"])
def test_x_api_key_is_accepted_as_authorization_is(plane: DataPlane, path: str, fields: str) -> None:
    method, body = ("POST", "{}") if path == "chat/completions" else ("GET", "")
    with plane.connect() as sock:
        head = f"{method} /v1/{path} HTTP/1.1\r\nHost: t\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall((head + body).encode())
        assert read_response(sock)[0] in (200, 400, 404, 503)  # whatever it is: the caller is known


def test_two_keys_of_one_name_are_refused(plane: DataPlane) -> None:
    with plane.connect() as sock:
        sock.sendall(f"GET /v1/models HTTP/1.1\r\nHost: t\r\nx-api-key: a\r\nx-api-key: {TOKEN}\r\n\r\n".encode())
        assert read_response(sock)[0] == 400


def test_same_paths_under_all_prefixes(plane: DataPlane) -> None:
    with plane.connect() as sock:
        for prefix in ("", "/v1", "/api/gate/v1"):
            sock.sendall(post(f"{prefix}/chat/completions", b"[]"))
            assert read_response(sock)[0] == 400


def test_drain_answers_what_runs_and_closes_what_is_idle(tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", limits=SMALL) as plane:
        with plane.connect() as idle, plane.connect() as sending:
            idle.sendall(LIVEZ)
            read_response(idle)
            request = post("/v1/chat/completions", b"{}")
            sending.sendall(request[:-1])  # has begun: it will be answered
            time.sleep(0.1)
            plane.process.send_signal(signal.SIGTERM)
            assert closed(idle)
            sending.sendall(request[-1:])
            status, headers, body, _ = read_response(sending)
            assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
            assert headers["connection"] == "close" and headers["retry-after"] == "1"
        assert plane.process.wait(60) == 0
