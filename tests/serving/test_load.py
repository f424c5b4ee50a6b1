"""Many at once: a thousand streams, a closed loop with pipelining, half a thousand clients that leave together."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from headgate.model import Closed, ConnectionLimits, Opened
from headgate.testing.provider import lorem
from tests.dataplane import DataPlane, post, upstream
from tests.serving.calls import Answer, ProviderProcess, Stream, ask, body, opened, request
from tests.waiting import wait_until

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.fixture
def busy_gate(provider_process: ProviderProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    """A data process in front of the provider in its own process."""
    row = upstream(provider_process.url, pool=ConnectionLimits(max_connections=2000))
    with DataPlane(tmp_path_factory.mktemp("busy") / "s", row) as plane:
        yield plane


async def read_stream(port: int, data: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    raw = await reader.read()
    writer.close()
    head, _, rest = raw.partition(b"\r\n\r\n")
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert parts and parts[-1] == b"", "the body was not ended"
    headers = dict(line.decode().lower().split(": ", 1) for line in head.split(b"\r\n")[1:])
    answer = Answer(int(head.split()[1]), headers, b"".join(parts), True)
    answer.headers["x-headgate-stream-id"] = answer.headers.get("x-headgate-stream-id", "")
    return answer


@pytest.mark.alone
def test_a_thousand_streams_at_a_time(busy_gate: DataPlane) -> None:
    """All open at once (each lasts longer than it takes to begin them all), each text exact, each with its receipt."""
    count, tokens = 1000, 40

    async def all_of_them() -> list[Answer]:
        data = request(f"up/lorem?rate=8&ttft=0&tokens={tokens}", "Connection: close")
        running = [asyncio.create_task(read_stream(busy_gate.port, data)) for _ in range(count)]
        return await asyncio.gather(*running)

    answers = asyncio.run(all_of_them())
    text = lorem.text(tokens)
    assert sum(answer.text == text and answer.events[-1] == "[DONE]" for answer in answers) == count
    closed = [r for r in busy_gate.wait_for(Closed, count) if isinstance(r, Closed)]
    assert {r.outcome for r in closed} == {"delivered"} and {r.completion_tokens for r in closed} == {tokens}
    opened_at = sorted(r.at for r in busy_gate.records() if isinstance(r, Opened))
    assert opened_at[-1] < min(r.at for r in closed), "they were never all open at once"


@pytest.mark.alone
def test_sixteen_connections_in_a_closed_loop_with_pipelining(busy_gate: DataPlane) -> None:
    depth, wrong, done = 4, [0], [0]
    expected = [lorem.text(n) for n in range(1, depth + 1)]
    batch = b"".join(
        post("/v1/chat/completions", body(f"up/lorem?rate=0&ttft=0&tokens={n}", stream=n % 2 == 0))
        for n in range(1, depth + 1)
    )
    until = time.monotonic() + 2

    def client() -> None:
        with busy_gate.connect() as sock:
            stream = Stream(sock)
            while time.monotonic() < until:
                sock.sendall(batch)
                for n in range(1, depth + 1):
                    answer = stream.rest()
                    text = answer.text if n % 2 == 0 else answer.json["choices"][0]["message"]["content"]
                    wrong[0] += answer.status != 200 or text != expected[n - 1]
                    done[0] += 1
                    following = Stream(sock)
                    following.buffer = stream.buffer
                    stream = following

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == [0] and done[0] > 500
    records = busy_gate.wait_for(Closed, done[0])
    assert len(records) == done[0] and {r.outcome for r in records} == {"delivered"}  # type: ignore[union-attr]


@pytest.mark.alone
def test_five_hundred_clients_leave_at_once(busy_gate: DataPlane, provider_process: ProviderProcess) -> None:
    """Others go on being answered while their streams are torn down, and no provider is left working."""
    count = 500
    provider_process.reset()
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(busy_gate.connect())
            sock.sendall(request("up/lorem?rate=5&ttft=0&tokens=5000"))
            socks.append(sock)
        wait_until(lambda: len(provider_process.seen()) == count, within=60, step=0.2)
        time.sleep(0.5)
        with busy_gate.connect() as probe:
            before = _livez(probe, 20)
            threading.Thread(target=lambda: [sock.close() for sock in socks]).start()
            during = _livez(probe, 100)
        records = busy_gate.wait_for(Closed, count)
    assert {r.outcome for r in records} == {"cancelled"}  # type: ignore[union-attr]
    # 500 streams are torn down in parts: in one go they would take longer than hundreds of health questions.
    assert sorted(during)[-3] < 100 * statistics.median(before), (sorted(during)[-5:], statistics.median(before))
    wait_until(lambda: {seen.how for seen in provider_process.seen()} == {"client_closed"}, step=0.1)


def _livez(sock: object, count: int) -> list[float]:
    """Seconds that each of ``count`` health questions took, 5 ms apart."""
    took = []
    for _ in range(count):
        begun = time.monotonic()
        sock.sendall(LIVEZ)  # type: ignore[attr-defined]
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")  # type: ignore[attr-defined]
        took.append(time.monotonic() - begun)
        time.sleep(0.005)
    return took


@pytest.mark.alone
def test_one_black_hole_slows_nobody(busy_gate: DataPlane) -> None:
    def typical() -> float:
        took = []
        for _ in range(20):
            begun = time.monotonic()
            ask(busy_gate, "up/lorem?rate=0&ttft=0&tokens=50").check_stream(lorem.text(50))
            took.append(time.monotonic() - begun)
        return statistics.median(took)

    without = typical()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            hole = stack.enter_context(opened(busy_gate, request("up/fault/black-hole")))
            hole.head()
        assert typical() < 5 * without
