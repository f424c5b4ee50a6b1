"""A key that rests: seen as it is by the operator, and brought back by a check, by a command, by its time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.gateway import Gateway, Make

KEY = "sk-rest-0123456789abcdef"
ANSWER = {
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Limited:
    """An upstream whose next answers are in ``refusals``: (status, header fields, body); then it is well."""

    def __init__(self) -> None:
        self.refusals: list[tuple[int, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, {}, {"object": "list", "data": [{"id": "m"}]})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self._answer(*(outer.refusals.pop(0) if outer.refusals else (200, {}, ANSWER)))

            def _answer(self, status: int, fields: dict[str, str], body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **fields}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def limited() -> Iterator[Limited]:
    upstream = Limited()
    yield upstream
    upstream.close()


def shown(gate: Gateway) -> dict[str, Any]:
    """The one account, as the admin API has it."""
    status, listed = gate.admin("GET", "/accounts")
    assert status == 200, listed
    (account,) = [row for row in listed["data"] if row["provider"] == "up"]
    return dict(account)


def rested(gate: Gateway, upstream: Limited, status: int, fields: dict[str, str], body: Any) -> None:
    upstream.refusals = [(status, fields, body)]
    refused, answer = gate.chat("up/m")
    assert refused in (429, 502), answer
    again, answer = gate.chat("up/m")
    assert again != 200 and not upstream.refusals, answer


def test_a_rest_is_shown_and_ended_by_a_check_and_by_a_command(gateway: Make, limited: Limited) -> None:
    gate = gateway(f"providers: {{up: {{base_url: '{limited.url}', keys: [{KEY}]}}}}\n").start()
    assert gate.chat("up/m")[0] == 200 and shown(gate)["state"] == "active"
    far = (429, {"retry-after": "99999999999"}, {"error": {"message": "slow down"}})

    rested(gate, limited, *far)
    (rest,) = shown(gate)["rests"]
    assert rest["model"] == "m" and rest["state"] == "exhausted" and 0 < rest["wait_s"] <= 900
    assert "m: exhausted, " in gate.cli("vault", "list").stdout
    status, checked = gate.admin("POST", "/providers/up/check")
    assert status == 200 and checked["results"][0]["ok"], checked
    assert shown(gate)["rests"] == [] and gate.chat("up/m")[0] == 200

    for refusal, state in (
        (far, "active"),
        ((401, {}, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}), "dead"),
        ((402, {}, {"error": {"message": "Insufficient Balance"}}), "exhausted"),
    ):
        rested(gate, limited, *refusal)
        account = shown(gate)
        assert account["state"] == state and account["rests"], refusal
        status, resumed = gate.admin("POST", "/providers/up/resume", {"account": account["label"]})
        assert status == 200 and (resumed["accounts"], resumed["told"]) == ([account["id"]], 1)
        assert shown(gate)["state"] == "active" and gate.chat("up/m")[0] == 200

    rested(gate, limited, *far)
    resumed_by_hand = gate.cli("providers", "resume", "up", "--account", account["id"])
    assert resumed_by_hand.returncode == 0, resumed_by_hand.stderr
    assert gate.chat("up/m")[0] == 200
    assert gate.admin("POST", "/providers/up/resume", {"account": "nobody"})[0] == 404
    assert gate.admin("POST", "/providers/nowhere/resume")[0] == 404
