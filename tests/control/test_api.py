"""What the admin API's routes mean: a real control process, a real data process, a real upstream."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headgate.process.boot import Failed
from headgate.process.channel import Hello, frame
from tests.control.child import ADMIN, SECRET, Child
from tests.dataplane import DataPlane
from tests.waiting import wait_until

KEY = "sk-canary-0123456789-abcd"
WRONG = "sk-canary-not-the-one-9876"
ANSWER = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000},
}  # fmt: skip


class _Upstream(BaseHTTPRequestHandler):
    """A provider that knows one key, and repeats a wrong one in its error."""

    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self._say(302, {}, location="http://127.0.0.1:1/")
        elif self.headers.get("authorization") == f"Bearer {KEY}":
            self._say(200, {"object": "list", "data": [{"id": "m1"}, {"id": "m2"}]})
        else:
            self._say(401, {"error": {"message": f"bad key {self.headers.get('authorization')}"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        good = self.headers.get("authorization") == f"Bearer {KEY}"
        self._say(200 if good else 401, ANSWER if good else {"error": {"message": "bad key"}})

    def _say(self, status: int, body: dict[str, Any], **headers: str) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(payload)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    with Child(tmp_path) as running:
        yield running


@pytest.fixture
def plane(child: Child) -> Iterator[DataPlane]:
    with DataPlane(child.state) as running:
        wait_until(lambda: child.call("GET", "/readyz", None).status_code == 200)
        yield running


def ok(child: Child, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
    answer = child.call(method, f"/admin/v1{path}", **({} if body is None else {"json": body}))
    assert answer.is_success if status is None else answer.status_code == status, answer.text
    return answer.json()


def refused(child: Child, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    answer = child.call(method, f"/admin/v1{path}", **({} if body is None else {"json": body}))
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


def chat(plane: DataPlane, token: str, model: str, query: str = "") -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.post(
        f"{plane.url}/v1/chat/completions{query}", json=body, headers=headers, trust_env=False, verify=False, timeout=10
    )


def serve_mine(child: Child, upstream: str) -> str:
    """Provider, account, alias, token over the API; the token."""
    models = {"m1": {"price": {"input": 1, "output": "2.5"}}}
    ok(child, "POST", "/providers", {"name": "mine", "base_url": upstream, "models": models}, 201)
    ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY}, 201)
    ok(child, "PUT", "/aliases/my/chat", {"targets": [{"model": "mine/m1"}]})
    return str(ok(child, "POST", "/tokens", {"name": "agent"}, 201)["token"])


# ------------------------------------------------------------------------------------------------- effect on calls


def test_added_objects_serve_and_removed_ones_do_not(child: Child, plane: DataPlane, upstream: str) -> None:
    token = serve_mine(child, upstream)
    answer = chat(plane, token, "my/chat")
    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "hello")

    (row,) = ok(child, "GET", "/requests?requested=my%2Fchat")["data"]
    assert (row["cost_usd"], row["price_snapshot"]) == (0.006, "store")
    assert row["attempts"][0]["account"] == "mine/key-1"
    report = ok(child, "GET", "/usage?group_by=model")
    assert next(group for group in report["data"] if group["group"] == "mine/m1")["cost_usd"] == 0.006

    assert refused(child, "DELETE", "/providers/mine")[:2] == (409, "in_use")
    assert ok(child, "DELETE", "/accounts/mine/key-1")["effective"] is True
    assert chat(plane, token, "my/chat").json()["error"]["code"] == "no_provider_key"
    assert ok(child, "DELETE", "/aliases/my/chat")["shipped"] is False
    assert chat(plane, token, "my/chat").json()["error"]["code"] == "model_not_found"
    assert ok(child, "DELETE", "/providers/mine")["accounts"] == []
    assert chat(plane, token, "mine/m1").json()["error"]["code"] == "model_not_found"


def test_control_restart_keeps_every_object(child: Child, plane: DataPlane, upstream: str) -> None:
    token = serve_mine(child, upstream)
    child.process.kill()
    child.process.wait()
    assert chat(plane, token, "my/chat").status_code == 200
    with Child(child.state) as again:
        for _ in range(20):  # while it starts, and after
            assert chat(plane, token, "my/chat").status_code == 200
            time.sleep(0.05)
        wait_until(lambda: again.call("GET", "/readyz", None).status_code == 200)
        assert ok(again, "GET", "/aliases/my/chat")["origin"] == "store"
        ok(again, "DELETE", "/accounts/mine/key-1")
        assert chat(plane, token, "my/chat").status_code == 503


def test_rotated_token_keeps_id_and_former_secret(child: Child, plane: DataPlane, upstream: str) -> None:
    first = serve_mine(child, upstream)
    ident = ok(child, "GET", "/tokens")["data"][-1]["id"]
    second = ok(child, "POST", f"/tokens/{ident}/rotate", {"overlap_s": 60})
    assert second["id"] == ident and second["token"] != first and second["effective"]
    assert second["former_valid_until"] == pytest.approx(time.time() + 60, abs=10)
    assert [chat(plane, one, "my/chat").status_code for one in (first, second["token"])] == [200, 200]

    renamed = ok(child, "PATCH", f"/tokens/{ident}", {"name": "laptop", "models": ["my/chat"]})
    assert (renamed["name"], renamed["models"], renamed["scopes"][0]) == ("laptop", ["my/chat"], "gate:chat")
    assert chat(plane, first, "mine/m1").json()["error"]["code"] == "model_not_allowed"

    third = ok(child, "POST", f"/tokens/{ident}/rotate")  # no overlap: whoever has an older one is out
    codes = [chat(plane, one, "my/chat").status_code for one in (first, second["token"], third["token"])]
    assert (codes, third["former_valid_until"]) == ([401, 401, 200], None)
    shown = ok(child, "GET", f"/tokens/{ident}")
    assert "token" not in shown and shown["revoked"] is None

    short = ok(child, "POST", f"/tokens/{ident}/rotate", {"overlap_s": 0.5})
    wait_until(lambda: chat(plane, third["token"], "my/chat").json().get("error", {}).get("code") == "expired_api_key")
    ok(child, "DELETE", f"/tokens/{ident}")
    assert chat(plane, short["token"], "my/chat").status_code == 401
    assert ok(child, "GET", f"/tokens/{ident}")["revoked"] is not None
    assert refused(child, "POST", f"/tokens/{ident}/rotate")[:2] == (404, "token_not_found")


# -------------------------------------------------------------------------------------------------------- the file wins


def test_what_the_file_declares_is_read_only(child: Child) -> None:
    child.configure("chat", tokens={"aa" * 32: "ci"})
    ok(child, "POST", "/reload")
    alias = {"targets": [{"model": "up-a/big"}]}
    for method, path, body in (
        ("POST", "/providers", {"name": "up-a", "base_url": "http://127.0.0.1:1"}),
        ("PATCH", "/providers/up-a", {"training": "never"}),
        ("DELETE", "/providers/up-a", None),
        ("PATCH", "/accounts/up-a/0", {"priority": 1}),
        ("DELETE", "/accounts/up-a/0", None),
        ("PUT", "/aliases/chat", alias),
        ("DELETE", "/aliases/chat", None),
        ("PATCH", "/tokens/ci", {"name": "other"}),
        ("POST", "/tokens/ci/rotate", None),
        ("DELETE", "/tokens/ci", None),
    ):
        status, code, message = refused(child, method, path, body)
        assert (status, code) == (409, "managed_by_file"), (method, path)
        assert "file" in message
    for path in ("/providers/up-a", "/aliases/chat", "/tokens/ci"):
        assert ok(child, "GET", path)["managed_by_file"] is True


def test_file_name_shadows_the_stored_object(child: Child) -> None:
    ok(child, "PUT", "/aliases/chat", {"targets": [{"model": "up-a/big"}]})
    ok(child, "POST", "/accounts", {"provider": "up-a", "key": KEY, "label": "second", "priority": 5, "test": False})
    child.configure("chat")
    ok(child, "POST", "/reload")
    both = [view for view in ok(child, "GET", "/aliases")["data"] if view["name"] == "chat"]
    assert [(view["origin"], view["shadowed"]) for view in both] == [("file", False), ("store", True)]
    accounts = ok(child, "GET", "/accounts?provider=up-a")["data"]
    assert [(one["id"], one["origin"]) for one in accounts] == [("up-a/0", "file"), ("up-a/second", "store")]
    child.configure()
    ok(child, "POST", "/reload")
    assert ok(child, "GET", "/aliases/chat")["origin"] == "store"
    ok(child, "DELETE", "/aliases/chat")


# ---------------------------------------------------------------------------------------------------- names and wishes


def test_names_that_could_not_be_reached_are_refused(child: Child, upstream: str) -> None:
    ok(child, "POST", "/providers", {"name": "mine", "base_url": upstream, "models": {"m1": {}, "org/m2": None}})
    target = {"targets": [{"model": "mine/m1"}]}
    for name in ("m1", "org/m2", "mine/m1", "up-a/anything", "builtin/echo"):
        assert refused(child, "PUT", f"/aliases/{name}", target)[:2] == (409, "name_taken"), name
    for model, hint in (
        ("mine/m3", "mine declares no model"),
        ("nobody/m1", "no provider"),
        ("m1", "did you mean mine/m1"),
    ):
        status, code, message = refused(child, "PUT", "/aliases/x", {"targets": [{"model": model}]})
        assert (status, code) == (400, "invalid_value") and hint in message

    ok(child, "PUT", "/aliases/later/chat", target)
    open_one = {"name": "later", "base_url": upstream}  # would swallow later/…
    assert refused(child, "POST", "/providers", open_one)[:2] == (409, "name_taken")
    assert refused(child, "PATCH", "/providers/mine", {"models": {"later/chat": {}, "m1": {}}})[:2] == (
        409,
        "name_taken",
    )
    assert refused(child, "PATCH", "/providers/mine", {"models": {"m9": {}}})[:2] == (409, "in_use")
    assert ok(child, "PATCH", "/providers/mine", {"models": {"m1": {}, "m9": {}}})["models"] == 2
    assert refused(child, "POST", "/providers", {"name": "mine", "base_url": upstream})[:2] == (409, "already_exists")


def test_a_shipped_alias_may_be_replaced_and_comes_back(child: Child) -> None:
    assert ok(child, "GET", "/aliases/headgate/chat")["origin"] == "shipped"
    ok(child, "PUT", "/aliases/headgate/chat", {"targets": [{"model": "up-a/big"}], "timeouts": {"first_token": 5}})
    mine = ok(child, "GET", "/aliases/headgate/chat")
    assert (mine["origin"], mine["timeouts"], mine["targets"][0]["model"]) == (
        "store",
        {"first_token": 5.0},
        "up-a/big",
    )
    assert ok(child, "DELETE", "/aliases/headgate/chat")["shipped"] is True
    assert ok(child, "GET", "/aliases/headgate/chat")["why"]
    assert refused(child, "DELETE", "/aliases/headgate/chat")[:2] == (404, "alias_not_found")


def test_only_auto_may_be_stored_without_targets(child: Child) -> None:
    for name in ("mine", "headgate/chat"):
        status, code, message = refused(child, "PUT", f"/aliases/{name}", {"targets": [], "strategy": "fastest"})
        assert (status, code) == (400, "invalid_value") and f"{name!r} names no target; name one" in message
    ok(child, "PUT", "/aliases/auto", {"strategy": "fastest"})
    auto = ok(child, "GET", "/aliases/auto")
    assert (auto["strategy"], auto["origin"]) == ("fastest", "store")
    assert ok(child, "DELETE", "/aliases/auto")["shipped"] is True


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/providers", {"name": "builtin", "base_url": "http://x"}, "name"),
        ("/providers", {"name": "Bad Name", "base_url": "http://x"}, "name"),
        ("/providers", {"name": "x"}, "base_url"),
        ("/providers", {"name": "x", "base_url": "http://user:pw@x/v1"}, "base_url"),
        ("/providers", {"name": "x", "base_url": "http://a\0b/v1"}, "base_url"),
        ("/providers", {"name": "x", "base_url": f"http://{'a' * 64}.example/v1"}, "base_url"),
        ("/providers", {"name": "x", "base_url": "http://x", "headers": {"Authorization": "y"}}, "headers"),
        ("/providers", {"name": "x", "base_url": "http://x", "headers": {"content-type": "y"}}, "headers"),
        ("/providers", {"name": "x", "base_url": "http://x", "headers": {"X-A": "y", "x-a": "y"}}, "headers"),
        ("/providers", {"name": "a" * 65, "base_url": "http://x"}, "name"),
        ("/providers", {"name": "x", "base_url": "http://x", "quirks": ["nope"]}, "quirks"),
        ("/providers", {"name": "x", "preset": "gorq"}, "preset"),
        ("/providers", {"name": "x", "preset": "groq", "budget": 5}, "budget"),
        ("/providers", {"name": "x", "base_url": "http://x", "models": {"m": {"price": {"input": -1}}}}, None),
        ("/accounts", {"provider": "up-a", "key": "two words"}, "key"),
        ("/accounts", {"provider": "ollama", "key": KEY}, "provider"),
    ],
)
def test_a_wish_that_cannot_be_kept_is_refused_by_name(shared: Child, path: str, body: Any, param: str | None) -> None:
    answer = shared.call("POST", f"/admin/v1{path}", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert param is None or error["param"] == param
    assert "two words" not in answer.text


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("shared")) as running:
        yield running


def test_no_route_takes_a_query_parameter_that_it_does_not_know(shared: Child) -> None:
    paths = shared.call("GET", "/openapi.json", None).json()["paths"]
    asked = 0
    for path, operations in paths.items():
        for method in operations:
            if not path.startswith("/admin/"):
                continue
            plain = (
                path.replace("{name}", "x").replace("{provider}", "x").replace("{label}", "x").replace("{ident}", "x")
            )
            answer = shared.call(
                method.upper(), f"{plain}?limt=3", json={} if method in ("put", "patch", "post") else None
            )
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limt"), (method, path)
            asked += 1
    assert asked > 25
    assert shared.call("GET", "/admin/v1/requests?limit=3&limit=4").json()["error"]["param"] == "limit"


def test_body_without_json_content_type_is_refused(shared: Child) -> None:
    answer = shared.call("POST", "/admin/v1/tokens", content=b'{"name": "x"}')
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/requests?model=a%00b", "model"),
        ("/requests/%00", "ident"),
        ("/usage?token=%00", "token"),
        ("/tokens?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OS94", "cursor"),  # 9999999999999999999/x: no database keeps it
    ],
)
def test_what_no_store_could_look_for_is_refused(shared: Child, path: str, param: str) -> None:
    answer = shared.call("GET", f"/admin/v1{path}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_creation_is_answered_though_removed_meanwhile(child: Child) -> None:
    ok(child, "POST", "/providers", {"name": "mine", "base_url": "http://127.0.0.1:9/v1"})
    with socket.socket(socket.AF_UNIX) as stuck:  # a data process that hears everything and confirms nothing
        stuck.connect(str(child.state / "channel.sock"))
        stuck.sendall(frame(Hello("w0", "b", 0, 1)))
        wait_until(lambda: ok(child, "GET", "/health")["workers"])
        with ThreadPoolExecutor(2) as side:
            account = side.submit(
                ok, child, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": "brief"}, 201
            )
            model = side.submit(ok, child, "PUT", "/catalog/mine/m", {"title": "Brief"})
            wait_until(lambda: ok(child, "GET", "/accounts?provider=mine")["data"])
            wait_until(lambda: child.call("DELETE", "/admin/v1/catalog/mine/m").status_code == 200)
            ok(child, "DELETE", "/accounts/mine/brief")
            assert (account.result()["id"], account.result()["pending"]) == ("mine/brief", True)
            assert (model.result()["title"], model.result()["pending"]) == ("Brief", True)


def test_half_a_character_is_refused(shared: Child) -> None:
    headers = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
    body = b'{"name": "x", "base_url": "http://\\ud800/v1"}'
    answer = httpx2.post(
        f"{shared.url}/admin/v1/providers", content=body, headers=headers, trust_env=False, verify=False
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "base_url")


def test_a_large_body_is_refused(shared: Child) -> None:
    answer = shared.call("POST", "/admin/v1/tokens", content=b" " * (1 << 20) + b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


# --------------------------------------------------------------------------------------------------- presets and facts


def test_a_key_for_a_preset_makes_its_provider(child: Child) -> None:
    made = ok(child, "POST", "/accounts", {"provider": "groq", "key": KEY, "free": True, "test": False})
    assert (made["id"], made["hint"], made["free"], made["state"]) == ("groq/key-1", "sk-…abcd", True, "active")
    groq = ok(child, "GET", "/providers/groq")
    assert (groq["origin"], groq["preset"], groq["status"], groq["models"]) == ("store", "groq", "ready", None)
    assert ok(child, "POST", "/accounts", {"provider": "groq", "key": "short", "test": False})["id"] == "groq/key-2"
    edited = ok(child, "PATCH", "/accounts/groq/key-2", {"key": KEY, "priority": 7})
    assert (edited["hint"], edited["priority"]) == ("sk-…abcd", 7)
    status, _code, message = refused(child, "POST", "/accounts", {"provider": "gorq", "key": KEY})
    assert status == 404 and "did you mean groq?" in message
    assert ok(child, "DELETE", "/providers/groq")["accounts"] == ["groq/key-1", "groq/key-2"]
    assert ok(child, "GET", "/accounts?provider=groq")["data"] == []
    presets = {row["name"]: row for row in ok(child, "GET", "/presets")["data"]}
    assert presets["groq"]["key_env"] == ["GROQ_API_KEY"]


def test_operator_facts_hold_until_deleted(child: Child, upstream: str) -> None:
    ok(child, "POST", "/providers", {"name": "mine", "base_url": upstream, "auth": "none"})
    wish = {"price": {"input": 0.15, "output": 0.6}, "context_window": 32000, "capabilities": ["tools"], "title": "One"}
    put = ok(child, "PUT", "/catalog/mine/org/m1", wish)
    assert (put["target"], put["price"]["input"], put["price"]["source"]) == ("mine/org/m1", 0.15, "store")
    entry = ok(child, "GET", "/catalog/mine/org/m1")
    info = entry["headgate"]
    assert (info["price"]["output"], info["context_window"], info["title"]) == (0.6, 32000, "One")
    assert [one["target"] for one in entry["overrides"]] == ["mine/org/m1"]
    listed = ok(child, "GET", "/catalog?provider=mine&capability=tools")
    assert [one["id"] for one in listed["data"]] == ["mine/org/m1"] and listed["total"] == 1
    ok(child, "DELETE", "/catalog/mine/org/m1")
    assert refused(child, "GET", "/catalog/mine/org/m1")[:2] == (404, "model_not_found")
    assert refused(child, "PUT", "/catalog/nobody/m1", wish)[:2] == (404, "model_not_found")


def test_a_check_says_what_the_provider_said_without_the_key(child: Child, upstream: str) -> None:
    ok(child, "POST", "/providers", {"name": "mine", "base_url": upstream})
    ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": "good"})
    ok(child, "POST", "/accounts", {"provider": "mine", "key": WRONG, "label": "bad", "force": True})
    good, bad = ok(child, "POST", "/providers/mine/check")["results"]
    assert (good["account"], good["ok"], good["status"], good["models"]) == ("mine/good", True, 200, 2)
    assert (bad["ok"], bad["status"]) == (False, 401) and WRONG not in bad["message"] and bad["latency_ms"] > 0

    moved = upstream.replace("/v1", "/moved")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        for name, url, words in (
            ("moved", moved, "redirect"), ("off", "http://127.0.0.1:1/v1", "cannot be reached"), ("deaf", deaf, "5 s"),
        ):  # fmt: skip
            ok(child, "POST", "/providers", {"name": name, "base_url": url, "auth": "none"})
            answer = child.call("POST", f"/admin/v1/providers/{name}/check", timeout=20)
            (result,) = answer.json()["results"]
            assert not result["ok"] and words in result["message"]
    ok(child, "POST", "/providers", {"name": "keyless", "base_url": upstream})
    (result,) = ok(child, "POST", "/providers/keyless/check")["results"]
    assert "has no key" in result["message"]


# ------------------------------------------------------------------------------------------------------------ the vault


def test_keys_go_in_and_never_come_out(child: Child, plane: DataPlane, upstream: str) -> None:
    token = serve_mine(child, upstream)
    ok(child, "PATCH", "/accounts/mine/key-1", {"key": KEY})
    assert chat(plane, token, "mine/m1").status_code == 200
    shown = "".join(
        child.call("GET", f"/admin/v1{path}").text
        for path in ("/accounts", "/providers", "/providers/mine", "/health", "/catalog", "/requests", "/aliases")
    )
    assert "sk-…abcd" in shown
    assert child.end() == 0
    kept = [path for path in child.state.rglob("*") if path.is_file() and path != child.config]
    for content in (shown.encode(), *(path.read_bytes() for path in kept)):
        for secret in (KEY, ADMIN, token, SECRET):
            assert secret.encode() not in content
    assert (child.state / "vault.key").stat().st_mode & 0o777 == 0o600


def test_lost_vault_key_stops_the_start(child: Child) -> None:
    ok(child, "POST", "/accounts", {"provider": "groq", "key": KEY, "label": "one", "test": False})
    ok(child, "POST", "/accounts", {"provider": "groq", "key": KEY, "label": "two", "test": False})
    assert child.end() == 0
    with sqlite3.connect(child.state / "headgate.db") as store:  # the one's seal under the other's name
        store.execute(
            "UPDATE accounts SET sealed = (SELECT sealed FROM accounts WHERE label = 'one') WHERE label = 'two'"
        )
    with Child(child.state) as again:
        states = {one["label"]: one["state"] for one in ok(again, "GET", "/accounts?provider=groq")["data"]}
        assert states == {"one": "active", "two": "damaged"}
        assert again.log.read_text().count("does not open") == 1
        assert ok(again, "PATCH", "/accounts/groq/two", {"key": KEY})["state"] == "active"
        assert again.end() == 0
    key = (child.state / "vault.key").read_bytes()
    for broken in (None, b"x" * 32, b"x" * 10):
        (child.state / "vault.key").unlink()
        if broken:
            (child.state / "vault.key").write_bytes(broken)
        with Child(child.state) as refusing:
            assert isinstance(refusing.answer, Failed)
            assert refusing.answer.code == refusing.process.wait(60) == 4
            assert "vault.key" in refusing.answer.message and "restore it" in refusing.answer.message
        (child.state / "vault.key").write_bytes(key)


# ----------------------------------------------------------------------------------------------------------------- away


def test_a_blocked_store_is_answered_503(child: Child) -> None:
    with sqlite3.connect(child.state / "headgate.db", isolation_level=None) as store:
        store.execute("BEGIN IMMEDIATE")
        answers: list[int] = []

        def create(number: int) -> None:
            answers.append(child.call("POST", "/admin/v1/tokens", json={"name": f"t{number}"}, timeout=120).status_code)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        assert ok(child, "GET", "/tokens")["object"] == "list"  # reading goes on
        for thread in threads:
            thread.join()
        store.execute("ROLLBACK")
    assert answers == [503] * 6
    assert ok(child, "POST", "/tokens", {"name": "after"}, 201)["name"] == "after"
