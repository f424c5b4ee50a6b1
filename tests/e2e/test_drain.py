"""How a running gateway ends: POST /admin/v1/drain does what SIGTERM does, and what will not end in time is cut."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request

import pytest

from tests.e2e.gateway import Make, Streamed, stream
from tests.waiting import eventually


def test_admin_drain_finishes_running_calls(gateway: Make) -> None:
    one = gateway("").start()
    body = {"model": "builtin/lorem", "stream": True, "messages": [{"role": "user", "content": "one two three"}]}

    async def stream_and_drain() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        payload = json.dumps(body).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Bearer hg_test_0123456789abcdef0123456789abcdef\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload)
        )
        first = await reader.readuntil(b"data: ")
        for _ in range(2):  # a second wish is no impatient second signal
            request = urllib.request.Request(
                f"http://127.0.0.1:{one.control_port}/admin/v1/drain",
                b"{}",
                {"Authorization": f"Bearer {one.admin_token}", "Content-Type": "application/json"},
            )
            with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as answer:
                assert answer.status == 202
        return first + await reader.read()

    assert b"[DONE]" in asyncio.run(stream_and_drain())
    assert one.process.wait(20) == 0


@pytest.mark.parametrize("way", ["a second signal", "its time is over"])
def test_what_does_not_end_in_time_is_told_so_and_on_record(gateway: Make, way: str) -> None:
    one = gateway(drain_s=30 if way == "a second signal" else 0.5).start()
    assert one.chat("builtin/echo")[0] == 200  # so that the built-in provider runs

    async def main() -> list[Streamed]:
        running = [asyncio.create_task(stream(one.port, "builtin/fault/accept-silence"))]
        seen = [Streamed() for _ in range(8)]
        running += [
            asyncio.create_task(stream(one.port, "builtin/lorem?rate=30&tokens=3000", seen=each)) for each in seen
        ]
        await eventually(lambda: all(len(each.text.split()) >= 25 for each in seen))
        one.process.send_signal(signal.SIGTERM)
        if way == "a second signal":
            await asyncio.sleep(0.5)
            one.process.send_signal(signal.SIGTERM)
        return await asyncio.gather(*running)

    silent, *streams = asyncio.run(main())
    assert one.process.wait(20) == 0
    assert {(seen.error, seen.done) for seen in streams} == {("draining", False)}
    assert silent.status == 503 and json.loads(silent.body)["error"]["code"] == "draining"
    rows = one.start().rows()
    assert len(rows) == 10
    for seen in streams:
        row = rows[seen.id]
        assert (row["outcome"], row["code"]) == ("truncated", "draining")
        assert row["completion_tokens"] >= 20  # at least what was on its screen by then
    others = [row for ident, row in rows.items() if ident not in {seen.id for seen in streams}]
    others = [row for row in others if row["outcome"] != "delivered"]
    assert [(row["outcome"], row["status"], row["code"]) for row in others] == [("failed", 503, "draining")]
