"""What one provider that never answers costs the streams of the others.

Runs a gateway, an upstream that stamps every event with the time it was written, and ``--streams`` paced streams at a
time, in turns without and with a target that accepts connections and says nothing.  With it, a tenth as many calls more
go to an alias whose first target it is, all the while; each of them is answered by the second one.  The figure is the
time from the upstream's write to the client's read.

    python bench/black_hole.py [--streams 2000] [--rate 2] [--seconds 8] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

GOAL = 1.2
STAMP = re.compile(rb'"content":"(\d+) "')
TOKEN = "hg_bench_0123456789abcdef0123456789abcdef"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WARM_UP_S = 2.0
FIRST_TOKEN_S = 1.0


# ------------------------------------------------------------------------------------- the upstreams


class Stamping:
    """Answers every request with a stream of ``rate`` events a second, each with the time of its writing."""

    def __init__(self, rate: float, seconds: float) -> None:
        self.rate = rate
        self.seconds = seconds

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await read_request(reader)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for _ in range(int(self.seconds * self.rate)):
                    writer.write(event({"content": f"{time.monotonic_ns()} "}))
                    await asyncio.sleep(1 / self.rate)
                writer.write(event({}, "stop") + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads all there is and never answers."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk = {
        "id": "up", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip
    return framed(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def upstreams(sockets: tuple[socket.socket, socket.socket], rate: float, seconds: float) -> None:
    """The process of both of them."""

    async def serve() -> None:
        good = await asyncio.start_server(Stamping(rate, seconds).answer, sock=sockets[0])
        hole = await asyncio.start_server(silent, sock=sockets[1])
        async with good, hole:
            await asyncio.gather(good.serve_forever(), hole.serve_forever())

    run(serve())


def run(coroutine: Any) -> Any:
    """On uvloop, where it is there: the instruments should cost less than what they measure."""
    return asyncio.run(coroutine) if uvloop is None else uvloop.run(coroutine)


# ------------------------------------------------------------------------------------- the clients


class Client(asyncio.Protocol):
    """One stream after another; the latencies of all of them, in seconds, go into ``taken``."""

    def __init__(self, model: str, taken: list[float] | None) -> None:
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "?"}]}
        data = json.dumps(body).encode()
        self.request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        ).encode() + data
        self.taken = taken
        self.whole = 0
        self.failed = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self.taken is not None:
            self.taken += [(now - int(stamp)) / 1e9 for stamp in STAMP.findall(data)]
        if b"data: [DONE]" in data:
            self.whole += 1
            self.ended.set_result(None)
        elif b'"error"' in data or b"HTTP/1.1 5" in data:
            self.failed += 1
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.failed += 1
            self.ended.set_result(None)


async def stream(port: int, model: str, taken: list[float] | None) -> Client:
    transport, client = await asyncio.get_running_loop().create_connection(
        lambda: Client(model, taken), "127.0.0.1", port
    )
    await client.ended
    transport.close()
    return client


async def load(port: int, streams: int, rate: float, with_hole: bool) -> dict[str, Any]:
    """One run: all streams begin within a period of their pace, each at its own phase."""
    taken: list[float] = []

    async def later(number: int, model: str) -> Client:
        await asyncio.sleep(number / streams / rate * max(1.0, WARM_UP_S * rate))
        return await stream(port, model, taken)

    async def beside(worker: int) -> tuple[int, int]:
        whole = failed = 0
        while not done.is_set():
            client = await stream(port, "behind", None)
            whole, failed = whole + client.whole, failed + client.failed
        return whole, failed

    done = asyncio.Event()
    others = [asyncio.create_task(beside(n)) for n in range(streams // 10 if with_hole else 0)]
    clients = await asyncio.gather(*(later(n, "good/m") for n in range(streams)))
    done.set()
    fallen = [await other for other in others]
    taken.sort()
    return {
        "streams": sum(client.whole for client in clients),
        "failed": sum(client.failed for client in clients) + sum(failed for _, failed in fallen),
        "fallen_back": sum(whole for whole, _ in fallen),
        "events": len(taken),
        "p50_ms": round(taken[len(taken) // 2] * 1000, 2),
        "p99_ms": round(taken[len(taken) * 99 // 100] * 1000, 2),
    }


def clients(pipe: Connection, port: int, streams: int, rate: float) -> None:
    """The clients' process: a run for every question that comes, until there are no more."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(run(load(port, streams, rate, pipe.recv())))


# ------------------------------------------------------------------------------------- the runs


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


def free_port() -> int:
    with listening() as found:
        return int(found.getsockname()[1])


def configured(good: int, hole: int) -> str:
    return json.dumps(
        {
            "detect": {"local_engines": False, "environment": False},
            "providers": {
                "good": {"base_url": f"http://127.0.0.1:{good}/v1", "auth": "none", "max_connections": 8000},
                "hole": {"base_url": f"http://127.0.0.1:{hole}/v1", "auth": "none", "max_connections": 8000},
            },
            "aliases": {
                "behind": {"targets": ["hole/m", "good/m"], "timeouts": {"first_token": FIRST_TOKEN_S}},
            },
            "tokens": [{"name": "bench", "secret": TOKEN}],
        }
    )


def measure(streams: int, rate: float, seconds: float, rounds: int, quiet: bool) -> dict[str, Any]:
    """All runs.  Returns their figures and the ratio of the medians of their 99th percentiles."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    good, hole = listening(), listening()
    port, control_port = free_port(), free_port()
    context = multiprocessing.get_context("fork")
    up = context.Process(target=upstreams, args=((good, hole), rate, seconds), daemon=True)
    up.start()
    ours, theirs = context.Pipe()
    load_process = context.Process(target=clients, args=(theirs, port, streams, rate), daemon=True)
    load_process.start()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "headgate.yaml")
        config.write_text(configured(good.getsockname()[1], hole.getsockname()[1]))
        gateway = subprocess.Popen(
            [sys.executable, "-m", "headgate", "serve", "--config", str(config), "--port", str(port),
             "--control-port", str(control_port), "--state-dir", str(Path(folder, "state"))],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            wait_for(port, gateway)
            runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
            ours.send(False)
            ours.recv()  # connections are made, code is warm
            for number in range(rounds):
                for name in ("without", "with") if number % 2 == 0 else ("with", "without"):
                    ours.send(name == "with")
                    found = ours.recv()
                    runs[name].append(found)
                    if not quiet:
                        print(f"{number + 1}/{rounds} {name:8} {found}", file=sys.stderr, flush=True)
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(20)
            up.terminate()
            load_process.terminate()
    middle = {name: statistics.median(one["p99_ms"] for one in found) for name, found in runs.items()}
    return {"runs": runs, "p99_ms": middle, "ratio": round(middle["with"] / middle["without"], 3), "goal": GOAL}


def wait_for(port: int, gateway: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if gateway.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"the gateway did not start: {gateway.stderr.read() if gateway.stderr else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=2.0, help="events a second of each stream")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3, help="of a run without and one with the silent target")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.streams, given.rate, given.seconds, given.rounds, given.json)
    if given.json:
        print(json.dumps(found))
    else:
        print(f"p99 {found['p99_ms']['without']} ms without, {found['p99_ms']['with']} ms with: {found['ratio']}")
        print(f"≤ {GOAL}: {'met' if found['ratio'] <= GOAL else 'missed'}")
    return 0 if all(one["failed"] == 0 for name in found["runs"].values() for one in name) else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
