"""kill −9 of each process while it works: what clients notice, and what is on record afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from headgate.testing.provider import lorem
from tests.e2e.gateway import FILE_TOKEN, Gateway, Make, Report, Streamed, stream
from tests.waiting import eventually


@dataclass
class Load:
    """Clients in a closed loop, and a stranger who connects every 5 ms."""

    port: int
    streams: list[Streamed] = field(default_factory=list)
    answered: list[tuple[float, float]] = field(default_factory=list)  # asked, answered
    failed: list[tuple[float, float, str]] = field(default_factory=list)  # asked, seen, why
    stop: bool = False

    async def client(self, model: str) -> None:
        while not self.stop:
            seen = await stream(self.port, model)
            self.streams.append(seen)
            if seen.error:
                await asyncio.sleep(0.01)

    async def stranger(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while not self.stop:
            task = asyncio.create_task(self._knock())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)

    async def _knock(self) -> None:
        asked = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.closing(writer):
                writer.write(b"GET /livez HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
                head = await reader.readline()
            if head.startswith(b"HTTP/1.1 200"):
                self.answered.append((asked, time.monotonic()))
            else:
                self.failed.append((asked, time.monotonic(), repr(head)))
        except OSError as error:
            self.failed.append((asked, time.monotonic(), repr(error)))


async def under_load(one: Gateway) -> tuple[Load, float]:
    load = Load(one.port)
    clients = [load.client("builtin/lorem?rate=400&ttft=0.01&tokens=20") for _ in range(24)]
    clients += [load.client("builtin/lorem?rate=50&ttft=0.01&tokens=100") for _ in range(8)]
    tasks = [asyncio.create_task(work) for work in (*clients, load.stranger())]
    await eventually(lambda: sum(seen.done for seen in load.streams) > len(clients))
    one.kill("data")
    killed = time.monotonic()
    await eventually(lambda: sum(seen.done and seen.began > killed for seen in load.streams) > len(clients))
    load.stop = True
    await asyncio.gather(*tasks)
    return load, killed


def test_killed_data_process_loses_no_receipt(gateway: Make, report: Report) -> None:
    one = gateway().start()
    assert one.chat("builtin/echo")[0] == 200
    load, killed = asyncio.run(under_load(one))

    again = min(answered for asked, answered in load.answered if asked > killed) - killed
    report(f"kill −9 of data under load: next answer after {again * 1000:.0f} ms ({len(load.streams)} streams)")
    assert not [why for *_times, why in load.failed if "Refused" in why]
    # What it had accepted broke with it; whoever came later waited and was answered.
    assert not [(asked - killed, why) for asked, _seen, why in load.failed if asked > killed + 0.01]

    rows = one.rows()
    whole = [seen for seen in load.streams if seen.done]
    broken = [seen for seen in load.streams if seen.error]
    assert len(whole) > 50 and all(seen.text in (lorem.text(20), lorem.text(100)) for seen in whole)
    assert {rows[seen.id]["outcome"] for seen in whole} == {"delivered"}
    assert len({seen.id for seen in whole}) == len(whole)
    assert all(seen.began < killed for seen in broken) and 8 <= len(broken) <= 33
    known = {rows[seen.id]["outcome"] for seen in broken if seen.id}
    assert "lost" in known and known <= {"lost", "delivered"}
    lost = [row for row in rows.values() if row["outcome"] == "lost"]
    assert {row["basis"] for row in lost} == {"estimated"} and all(row["prompt_tokens"] > 0 for row in lost)
    assert {row["outcome"] for row in rows.values()} == {"delivered", "lost"}
    assert len(rows) <= 1 + len(load.streams)  # the first answer, and no call twice


# ------------------------------------------------------------------------------------------------ control


async def streams_while(one: Gateway, count: int, seconds: float, happening: object) -> list[Streamed]:
    rate = 40
    model = f"builtin/lorem?rate={rate}&ttft=0.1&tokens={int(rate * seconds)}"
    seen = [Streamed() for _ in range(count)]
    running = [asyncio.create_task(stream(one.port, model, seen=each)) for each in seen]
    await eventually(lambda: all(each.text for each in seen))
    await asyncio.to_thread(happening)  # type: ignore[arg-type]
    return await asyncio.gather(*running)


def test_no_stream_notices_that_control_was_killed(gateway: Make, report: Report) -> None:
    one = gateway(executed=True).start()  # a fork would be back before the questions are asked
    _status, before = one.chat("builtin/echo")
    request = f"/v1/requests/{before['id']}"
    assert one.get(request)[1]["outcome"] == "delivered"
    seen: dict[str, float] = {}

    def kill() -> None:
        one.kill("control")
        killed = time.monotonic()
        one.until(lambda: one.get("/health")[1]["control"] == "away")
        status, body = one.get(request)
        assert (status, body["error"]["code"]) == (503, "control_unavailable")
        assert one.get("/v1/usage")[0] == 503
        one.until(lambda: one.get(request)[0] == 200)
        seen["back"] = time.monotonic() - killed

    streams = asyncio.run(streams_while(one, 200, 6, kill))
    report(f"kill −9 of control under 200 streams: questions answered again after {seen['back']:.2f} s")
    assert {(each.text, each.done, each.error) for each in streams} == {(lorem.text(240), True, "")}
    rows = one.rows()
    assert {rows[each.id]["outcome"] for each in streams} == {"delivered"} and len(rows) == 201
    assert one.get("/v1/usage")[1]["requests"] == 201


def held_away(one: Gateway) -> socket.socket:
    """Control, killed and not able to come back: its port is taken."""
    one.kill("control")
    deadline = time.monotonic() + 5
    while True:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", one.control_port))
            holder.listen()
            return holder
        except OSError:
            holder.close()
            assert time.monotonic() < deadline
            time.sleep(0.002)


def test_streams_start_without_control(gateway: Make) -> None:
    one = gateway().start()
    token = one.cli("token", "create", "laptop").stdout.strip()
    assert one.chat("builtin/echo", token)[0] == 200
    with held_away(one):
        one.until(lambda: "is in use; stop what listens there" in one.log)
        made = one.cli("token", "create", "other")
        assert made.returncode == 1 and made.stdout == ""
        assert made.stderr.startswith("headgate: ") and "→" in made.stderr and "Traceback" not in made.stderr
        one.until(lambda: "control" not in one.pids())
        first = one.kill("data")
        assert one.get("/livez")[0] == 200 and one.pids()["data"] != first
        for each in (token, FILE_TOKEN):  # the one from the snapshot on disk, the other from the file
            status, answer = one.chat("builtin/echo", each)
            assert (status, answer["model"]) == (200, "echo")
        assert one.chat("builtin/echo", token[:-1])[0] == 401
        status, body = one.get(f"/v1/requests/{answer['id']}", token)
        assert (status, body["error"]["code"]) == (503, "control_unavailable")
        snapshot = (one.state / "snapshot-w0.bin").read_bytes()
        assert token.encode() not in snapshot
    one.until(lambda: "the control process answers again" in one.log)
    rows = one.rows()
    assert {row["outcome"] for row in rows.values()} == {"delivered"} and len(rows) == 3
    assert one.cli("token", "revoke", token.split("_")[2]).returncode == 0
    assert one.chat("builtin/echo", token)[0] == 401


# ------------------------------------------------------------------------------------------------ the supervisor


def test_orphans_end_by_themselves_and_a_new_start_takes_over(gateway: Make) -> None:
    one = gateway(drain_s=1).start()
    assert one.chat("builtin/echo")[0] == 200  # so that the built-in provider runs too
    pids = one.pids()
    assert set(pids) == {"data", "control", "builtin"}

    async def main() -> tuple[Streamed, Streamed]:
        seen = Streamed(), Streamed()
        short = asyncio.create_task(stream(one.port, "builtin/lorem?rate=100&tokens=60", seen=seen[0]))
        long = asyncio.create_task(stream(one.port, "builtin/lorem?rate=20&tokens=1000", seen=seen[1]))
        await eventually(lambda: all(each.text for each in seen))
        os.kill(one.process.pid, signal.SIGKILL)
        return await short, await long

    short, long = asyncio.run(main())
    one.process.wait()
    one.until(lambda: all(_gone(pid) for pid in pids.values()))
    assert long.error or not long.done
    with socket.create_server(("127.0.0.1", one.port)):
        pass  # the port is free
    one.start()
    assert one.chat("builtin/echo")[0] == 200
    rows = one.rows()
    assert len(rows) == 4 and all(row["outcome"] for row in rows.values())
    if short.done:
        assert rows[short.id]["outcome"] == "delivered"
    assert one.health()["recorder"]["error"] is None


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
