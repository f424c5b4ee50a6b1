"""Control killed, blocked and slowed while 500 streams run: none of them notices, and each call is on record once.

One set of streams, one disturbance after the other, with undisturbed seconds before: what a client sees in a phase is
compared with what it saw in those.  The machine has other work, so a gap must be both long and longer than before to
count.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headgate.testing.provider import lorem
from tests.e2e.gateway import FILE_TOKEN, Gateway, Make, Report

STREAMS = 500
RATE = 4  # events per second and stream
SECONDS = 34
TOKENS = RATE * SECONDS
ROWS = 100_000  # in the store beforehand, so that its queries take a while
PROMPT = "one two three"

LOAD = """
import json, sys, threading, time, urllib.error, urllib.request
url, token, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
paths = ["requests?limit=500", "requests?min_cost_usd=9&limit=500", "requests?label=nobody", "catalog?limit=2000",
         "usage?group_by=model", "requests?min_duration_ms=1", "catalog?sort_by=name&search=o", "usage?group_by=day"]
end = time.monotonic() + seconds
answers = {}
def work(first):
    n = first
    while time.monotonic() < end:
        path = paths[n % len(paths)] if first else "tokens"
        n += 1
        request = urllib.request.Request(f"{url}/admin/v1/{path}", headers={"Authorization": f"Bearer {token}"})
        if not first:
            request.data = json.dumps({"name": f"made {n}"}).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        answers[status] = answers.get(status, 0) + 1
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(answers))
"""


@dataclass(eq=False)
class Client(asyncio.Protocol):
    """One stream: its bytes, and when each read came."""

    request: bytes
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytearray = field(default_factory=bytearray)
    reads: list[float] = field(default_factory=list)
    error: str = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.reads.append(time.monotonic())
        self.body += data

    def connection_lost(self, error: Exception | None) -> None:
        self.error = repr(error) if error else ""
        self.ended.set()

    @property
    def events(self) -> list[str]:
        """The payloads, without head and chunk framing: an event stands whole in one chunk."""
        lines = bytes(self.body).partition(b"\r\n\r\n")[2].split(b"\n")
        return [line[6:].decode() for line in lines if line.startswith(b"data: ")]

    @property
    def text(self) -> str:
        chunks = [json.loads(event) for event in self.events if event != "[DONE]"]
        assert not [chunk for chunk in chunks if "error" in chunk], chunks[-1]
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])

    @property
    def id(self) -> str:
        return str(json.loads(self.events[0])["id"])


@dataclass
class Phase:
    """What clients saw between two instants: how much later than paced an event came, in seconds."""

    name: str
    began: float
    ended: float
    lateness: list[float] = field(default_factory=list)

    def look_at(self, clients: list[Client]) -> None:
        for client in clients:
            for earlier, later in zip(client.reads, client.reads[1:], strict=False):
                if self.began <= later <= self.ended:
                    self.lateness.append(max(0.0, later - earlier - 1 / RATE))

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.lateness, n=100)[98]

    @property
    def max(self) -> float:
        return max(self.lateness)

    def __str__(self) -> str:
        return f"{self.name}: p99 {self.p99 * 1e3:.0f} ms, max {self.max * 1e3:.0f} ms late"


def request() -> bytes:
    model = f"builtin/lorem?rate={RATE}&ttft=0.1&tokens={TOKENS}"
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
        % (FILE_TOKEN.encode(), len(body), body)
    )


def many_rows(one: Gateway) -> None:
    """Copies of the one request that there is: a store in which a scan takes a while."""
    with closing(sqlite3.connect(one.state / "headgate.db", timeout=20)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(requests)") if row[1] not in ("id", "label")]
        kept = ", ".join(names)
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            f"INSERT INTO requests (id, {kept}) SELECT printf('seed-%08d', i), {kept} FROM n, "
            "(SELECT * FROM requests LIMIT 1)",
            (ROWS,),
        )
        connection.commit()


# ------------------------------------------------------------------------------------- disturbances


async def killed(one: Gateway) -> None:
    one.kill("control")
    for state in (False, True):  # it has gone, and has come back
        await asyncio.to_thread(one.until, lambda: (one.get("/health")[1]["control"] == "connected") is state)  # noqa: B023
    await asyncio.sleep(1)


async def blocked(one: Gateway) -> None:
    pid = one.kill("control", signal.SIGSTOP)
    try:
        await asyncio.sleep(2)
        status, body = await asyncio.to_thread(one.get, "/v1/usage")
        assert (status, body["error"]["code"]) == (503, "control_unavailable")
    finally:
        os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(1)


async def locked_out(one: Gateway) -> None:
    """Somebody else holds the store's write lock."""
    with closing(sqlite3.connect(one.state / "headgate.db", timeout=20, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(2)
        connection.execute("ROLLBACK")
    await asyncio.sleep(1)


async def asked_too_much(one: Gateway) -> None:
    """Seven clients that ask the admin API for its longest lists, one after the other, and one that makes tokens: each
    is published to the process that streams.
    """
    command = [sys.executable, "-c", LOAD, f"http://127.0.0.1:{one.control_port}", one.admin_token, "4"]
    asking = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(asking.communicate(), 45)
    answers = json.loads(out)
    assert asking.returncode == 0 and answers.get("200", 0) >= 7 and answers.get("201", 0) >= 1, answers
    assert set(answers) <= {"200", "201", "503"}, answers


Disturbance = Callable[[Gateway], Awaitable[None]]
DISTURBANCES: list[Disturbance] = [killed, blocked, locked_out, asked_too_much]


async def streams_through_all(one: Gateway) -> tuple[list[Client], list[Phase]]:
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(STREAMS):
        client = Client(request())
        await loop.create_connection(lambda made=client: made, "127.0.0.1", one.port)  # type: ignore[misc]
        clients.append(client)
        await asyncio.sleep(0.002)
    await asyncio.sleep(1)
    phases = [Phase("undisturbed", time.monotonic(), 0)]
    await asyncio.sleep(3)
    for disturb in DISTURBANCES:
        phases[-1].ended = time.monotonic()
        phases.append(Phase(disturb.__name__, time.monotonic(), 0))
        await disturb(one)
    phases[-1].ended = time.monotonic()
    assert not [client for client in clients if client.ended.is_set()], "the streams were to outlast what disturbs them"
    await asyncio.wait_for(asyncio.gather(*(client.ended.wait() for client in clients)), SECONDS + 120)
    return clients, phases


def outcomes(state: Path) -> dict[str, list[str]]:
    """By id, of all that this test did not put there itself."""
    found: dict[str, list[str]] = {}
    with closing(sqlite3.connect(state / "headgate.db", timeout=20)) as connection:
        for ident, outcome in connection.execute("SELECT id, outcome FROM requests WHERE id < 'g'"):
            found.setdefault(f"chatcmpl-{ident}", []).append(outcome)
    return found


@pytest.mark.alone
def test_500_streams_do_not_notice_what_becomes_of_control(gateway: Make, report: Report) -> None:
    one = gateway(executed=True).start()
    assert one.chat("builtin/echo")[0] == 200
    one.rows()
    many_rows(one)
    clients, phases = asyncio.run(streams_through_all(one))

    assert not [client.error for client in clients if client.error]
    assert {client.events[-1] for client in clients} == {"[DONE]"}
    assert {client.text for client in clients} == {lorem.text(TOKENS)}

    quiet, *disturbed = phases
    for phase in phases:
        phase.look_at(clients)
    report(f"{STREAMS} streams, {STREAMS * RATE} events/s; " + "; ".join(map(str, phases)))
    for phase in disturbed:
        assert phase.p99 <= max(3 * quiet.p99, 1 / RATE), f"{phase} – {quiet}"
        assert phase.max <= max(3 * quiet.max, 4 / RATE), f"{phase} – {quiet}"

    one.until(one._recorded)
    one.until(lambda: one.get("/v1/usage")[0] == 200)
    found = outcomes(one.state)
    assert len(found) == STREAMS + 1 and {client.id for client in clients} < set(found)
    assert set(map(tuple, found.values())) == {("delivered",)}
