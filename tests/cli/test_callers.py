"""Tokens, tenants, groups of calls and tokens within tokens: file, API and command line, on a running gateway."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from headgate.testing import serve_in_thread
from tests.cli.conftest import Gateway
from tests.dataplane import post
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from headgate.testing import Provider

LIMITED, FILED = "hg_test_0123456789abcdef_a", "hg_test_0123456789abcdef_b"
CALL_USD = 0.000501  # a prompt of one token, and fifty of output
FOR_TWO = 0.0011  # two calls, and not a third
LOREM = "up/lorem"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("callers")
    with serve_in_thread() as provider:
        _configure(home / "headgate.yaml", provider)
        one = Gateway(home)
        yield one
        assert one.end() == 0


def _configure(path: Any, provider: Provider) -> None:
    row = {"base_url": provider.url, "keys": ["k"], "models": {"lorem": {"price": {"input": 1, "output": 10}}}}
    path.write_text(
        json.dumps(
            {
                "server": {"port": free_port(), "drain_s": 1},
                "control": {"port": free_port()},
                "detect": {"local_engines": False},
                "providers": {"up": row},
                "aliases": {"client:filed/a": {"targets": [LOREM]}},
                "tenants": {"filed": {"budget": {"usd": FOR_TWO, "zone": "Europe/Berlin"}}},
                "budgets": [{"match": {"user": "u1"}, "limits": {"rpd": 1}}],
                "tokens": [
                    {"name": "limited", "secret": LIMITED, "limits": {"rpm": 2}},
                    {"name": "of-filed", "secret": FILED, "tenant": "filed"},
                ],
            }
        )
    )


def call(gate: Gateway, token: str, model: str = LOREM, **fields: Any) -> httpx2.Response:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], **fields}
    return sent(gate, token, "POST", "/v1/chat/completions", body)


def sent(gate: Gateway, token: str, method: str, path: str, body: Any = None) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.request(
        method, gate.data_url + path, json=body, headers=headers, trust_env=False, verify=False, timeout=30
    )


@contextlib.contextmanager
def running(gate: Gateway, token: str, model: str, *, headed: bool = True) -> Iterator[None]:
    """A stream that has begun, or whose head has not come; its client leaves at the end."""
    url = httpx2.URL(gate.data_url)
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with socket.create_connection((url.host, url.port or 80), timeout=30) as sock:
        sock.sendall(post("/v1/chat/completions", json.dumps(body).encode(), token=token))
        if headed:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        yield


def code(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.json()['error']['code']}"


def created(gate: Gateway, name: str, *options: str) -> str:
    made = gate.told("token", "create", name, *options)
    assert made["effective"]
    return str(made["token"])


# ------------------------------------------------------------------------------------- the file


def test_a_token_of_the_file_has_its_limits(gate: Gateway) -> None:
    assert [call(gate, LIMITED).status_code for _ in range(2)] == [200, 200]
    third = call(gate, LIMITED)
    assert code(third) == "429 rate_limit_exceeded" and int(third.headers["retry-after"]) > 0
    refused = gate.run("token", "edit", "limited", "--rpm", "5")
    assert refused.returncode and "declared in the configuration file" in refused.stderr
    assert "2 of 2, 0 left" in gate.good("token", "show", "limited")


def test_a_tenant_s_budget_stops_all_its_tokens(gate: Gateway) -> None:
    other = created(gate, "also-filed", "--tenant", "filed")
    assert [call(gate, token).status_code for token in (FILED, other)] == [200, 200]
    for token in (FILED, other):
        refused = call(gate, token)
        assert code(refused) == "402 budget_exceeded" and "tenant 'filed'" in refused.json()["error"]["message"]
    used = sent(gate, other, "GET", "/v1/usage").json()
    assert (used["budget"], used["alert"]) == (None, "critical")
    assert [one["holder"] for one in used["counts_against"]] == ["tenant"]
    for verb in ("set", "remove"):
        assert "declared in the configuration file" in gate.run("tenant", verb, "filed").stderr


def test_a_tenant_s_aliases_are_its_own(gate: Gateway) -> None:
    stranger = created(gate, "stranger")
    assert code(call(gate, stranger, "client:filed/a")) == "403 model_not_allowed"
    assert code(call(gate, stranger, "CLIENT:filed/a")) == "403 model_not_allowed"
    rerouted = call(gate, stranger, "builtin/echo", headgate={"fallback_models": ["client:filed/a"]})
    assert code(rerouted) == "403 model_not_allowed"
    for token, listed in ((stranger, False), (FILED, True)):
        for path in ("/v1/aliases", "/v1/models?limit=1000"):
            data = sent(gate, token, "GET", path).json()["data"]
            assert ("client:filed/a" in [row["id"] for row in data]) is listed
    assert gate.run("aliases", "set", "client:nobody/a", LOREM).returncode == 2
    assert gate.run("aliases", "set", "client:filed/A B", LOREM).returncode == 2


# ------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(("form", "begin"), [("pat", "hg_pat_"), ("triple", "cli_"), ("plain", "hg_")])
def test_a_token_of_every_format(gate: Gateway, form: str, begin: str) -> None:
    token = created(gate, f"form-{form}", "--format", form)
    assert token.startswith(begin) and token.count(":") == (2 if form == "triple" else 0)
    assert call(gate, token, "builtin/echo").status_code == 200
    fresh = gate.good("token", "rotate", f"form-{form}", "--overlap", "1h").strip()
    assert fresh.startswith(begin) and fresh != token and len(fresh) == len(token)
    assert [call(gate, one, "builtin/echo").status_code for one in (token, fresh)] == [200, 200]


def test_limits_are_changed_one_by_one(gate: Gateway) -> None:
    options = ("--rpm", "5", "--parallel", "2", "--budget", "5/day", "--zone", "Europe/Berlin", "--soft")
    created(gate, "edited", *options)
    gate.good("token", "edit", "edited", "--rpm", "0", "--tpm", "1000")
    shown = gate.told("token", "show", "edited")
    assert shown["limits"] == {"rpm": None, "tpm": 1000, "rpd": None, "parallel": 2}
    assert shown["budget"] == {"usd": 5.0, "period": "day", "mode": "soft", "zone": "Europe/Berlin"}
    gate.good("token", "edit", "edited", "--budget", "none")
    assert gate.told("token", "show", "edited")["budget"] is None
    for wrong in (("--budget", "5/week"), ("--zone", "UTC"), ("--budget", "5/day", "--zone", "Nowhere/X")):
        assert gate.run("token", "edit", "edited", *wrong).returncode == 2
    assert gate.run("token", "edit", "edited", "--tenant", "nobody").returncode != 0


def test_free_only_token_is_refused_priced_models(gate: Gateway) -> None:
    token = created(gate, "free", "--free-only")
    assert code(call(gate, token)) == "403 model_not_allowed"
    assert call(gate, token, "builtin/echo").status_code == 200


# ------------------------------------------------------------------------------------- queues


def test_tiers_of_a_token_and_of_its_children(gate: Gateway) -> None:
    bulk = created(gate, "bulk", "--tier", "slow", "--tiers", "slow,medium")
    assert code(call(gate, bulk, "builtin/echo", headgate={"tier": "fast"})) == "403 tier_not_allowed"
    assert call(gate, bulk, "builtin/echo", headgate={"tier": "medium"}).status_code == 200
    child = sent(gate, bulk, "POST", "/v1/tokens", {}).json()["token"]
    assert code(call(gate, child, "builtin/echo", headgate={"tier": "fast"})) == "403 tier_not_allowed"
    shown = gate.told("token", "show", "bulk")
    assert (shown["tier"], shown["tiers"]) == ("slow", ["slow", "medium"])
    gate.good("token", "edit", "bulk", "--tiers", "all")
    assert call(gate, bulk, "builtin/echo", headgate={"tier": "fast"}).status_code == 200
    assert gate.told("token", "show", "bulk")["tiers"] == [] and "slow" in gate.good("token", "show", "bulk")
    assert gate.run("token", "edit", "bulk", "--tier", "fastest").returncode == 2


def test_the_queue_of_an_alias_is_set_and_shown(gate: Gateway) -> None:
    """From the command line to a call that waits, and back to what is shown of it."""
    token = created(gate, "one-at-a-time", "--parallel", "1")
    gate.good("aliases", "set", "q", "builtin/lorem?rate=20&tokens=100000", "--queue-size", "3", "--queue-wait-s", "60")
    assert gate.told("aliases", "show", "q")["queue"] == {"size": 3, "wait_s": 60}
    with running(gate, token, "q"), running(gate, token, "q", headed=False):
        wait_until(lambda: gate.told("aliases", "show", "q")["queued"] == 1, why="nothing is said to wait")
        assert "3 calls, up to 60 s; 1 wait" in gate.good("aliases", "show", "q")
        assert "1/3" in gate.good("aliases") and "(1 waiting)" in gate.good("status")
    wait_until(lambda: gate.told("aliases", "show", "q")["queued"] == 0, why="nobody waits any more")


# ------------------------------------------------------------------------------------- tenants and groups


def test_a_tenant_and_a_group_from_nothing_to_their_end(gate: Gateway) -> None:
    gate.good("tenant", "set", "acme", "--rpm", "2", "--over-budget", "builtin/echo", "--budget", "0/total")
    token = created(gate, "of-acme", "--tenant", "acme")
    served = call(gate, token)
    assert served.status_code == 200 and served.json()["model"] == "echo"
    assert gate.told("tenant", "show", "acme")["tokens"] == 1
    assert gate.run("tenant", "remove", "acme").returncode == 1
    gate.good("token", "revoke", "of-acme")
    gate.good("tenant", "remove", "acme")
    assert [row["name"] for row in gate.told("tenant")] == ["filed"]

    gate.good("budget", "set", "search", "--tag", "team=search", "--rpm", "1")
    tagged = created(gate, "tagged")
    fields = {"headgate": {"metadata": {"team": "search"}}}
    assert call(gate, tagged, "builtin/echo", **fields).status_code == 200
    assert code(call(gate, tagged, "builtin/echo", **fields)) == "429 rate_limit_exceeded"
    assert call(gate, tagged, "builtin/echo").status_code == 200
    assert call(gate, tagged, "builtin/echo", user="u1").status_code == 200
    assert code(call(gate, tagged, "builtin/echo", user="u1")) == "429 daily_rate_limit_exceeded"
    assert {row["name"] for row in gate.told("budget")} == {"search", "user:u1"}
    gate.good("budget", "remove", "search")
    assert call(gate, tagged, "builtin/echo", **fields).status_code == 200
    assert gate.run("budget", "set", "search", "--tag", "team").returncode == 2
    assert gate.run("budget", "set", "empty", "--model", LOREM).returncode == 2
    nouns = {(row["noun"], row["action"]) for row in gate.told("audit", "list", "--limit", "200")}
    assert {("tenant", "created"), ("tenant", "deleted"), ("budget", "created"), ("budget", "deleted")} <= nouns


# ------------------------------------------------------------------------------------- tokens within tokens


def child(gate: Gateway, parent: str, **wish: Any) -> dict[str, Any]:
    answer = sent(gate, parent, "POST", "/v1/tokens", wish)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_child_spends_its_slice_and_no_more(gate: Gateway) -> None:
    parent = created(gate, "parent", "--budget", "1/month")
    made = child(gate, parent, run="r1", budget_usd=FOR_TWO, models=[LOREM])
    assert (made["run"], made["models"], made["name"].partition("/")[0]) == ("r1", [LOREM], "parent")
    answers = [call(gate, made["token"]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 402]
    own = sent(gate, made["token"], "GET", "/v1/usage").json()
    assert own["alert"] == "critical" and own["budget"]["spent_usd"] == pytest.approx(2 * CALL_USD)
    above = sent(gate, parent, "GET", "/v1/usage").json()
    assert above["budget"]["spent_usd"] == pytest.approx(2 * CALL_USD) and above["alert"] is None
    assert call(gate, parent).status_code == 200
    assert code(call(gate, made["token"], "builtin/echo")) == "403 model_not_allowed"


def test_children_together_spend_no_more_than_their_parent_has(gate: Gateway) -> None:
    parent = created(gate, "small", "--budget", "0.0006/total")
    first, second = (child(gate, parent)["token"] for _ in range(2))
    assert call(gate, first).status_code == 200
    refused = call(gate, second)
    assert code(refused) == "402 budget_exceeded" and "'small'" in refused.json()["error"]["message"]
    assert code(call(gate, parent)) == "402 budget_exceeded"


def test_a_child_is_a_part_of_its_parent(gate: Gateway) -> None:
    parent = created(gate, "bounded", "--models", "builtin/echo,up/lorem", "--scopes", "gate:chat", "--budget", "1/day")
    for wish, expected in (
        ({"models": ["builtin/lorem"]}, "403 model_not_allowed"),
        ({"scopes": ["gate:usage"]}, "403 scope_missing"),
        ({"budget_usd": 2}, "400 invalid_value"),
        ({"budget": 2}, "400 invalid_value"),
        ({"ttl_s": 0}, "400 invalid_value"),
    ):
        assert code(sent(gate, parent, "POST", "/v1/tokens", wish)) == expected
    one = child(gate, parent)
    assert one["scopes"] == ["gate:chat"]
    assert code(sent(gate, one["token"], "POST", "/v1/tokens", {})) == "403 scope_missing"
    assert sent(gate, parent, "GET", "/v1/tokens").json()["data"][0]["id"] == one["id"]
    gate.good("token", "edit", "bounded", "--models", "up/lorem")
    assert code(call(gate, one["token"], "builtin/echo")) == "403 model_not_allowed"
    assert sent(gate, parent, "DELETE", f"/v1/tokens/{one['id']}").status_code == 200
    assert code(call(gate, one["token"])) == "401 invalid_api_key"
    assert sent(gate, parent, "DELETE", f"/v1/tokens/{one['id']}").status_code == 404


def test_a_revoked_token_takes_its_children_along(gate: Gateway) -> None:
    parent = created(gate, "ending")
    one, ended = child(gate, parent), child(gate, parent, ttl_s=0.001)
    assert code(call(gate, ended["token"], "builtin/echo")) == "401 expired_api_key"
    gate.good("token", "rotate", "ending")
    assert call(gate, one["token"], "builtin/echo").status_code == 200
    gate.good("token", "revoke", "ending")
    wait_until(lambda: call(gate, one["token"], "builtin/echo").status_code == 401)
    assert one["name"] not in [row["name"] for row in gate.told("token")]
