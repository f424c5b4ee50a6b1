"""Alerts from real calls of a running gateway to a real webhook: once, also across kill −9 of every process."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from headgate.testing import serve_in_thread
from tests.e2e.gateway import Gateway, Make, ask
from tests.receiver import Received, Receiver, receiver

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
PROMPT_WORD = "canary-of-a-prompt"


def rows(upstream: str, *hooks: dict[str, Any]) -> str:
    """Calls of ``up/short`` cost 3.003 m$; the key of ``wrong`` is refused."""
    price = {"input": 1, "output": 10}
    short = {"upstream_model": "lorem?rate=100000&ttft=0&tokens=300", "price": price}
    providers = {
        "up": {"base_url": upstream, "keys": ["sk-right"], "models": {"short": short}},
        "wrong": {"base_url": upstream, "keys": ["sk-wrong"], "models": {"refused": {"upstream_model": "echo"}}},
    }
    return f"detect: {{local_engines: false}}\nproviders: {json.dumps(providers)}\nwebhooks: {json.dumps(hooks)}\n"


def events(hook: Receiver) -> list[dict[str, Any]]:
    """Each alert once: one whose delivery was not noted in time comes again, with the same id."""
    return [json.loads(body) for body in {one.headers["webhook-id"]: one.body for one in hook.requests}.values()]


def levels(hook: Receiver, holder: str) -> list[int]:
    return [one["data"]["percent"] for one in events(hook) if one["data"].get("holder") == holder]


def verify(one: Received) -> dict[str, Any]:
    """As a Standard Webhooks library does."""
    signed = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    expected = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
    assert one.headers["webhook-signature"] == f"v1,{expected}"
    return dict(json.loads(one.body))


def call(gate: Gateway, token: str) -> int:
    """The status of a call of 303 tokens, for which a budget holds 313."""
    body = {"model": "up/short", "max_tokens": 310, "messages": [{"role": "user", "content": PROMPT_WORD}]}
    return ask("POST", f"{gate.url}/v1/chat/completions", token, body)[0]


def spend(gate: Gateway, token: str, calls: int) -> None:
    gate.until(lambda: gate.health()["workers"])  # until then a hard budget is not known to be unspent: 503
    for _ in range(calls):
        assert gate.until(lambda: (status := call(gate, token)) != 503 and status) == 200


def kill(gate: Gateway, role: str) -> None:
    """kill −9, and wait until its successor answers."""
    killed = gate.kill(role)
    gate.until(lambda: gate.pids().get(role, killed) != killed)
    gate.until(lambda: gate._recorded() and gate.health()["workers"])


def shown(gate: Gateway, *arguments: str) -> Any:
    return json.loads(gate.cli(*arguments, "--json").stdout)


def test_alerts_reach_webhooks_once(gateway: Make) -> None:
    with serve_in_thread(keys=["sk-right"]) as upstream, receiver() as ops, receiver() as chat, receiver() as late:
        late.statuses.extend([500] * 100)
        hooks = (
            {"name": "ops", "url": ops.url, "secret": SECRET},
            {"name": "chat", "url": chat.url, "events": ["budget.threshold"], "format": "slack"},
            {"name": "late", "url": late.url, "events": ["budget.threshold"]},
        )
        gate = gateway(rows(upstream.url, *hooks)).start()
        soft = {"usd": 0.033, "period": "month", "mode": "soft"}
        assert gate.admin("PUT", "/tenants/acme", {"limits": {}, "budget": soft})[0] == 200
        wish = {"name": "tight", "budget": {"usd": 0.03, "period": "total"}, "tenant": "acme"}
        token = gate.admin("POST", "/tokens", wish)[1]["token"]
        spend(gate, token, 8)  # 80 % and some
        gate.until(lambda: levels(ops, "token") == [80])
        spend(gate, token, 1)
        gate.until(lambda: levels(ops, "token") == [80, 90] and levels(ops, "tenant") == [80])
        assert call(gate, token) == 402
        gate.until(lambda: levels(ops, "token") == [80, 90, 100])
        assert gate.chat("wrong/refused")[0] == 502
        parked = gate.until(lambda: [one for one in events(ops) if one["type"] == "account.parked"])

        first = verify(ops.requests[0])
        assert first["type"] == "budget.threshold" and first["timestamp"].endswith("Z")
        assert (first["data"]["name"], first["data"]["budget_usd"]) == ("tight", 0.03)
        assert "The token tight has reached 80 % of its budget" in first["data"]["message"]
        assert [one["data"]["reason"] for one in parked] == ["key_refused"]
        assert parked[0]["data"]["account"].startswith("wrong/")
        gate.until(lambda: len(events(chat)) == 4)
        assert set(events(chat)[0]) == {"text"} and "reached 80 %" in events(chat)[0]["text"]

        states = gate.until(lambda: [one for one in gate.admin("GET", "/webhooks")[1]["data"] if one["last"]][2:])
        assert (states[0]["name"], states[0]["last"]["message"]) == ("late", "it answers 500")
        assert gate.cli("webhook", "test", "late").returncode == gate.cli("webhook", "test", "absent").returncode == 1
        told = gate.cli("doctor").stdout
        assert "webhook late: its alerts are not taken: it answers 500" in told
        gate.until(
            lambda: {tuple(one["pending"]) for one in gate.admin("GET", "/alerts")[1]["data"]} == {("late",), ()}
        )
        late.statuses.clear()
        before = len(events(ops))
        for role in ("data", "control"):
            kill(gate, role)
        gate.until(lambda: all(not one["pending"] for one in gate.admin("GET", "/alerts")[1]["data"]))
        tested = gate.cli("webhook", "test", "ops")  # behind whatever the restart would have sent
        assert tested.returncode == 0 and "204" in tested.stdout, tested
        assert [one["type"] for one in events(ops)[before:]] == ["webhook.test"], gate.log
        audited = gate.admin("GET", "/audit?noun=webhook")[1]["data"]
        assert (audited[0]["id"], audited[0]["action"]) == ("ops", "tested")
        assert sorted(levels(late, "token")) == [80, 90, 100] and levels(late, "tenant") == [80]
        assert "webhook-signature" not in late.requests[-1].headers

        assert {one["type"] for one in shown(gate, "alert", "list")} == {"budget.threshold", "account.parked"}
        listed = [(one["name"], one["host"], one["signed"]) for one in shown(gate, "webhook", "list")]
        assert listed == [("ops", "127.0.0.1", True), ("chat", "127.0.0.1", False), ("late", "127.0.0.1", False)]
        assert gate.log.count("has reached 90 % of its budget") == 1
        bodies = b"".join(one.body for one in (*ops.requests, *chat.requests, *late.requests)).decode()
        for text in (bodies, gate.log, told):
            assert not [word for word in (PROMPT_WORD, token, "sk-wrong", "canary", SECRET) if word in text]
