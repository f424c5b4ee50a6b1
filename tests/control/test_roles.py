"""Every route of the admin API × every caller: what is not granted is refused."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headgate.control.api.access.door import Door
from headgate.control.api.access.needs import _PATTERNS, NEEDS, PREFIX
from headgate.control.identity.roles import ROLES, Need
from tests.control.child import ADMIN, Child
from tests.control.journal_writer import Writer, closed, opened
from tests.control.people import Browser, add_user, code_of, logged_in

TENANT = "acme"
HIDDEN = {"GET /oidc/login", "GET /oidc/callback"}  # pages for browsers, not in the API's description


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("roles")) as running:
        running.configure(tenants=(TENANT,))
        assert running.call("POST", f"{PREFIX}/reload").is_success
        yield running


@pytest.fixture(scope="module")
def browsers(child: Child) -> dict[str, Browser]:
    """One browser for each role, and some whose session is good for nothing."""
    found: dict[str, Browser] = {}
    for role in ROLES:
        add_user(child, role, role, **({"tenant": TENANT} if role == "tenant_admin" else {}))
        found[role] = logged_in(child, role)
    for name in ("expired", "idle", "disabled", "removed"):
        add_user(child, name, "admin")
        found[name] = logged_in(child, name)
    with sqlite3.connect(child.state / "headgate.db") as store:
        store.execute(f"UPDATE sessions SET expires_at = 1 WHERE id = '{found['expired'].session()}'")
        store.execute(f"UPDATE sessions SET seen_at = 1 WHERE id = '{found['idle'].session()}'")
        store.execute("UPDATE users SET disabled = 1 WHERE name = 'disabled'")
        store.execute("DELETE FROM users WHERE name = 'removed'")
    return found


def requested(route: str) -> tuple[str, str, Any]:
    """A request for a route that changes nothing: of an object that is not there, with a body that nothing takes."""
    method, _, path = route.partition(" ")
    path = path.replace("{name:path}", f"client:{TENANT}/nothing") if path.startswith("/aliases") else path
    return method, re.sub(r"\{[^}]*\}", "nothing", path), None if method in ("GET", "DELETE") else {"nothing": 1}


def test_every_route_declares_its_need(child: Child) -> None:
    described = child.call("GET", "/openapi.json", None).json()["paths"]
    served = {
        f"{method.upper()} {path.removeprefix(PREFIX)}"
        for path, operations in described.items()
        for method in operations
        if path.startswith(PREFIX)
    }
    declared = {route.replace(":path}", "}") for route in NEEDS}
    assert served | HIDDEN == declared


def test_needs_match_one_route_each() -> None:
    for route in NEEDS:
        method, path, _ = requested(route)
        matching = [verb for pattern, verb, _ in _PATTERNS if pattern.match(PREFIX + path) and verb == method]
        assert matching == [method], route


@pytest.mark.parametrize("route", sorted(NEEDS))
def test_roles_reach_what_they_need_and_no_more(child: Child, browsers: dict[str, Browser], route: str) -> None:
    method, path, body = requested(route)
    need = NEEDS[route]
    for role in ROLES:
        answer = browsers[role].call(method, path, body)
        refused = answer.status_code in (401, 403)
        assert refused is (need is not Need.NOTHING and role not in need.roles), (role, answer.text)
        if refused:
            assert (answer.status_code, code_of(answer)) == (403, "forbidden")
    options = {} if body is None else {"json": body}
    with_token = child.call(method, f"{PREFIX}{path}", ADMIN, **options)
    assert with_token.status_code not in (401, 403), with_token.text


@pytest.mark.parametrize("route", sorted(route for route, need in NEEDS.items() if need is not Need.NOTHING))
def test_nothing_is_open_without_a_good_credential(child: Child, browsers: dict[str, Browser], route: str) -> None:
    method, path, body = requested(route)
    options = {} if body is None else {"json": body}
    answers = {
        "nothing": child.call(method, f"{PREFIX}{path}", None, **options),
        "another token": child.call(method, f"{PREFIX}{path}", ADMIN + "x", **options),
        "unknown session": httpx2.request(
            method,
            f"{child.url}{PREFIX}{path}",
            headers={"cookie": "headgate=x"},
            trust_env=False,
            verify=False,
            **options,
        ),
        **{name: browsers[name].call(method, path, body) for name in ("expired", "idle", "disabled", "removed")},
    }
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 401)


def test_undeclared_route_is_refused() -> None:
    reached = []

    async def forgotten(_request: object) -> PlainTextResponse:
        reached.append(1)
        return PlainTextResponse("open")

    routes = [Route(f"{PREFIX}/forgotten", forgotten), Route(f"{PREFIX}/health", forgotten, methods=["PUT"])]
    inner = Starlette(routes=routes)
    door = Door(inner, ADMIN, None)  # type: ignore[arg-type]

    async def ask(method: str, path: str) -> httpx2.Response:
        transport = httpx2.ASGITransport(door)
        async with httpx2.AsyncClient(transport=transport, base_url="http://headgate") as client:
            return await client.request(method, path, headers={"authorization": f"Bearer {ADMIN}"})

    assert asyncio.run(ask("GET", f"{PREFIX}/forgotten")).status_code == 404
    answer = asyncio.run(ask("PUT", f"{PREFIX}/health"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert not reached


def test_operator_moves_no_key_to_another_address(child: Child, browsers: dict[str, Browser]) -> None:
    operator = browsers["operator"]
    home = {"name": "home", "base_url": "http://127.0.0.1:1/v1"}
    assert operator.call("POST", "/providers", home).status_code == 201
    assert operator.call("PATCH", "/providers/home", {"base_url": "http://127.0.0.1:2/v1"}).is_success
    assert operator.call("POST", "/accounts", {"provider": "home", "key": "k" * 30}).status_code == 403
    assert browsers["admin"].call("POST", "/accounts", {"provider": "home", "key": "k" * 30}).status_code == 201
    moved = operator.call("PATCH", "/providers/home", {"base_url": "http://127.0.0.1:3/v1"})
    assert (moved.status_code, code_of(moved)) == (403, "forbidden")
    assert operator.call("PATCH", "/providers/home", {"title": "Home"}).is_success
    taken = operator.call("POST", "/providers", {"name": "up-a", "base_url": "http://127.0.0.1:3/v1"})
    assert taken.status_code == 403  # the file's keys bear this name
    assert browsers["admin"].call("PATCH", "/providers/home", {"base_url": "http://127.0.0.1:3/v1"}).is_success


def test_operator_deletes_no_provider_that_has_keys(child: Child, browsers: dict[str, Browser]) -> None:
    operator, admin = browsers["operator"], browsers["admin"]
    assert operator.call("POST", "/providers", {"name": "held", "base_url": "http://127.0.0.1:1/v1"}).is_success
    assert admin.call("POST", "/accounts", {"provider": "held", "key": "k" * 30}).status_code == 201
    assert code_of(operator.call("DELETE", "/providers/held")) == "forbidden"
    assert admin.call("DELETE", "/accounts/held/key-1").is_success
    assert operator.call("DELETE", "/providers/held").is_success


def test_tenant_admin_knows_own_tokens_and_aliases_only(child: Child, browsers: dict[str, Browser]) -> None:
    own, admin = browsers["tenant_admin"], browsers["admin"]
    made = own.call("POST", "/tokens", {"name": "ours"})
    assert (made.status_code, made.json()["tenant"]) == (201, TENANT)
    theirs = admin.call("POST", "/tokens", {"name": "theirs"}).json()
    assert [row["name"] for row in own.call("GET", "/tokens").json()["data"]] == ["ours"]
    assert {"ours", "theirs"} <= {row["name"] for row in admin.call("GET", "/tokens").json()["data"]}
    for method, path, body in (
        ("GET", "/tokens/{}", None), ("PATCH", "/tokens/{}", {"name": "mine"}),
        ("POST", "/tokens/{}/rotate", {}), ("DELETE", "/tokens/{}", None),
    ):  # fmt: skip
        for wanted in (theirs["id"], "theirs"):
            assert own.call(method, path.format(wanted), body).status_code == 404
        assert own.call(method, path.format("ours"), body and {"models": []}).is_success or method == "POST"
    assert admin.call("GET", "/tokens/theirs").json()["revoked"] is None

    targets = {"targets": [{"model": "up-a/m"}]}
    assert own.call("PUT", f"/aliases/client:{TENANT}/chat", targets).is_success
    for name in ("chat", "client:other/chat", f"client:{TENANT}x/chat", "auto"):
        assert code_of(own.call("PUT", f"/aliases/{name}", targets)) == "forbidden"
        assert code_of(own.call("GET", f"/aliases/{name}")) == "forbidden"
    assert [row["name"] for row in own.call("GET", "/aliases").json()["data"]] == [f"client:{TENANT}/chat"]
    assert len(admin.call("GET", "/aliases").json()["data"]) > 1


def test_tenant_admin_knows_own_calls_only(child: Child, browsers: dict[str, Browser]) -> None:
    own, admin = browsers["tenant_admin"], browsers["admin"]
    ours = own.call("POST", "/tokens", {"name": "calls"}).json()["id"]
    writer = Writer(child.state / "journal")
    writer.write(opened(1, grant=ours, tenant=TENANT), closed(1), opened(2, grant="other"), closed(2))
    rows = admin.call("GET", "/requests").json()["data"]
    assert {row["token"] for row in rows} == {ours, "other"}
    assert [row["token"] for row in own.call("GET", "/requests").json()["data"]] == [ours]
    foreign = next(row["id"] for row in rows if row["token"] == "other")
    calls = [browser.call("GET", f"/requests?token={ours}").json()["data"][0] for browser in (admin, own)]
    calls += [browser.call("GET", f"/requests/{calls[0]['id']}").json() for browser in (admin, own)]
    shown = [(call["upstream_cost_usd"] is None, call["attempts"][0]["account"]) for call in calls]
    assert shown == [(False, "up-a/0"), (True, None)] * 2
    totals = [browser.call("GET", f"/usage?tenant={TENANT}").json()["total"] for browser in (admin, own)]
    assert [one["operator_cost_usd"] is None for one in totals] == [False, True]
    assert own.call("GET", f"/requests/{foreign}").status_code == 404
    assert admin.call("GET", f"/requests/{foreign}").is_success
    assert own.call("GET", "/requests?token=other").status_code in (200, 404)
    assert own.call("GET", "/usage?group_by=token").json()["total"]["requests"] == 1
    assert admin.call("GET", "/usage?group_by=token").json()["total"]["requests"] == 2
    assert own.call("GET", f"/usage?tenant={TENANT}").json()["total"]["requests"] == 1
    assert code_of(own.call("GET", "/usage?tenant=other")) == "forbidden"
    assert admin.call("GET", "/usage?group_by=boot").status_code == 400


def test_calls_stay_with_the_tenant_that_made_them(child: Child, browsers: dict[str, Browser]) -> None:
    own, admin = browsers["tenant_admin"], browsers["admin"]
    leaving = own.call("POST", "/tokens", {"name": "leaving"}).json()["id"]
    joining = admin.call("POST", "/tokens", {"name": "joining"}).json()["id"]
    writer = Writer(child.state / "journal", "w0-b1")
    writer.write(opened(11, grant=leaving, tenant=TENANT), closed(11), opened(12, grant=joining), closed(12))
    assert admin.call("PATCH", f"/tokens/{leaving}", {"tenant": None}).is_success
    assert admin.call("PATCH", f"/tokens/{joining}", {"tenant": TENANT}).is_success
    tokens = {row["token"]: row["id"] for row in admin.call("GET", "/requests").json()["data"]}
    shown = {row["token"] for row in own.call("GET", "/requests").json()["data"]}
    assert leaving in shown and joining not in shown
    assert own.call("GET", f"/requests/{tokens[leaving]}").is_success
    assert own.call("GET", f"/requests/{tokens[joining]}").status_code == 404
    used = {row["group"] for row in own.call("GET", "/usage?group_by=token").json()["data"]}
    assert leaving in used and joining not in used
