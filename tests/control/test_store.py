"""The store's schema: how a database gets there, and which ones are refused."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, Table, Text, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.identity import tokens
from headgate.control.ingest.rollup import recount
from headgate.control.ledger.verify import verify
from headgate.control.store.database import (
    StoreUnusable,
    async_url,
    make_engine,
    open_store,
    read_meta,
    request_zones,
    usage_days,
    write_meta,
)
from headgate.control.store.ledger_tables import ledger_entries
from headgate.control.store.metadata import metadata
from headgate.control.store.revisions import MIGRATIONS, REVISIONS, create, migrate
from headgate.model import Grant
from headgate.policy.auth import digest
from headgate.process.credentials import instance_key, make_key, mint, public_id
from headgate.process.statedir import StateError


def within(database: str, do: Callable[[AsyncEngine], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = await open_store(database)
        try:
            await do(engine)
        finally:
            await engine.dispose()

    asyncio.run(main())


def test_migrations_make_the_schema_of_the_code(database: str, tmp_path: Path) -> None:
    async def empty() -> None:
        engine = make_engine(database)  # a test's PostgreSQL database is a copy of one that is at head
        await step(engine, lambda config: command.downgrade(config, "base"))
        await engine.dispose()

    if database.startswith("postgresql"):
        asyncio.run(empty())
    migrate(lambda: make_engine(database))

    async def check(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            differences = await connection.run_sync(
                lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
            )
        assert differences == []

    within(database, check)
    if database.startswith("sqlite"):
        path = tmp_path / "headgate.db"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        schema = sqlite_schema(path)
        assert {"requests_by_grant", "requests_by_label", "requests_running"} <= schema.keys()
        within(f"sqlite:///{tmp_path}/new.db", nothing)
        assert sqlite_schema(tmp_path / "new.db") == schema


def sqlite_schema(path: Path) -> dict[str, str]:
    """The statement that made each table and index, without its line breaks."""
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name")
        return {name: " ".join((sql or "").split()) for name, sql in made}


async def nothing(_engine: AsyncEngine) -> None:
    """Only open the store."""


def test_a_new_store_that_is_cut_is_still_empty(tmp_path: Path) -> None:
    """SQLite commits DDL at once, unless a transaction is open."""
    database = f"sqlite:///{tmp_path}/headgate.db"
    broken = MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(broken)
    Table("zzz", broken, Column("x", Text, server_default=text("no such thing")))

    async def cut() -> None:
        engine = make_engine(database)
        with pytest.raises(SQLAlchemyError):
            await create(engine, broken)
        await engine.dispose()

    asyncio.run(cut())
    assert sqlite_schema(tmp_path / "headgate.db") == {}
    within(database, nothing)
    assert "requests" in sqlite_schema(tmp_path / "headgate.db")


def test_migrations_add_up_old_rows_and_undo(database: str) -> None:
    async def check(engine: AsyncEngine) -> None:
        await step(engine, lambda config: command.downgrade(config, "0002"))
        async with engine.begin() as connection:
            await connection.exec_driver_sql(
                "INSERT INTO requests (id, boot, created_at, grant_id, requested, stream, provider, model, "
                "prompt_tokens, completion_tokens, basis, outcome, cost, duration_us) "
                "VALUES ('chatcmpl-01976f2a5b0', 'b', 1750000000000000000, 'g', 'r', true, 'p', 'm', 3, 4, "
                "'provider', 'delivered', 5, 6)"
            )
        await step(engine, lambda config: command.upgrade(config, "head"))
        async with engine.connect() as connection:
            days = (await connection.execute(select(usage_days).order_by(usage_days.c.detail))).all()
            zones = (await connection.execute(select(request_zones))).all()
        start = (20254,)
        assert [tuple(day) for day in days] == [
            (0, *start, "", "p", "m", "r", "delivered", 1, 3, 4, 0, 0, 5, 0, 1750000000000000000),
            (1, *start, "g", "", "", "", "delivered", 1, 3, 4, 0, 0, 5, 0, 1750000000000000000),
            (2, *start, "g", "p", "m", "r", "delivered", 1, 3, 4, 0, 0, 5, 0, 1750000000000000000),
        ]
        assert [tuple(zone) for zone in zones] == [("01976f2", True, False, 5, 6)]
        await step(engine, lambda config: command.downgrade(config, "base"))
        async with engine.connect() as connection:
            assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == ["alembic_version"]

    within(database, check)


def _insert(number: int) -> str:
    """The rows of a multi-row INSERT: of a time each, every tenth with a label, a few that run or failed."""
    ident = f"chatcmpl-{0x01976F2A5B0 + number * 7:011x}5a17e00{number & 0xFFFFFF:06x}"
    label = f"'order-{number}'" if number % 10 == 0 else "NULL"
    outcome, code = ("'failed'", "'x'") if number % 7 == 0 else ("'delivered'", "''")
    if number % 100 == 1:
        outcome = code = "NULL"
    return (
        f"('{ident}', 'b', {number}, 'g{number % 3}', 'r', true, {label}, 'p', 'm{number % 5}', 3, 4, 'provider', "
        f"{outcome}, {code}, 5, 6)"
    )


COLUMNS = (
    "id, boot, created_at, grant_id, requested, stream, label, provider, model, prompt_tokens, completion_tokens, "
    "basis, outcome, code, cost, duration_us"
)
MANY = 20_000


def test_ids_lose_their_prefix_and_get_it_back(database: str) -> None:
    """Every row of an earlier release, and nothing else of it; indexes and zones with it."""

    async def read(engine: AsyncEngine) -> list[tuple[object, ...]]:
        async with engine.connect() as connection:
            found = await connection.exec_driver_sql(f"SELECT {COLUMNS} FROM requests ORDER BY created_at")
            zones = await connection.exec_driver_sql("SELECT zone FROM request_zones ORDER BY zone")
            return [*map(tuple, found.all()), *map(tuple, zones.all())]

    async def check(engine: AsyncEngine) -> None:
        await step(engine, lambda config: command.downgrade(config, "0004"))
        async with engine.begin() as connection:
            for begin in range(0, MANY, 500):
                rows = ", ".join(map(_insert, range(begin, begin + 500)))
                await connection.exec_driver_sql(f"INSERT INTO requests ({COLUMNS}) VALUES {rows}")
            await connection.exec_driver_sql(
                "INSERT INTO request_zones SELECT substr(id, 1, 16), true, false, 5, 6 FROM requests GROUP BY 1"
            )
        before = await read(engine)
        await step(engine, lambda config: command.upgrade(config, "head"))
        async with engine.connect() as connection:
            differences = await connection.run_sync(
                lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
            )
        assert differences == []
        after = await read(engine)
        assert after == [(str(ident).removeprefix("chatcmpl-"), *rest) for ident, *rest in before]
        assert len(after) > MANY and all(len(str(ident)) == 24 for ident, *_ in after[:MANY])
        await step(engine, lambda config: command.downgrade(config, "0004"))
        assert await read(engine) == before

    within(database, check)


def test_a_migration_of_ids_that_is_cut_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """SQLite commits DDL at once, unless a transaction is open."""

    class Cut(Exception):
        pass

    def schema(path: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            return [
                *connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name"),
                *connection.execute("SELECT id FROM requests"),
                *connection.execute("SELECT version_num FROM alembic_version"),
            ]

    async def check(engine: AsyncEngine) -> None:
        await step(engine, lambda config: command.downgrade(config, "0004"))
        async with engine.begin() as connection:
            await connection.exec_driver_sql(f"INSERT INTO requests ({COLUMNS}) VALUES {_insert(1)}, {_insert(2)}")
        before = schema(tmp_path / "headgate.db")

        def cut(config: Config) -> None:
            command.upgrade(config, "head")
            raise Cut

        with pytest.raises(Cut):
            await step(engine, cut)
        assert schema(tmp_path / "headgate.db") == before

    within(f"sqlite:///{tmp_path}/headgate.db", check)


async def step(engine: AsyncEngine, do: Callable[[Config], None]) -> None:
    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        do(config)

    async with engine.begin() as connection:
        await connection.run_sync(run)


def test_the_revisions_that_the_store_names_are_those_that_exist() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert [revision.revision for revision in script.walk_revisions()] == list(reversed(REVISIONS))


def test_a_store_that_is_new_or_at_head_is_opened_without_importing_alembic(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from headgate.control.store.database import open_store\n"
        f"for _ in range(2): asyncio.run(open_store('sqlite:///{tmp_path}/x.db'))\n"
        "print('alembic' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


def test_a_store_from_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('0999')")
        connection.commit()
    with pytest.raises(StoreUnusable, match="newer release"):
        asyncio.run(open_store(f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("alembic_version",)]


@pytest.mark.parametrize("database", ["mysql://u@h/x", "not a url", "sqlite:////nowhere/at/all/x.db"])
def test_what_cannot_be_opened_is_said_in_a_sentence(database: str) -> None:
    with pytest.raises(StoreUnusable) as caught:
        asyncio.run(open_store(database))
    assert "\n" not in str(caught.value)


def test_a_password_in_the_url_is_not_said() -> None:
    # nothing listens on port 1; without asyncpg the driver is what is missing: neither sentence may name the password
    with pytest.raises(StoreUnusable) as caught:
        asyncio.run(open_store("postgresql://user:canary-password@127.0.0.1:1/x"))
    assert "canary-password" not in str(caught.value)
    assert async_url("postgresql://u@h/x").drivername == "postgresql+asyncpg"


def test_meta_remembers(database: str) -> None:
    async def check(engine: AsyncEngine) -> None:
        for value in ("1", "2"):
            async with engine.begin() as connection:
                await write_meta(engine, connection, "generation", value)
                assert await read_meta(connection, "generation") == value
        async with engine.connect() as connection:
            assert await read_meta(connection, "nothing") is None

    within(database, check)


def test_tokens_are_made_listed_and_revoked(database: str, tmp_path: Path) -> None:
    key = instance_key(tmp_path)
    assert instance_key(tmp_path) == key and len(key) == 32

    async def check(engine: AsyncEngine) -> None:
        one = await tokens.create(engine, key, Grant("", "one", models=("a", "b/c")))
        two = await tokens.create(engine, key, Grant("", "two", expires=5.0))
        assert one.token not in repr(one)
        assert public_id(one.token) == one.grant.id
        assert await tokens.grants(engine) == {
            digest(key, one.token.encode()): one.grant,
            digest(key, two.token.encode()): two.grant,
        }
        assert await tokens.revoke(engine, one.grant.id)
        assert not await tokens.revoke(engine, one.grant.id)
        assert list(await tokens.grants(engine)) == [two.digest]
        assert [row.revoked_at is None for row in await tokens.page(engine, 10, include_revoked=True)] == [False, True]

    within(database, check)
    content = b"".join(path.read_bytes() for path in tmp_path.glob("headgate.db*"))
    assert b"hg_pat_" not in content


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    for content in (b"short", b"x" * 33):
        (tmp_path / "instance.key").write_bytes(content)
        with pytest.raises(StateError, match=f"damaged: {len(content)} bytes instead of 32"):
            instance_key(tmp_path)
        assert (tmp_path / "instance.key").read_bytes() == content


def test_two_processes_that_make_a_key_agree(tmp_path: Path) -> None:
    first = make_key(tmp_path / "instance.key")
    assert make_key(tmp_path / "instance.key") == first == instance_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["instance.key"]


def test_minted_tokens_differ_and_foreign_ones_have_no_public_id() -> None:
    assert len({mint("0a1b2c3d") for _ in range(100)}) == 100
    for foreign in ("sk-abc", "hg_pat_", "hg_pat_abc_short", "hg_test_0123456789abcdef"):
        assert public_id(foreign) is None


def test_ledger_opens_with_what_was_charged_before(database: str, tmp_path: Path) -> None:
    async def check(engine: AsyncEngine) -> None:
        await step(engine, lambda config: command.downgrade(config, "0005"))
        columns = COLUMNS.replace("cost", "closed_at, cost")
        calls = ((1, "'delivered'", 5), (2, "'delivered'", "NULL"), (3, "NULL", "NULL"), (4, "'lost'", 7))
        rows = ",".join(
            f"('{0x01976F2A5B0:011x}{number:013x}', 'b', {number * 86_400 * 10**9}, 'g{number % 2}', 'r', true, NULL, "
            f"'p', 'm', 3, 4, 'provider', {outcome}, '', 5, {cost}, 6)"
            for number, outcome, cost in calls
        )
        async with engine.begin() as connection:
            await connection.exec_driver_sql(f"INSERT INTO requests ({columns}) VALUES {rows}")
            await connection.run_sync(recount)
        await step(engine, lambda config: command.upgrade(config, "head"))
        async with engine.connect() as connection:
            entries = (await connection.execute(select(ledger_entries).order_by(ledger_entries.c.day))).all()
            assert {(row.transfer, row.account, row.amount) for row in entries} == {
                ("opening:1", "token:g1", 5), ("opening:1", "provider:p", -5),
                ("opening:4", "token:g0", 7), ("opening:4", "provider:p", -7),
            }  # fmt: skip
        assert [one.name for one in await verify(engine, tmp_path) if not one.ok] == []

    within(database, check)
