"""The audit log: what it records of each change, and that no row of it can be changed unnoticed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.api.access.needs import NEEDS, PREFIX
from headgate.control.audit.chain import ACTOR, GENESIS, Actor, AuditFilters, Change, page, record, record_alone, verify
from headgate.control.store.access_tables import audit, audit_head
from headgate.control.store.database import open_store
from tests import forked
from tests.control.child import SECRET, Child
from tests.control.people import PASSWORD, add_user, logged_in
from tests.waiting import wait_until

KEY = "sk-canary-audit-0123456789"
HEADER = "canary-header-value-4321"


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("audit")) as running:
        wait_until(lambda: {"file", "gateway"} <= {row["actor_kind"] for row in rows_of(running)})  # of its start
        yield running


def rows_of(child: Child, query: str = "") -> list[dict[str, Any]]:
    answer = child.call("GET", f"{PREFIX}/audit?limit=500{query}")
    assert answer.is_success, answer.text
    return list(answer.json()["data"])


def changed(child: Child, method: str, path: str, body: Any = None) -> tuple[Any, list[dict[str, Any]]]:
    """The answer of a change, and the rows that it has written, the oldest first."""
    before = rows_of(child)
    answer = child.call(method, f"{PREFIX}{path}", **({} if body is None else {"json": body}))
    assert answer.is_success, answer.text
    last = before[0]["seq"] if before else 0
    return answer.json(), [row for row in reversed(rows_of(child)) if row["seq"] > last]


def test_each_change_of_an_object_is_a_row(child: Child) -> None:
    wish = {"name": "mine", "base_url": "http://127.0.0.1:1/v1", "headers": {"x-team": HEADER}}
    _, (made,) = changed(child, "POST", "/providers", wish)
    assert (made["noun"], made["id"], made["action"], made["before"]) == ("provider", "mine", "created", None)
    assert (made["actor_kind"], made["actor"], made["address"]) == ("admin_token", "admin token", "127.0.0.1")
    assert made["after"]["base_url"] == "http://127.0.0.1:1/v1" and made["after"]["headers"] == ["x-team"]
    _, (edit,) = changed(child, "PATCH", "/providers/mine", {"title": "Mine"})
    assert "title" not in edit["before"] and edit["after"]["title"] == "Mine"
    _, (rows,) = changed(child, "PATCH", "/providers/mine", {"headers": {"x-team": HEADER + "2"}})
    assert rows["after"]["secret"] == "changed"
    _, (account,) = changed(child, "POST", "/accounts", {"provider": "mine", "key": KEY})
    assert account["noun"] == "account" and "secret" not in account["after"]
    _, (renewed,) = changed(child, "PATCH", "/accounts/mine", {"key": KEY + "2"})
    assert renewed["after"]["secret"] == "changed"
    _, (alias,) = changed(child, "PUT", "/aliases/my/chat", {"targets": [{"model": "mine/m"}]})
    assert (alias["noun"], alias["id"], alias["action"]) == ("alias", "my/chat", "created")
    _, (gone,) = changed(child, "DELETE", "/aliases/my/chat")
    assert (gone["action"], gone["after"]) == ("deleted", None) and gone["before"] == alias["after"]
    _, deleted = changed(child, "DELETE", "/providers/mine")
    assert {(row["noun"], row["action"]) for row in deleted} == {("provider", "deleted"), ("account", "deleted")}
    assert all(word not in json.dumps(rows_of(child)) for word in (KEY, HEADER, KEY[-4:]))


def test_tokens_users_and_sessions_are_recorded(child: Child) -> None:
    made, (row,) = changed(child, "POST", "/tokens", {"name": "laptop"})
    assert (row["noun"], row["id"], row["after"]["name"]) == ("token", made["id"], "laptop")
    _, (edit,) = changed(child, "PATCH", "/tokens/laptop", {"name": "desk"})
    assert (edit["before"]["name"], edit["after"]["name"]) == ("laptop", "desk")
    assert changed(child, "POST", "/tokens/desk/rotate", {})[1][0]["action"] == "rotated"
    assert changed(child, "DELETE", "/tokens/desk")[1][0]["action"] == "revoked"
    add_user(child, "ada", "operator")
    browser = logged_in(child, "ada")
    session = browser.session()
    assert browser.call("POST", "/reload").is_success
    begun, user = rows_of(child, "&noun=session")[0], rows_of(child, "&noun=user")[0]
    assert (begun["id"], begun["action"], begun["actor"]) == (session, "created", "ada")
    assert user["after"] == {"name": "ada", "role": "operator", "disabled": False}
    reload = rows_of(child, "&actor=ada&noun=gateway")[0]
    assert (reload["actor_kind"], reload["session"], reload["action"]) == ("user", session, "reload")
    add_user(child, "vera", "viewer")
    seen = logged_in(child, "vera").call("GET", "/audit?actor=ada").json()["data"]
    assert seen and all(row["session"] is None and row["address"] is None for row in seen)
    _, (reset,) = changed(child, "POST", "/users/ada/password", {"password": PASSWORD + "x"})
    assert (reset["action"], reset["after"]) == ("password_changed", {"secret": "changed"})
    assert PASSWORD not in json.dumps(rows_of(child))


def test_what_the_file_changes_is_recorded(child: Child) -> None:
    def reloaded(*aliases: str, **options: Any) -> list[tuple[str, str, str, Any]]:
        last = rows_of(child)[0]["seq"]
        child.configure(*aliases, **options)
        assert child.call("POST", f"{PREFIX}/reload").is_success
        rows = [row for row in rows_of(child, "&actor=configuration%20file") if row["seq"] > last]
        return [(row["noun"], row["id"], row["action"], row["after"]) for row in reversed(rows)]

    assert ("provider", "up-a", "created") in [(row["noun"], row["id"], row["action"]) for row in rows_of(child)]
    assert [row[:3] for row in reloaded("a", "b")] == [("alias", "a", "created"), ("alias", "b", "created")]
    assert reloaded("a", "b") == []
    assert [row[:3] for row in reloaded("a", tokens={"ab" * 32: "ci"})] == [
        ("alias", "b", "deleted"), ("token", "ci", "created"),
    ]  # fmt: skip
    (new_key,) = reloaded("a", tokens={"ab" * 32: "ci"}, key="sk-canary-another-key")
    assert new_key[:3] == ("provider", "up-a", "changed") and new_key[3]["secret"] == "changed"
    text = json.dumps(rows_of(child))
    assert SECRET not in text and "canary-another" not in text and "ab" * 32 not in text


def test_file_changes_between_two_lives_are_recorded(tmp_path: Path) -> None:
    with Child(tmp_path) as first:
        first.configure("a")
        wait_until(lambda: any(row["id"] == "a" for row in rows_of(first)))
        assert first.end() == 0
    first.configure("a", "b")
    with Child(tmp_path) as second:
        wait_until(lambda: any(row["id"] == "b" for row in rows_of(second)))
        by_file = [row["id"] for row in rows_of(second, "&actor=configuration%20file&noun=alias")]
        assert by_file == ["b", "a"]


def test_lists_are_filtered_and_paged(child: Child) -> None:
    everything = rows_of(child)
    assert len(everything) > 4
    first = child.call("GET", f"{PREFIX}/audit?limit=2").json()
    assert first["has_more"] and [row["seq"] for row in first["data"]] == [row["seq"] for row in everything[:2]]
    second = child.call("GET", f"{PREFIX}/audit?limit=2&cursor={first['next']}").json()["data"]
    assert [row["seq"] for row in second] == [row["seq"] for row in everything[2:4]]
    created = rows_of(child, "&action=created&noun=token")
    assert created and all((row["action"], row["noun"]) == ("created", "token") for row in created)
    assert rows_of(child, "&since=4000000000") == [] and rows_of(child, "&until=1") == []


# ------------------------------------------------------------------------------------------------- the chain


def within(database: str, do: Any) -> None:
    async def main() -> None:
        engine = await open_store(database)
        try:
            await do(engine)
        finally:
            await engine.dispose()

    asyncio.run(main())


async def some(engine: AsyncEngine, count: int = 5) -> None:
    for number in range(count):
        after = {"n": number, "text": "ö\u2028"}
        await record_alone(engine, Change("thing", str(number), "created", None, after))


async def unlocked(engine: AsyncEngine, statement: Any) -> None:
    """Executes what the database's triggers would refuse, as someone with the database's own rights can."""
    async with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for verb in ("update", "delete"):
                await connection.execute(text(f"DROP TRIGGER IF EXISTS audit_no_{verb}"))
        else:
            await connection.execute(text("DROP TRIGGER IF EXISTS audit_only_grows ON audit"))
        await connection.execute(statement)


def test_rows_cannot_be_changed_or_deleted(database: str) -> None:
    async def check(engine: AsyncEngine) -> None:
        await some(engine)
        for statement in (update(audit).values(actor="x"), delete(audit), delete(audit).where(audit.c.seq == 5)):
            with pytest.raises(DBAPIError, match="append-only"):
                async with engine.begin() as connection:
                    await connection.execute(statement)
        assert (await verify(engine)).rows == 5

    within(database, check)


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        (update(audit).where(audit.c.seq == 3).values(actor="somebody else"), 3),
        (update(audit).where(audit.c.seq == 3).values(after='{"n":7}'), 3),
        (update(audit).where(audit.c.seq == 3).values(hash=bytes(32)), 3),
        (update(audit).where(audit.c.seq == 1).values(at=1), 1),
        (delete(audit).where(audit.c.seq == 2), 2),
        (delete(audit).where(audit.c.seq == 5), 5),
        (delete(audit), 1),
        (update(audit_head).values(hash=bytes(32)), 5),
        (delete(audit_head), 6),
    ],
)
def test_verify_names_the_first_broken_row(database: str, statement: Any, broken: int) -> None:
    async def check(engine: AsyncEngine) -> None:
        await some(engine)
        sound = await verify(engine)
        assert (sound.rows, sound.broken) == (5, None)
        async with engine.connect() as connection:
            hashes = (await connection.execute(select(audit.c.hash).order_by(audit.c.seq))).scalars().all()
        await unlocked(engine, statement)
        state = await verify(engine)
        assert (state.broken, state.rows) == (broken, broken - 1) and state.reason
        assert state.head == [GENESIS, *hashes][broken - 1].hex()

    within(database, check)


def test_concurrent_changes_make_one_chain(database: str) -> None:
    async def check(engine: AsyncEngine) -> None:
        other = await open_store(database)

        async def change(number: int) -> None:
            ACTOR.set(Actor("user", f"u{number}"))
            async with (engine, other)[number % 2].begin() as connection:
                changes = [Change("thing", f"{number}/{part}", "created") for part in range(3)]
                await record(connection, *changes)

        await asyncio.gather(*(asyncio.create_task(change(number)) for number in range(40)))
        await other.dispose()
        state = await verify(engine)
        assert (state.rows, state.broken) == (120, None)
        rows = await page(engine, AuditFilters(), 200)
        assert all(row.actor == f"u{row.object.partition('/')[0]}" for row in rows)

    within(database, check)


def test_a_change_that_fails_leaves_no_row(database: str) -> None:
    async def check(engine: AsyncEngine) -> None:
        with pytest.raises(ZeroDivisionError):
            async with engine.begin() as connection:
                await record(connection, Change("thing", "1", "created"))
                raise ZeroDivisionError
        await some(engine, 1)
        async with engine.connect() as connection:
            assert (await connection.execute(select(audit.c.seq))).scalars().all() == [1]

    within(database, check)


# ------------------------------------------------------------------------------------------------- the command


def run(state: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return forked.command(*arguments, "--state-dir", str(state), stdin=given, cwd=state)


def test_commands_work_on_the_store(tmp_path: Path) -> None:
    added = run(tmp_path, "user", "add", "ada", "--role", "operator", given=f"{PASSWORD}\n")
    assert added.returncode == 0 and "added ada (operator)" in added.stdout, added.stderr
    assert run(tmp_path, "user", "add", "eve", given="short\n").returncode == 2
    assert run(tmp_path, "user", "edit", "ada", "--role", "viewer", "--disable").returncode == 0
    (user,) = json.loads(run(tmp_path, "user", "list", "--json").stdout)
    assert (user["name"], user["role"], user["disabled"]) == ("ada", "viewer", True)
    assert run(tmp_path, "user", "password", "ada", given=f"{PASSWORD}2\n").returncode == 0
    table = run(tmp_path, "audit", "--noun", "user").stdout
    assert "role: operator → viewer" in table and PASSWORD not in table
    rows = json.loads(run(tmp_path, "audit", "list", "--noun", "user", "--json").stdout)
    assert [row["action"] for row in rows] == ["password_changed", "changed", "created"]
    whole = run(tmp_path, "audit", "verify")
    assert whole.returncode == 0 and "is whole" in whole.stdout
    with sqlite3.connect(tmp_path / "headgate.db") as store:
        store.execute("DROP TRIGGER audit_no_update")
        store.execute(f"UPDATE audit SET actor = 'x' WHERE seq = {rows[1]['seq']}")
    broken = run(tmp_path, "audit", "verify")
    assert broken.returncode == 1 and f"broken at row {rows[1]['seq']}" in broken.stdout
    assert json.loads(run(tmp_path, "audit", "verify", "--json").stdout)["broken"] == rows[1]["seq"]
    assert run(tmp_path, "user", "remove", "ada").returncode == 0


def test_every_unsafe_route_is_audited_or_listed() -> None:
    """A new route must be in a test above, or stand here."""
    recorded = {
        "POST /providers", "PATCH /providers/{name}", "DELETE /providers/{name}", "POST /providers/{name}/resume",
        "PUT /catalog/{name:path}", "DELETE /catalog/{name:path}",
        "POST /reload", "POST /detect", "POST /drain",
        "PUT /aliases/{name:path}", "DELETE /aliases/{name:path}",
        "POST /tokens", "PATCH /tokens/{ident}", "POST /tokens/{ident}/rotate", "DELETE /tokens/{ident}",
        "POST /accounts", "PATCH /accounts/{wanted:path}", "DELETE /accounts/{wanted:path}",
        "POST /users", "PATCH /users/{wanted}", "DELETE /users/{wanted}", "POST /users/{wanted}/password",
        "POST /me/password", "POST /logout", "DELETE /sessions/{ident}", "POST /login",
        "POST /providers/{name}/check",
        "POST /vault/rotate", "POST /vault/master-key", "POST /vault/export", "POST /vault/import",
        "POST /invites", "DELETE /invites/{ident}",
        "PUT /tenants/{name}", "DELETE /tenants/{name}", "PUT /budgets/{name}", "DELETE /budgets/{name}",
        "PATCH /prompts/{name}", "DELETE /prompts/{name}", "POST /prompts/{name}/versions",
        "DELETE /prompts/{name}/versions/{version}",
        "POST /usage/reprice", "POST /webhooks/{name}/test", "DELETE /cache",
    }  # fmt: skip
    unsafe = {route for route in NEEDS if not route.startswith("GET ")}
    assert unsafe - recorded == {
        "POST /explain",
        "POST /prompts/{name}/render",
        "POST /usage/reconcile",
    }  # they change nothing
