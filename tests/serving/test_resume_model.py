"""A kept stream under any order of events: readers that come, stall, go on and leave, an end of any kind, time.

No sockets and a clock of its own: what a reader has is always a row of events without a gap, and in the end nothing
is kept and all memory is given back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headgate.dialects import registry
from headgate.errors import STREAM_STOPPED, ClientGone, GatewayError
from headgate.model import NO_ALIAS, Limits, Options
from headgate.policy.auth import Digester
from headgate.serving.client.egress import Egress
from headgate.serving.client.response import ResponseWriter
from headgate.serving.loop.wheel import Wheel
from headgate.serving.replay import stream as stream_module
from headgate.serving.replay.keeper import ReplayKeeper
from headgate.serving.replay.stream import KeptStream
from headgate.wire.http import Request
from tests.serving.resuming import numbered, unchunked

IDENT = "chatcmpl-1a1feac75d356feaf9000001"


class Clock:
    """The loop that a Wheel asks for the time."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, turn: Any) -> Any:
        self.turn = turn
        return SimpleNamespace(cancel=lambda: None)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.5)
            self.turn()


class Client(ResponseWriter):
    """A connection with one response."""

    def __init__(self, wheel: Wheel, key: bool) -> None:
        self.wheel = wheel
        self.paused = self.closed = False
        self.out = b""
        headers = {b"idempotency-key": b"k"} if key else {}
        self.request = Request(b"POST", b"/v1/chat/completions", b"", headers, b"{}", "1.1", True, 0.0)
        self.transport: Any = SimpleNamespace(abort=self.ended)
        self._turn: Any = SimpleNamespace(write=self.written)
        self._running = self.request
        self.egress = Egress(cast(Any, self))

    def report_to(self, egress: Egress) -> None:
        self.egress = egress

    def common_fields(self) -> bytes:
        return b""

    def written(self, transport: Any, data: bytes) -> None:
        assert not self.closed
        self.out += data

    def ended(self) -> None:
        self.closed = True

    def pause(self) -> None:
        self.paused = True
        if not self.closed and self.egress.source is not None:
            self.egress.source.pause()

    def resume(self) -> None:
        self.paused = False
        if not self.closed and self.egress.source is not None:
            self.egress.source.resume()

    def leave(self) -> None:
        self.closed = True
        self.egress.leave()

    @property
    def events(self) -> list[tuple[int, bytes]]:
        head, _, body = self.out.partition(b"\r\n\r\n")
        if b"chunked" not in head:
            return []
        raw = re.sub(rb"(?m)^:[^\n]*\n", b"", unchunked(body))  # a comment is a line of the block behind it
        blocks = [block + b"\n\n" for block in raw.split(b"\n\n")[:-1]]
        return numbered(b"".join(block for block in blocks if block.startswith(b"id:")))


class Upstream:
    held = False

    def pause(self) -> None:
        self.held = True

    def resume(self) -> None:
        self.held = False


class Call:
    """The fiber of the call: told once that nobody wants it, or that the gateway ends it."""

    gone = 0
    egress: Any

    def throw(self, error: BaseException) -> bool:
        self.gone += 1
        if isinstance(error, GatewayError):  # as the exchange does
            self.egress.source = None
            if self.egress.committed:
                self.egress.fail(b'data: {"error":"%b"}\n\n' % error.kind.code.encode())
            else:
                self.egress.answer(error.kind.status, b"", error.kind.code.encode())
        else:
            assert isinstance(error, ClientGone)
        return True


SENDS = st.tuples(st.just("send"), st.integers(1, 3), st.integers(0, 300))
OPERATIONS = st.one_of(
    SENDS,
    SENDS,
    st.tuples(st.sampled_from(["follow", "pause"]), st.integers(0, 3), st.just(0)),
    st.tuples(st.sampled_from(["leave", "pause", "resume"]), st.integers(0, 5), st.just(0)),
    st.tuples(st.sampled_from(["follow", "comment", "turn", "delete"]), st.integers(0, 40), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 30), st.just(0)),
)


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "PIECE", 500)
        yield


@settings(deadline=None, max_examples=400)
@given(
    st.lists(OPERATIONS, max_size=60), st.sampled_from(["end", "end", "fail", "answer", "cut", "close", "nothing"]),
    st.booleans(), st.sampled_from([600, 4000, 60_000]), st.sampled_from(["detach", "detach", "drain", "cancel"]),
)  # fmt: skip
@example(  # its own client, alone again, catches up piece by piece: then the upstream goes on
    [("follow", 0, 0), ("pause", 0, 0), *[("send", 3, 300)] * 3, ("leave", 1, 0)], "nothing", False, 60_000, "detach"
)
def test_any_order(operations: list[Any], end: str, key: bool, room: int, leaving: str) -> None:
    asyncio.run(play(operations, end, key, room, leaving))


async def play(operations: list[Any], end: str, key: bool, room: int, leaving: str) -> None:
    clock = Clock()
    wheel = Wheel(cast(Any, clock))
    replay = ReplayKeeper(wheel, Limits(replay_max=70_000, replay_per_stream=room), Digester(b"k"))
    first = Client(wheel, key)
    clients = [first]
    call = Call()
    egress: Any = first.egress
    egress.owner, call.egress = call, egress
    options = Options(on_disconnect=leaving, resumable_s=None if leaving == "cancel" else 20.0)
    plan = SimpleNamespace(
        alias=NO_ALIAS,
        attempts=(SimpleNamespace(target=SimpleNamespace(timeouts=SimpleNamespace(total=600.0))),),
    )
    receipt = SimpleNamespace(id=IDENT, client_id=IDENT, at=0, grant=SimpleNamespace(id="t0"))
    replay.keep(
        first.request, registry.DEFAULT, cast(Any, SimpleNamespace(options=options, stream=True)), cast(Any, plan),
        cast(Any, receipt), egress,
    )  # fmt: skip
    left: list[Client] = []
    upstream = Upstream()
    begun = end != "answer"
    if begun:
        egress.begin(b"")
        egress.source = upstream
    sent: list[bytes] = []

    def send(write: Any, count: int, size: int) -> None:
        payloads = [b'{"content":"%b%d"}' % (b"x" * size, len(sent) + n) for n in range(count)]
        sent.extend(payloads)
        write(b"".join(b"data: %b\n\n" % one for one in payloads))

    def check() -> None:
        for client in clients:
            events = client.events
            assert [payload for _, payload in events] == sent[events[0][0] - 1 : events[-1][0]] if events else True
        assert 0 <= replay.memory.used <= replay.memory.most

    for what, number, size in operations:
        client = clients[number % len(clients)]
        if what == "send" and begun and not call.gone:
            send(egress.send, number, size)
        elif what == "comment" and begun and not call.gone:
            egress.send(b": keep-alive\n\n")
        elif what == "leave" and not client.closed:
            client.leave()
            left.append(client)
        elif what == "pause" and not client.paused:
            client.pause()
        elif what == "resume" and client.paused:
            client.resume()
        elif what == "follow":
            another = Client(wheel, key)
            try:
                kept = replay.find(IDENT, "t0")
                kept.follow(another.egress, min(number, len(sent)))
                clients.append(another)
            except GatewayError:
                assert not another.out
        elif what == "delete" and isinstance(egress.sink, KeptStream) and not number:
            egress.sink.stop(GatewayError(STREAM_STOPPED, "stopped"))
        elif what == "wait":
            clock.advance(float(number))
        elif what == "turn":
            await asyncio.sleep(0)
        check()
    if end == "close":  # the process ends
        running = isinstance(egress.sink, KeptStream) and not egress.over
        replay.close()
        assert not running or (egress.over and call.gone == 1)
        for client in clients:  # whoever has not left has been told, wherever it was
            assert client.closed or not isinstance(egress.sink, KeptStream), client.out
        return
    if end != "nothing" and not call.gone and not egress.gone and not egress.over:
        egress.source = None  # as the relay does at its end
        if end in ("end", "fail"):
            send(getattr(egress, end), 1, 5)
        elif end == "answer":
            egress.answer(502, b"", b"{}")
        elif end == "cut":
            egress.cut()
    check()
    for client in clients:
        if not client.closed:
            client.resume()
    for _ in range(200):
        await asyncio.sleep(0)
    check()
    assert egress.source is None or egress.over or egress.gone or not upstream.held
    if end in ("end", "fail") and not call.gone and egress.over and not egress.gone:
        for client in clients:  # nobody waits for ever, and who has stayed has all of it or reads why not
            assert client.closed
            whole = bool(client.events) and client.events[-1][0] == len(sent)
            assert whole or client in left or client.request.headers == {} or b"stream_expired" in client.out
    for client in clients:
        if not client.closed:
            client.leave()
    clock.advance(700.0)
    gauges = replay.gauges()
    assert (gauges["streams_kept"], gauges["replay_bytes"]) == (0, 0)
    assert not replay._running and not replay._keyed and call.gone <= 1
