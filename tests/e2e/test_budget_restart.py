"""A hard budget across kill −9 of the data process: what was spent before is spent, and calls that it broke are too."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from headgate.testing import serve_in_thread
from tests.e2e.gateway import Gateway, Make, Streamed, stream
from tests.waiting import eventually

MOST, CALL = 30_000_000, 3_300_000  # nano-USD: the budget, and what one short call may cost
ROWS = """
detect: {{local_engines: false}}
providers:
  up:
    base_url: {url}
    auth: none
    models:
      short: {{upstream_model: 'lorem?rate=100000&ttft=0&tokens=300', price: {{input: 1, output: 10}}}}
      slow: {{upstream_model: 'lorem?rate=20&ttft=0&tokens=400', price: {{input: 1, output: 10}}}}
"""


def short(gate: Gateway, token: str) -> tuple[int, Any, Any]:
    """The status, the headers and the body of one call."""
    body = {"model": "up/short", "max_tokens": 310, "messages": [{"role": "user", "content": "one two three"}]}
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{gate.url}/v1/chat/completions", json.dumps(body).encode(), fields)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def known(gate: Gateway, token: str) -> int:
    """The status of a call once it is known what was spent before; until then it is answered 503."""

    def answered() -> int | None:
        try:
            status, headers, body = short(gate, token)
        except OSError:  # its process ends at this moment
            return None
        if status != 503:
            return status
        assert (body["error"]["code"], headers["retry-after"]) == ("control_unavailable", "1"), body
        return None

    return int(gate.until(answered))


def kill_data(gate: Gateway) -> None:
    first = gate.kill("data")
    gate.until(lambda: gate.pids().get("data", first) != first)


async def broken_stream(gate: Gateway, token: str) -> Streamed:
    """A stream that has begun when its data process is killed."""
    seen = Streamed()
    running = asyncio.create_task(stream(gate.port, "up/slow", token, seen=seen))
    await eventually(lambda: len(seen.text) > 20, within=20)
    await asyncio.to_thread(kill_data, gate)
    return await running


def test_budget_is_not_overrun_by_restarts(gateway: Make) -> None:
    with serve_in_thread() as upstream:
        gate = gateway(ROWS.format(url=upstream.url)).start()
        wish = {"name": "tight", "budget": {"usd": MOST / 1e9, "period": "total"}}
        status, minted = gate.admin("POST", "/tokens", wish)
        assert status == 201, minted
        token = minted["token"]
        assert [known(gate, token) for _ in range(3)] == [200] * 3
        seen = asyncio.run(broken_stream(gate, token))
        assert not seen.done
        assert known(gate, token) == 200
        kill_data(gate)
        gate.until(lambda: gate.chat("builtin/echo")[0] == 200)  # another token's calls do not wait for anything
        admitted = 0
        while known(gate, token) == 200:
            admitted += 1
            assert admitted < 10
        kill_data(gate)
        assert known(gate, token) == 402
        rows = [row for row in gate.rows().values() if row["provider"] == "up"]
        spent = sum(row["cost"] for row in rows)
        assert MOST - CALL < spent <= MOST
        assert sorted(row["outcome"] for row in rows) == ["delivered"] * (len(rows) - 1) + ["lost"]
        verified = gate.cli("usage", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
