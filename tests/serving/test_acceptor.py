"""Accepting connections: so many per turn of the loop, and what happens when there is no descriptor for one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from headgate.serving.client import acceptor
from headgate.serving.client.acceptor import PER_TURN, Acceptor
from tests.dataplane import DataPlane, read_response
from tests.waiting import wait_until_steady

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
LOOPS = pytest.mark.parametrize("loop_of", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
LoopOf = Callable[[], asyncio.AbstractEventLoop]


class Turns:
    """Counts the turns of the running loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        self._loop.call_soon(self._turn)

    async def until(self, condition: Callable[[], bool], most: int = 1_000_000) -> None:
        while not condition():
            assert self.count < most, f"not within {most} turns"
            await asyncio.sleep(0)


class Made(asyncio.Protocol):
    """Notes in which turn it was made."""

    def __init__(self, turns: Turns, made: list[int]) -> None:
        self._turns, self._made = turns, made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(self._turns.count)


@contextlib.contextmanager
def backlog_of(count: int) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listening socket, and ``count`` connections in its backlog."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    clients = [socket.create_connection(listening.getsockname()) for _ in range(count)]
    try:
        yield listening, clients
    finally:
        for sock in (*clients, listening):
            sock.close()


@LOOPS
def test_many_connections_are_accepted_in_a_turn_but_not_all(loop_of: LoopOf) -> None:
    async def main(listening: socket.socket) -> None:
        turns, made = Turns(), list[int]()
        acceptor = Acceptor(listening, lambda: Made(turns, made))
        acceptor.start()
        await turns.until(lambda: len(made) == 200)
        acceptor.close()
        in_one_turn = Counter(made).values()
        assert max(in_one_turn) <= PER_TURN
        assert len(in_one_turn) <= 2 * 200 / PER_TURN  # one per turn would be 200

    with backlog_of(200) as (listening, _), asyncio.Runner(loop_factory=loop_of) as runner:
        runner.run(main(listening))


@LOOPS
def test_accepting_resumes_with_a_free_descriptor(
    loop_of: LoopOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor, "RETRY_S", 0.01)
    caplog.set_level(logging.WARNING, "headgate.listener")

    async def main(listening: socket.socket) -> None:
        turns, made = Turns(), list[int]()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        acceptor = Acceptor(listening, lambda: Made(turns, made))
        acceptor.start()
        free = os.dup(0)  # the lowest free descriptor is the first that the limit leaves out
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            await turns.until(lambda: len(caplog.records) > 0)
            await asyncio.sleep(0.05)  # several attempts
            assert not made
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await turns.until(lambda: len(made) == 3)
        acceptor.close()
        failed, again = (record.getMessage() for record in caplog.records)
        assert "open files" in failed and again == "accepting connections again"

    with backlog_of(3) as (listening, _), asyncio.Runner(loop_factory=loop_of) as runner:
        runner.run(main(listening))


@LOOPS
def test_a_client_that_left_the_backlog_stops_nobody(loop_of: LoopOf) -> None:
    async def main(listening: socket.socket, clients: list[socket.socket]) -> None:
        turns, made = Turns(), list[int]()
        clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        clients[0].close()  # a reset
        acceptor = Acceptor(listening, lambda: Made(turns, made))
        acceptor.start()
        await turns.until(lambda: len(made) >= 1)
        acceptor.close()

    with backlog_of(2) as (listening, clients), asyncio.Runner(loop_factory=loop_of) as runner:
        runner.run(main(listening, clients))


@LOOPS
def test_what_is_in_the_backlog_waits_for_the_next_process(loop_of: LoopOf) -> None:
    async def main(listening: socket.socket) -> None:
        mine = listening.dup()
        turns, made = Turns(), list[int]()
        first = Acceptor(mine, lambda: Made(turns, made))
        first.start()
        first.close()
        second = Acceptor(listening, lambda: Made(turns, made))
        second.start()
        await turns.until(lambda: len(made) == 20)
        second.close()

    with backlog_of(20) as (listening, _), asyncio.Runner(loop_factory=loop_of) as runner:
        runner.run(main(listening))


def lowest_free(pid: int) -> int:
    """The descriptor that the process would open next, once it opens and closes none by itself any more."""
    now = wait_until_steady(lambda: {int(name) for name in os.listdir(f"/proc/{pid}/fd")}, 0.3)
    return next(number for number in range(len(now) + 1) if number not in now)


def test_data_without_descriptors_serves_its_connections(tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s") as plane, plane.connect() as known:
        known.sendall(LIVEZ)
        assert read_response(known)[0] == 200
        free = lowest_free(plane.process.pid)
        before = resource.prlimit(plane.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(plane.process.pid, resource.RLIMIT_NOFILE, (free, before[1]))
        with plane.connect() as waiting:
            waiting.sendall(LIVEZ)
            for _ in range(5):
                known.sendall(LIVEZ)
                assert read_response(known)[0] == 200
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            resource.prlimit(plane.process.pid, resource.RLIMIT_NOFILE, before)
            waiting.settimeout(30)
            assert read_response(waiting)[0] == 200
