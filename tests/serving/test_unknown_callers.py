"""Who is not known is answered at the head: nothing of a body is kept, whatever it is sent with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headgate.errors import MISSING_KEY, GatewayError
from headgate.model import Limits, Refused
from headgate.serving.client.egress import Egress
from headgate.serving.client.listener import Listener
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.wheel import Wheel
from headgate.wire.http import Request
from tests.dataplane import TOKEN, DataPlane, post, read_response
from tests.waiting import eventually

CHAT = "/v1/chat/completions"
MB = 1 << 20


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    limits = Limits(max_bodies=4 * MB, max_body=2 * MB, drain=1.0)
    with DataPlane(tmp_path_factory.mktemp("unknown") / "s", limits=limits) as plane:
        yield plane
        assert plane.process.poll() is None


def head(*fields: str, method: str = "POST", path: str = CHAT) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: t", *fields, "")).encode()


LENGTH, CHUNKED, EXPECT = "Content-Length: 1000000", "Transfer-Encoding: chunked", "Expect: 100-continue"


@pytest.mark.parametrize("framing", [(LENGTH,), (CHUNKED,), (LENGTH, EXPECT), (CHUNKED, EXPECT)])
@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("X-A: 1", "missing_api_key"),
        ("Authorization: Bearer hg_none", "invalid_api_key"),
        ("Authorization: Basic abc", "invalid_token_format"),
    ],
)
def test_an_unknown_caller_is_refused_before_its_body_comes(
    plane: DataPlane, framing: tuple[str, ...], field: str, code: str
) -> None:
    with plane.connect() as sock:
        sock.sendall(head(field, *framing))
        status, headers, body, rest = read_response(sock)
        assert (status, json.loads(body)["error"]["code"]) == (401, code)
        assert headers["connection"] == "close" and headers["www-authenticate"] == "Bearer"
        assert headers["x-request-id"].startswith("chatcmpl-")
        assert rest == b"" and sock.recv(1) == b""


@pytest.mark.parametrize("size", [1000, 300_000, 1_000_000])
def test_an_unknown_caller_that_sends_on_still_reads_why(plane: DataPlane, size: int) -> None:
    with plane.connect() as sock:
        sock.sendall(head(f"Content-Length: {size}") + b"x" * size)
        assert read_response(sock)[0] == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/health", 200),
        ("GET", CHAT, 405),
        ("OPTIONS", CHAT, 204),
        ("DELETE", "/v1/streams/x", 401),
        ("POST", "/v1/nothing", 404),
        ("POST", "/livez", 405),
        ("PUT", CHAT, 405),
    ],
)
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
def test_routes_that_read_no_body_answer_without_it(
    plane: DataPlane, method: str, path: str, status: int, framing: str
) -> None:
    with plane.connect() as sock:
        sock.sendall(head(framing, method=method, path=path))
        assert read_response(sock)[0] == status
        assert sock.recv(1) == b""


def test_a_known_caller_gets_100_and_its_answer(plane: DataPlane) -> None:
    body = b"{}"
    request = post(CHAT, body, EXPECT)
    with plane.connect() as sock:
        sock.sendall(request[: -len(body)])
        assert read_response(sock)[0] == 100
        sock.sendall(body)
        assert read_response(sock)[0] == 400  # read: messages are missing


def test_an_unknown_caller_that_pipelines_is_refused_in_its_turn(plane: DataPlane) -> None:
    livez = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
    with plane.connect() as sock:
        sock.sendall(livez + head(LENGTH, EXPECT))
        status, _, _, rest = read_response(sock)
        assert status == 200 and read_response(sock, rest)[0] == 401


def test_an_authorization_in_a_trailer_is_none(plane: DataPlane) -> None:
    trailer = f"Authorization: Bearer {TOKEN}\r\n".encode()
    for declared in ((), ("Trailer: Authorization",)):
        for pieces in ((b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n",), (b"2\r\n{}\r\n", b"0\r\n" + trailer, b"\r\n")):
            with plane.connect() as sock, contextlib.suppress(ConnectionError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(head(CHUNKED, *declared))
                for piece in pieces:
                    sock.sendall(piece)
                assert read_response(sock)[0] == 401


def test_refusals_at_the_head_are_counted_like_others(tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s") as plane:
        for request in (head(LENGTH), head(CHUNKED, EXPECT), post(CHAT, b"{}", token="hg_none")):
            with plane.connect() as sock:
                sock.sendall(request)
                assert read_response(sock)[0] == 401
        assert plane.stop() == 0
        counts: dict[str, int] = {}
        for record in plane.records():
            if isinstance(record, Refused):
                counts[record.code] = counts.get(record.code, 0) + record.count
        assert counts == {"missing_api_key": 2, "invalid_api_key": 1}


def test_bodies_over_the_total_are_503(plane: DataPlane) -> None:
    part = b"x" * (MB + MB // 2)
    full = f"Content-Length: {2 * MB}"
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(plane.connect()) for _ in range(3)]
        refused = 0
        for sock in socks:
            sock.settimeout(0.3)
            sock.sendall(head(f"Authorization: Bearer {TOKEN}", full) + part)
            with contextlib.suppress(TimeoutError):
                status, headers, body, _ = read_response(sock)
                assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
                assert headers["retry-after"] == "1" and headers["connection"] == "close"
                refused += 1
        assert refused == 1
        with plane.connect() as small:  # small requests go on
            small.sendall(post(CHAT, b"{}"))
            assert read_response(small)[0] == 400
    for _ in range(3):  # one after the other, each with nearly all of the room
        with plane.connect() as sock:
            sock.sendall(post(CHAT, b'"' + b"x" * (2 * MB - 2) + b'"'))
            assert read_response(sock)[0] == 400


class Door:
    """An Application that knows one caller, and answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Request, Egress]] = []

    def reads_body(self, request: Request) -> bool:
        return request.headers.get(b"authorization") == b"Bearer good"

    def call(self, request: Request, egress: Egress) -> None:
        if self.reads_body(request):
            self.calls.append((request, egress))
        else:
            self.refuse(GatewayError(MISSING_KEY, "who is it?"), request, egress)

    def refuse(self, error: GatewayError, request: Request, egress: Egress) -> None:
        egress.answer(error.kind.status, b"", b"{}")

    def allowed_origin(self, origin: bytes) -> bytes | None:
        return None


def on_a_listener(work: Callable[[Listener, Door, int], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        door = Door()
        listener = Listener(door, Wheel(loop), Turn(loop), Limits(max_body=2 * MB))
        listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        listener.start(listening)
        port: int = listening.getsockname()[1]
        async with asyncio.timeout(60):
            await work(listener, door, port)

    asyncio.run(main())


@pytest.mark.parametrize("framing", [(LENGTH,), (CHUNKED,), (LENGTH, EXPECT)])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_sixty_unknown_callers_hold_nothing(framing: tuple[str, ...], method: str) -> None:
    async def work(listener: Listener, door: Door, port: int) -> None:
        writers = []
        most = 0
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head(*framing, method=method) + (b"8000\r\n" if CHUNKED in framing else b""))
            writers.append(writer)
        for _ in range(20):
            for writer in writers:
                writer.write(b"x" * 16384)
            await asyncio.sleep(0.005)
            most = max(most, sum(len(connection._body) for connection in listener.connections))
        assert most <= 60 * 1024 and listener.bodies.held == 0
        for writer in writers:
            writer.close()

    on_a_listener(work)


def test_known_callers_hold_is_given_back() -> None:
    body = b"x" * 100_000
    request = head("Authorization: Bearer good", f"Content-Length: {len(body)}") + body

    async def work(listener: Listener, door: Door, port: int) -> None:
        async def opened(data: bytes) -> asyncio.StreamWriter:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            return writer

        held = listener.bodies
        answered, left, half = await opened(request), await opened(request), await opened(request[:-10])
        await eventually(lambda: len(door.calls) == 2 and held.held == 300_000 - 10)
        for _, egress in door.calls:
            egress.begin(b"")
        door.calls[0][1].end(b"data: x\n\n")
        await eventually(lambda: held.held == 200_000 - 10)
        half.close()
        await eventually(lambda: held.held == 100_000)
        answered.close(), left.close()
        await eventually(lambda: held.held == 0 and not listener.connections)
        short = request.replace(b"100000", b"30000")[:-70_000]
        twice = await opened(short + short)  # the second one is read ahead
        for position in (2, 3):
            await eventually(lambda position=position: len(door.calls) == position + 1)  # type: ignore[misc]
            assert held.held >= 30_000
            door.calls[position][1].answer(200, b"", b"{}")
        await eventually(lambda: held.held == 0)
        twice.close()

    on_a_listener(work)
