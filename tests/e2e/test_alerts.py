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
PROMPT_WORD = "three"  # of the calls' prompt


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
    return [json.loads(one.body) for one in hook.requests]


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
    body = {"model": "up/short", "max_tokens": 310, "messages": [{"role": "user", "content": "one two three"}]}
    return ask("POST", f"{gate.url}/v1/chat/completions", token, body)[0]


def spend(gate: Gateway, token: str, calls: int) -> None:
    assert [call(gate, token) for _ in range(calls)] == [200] * calls


def kill(gate: Gateway, role: str) -> None:
    """kill −9, and wait until its successor answers."""
    killed = gate.kill(role)
    gate.until(lambda: gate.pids().get(role, killed) != killed)
    gate.until(lambda: gate._recorded() and gate.health()["workers"])


def test_alerts_reach_a_webhook_once(gateway: Make) -> None:
    with serve_in_thread(keys=["sk-right"]) as upstream, receiver() as hook, receiver() as slack:
        budgets = {"name": "chat", "url": slack.url, "events": ["budget.threshold"], "format": "slack"}
        gate = gateway(rows(upstream.url, {"name": "ops", "url": hook.url, "secret": SECRET}, budgets)).start()
        wish = {"name": "acme", "limits": {}, "budget": {"usd": 0.033, "period": "month", "mode": "soft"}}
        assert gate.admin("PUT", "/tenants/acme", {key: wish[key] for key in ("limits", "budget")})[0] == 200
        budget = {"usd": 0.03, "period": "day"}
        token = gate.admin("POST", "/tokens", {"name": "tight", "budget": budget, "tenant": "acme"})[1]["token"]
        spend(gate, token, 8)  # 80 % and some
        gate.until(lambda: levels(hook, "token") == [80])
        spend(gate, token, 1)
        gate.until(lambda: levels(hook, "token") == [80, 90] and levels(hook, "tenant") == [80])
        assert call(gate, token) == 402
        gate.until(lambda: levels(hook, "token") == [80, 90, 100])
        assert gate.chat("wrong/refused")[0] == 502
        parked = gate.until(lambda: [one for one in events(hook) if one["type"] == "account.parked"])

        first = verify(hook.requests[0])
        assert first["type"] == "budget.threshold" and first["timestamp"].endswith("Z")
        assert first["data"]["name"] == "tight" and first["data"]["budget_usd"] == 0.03
        assert "The token tight has reached 80 % of its budget" in first["data"]["message"]
        assert [one["data"]["reason"] for one in parked] == ["key_refused"]
        assert parked[0]["data"]["account"].startswith("wrong/")
        gate.until(lambda: len(slack.requests) == len(levels(hook, "token")) + len(levels(hook, "tenant")))
        assert set(events(slack)[0]) == {"text"} and "reached 80 %" in events(slack)[0]["text"]
        texts = b"".join(one.body for one in (*hook.requests, *slack.requests)).decode() + gate.log
        assert PROMPT_WORD not in texts and token not in texts and "sk-wrong" not in texts and "canary" not in texts

        before = len(hook.requests)
        for role in ("data", "control"):
            kill(gate, role)
        assert gate.until(lambda: call(gate, token) == 402)
        tested = gate.cli("webhook", "test", "ops")  # behind whatever the restart would have sent
        assert tested.returncode == 0 and "204" in tested.stdout, tested
        assert [one["type"] for one in events(hook)[before:]] == ["webhook.test"], events(hook)[before:]

        listed = json.loads(gate.cli("alert", "list", "--json").stdout)
        assert {one["type"] for one in listed} == {"budget.threshold", "account.parked"} and not listed[0]["pending"]
        assert gate.log.count("has reached 90 % of its budget") == levels(hook, "token").count(90)
        hooks = json.loads(gate.cli("webhook", "list", "--json").stdout)
        assert [(one["name"], one["host"], one["signed"]) for one in hooks] == [
            ("ops", "127.0.0.1", True),
            ("chat", "127.0.0.1", False),
        ]


def test_a_dead_webhook_is_reported_and_gets_its_alert_later(gateway: Make) -> None:
    with serve_in_thread() as upstream, receiver() as hook:
        hook.statuses.extend([500] * 100)
        gate = gateway(rows(upstream.url, {"name": "ops", "url": hook.url})).start()
        budget = {"usd": 0.0037, "period": "total"}
        token = gate.admin("POST", "/tokens", {"name": "tight", "budget": budget})[1]["token"]
        spend(gate, token, 1)
        gate.until(lambda: hook.requests)
        failing = gate.until(lambda: [one for one in gate.admin("GET", "/webhooks")[1]["data"] if one["last"]])
        assert (failing[0]["last"]["ok"], failing[0]["last"]["message"]) == (False, "it answers 500")
        doctor = gate.cli("doctor").stdout
        assert "webhook ops: its alerts are not taken: it answers 500" in doctor and "canary" not in doctor
        assert gate.cli("webhook", "test", "ops").returncode == 1
        assert gate.cli("webhook", "test", "absent").returncode == 1
        assert json.loads(gate.cli("alert", "list", "--json").stdout)[0]["pending"] == ["ops"]
        hook.statuses.clear()
        kill(gate, "control")  # its successor sends what has not arrived
        first = json.loads(hook.requests[0].body)
        gate.until(lambda: [one for one in hook.requests if json.loads(one.body) == first and one is not hook.requests[0]])
        ids = {one.headers["webhook-id"] for one in hook.requests if json.loads(one.body) == first}
        assert len(ids) == 1
        assert gate.until(lambda: not gate.admin("GET", "/alerts")[1]["data"][0]["pending"])
        assert "webhook-signature" not in hook.requests[0].headers
