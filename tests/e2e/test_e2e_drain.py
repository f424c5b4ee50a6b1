"""POST /admin/v1/drain ends a running gateway as SIGTERM does."""

from __future__ import annotations

import asyncio
import json
import urllib.request

from e2e_gateway import Make


def test_drain_over_the_admin_api_finishes_what_runs_and_ends_with_0(gateway: Make) -> None:
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
