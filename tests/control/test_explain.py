"""POST /admin/v1/explain: of a real control process with a real data process, and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.control.child import ADMIN, Child
from tests.dataplane import DataPlane
from tests.ports import free_port
from tests.waiting import wait_until

ASKED = {"model": "two", "messages": [{"role": "user", "content": "x"}]}


def ok(child: Child, method: str, path: str, body: Any) -> Any:
    answer = child.call(method, f"/admin/v1{path}", json=body)
    assert answer.is_success, answer.text
    return answer.json()


@pytest.fixture
def child(tmp_path: Path) -> Any:
    """With an alias over two providers; nothing listens at either."""
    with Child(tmp_path) as running:
        for name in ("far", "near"):
            models = {"m": {"price": {"input": 1, "output": 2}, "context_window": 1000}}
            url = f"http://127.0.0.1:{free_port()}/v1"
            ok(running, "POST", "/providers", {"name": name, "base_url": url, "models": models, "prefill": "prefix"})
            ok(running, "POST", "/accounts", {"provider": name, "key": "sk-canary-0123456789", "label": "main"})
        ok(running, "PUT", "/aliases/two", {"targets": [{"model": "far/m"}, {"model": "near/m"}]})
        yield running


def places(route: Any) -> list[tuple[str, int | None]]:
    return [(one["provider"], one["place"]) for one in route["candidates"]]


def test_explain_reads_configuration_without_data(child: Child) -> None:
    route = ok(child, "POST", "/explain", ASKED)
    assert (route["object"], route["requested_model"], route["alias"]) == ("headgate.route", "two", "two")
    assert (route["live"], route["code"], route["strategy"], route["retries"]) == (False, None, "priority", 2)
    assert places(route) == [("far", 1), ("near", 2)]
    assert [one["accounts"][0]["id"] for one in route["candidates"]] == ["far/main", "near/main"]
    assert route["candidates"][0]["prefill"] == "prefix"


def test_reasons_and_the_error_that_a_client_would_get(child: Child) -> None:
    some = ok(child, "POST", "/explain", {**ASKED, "headgate": {"excluded_providers": ["far"], "max_cost_usd": 1}})
    assert places(some) == [("near", 1), ("far", None)]
    assert some["candidates"][1]["reason"] == "excluded: far is among excluded_providers"
    assert some["candidates"][0]["cost_usd"] > 0
    none = ok(child, "POST", "/explain", {**ASKED, "headgate": {"privacy": "no_train", "excluded_providers": ["far"]}})
    assert (none["code"], places(none)) == (None, [("near", 1), ("far", None)])  # it is on this machine
    none = ok(child, "POST", "/explain", {**ASKED, "max_tokens": 5000})
    assert none["code"] == "context_length_exceeded" and "far/m" in none["message"]
    assert [one["place"] for one in none["candidates"]] == [None, None]
    lost = ok(child, "POST", "/explain", {**ASKED, "model": "nobody/knows"})
    assert (lost["code"], lost["candidates"]) == ("model_not_found", [])


def test_a_tokens_holder_may_not_use_everything(child: Child) -> None:
    made = ok(child, "POST", "/tokens", {"name": "near only", "models": ["near/m"]})
    route = ok(child, "POST", f"/explain?token={made['id']}", ASKED)
    assert places(route) == [("near", 1), ("far", None)]
    assert route["candidates"][1]["reason"].startswith("not_allowed: the API key 'near only'")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/explain", {"model": "two"}, 400, "invalid_value"),
        ("/explain", {**ASKED, "headgate": {"retries": 9}}, 400, "invalid_value"),
        ("/explain", [], 400, "invalid_value"),
        ("/explain?token=nobody", ASKED, 404, "token_not_found"),
        ("/explain?tokn=x", ASKED, 400, "invalid_value"),
    ],
)
def test_refusals(child: Child, path: str, body: Any, status: int, code: str) -> None:
    answer = child.call("POST", f"/admin/v1{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_half_a_character_is_refused_as_it_is_everywhere(child: Child) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800"}]}'
    headers = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
    answer = httpx2.post(f"{child.url}/admin/v1/explain", content=body, headers=headers, trust_env=False, verify=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json"), answer.text


def test_what_the_data_process_has_learnt_is_in_it(child: Child) -> None:
    token = ok(child, "POST", "/tokens", {"name": "agent"})["token"]
    with DataPlane(child.state) as plane:
        wait_until(lambda: child.call("GET", "/readyz", None).status_code == 200)
        for _ in range(3):
            answer = httpx2.post(
                f"{plane.url}/v1/chat/completions", json={**ASKED, "headgate": {"retries": 0}},
                headers={"authorization": f"Bearer {token}"}, trust_env=False, verify=False, timeout=10,
            )  # fmt: skip
            assert answer.status_code == 502, answer.text
        route = ok(child, "POST", "/explain", ASKED)
        assert route["live"] is True
        states = {one["provider"]: one["state"] for one in route["candidates"]}
        assert sorted(states.values()) == ["ejected", "failing"]  # at most half of them are out
        assert places(route)[0] == (next(name for name, state in states.items() if state == "failing"), 1)
