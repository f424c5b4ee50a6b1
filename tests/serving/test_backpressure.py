"""A client that does not read stops its own upstream, holds little, and harms nobody (WIRE "A stream" 9)."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from headgate.testing.provider import lorem
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import ProviderProcess, Stream, ask, opened, request
from tests.waiting import wait_until, wait_until_steady

ENDLESS = "up/lorem?rate=0&ttft=0&tokens=100000"  # 17 MB of events
SLOW = 40


def settled(provider: ProviderProcess) -> list[int]:
    """How many tokens each exchange has been rid of, once that has stopped changing."""
    return wait_until_steady(lambda: [seen.tokens for seen in provider.seen()], 0.3)


def slow_clients(plane: DataPlane, stack: contextlib.ExitStack, count: int) -> list[Stream]:
    """Clients with small buffers that send a request and read nothing."""
    clients = []
    for _ in range(count):
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", plane.port))
        sock.sendall(request(ENDLESS))
        clients.append(Stream(sock))
    return clients


def fastest(plane: DataPlane) -> float:
    """Seconds for one long answer; other work on this machine may hold one of them up."""
    took = []
    for _ in range(3):
        begun = time.monotonic()
        ask(plane, "up/lorem?rate=0&ttft=0&tokens=3000").check_stream(lorem.text(3000))
        took.append(time.monotonic() - begun)
    return min(took)


def test_forty_clients_that_read_nothing(provider_process: ProviderProcess, tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(provider_process.url)) as plane, contextlib.ExitStack() as stack:
        ask(plane, "up/lorem?rate=0&ttft=0&tokens=2000")  # what is allocated once
        alone = fastest(plane)
        idle_kb = plane.rss_kb()
        provider_process.reset()
        clients = slow_clients(plane, stack, SLOW)
        wait_until(lambda: len(provider_process.seen()) == SLOW, within=60, step=0.1)
        levels = settled(provider_process)
        grown = plane.rss_kb() - idle_kb
        assert max(levels) < 95_000, "an upstream was drained although its client reads nothing"
        assert grown / SLOW <= 256, f"{grown / SLOW:.0f} KiB for each client that reads nothing"
        wait_until(lambda: fastest(plane) < 5 * alone, within=60)  # the others go on at full speed
        clients[7].rest().check_stream(lorem.text(100_000))  # and whoever reads again has lost nothing


def test_reading_in_fits_and_starts_loses_nothing(gate: DataPlane) -> None:
    with opened(gate, request("up/lorem?rate=0&ttft=0&tokens=40000"), timeout=30) as stream:
        for _ in range(5):
            time.sleep(0.1)
            stream.buffer += stream.sock.recv(300_000)
        stream.rest().check_stream(lorem.text(40_000))


def test_slow_reader_gets_the_next_stream_intact(gate: DataPlane) -> None:
    """The second response begins while the first one still fills the client's buffer."""
    with opened(gate, request("up/lorem?rate=0&ttft=0&tokens=3000") + request(ENDLESS), timeout=30) as stream:
        time.sleep(0.5)
        stream.rest().check_stream(lorem.text(3000))
        following = Stream(stream.sock)
        following.buffer = stream.buffer
        time.sleep(0.3)
        following.rest().check_stream(lorem.text(100_000))
