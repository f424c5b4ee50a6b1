"""How long new connections wait on a busy loop: the loop's own server beside Headgate's accept loop, in one run.

Every turn of the loop costs ``--turn`` milliseconds of processor time, as the events of several hundred streams do, and
``--connections`` clients connect at once.  Turns do not depend on the machine; a client's wait is its turns times their
length.

    python bench/accepts.py [--connections 320] [--turn 10] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Callable

import uvloop

from headgate.serving.client.acceptor import Acceptor


class Waiting(asyncio.Protocol):
    """Notes when it was made."""

    def __init__(self, made: Callable[[], None]) -> None:
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made()


async def measure(own: bool, connections: int, turn_s: float) -> dict[str, float]:
    """The turns and seconds until connections were accepted: of the median, of the last."""
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0), backlog=connections)
    waits: list[tuple[int, float]] = []
    turns = 0
    over = loop.create_future()
    begun = time.perf_counter()

    def made() -> None:
        waits.append((turns, time.perf_counter() - begun))
        if len(waits) == connections:
            over.set_result(None)

    def turn() -> None:
        nonlocal turns
        turns += 1
        until = time.thread_time() + turn_s
        while time.thread_time() < until:
            pass
        if not over.done():
            loop.call_soon(turn)

    clients = [socket.create_connection(listening.getsockname()) for _ in range(connections)]
    if own:
        acceptor = Acceptor(listening, lambda: Waiting(made))
        acceptor.start()
    else:
        await loop.create_server(lambda: Waiting(made), sock=listening, backlog=connections)
    begun = time.perf_counter()
    loop.call_soon(turn)
    await over
    for client in clients:
        client.close()
    waits.sort()
    middle, last = waits[len(waits) // 2], waits[-1]
    return {"p50_turns": middle[0], "last_turns": last[0], "p50_s": round(middle[1], 3), "last_s": round(last[1], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=320)
    parser.add_argument("--turn", type=float, default=10, help="milliseconds of processor time per turn")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    given = parser.parse_args()
    found = {}
    for loop in (uvloop.new_event_loop, asyncio.new_event_loop):
        for own in (False, True):
            with asyncio.Runner(loop_factory=loop) as runner:
                name = f"{'uvloop' if loop is uvloop.new_event_loop else 'asyncio'}, {'ours' if own else 'its server'}"
                found[name] = runner.run(measure(own, given.connections, given.turn / 1000))
    if given.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(f"{name:20} " + "  ".join(f"{key} {value:>7}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
