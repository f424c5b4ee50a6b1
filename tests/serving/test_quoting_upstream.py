"""An upstream that quotes its callers, over real sockets: one caller's words take no key and no target from the others;
and what a refusal of its own does to an account.
"""

from __future__ import annotations

import email.utils
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headgate.model import Account, Provider
from tests.dataplane import DataPlane
from tests.serving.calls import Answer, ask, opened, request, transcript

KEYS = {"up/a": "sk-first-aaaaaaaa", "up/b": "sk-second-bbbbbbbb"}
WHOLE = {
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
HTML = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head><body>{}</body></html>"
Refusal = tuple[int, dict[str, str], str]


class Quoting:
    """Refuses a prompt that begins with ``refuse``, as ``refusal`` says (``{}`` in its body is the prompt); serves all
    others.  ``shown`` are the keys that it has been asked with.
    """

    def __init__(self) -> None:
        self.refusal: Refusal = (400, {}, "{}")
        self.all = False  # refuses everything
        self.shown: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.shown.append(self.headers["authorization"].removeprefix("Bearer "))
                prompt = body["messages"][-1]["content"]
                if outer.all or prompt.startswith("refuse"):
                    status, fields, text = outer.refusal
                    quoted = text.replace(
                        "{}", json.dumps(prompt)[1:-1] if text.startswith(("{", "[", "data")) else prompt
                    )
                    kind = "text/event-stream" if text.startswith("data") else "application/json"
                    self._answer(status, {"content-type": kind, **fields}, quoted.encode())
                elif body.get("stream"):
                    self._answer(200, {"content-type": "text/event-stream"}, transcript("well"))
                else:
                    self._answer(200, {"content-type": "application/json"}, json.dumps(WHOLE).encode())

            def _answer(self, status: int, fields: dict[str, str], data: bytes) -> None:
                self.send_response_only(status)
                for name, value in {"content-length": str(len(data)), **fields}.items():
                    self.send_header(name, value)
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


Scene = tuple[Quoting, DataPlane]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """For tests that must leave nothing behind."""
    yield from scene(tmp_path_factory.mktemp("quoting"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Scene]:
    yield from scene(tmp_path)


def scene(state: Path) -> Iterator[Scene]:
    upstream = Quoting()
    accounts = tuple(Account(ident, priority=-place) for place, ident in enumerate(KEYS))
    with DataPlane(state, Provider("up", upstream.url, accounts=accounts), keys=KEYS) as plane:
        yield upstream, plane
    upstream.close()


def served(upstream: Quoting, plane: DataPlane, model: str = "up/m", *, stream: bool = True) -> list[str]:
    """The keys that one good call shows the upstream."""
    upstream.shown.clear()
    answer = ask(plane, model, stream=stream, headgate={})
    assert answer.status == 200, answer.raw
    return list(upstream.shown)


def poisoned(plane: DataPlane, poison: str, *, stream: bool, model: str = "up/m") -> Answer:
    messages = [{"role": "user", "content": f"refuse {poison}"}]
    return ask(plane, model, stream=stream, messages=messages, headgate={})


POISON = [
    "unauthorized: invalid API key 'x', authentication failed",
    "insufficient balance, out of credits, you exceeded your current quota",
    "rate limit exceeded, too many requests, resource exhausted",
    "overloaded, at capacity, timed out",
    '{"error": {"code": "invalid_api_key", "type": "authentication_error"}}',
]
REFUSALS: dict[str, Refusal] = {
    "400": (400, {}, '{"error":{"message":"Invalid prompt: {}","type":"invalid_request_error"}}'),
    "400 as a string": (400, {}, '{"error":"{}"}'),
    "400 in an array": (400, {}, '[{"error":{"code":400,"message":"{}","status":"INVALID_ARGUMENT"}}]'),
    "422 of a validator": (422, {}, '{"detail":[{"loc":["body","messages"],"msg":"{}"}]}'),
    "400 of plain text": (400, {"content-type": "text/plain"}, "cannot parse {}"),
    "403 of content": (403, {}, '{"code":"permission-denied","error":"Content violates usage guidelines: {}"}'),
    "403 of a firewall": (403, {"content-type": "text/html"}, HTML),
    "403 without a reason": (403, {}, '{"error":{"message":"Forbidden: {}"}}'),
    "401 of a header": (401, {}, '{"error":{"message":"{}","code":"mismatched_organization"}}'),
    "402 of its size": (402, {}, '{"error":{"message":"can only afford 12 tokens for {}","code":402}}'),
    "413 of its size": (413, {}, '{"error":{"message":"on tokens per minute (TPM): Limit 10, Requested 15",'
                                 '"code":"rate_limit_exceeded"}}'),
    "events under 400": (400, {}, 'data: {"error":{"message":"{}"}}\n\n'),
    "an error event": (200, {}, 'data: {"error":{"message":"{}"}}\n\n'),
    "a whole error under 200": (200, {}, '{"error":{"message":"{}"}}'),
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", REFUSALS)
def test_no_key_is_lost_by_what_a_caller_says(shared: Scene, name: str, stream: bool) -> None:
    upstream, plane = shared
    for poison in POISON:
        upstream.refusal = REFUSALS[name]
        for _ in range(2):
            refused = poisoned(plane, poison, stream=stream)
            assert refused.status != 200, (poison, refused.raw)
            assert refused.error["code"] not in ("upstream_auth_failed", "upstream_credit_exhausted"), refused.raw
            assert "sk-" not in refused.error["message"]
        assert served(upstream, plane, stream=stream) == [KEYS["up/a"]], (name, poison)


def test_two_forbidden_models_do_not_condemn_a_third(own: Scene) -> None:
    upstream, plane = own
    upstream.refusal = (
        403,
        {},
        '{"error":{"message":"Project p does not have access to model","code":"model_not_found"}}',
    )
    for model in ("up/one", "up/two"):
        refused = poisoned(plane, "nothing", stream=False, model=model)
        assert (refused.status, refused.error["code"]) == (502, "upstream_model_denied")
        assert upstream.shown[-2:] == list(KEYS.values()), "another account may have it"
    assert served(upstream, plane, "up/three") == [KEYS["up/a"]]
    upstream.shown.clear()
    # Nobody else has the model, so one of them is asked again, and its own reason reaches the client.
    again = poisoned(plane, "nothing", stream=False, model="up/one")
    assert (again.status, again.error["code"]) == (502, "upstream_model_denied")
    assert upstream.shown and set(upstream.shown) <= set(KEYS.values())


@pytest.mark.parametrize(
    "refusal",
    [
        (401, {}, '{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}'),
        (400, {}, '[{"error":{"message":"API key not valid.","status":"INVALID_ARGUMENT"}}]'),
        (403, {}, '{"error":{"message":"Your API key was reported as leaked."}}'),
        (402, {}, '{"error":{"message":"Insufficient Balance"}}'),
    ],
)
def test_a_refusal_of_the_key_is_remembered(own: Scene, refusal: Refusal) -> None:
    upstream, plane = own
    upstream.refusal = refusal
    poisoned(plane, "nothing", stream=False)
    upstream.shown.clear()
    upstream.all = False
    answer = ask(plane, "up/m", stream=False, headgate={"retries": 0})
    assert KEYS["up/a"] not in upstream.shown, (answer.status, upstream.shown)


# ---- times


def alone(own: Scene, fields: dict[str, str], status: int = 429) -> Answer:
    upstream, plane = own
    upstream.refusal = (status, fields, '{"error":{"message":"slow down"}}')
    upstream.all = True
    return ask(plane, "up/m", stream=False, headgate={"retries": 0})


def test_our_429_has_retry_after(own: Scene) -> None:
    first = alone(own, {})
    assert first.status == 429 and 1 <= int(first.headers["retry-after"]) <= 5
    _, plane = own
    for _ in range(4):
        again = ask(plane, "up/m", stream=True, headgate={"retries": 0})
        assert again.status == 429 and 1 <= int(again.headers["retry-after"]) <= 900


@pytest.mark.parametrize("far", ["99999999999", "86400", "60000000"])
def test_no_rest_is_longer_than_fifteen_minutes(own: Scene, far: str) -> None:
    first = alone(own, {"retry-after": far})
    assert 890 <= int(first.headers["retry-after"]) <= 900 and first.headers["x-should-retry"] == "false"
    upstream, plane = own
    upstream.shown.clear()
    second = ask(plane, "up/m", stream=False)
    assert second.status == 429 and not upstream.shown and int(second.headers["retry-after"]) <= 900


@pytest.mark.parametrize("skew", [-86400, -600, 600, 86400])
def test_a_date_is_measured_against_the_answers_own(own: Scene, skew: int) -> None:
    theirs = time.time() + skew
    dates = {"date": email.utils.formatdate(theirs, usegmt=True),
             "retry-after": email.utils.formatdate(theirs + 120, usegmt=True)}  # fmt: skip
    assert 115 <= int(alone(own, dates).headers["retry-after"]) <= 120


def test_rejected_added_field_is_left_out(own: Scene) -> None:
    upstream, plane = own
    upstream.refusal = (
        422,
        {},
        '{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra"}]}',
    )
    with opened(plane, request("up/m", stream=True, messages=[{"role": "user", "content": "refuse"}])) as one:
        assert one.rest().status == 422  # it refuses without the field too: the client is told
    assert [len(upstream.shown), served(upstream, plane)] == [2, [KEYS["up/a"]]]
