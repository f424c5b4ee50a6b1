"""Logins and sessions: over a real socket, against a real control process, on both stores."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.audit.chain import changing
from headgate.control.identity import sessions
from headgate.control.identity.passwords import Passwords
from headgate.control.identity.throttle import BY_ADDRESS, BY_NAME, MAX_KEYS, LoginThrottle, network
from headgate.control.identity.users import User, authenticated, create, remove, set_password
from headgate.control.store.access_tables import sessions as session_table
from headgate.control.store.access_tables import users
from headgate.control.store.database import open_store
from headgate.errors import GatewayError
from headgate.process.boot import AccessSettings
from tests.control.child import ADMIN, Child
from tests.control.people import PASSWORD, Browser, add_user, code_of, logged_in
from tests.control.postgres_server import Server
from tests.waiting import WITHIN_S

OTHER = "another-password-4567"


@pytest.fixture
def child(tmp_path: Path, database: str) -> Iterator[Child]:
    with Child(tmp_path, database=database) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("logins")) as running:
        for name in ("ada", "bob", "eve"):
            add_user(running, name, "operator", email=f"{name}@example.com")
        yield running


def test_session_from_login_to_logout(child: Child) -> None:
    add_user(child, "ada", "operator", email="Ada@example.com")
    for name in ("ada", "ADA", "ada@EXAMPLE.com"):
        browser = logged_in(child, name)
        me = browser.call("GET", "/me").json()
        assert (me["name"], me["role"], me["csrf_token"]) == ("ada", "operator", browser.csrf)
    sessions = browser.call("GET", "/sessions").json()["data"]
    assert len(sessions) == 3 and [one["current"] for one in sessions].count(True) == 1
    assert browser.call("POST", "/logout").json()["ended"] == 1
    assert browser.client.cookies.get("headgate") is None
    assert code_of(browser.call("GET", "/me")) == "missing_admin_token"
    again = logged_in(child, "ada")
    assert again.call("POST", "/logout", {"everywhere": True}).json()["ended"] == 3
    user = child.call("GET", "/admin/v1/users/ada").json()
    assert user["last_login"] is not None and "argon2" not in str(user)


def test_password_change_ends_other_sessions(child: Child) -> None:
    add_user(child, "ada", "viewer")
    here, there = logged_in(child, "ada"), logged_in(child, "ada")
    wrong = here.call("POST", "/me/password", {"current": OTHER, "password": OTHER})
    assert (wrong.status_code, code_of(wrong)) == (401, "wrong_login")
    assert here.call("POST", "/me/password", {"current": PASSWORD, "password": OTHER}).is_success
    assert here.call("GET", "/me").is_success
    assert code_of(there.call("GET", "/me")) == "invalid_session"
    assert Browser(child, "ada").log_in().status_code == 401
    new = Browser(child, "ada", OTHER)
    assert new.log_in().is_success
    child.call("POST", "/admin/v1/users/ada/password", json={"password": PASSWORD})
    assert [one.call("GET", "/me").status_code for one in (here, new)] == [401, 401]


def test_changes_of_a_user_hold_at_once(child: Child) -> None:
    add_user(child, "ada", "admin")
    browser = logged_in(child, "ada")
    assert browser.call("GET", "/users").is_success
    assert child.call("PATCH", "/admin/v1/users/ada", json={"role": "viewer"}).is_success
    assert code_of(browser.call("GET", "/users")) == "forbidden"
    assert child.call("PATCH", "/admin/v1/users/ada", json={"disabled": True}).is_success
    assert code_of(browser.call("GET", "/me")) == "invalid_session"
    refused = Browser(child, "ada").log_in()
    assert (refused.status_code, code_of(refused)) == (401, "wrong_login")
    assert child.call("PATCH", "/admin/v1/users/ada", json={"disabled": False}).is_success
    assert logged_in(child, "ada").call("GET", "/me").is_success
    assert child.call("DELETE", "/admin/v1/users/ada").is_success
    assert Browser(child, "ada").log_in().status_code == 401


def test_users_are_unique_and_have_sound_roles(child: Child) -> None:
    add_user(child, "ada", "viewer", email="ada@example.com")
    for wish, status in (
        ({"name": "ADA", "role": "viewer"}, 409),
        ({"name": "eve", "role": "viewer", "email": "ADA@example.com"}, 409),
        ({"name": "eve", "role": "viewer", "password": "short"}, 400),
        ({"name": "eve", "role": "viewer", "password": "a" * 20}, 400),
        ({"name": "eve", "role": "tenant_admin"}, 400),
        ({"name": "eve", "role": "viewer", "tenant": "acme"}, 400),
        ({"name": "eve", "role": "owner"}, 400),
        ({"name": "e ve", "role": "viewer"}, 400),
    ):
        assert child.call("POST", "/admin/v1/users", json=wish).status_code == status, wish
    for edit, status in (({"role": "tenant_admin"}, 400), ({"role": None}, 400), ({"tenant": "acme"}, 400)):
        assert child.call("PATCH", "/admin/v1/users/ada", json=edit).status_code == status, edit
    bound = child.call("PATCH", "/admin/v1/users/ada", json={"role": "tenant_admin", "tenant": "acme"}).json()
    assert (bound["role"], bound["tenant"]) == ("tenant_admin", "acme")
    free = child.call("PATCH", "/admin/v1/users/ada", json={"role": "viewer"}).json()
    assert (free["role"], free["tenant"]) == ("viewer", None)


def test_unknown_name_and_wrong_password_are_answered_alike(shared: Child) -> None:
    wrong, unknown = Browser(shared, "ada", OTHER).log_in(), Browser(shared, "nobody", OTHER).log_in()
    assert (wrong.status_code, wrong.content) == (unknown.status_code, unknown.content)
    assert set(wrong.headers) == set(unknown.headers)


def test_unknown_name_takes_as_long_as_wrong_password(tmp_path: Path) -> None:
    async def measured() -> tuple[float, float, float]:
        engine, passwords = await open_store(f"sqlite:///{tmp_path}/headgate.db"), Passwords()
        hashed = await passwords.hashed(PASSWORD)
        await create(engine, User("", "ada", "viewer", password=hashed))
        await create(engine, User("", "off", "viewer", password=hashed, disabled=True))
        took: dict[str, list[float]] = {"ada": [], "nobody": [], "off": []}
        for _round in range(15):
            for name, times in took.items():
                begun = time.perf_counter()
                assert await authenticated(engine, passwords, name, OTHER) is None
                times.append(time.perf_counter() - begun)
        assert await authenticated(engine, passwords, "off", PASSWORD) is None
        await engine.dispose()
        known, unknown, disabled = (statistics.median(times) for times in took.values())
        return known, unknown, disabled

    known, unknown, disabled = asyncio.run(measured())
    assert 0.5 < unknown / known < 2 and 0.5 < disabled / known < 2


def test_logins_are_limited_per_name(shared: Child) -> None:
    browser = Browser(shared, "eve", OTHER)
    codes = [code_of(browser.log_in()) for _try in range(BY_NAME.burst)]
    assert codes == ["wrong_login"] * BY_NAME.burst
    refused = browser.log_in()
    assert (refused.status_code, code_of(refused)) == (429, "too_many_logins")
    assert 1 <= int(refused.headers["retry-after"]) <= BY_NAME.each_s
    assert Browser(shared, "eve").log_in().status_code == 429  # the right password, too: else one could be found
    assert logged_in(shared, "bob").call("GET", "/me").is_success


def test_throttle_forgets_and_is_bounded() -> None:
    throttle = LoginThrottle()
    assert [throttle.wait("a", "192.0.2.1", 0.0) for _try in range(BY_NAME.burst)] == [0.0] * BY_NAME.burst
    assert throttle.wait("A", "192.0.2.2", 0.0) == BY_NAME.each_s
    assert throttle.wait("a", "192.0.2.2", BY_NAME.each_s) == 0.0
    throttle.give_back("a", "192.0.2.2")
    assert throttle.wait("a", "192.0.2.2", BY_NAME.each_s) == 0.0
    for number in range(BY_ADDRESS.burst):
        assert throttle.wait(f"n{number}", "2001:db8::1", 0.0) == 0.0
    assert throttle.wait("x", "2001:db8::ffff", 0.0) > 0
    for number in range(MAX_KEYS):
        throttle.wait(str(number), f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(throttle._full_at) <= MAX_KEYS
    assert network("2001:db8::1") == network("2001:db8::2") != network("2001:db8:1::2")


def test_a_change_with_a_session_needs_its_token_and_the_own_origin(shared: Child) -> None:
    browser = logged_in(shared, "ada")
    assert browser.call("POST", "/reload").is_success
    for headers, code in (
        ({"x-csrf-token": ""}, "csrf_failed"),
        ({"x-csrf-token": browser.csrf[:-1]}, "csrf_failed"),
        ({"x-csrf-token": logged_in(shared, "bob").csrf}, "csrf_failed"),
        ({"sec-fetch-site": "cross-site"}, "csrf_failed"),
        ({"sec-fetch-site": "same-site"}, "csrf_failed"),
        ({"origin": "https://evil.example.com"}, "foreign_origin"),
        ({"origin": "null"}, "foreign_origin"),
    ):
        answer = browser.call("POST", "/reload", None, **headers)
        assert (answer.status_code, code_of(answer)) == (403, code), headers
    assert browser.call("POST", "/reload", None, origin=shared.url).is_success
    assert browser.call("GET", "/health", None, **{"x-csrf-token": ""}).is_success
    forged = browser.client.post(
        "/admin/v1/login",
        json={"name": "ada", "password": PASSWORD},
        headers={"origin": "https://evil.example.com"},
    )
    assert code_of(forged) == "foreign_origin"
    plain = browser.client.post("/admin/v1/login", content=b'{"name": "ada"}', headers={"content-type": "text/plain"})
    assert plain.status_code == 400  # what a form of another page can send


def test_cookie_is_for_this_origin_alone(tmp_path: Path) -> None:
    with Child(tmp_path, access=AccessSettings(("admin.example.com",))) as child:
        add_user(child, "ada", "viewer")
        local = Browser(child, "ada").log_in().headers["set-cookie"]
        assert local.startswith("headgate=") and "Secure" not in local
        remote = Browser(child, "ada", host="admin.example.com")
        cookie = remote.log_in().headers["set-cookie"]
        assert cookie.startswith("__Host-headgate=") and "Secure" in cookie and "Path=/" in cookie
        for one in (local, cookie):
            assert "HttpOnly" in one and "samesite=strict" in one.lower() and "Domain" not in one
        secret = cookie.partition("=")[2].partition(";")[0]
        for sent, status in ((f"__Host-headgate={secret}", 200), (f"headgate={secret}", 401)):
            assert remote.call("GET", "/me", None, cookie=sent).status_code == status


def test_bearer_token_wins_over_the_cookie(shared: Child) -> None:
    browser = logged_in(shared, "ada")
    assert browser.call("GET", "/me", None, authorization=f"Bearer {ADMIN}").json()["user"] is None
    assert browser.call("GET", "/me", None, authorization="Bearer nonsense").status_code == 401


def test_sessions_of_others_are_an_admins_business(shared: Child) -> None:
    ada, bob = logged_in(shared, "ada"), logged_in(shared, "bob")
    seen = {one["user"] for one in bob.call("GET", "/sessions").json()["data"]}
    assert seen == {"bob"}
    assert bob.call("DELETE", f"/sessions/{ada.session()}").status_code == 404
    everybodys = shared.call("GET", "/admin/v1/sessions").json()["data"]
    assert {"ada", "bob"} <= {one["user"] for one in everybodys}
    assert shared.call("DELETE", f"/admin/v1/sessions/{ada.session()}").is_success
    assert ada.call("GET", "/me").status_code == 401
    assert code_of(shared.call("POST", "/admin/v1/logout")) == "no_session"


def test_secrets_stay_out_of_store_and_log(child: Child, tmp_path: Path, database: str) -> None:
    add_user(child, "ada", "admin")
    browser = logged_in(child, "ada")
    secret = browser.client.cookies["headgate"]
    Browser(child, "ada", OTHER).log_in()
    browser.call("POST", "/me/password", {"current": PASSWORD, "password": OTHER})
    assert child.end() == 0
    found: list[Any] = [child.log.read_text()]
    if database.startswith("sqlite"):
        found += [path.read_bytes().decode("latin-1") for path in tmp_path.glob("headgate.db*")]
    for content in found:
        assert all(canary not in content for canary in (PASSWORD, OTHER, secret, browser.csrf, ADMIN))


CHANGES: dict[str, Callable[[AsyncEngine, User], Awaitable[object]]] = {
    "password": lambda engine, user: set_password(engine, user.id, "x"),
    "removal": remove,
    "login": lambda engine, user: sessions.start(engine, user, "192.0.2.1", ""),
    "logout": lambda engine, user: sessions.end_all(engine, user.id),
    "new user": lambda engine, user: create(engine, replace(user, name="eve", email=None)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_two_changes_of_a_user_wait_for_each_other(postgres: Server, change: str) -> None:
    """While one holds the audit log's head, another has nothing locked that the first may want."""

    async def waits(engine: AsyncEngine) -> bool:
        locks = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with engine.connect() as connection:
            return bool((await connection.execute(text(f"SELECT count(*) {locks}"))).scalar_one())

    async def main() -> None:
        engine = await open_store(postgres.database())
        ann = await create(engine, User("", "ann", "viewer"))
        await sessions.start(engine, ann, "192.0.2.1", "")
        try:
            async with changing(engine) as connection:
                other = asyncio.ensure_future(CHANGES[change](engine, ann))
                async with asyncio.timeout(WITHIN_S):
                    while not await waits(engine):
                        pass
                values = {"name": "eve", "name_key": "eve"}
                await connection.execute(update(users).where(users.c.id == ann.id).values(**values))
                await connection.execute(delete(session_table).where(session_table.c.user_id == ann.id))
            with contextlib.suppress(GatewayError):  # the name of the new user is taken by then
                await other
        finally:
            await engine.dispose()

    asyncio.run(main())
