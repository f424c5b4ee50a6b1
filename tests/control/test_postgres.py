"""PostgreSQL as operators write its URLs, on a real server; and behind a real PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from headgate.control.ingest.recorder import Recorder
from headgate.control.store import postgres as urls
from headgate.control.store.database import StoreUnusable, open_store, write_meta
from headgate.control.store.postgres import MASK, BadUrl, masked, parse, problem
from tests.control.journal_writer import Writer, closed, ident, opened, run
from tests.control.postgres_server import OWNER, Server, ask
from tests.paths import ROOT

SECRET = "canary"


@pytest.mark.parametrize(
    ("url", "hosts", "user", "password", "database"),
    [
        ("postgresql://hg@db/gate", [("db", 5432)], "hg", None, "gate"),
        ("postgres://hg:pw@db:5433/gate", [("db", 5433)], "hg", "pw", "gate"),
        ("postgresql+asyncpg://db/gate", [("db", 5432)], None, None, "gate"),
        ("postgresql:///gate", [], None, None, "gate"),
        ("postgresql:///gate?host=/run/pg&port=5433", [("/run/pg", 5433)], None, None, "gate"),
        ("postgresql://%2Frun%2Fpg/gate", [("/run/pg", 5432)], None, None, "gate"),
        ("postgresql://hg@[fd00::1]:5433/gate", [("fd00::1", 5433)], "hg", None, "gate"),
        ("postgresql://a:1,b:2,[::1]/gate", [("a", 1), ("b", 2), ("::1", 5432)], None, None, "gate"),
        ("postgresql:///gate?host=a,b&port=6432", [("a", 6432), ("b", 6432)], None, None, "gate"),
        ("postgresql://hg:p%40s%2Fs%3A%25@db/gate", [("db", 5432)], "hg", "p@s/s:%", "gate"),
        ("postgresql://hg:p@s:s@db/gate", [("db", 5432)], "hg", "p@s:s", "gate"),
        ("postgresql://me%40corp:x@db/g%20h", [("db", 5432)], "me@corp", "x", "g h"),
        ("postgresql:///?dbname=gate&user=hg&password=a@b", [], "hg", "a@b", "gate"),
    ],
)
def test_urls(url: str, hosts: list[tuple[str, int]], user: str | None, password: str | None, database: str) -> None:
    found = parse(url)
    assert (list(found.hosts), found.user, found.password, found.database) == (hosts, user, password, database)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://hg:{SECRET}/x@db/gate", "percent-encoded"),
        (f"postgresql://hg:{SECRET}?x@db/gate", "percent-encoded"),
        (f"postgresql://hg:{SECRET}#x@db/gate", "percent-encoded"),
        (f"postgresql://hg:{SECRET}%x@db/gate", "percent-encoded"),
        (f"postgresql://hg:{SECRET} x@db/gate", "percent-encoded"),
        (f"postgresql://hg:x@y?{SECRET}=1@db/gate", "is not served"),
        (f"postgresql://hg:{SECRET}", "port must be a number"),
        (f"postgresql://{SECRET}@x", "names no database"),
        (f"postgresql://hg:x@db:{SECRET}/gate", "port must be a number"),
        (f"postgresql://hg:x@db:0/gate?application_name={SECRET}", "port must be a number"),
        (f"postgresql://hg:{SECRET}@fd00::1/gate", "brackets"),
        (f"postgresql://hg:{SECRET}@db/gate/more", "more than a database's name"),
        (f"postgresql://hg:{SECRET}@db/gate?sslmod=require", "did you mean sslmode?"),
        (f"postgresql://hg:{SECRET}@db/gate?sslmode=no-verify", "must be disable, allow"),
        (f"postgresql://hg:{SECRET}@db/gate?sslmode", "has no value"),
        (f"postgresql://hg:{SECRET}@db/gate?sslmode=require&sslmode=disable", "stands twice"),
        (f"postgresql://hg:{SECRET}@db/gate?connect_timeout=soon", "must be a number"),
        (f"postgresql://hg:{SECRET}@db/gate?channel_binding=require", "does not bind channels"),
        (f"postgresql://hg:{SECRET}@db/gate?gssencmode=require", "GSSAPI"),
        (f"postgresql://hg:{SECRET}@db/gate?target_session_attrs=master", "must be any, primary"),
        (f"postgresql://hg:{SECRET}@db/gate?sslrootcert=/nowhere", "does not exist"),
        (f"postgresql://hg:{SECRET}@a,b:1,c:2/gate?host=a&port=1,2", "more ports than hosts"),
        (f"postgresql+psycopg2://hg:{SECRET}@db/gate", "psycopg2"),
        (f"postgresql://hg:%00{SECRET}@db/gate", "NUL"),
        (f"mysql://hg:{SECRET}@db/gate", "postgresql://USER@HOST/NAME"),
    ],
)
def test_unusable_urls_are_refused_unquoted(url: str, words: str) -> None:
    sentence = problem(url)
    assert sentence is not None and words in sentence
    assert SECRET not in sentence and SECRET not in masked(url)
    with pytest.raises(BadUrl) as caught:
        parse(url)
    assert SECRET not in str(caught.value)
    if url.startswith("postgres"):
        with pytest.raises(StoreUnusable) as refused:
            run(open_store(url))
        assert SECRET not in str(refused.value)


def test_passwords_are_masked_wherever_they_stand() -> None:
    assert masked(f"postgresql://hg:{SECRET}@db/g?sslmode=require") == f"postgresql://hg:{MASK}@db/g?sslmode=require"
    assert masked(f"postgres:///g?password={SECRET}&user=u") == f"postgres:///g?password={MASK}&user=u"
    assert SECRET not in repr(parse(f"postgresql://hg:{SECRET}@db/g?sslpassword={SECRET}"))


def test_a_root_certificate_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("not a certificate")
    found = problem(f"postgresql://db/g?sslmode=verify-full&sslrootcert={tmp_path}/root.pem")
    assert found is not None and "holds no certificate" in found


# ------------------------------------------------------------------------------------- a real server


async def use(url: str) -> dict[str, str]:
    """Opens the store, writes and reads; what the server says of the connection."""
    engine = await open_store(url)
    try:
        async with engine.begin() as connection:
            await write_meta(engine, connection, "url", "works")
        async with engine.connect() as connection:
            query = "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)"
            tls = await connection.scalar(text(query))
            name = await connection.scalar(text("SHOW application_name"))
            path = await connection.scalar(text("SHOW work_mem"))
        return {"tls": "on" if tls else "off", "name": str(name), "work_mem": str(path)}
    finally:
        await engine.dispose()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("sslmode=disable", {"tls": "off"}),
        ("sslmode=allow", {}),
        ("sslmode=prefer", {"tls": "on"}),
        ("sslmode=require", {"tls": "on"}),
        ("sslmode=verify-ca&sslrootcert={home}/ca.pem", {"tls": "on"}),
        ("sslmode=verify-full&sslrootcert={home}/ca.pem", {"tls": "on"}),
        ("application_name=gateway%201", {"name": "gateway 1"}),
        ("fallback_application_name=fb", {"name": "fb"}),
        ("connect_timeout=10", {"name": "headgate"}),
        ("connect_timeout=0&keepalives_idle=5", {}),
        ("options=-cwork_mem%3D7MB", {"work_mem": "7MB"}),
        ("channel_binding=prefer&gssencmode=prefer", {}),
        ("target_session_attrs=read-write", {}),
        ("client_encoding=utf8&pgbouncer=true&statement_cache_size=0", {}),
    ],
)
def test_ordinary_options_work(options: str, expected: dict[str, str], postgres: Server) -> None:
    name = parse(postgres.database()).database
    found = run(use(f"postgres://{OWNER}@127.0.0.1:{postgres.port}/{name}?{options.format(home=postgres.home)}"))
    assert {key: found[key] for key in expected} == expected


def test_several_hosts_are_tried_in_their_order(postgres: Server) -> None:
    name = parse(postgres.database()).database
    run(use(f"postgresql://{OWNER}@127.0.0.1:1,127.0.0.1:{postgres.port}/{name}"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("/test_", "/no_"), "does not exist"),
        (lambda url: url.replace(f"{OWNER}:", "nobody-here:"), "nobody-here"),
        (lambda url: url + "?sslmode=verify-full", "certificate"),
        (lambda url: url + "?options=-cnonsense%3D1", "nonsense"),
        (lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), "cannot be opened"),
    ],
)
def test_what_the_server_says_is_one_sentence(change: Callable[[str], str], words: str, postgres: Server) -> None:
    name = parse(postgres.database()).database
    with pytest.raises(StoreUnusable) as caught:
        run(use(change(f"postgresql://{OWNER}:{SECRET}@127.0.0.1:{postgres.port}/{name}")))
    sentence = str(caught.value)
    assert words in sentence and SECRET not in sentence and "\n" not in sentence


# ------------------------------------------------------------------------------------- PgBouncer


@pytest.fixture
def pooled(postgres: Server) -> Callable[[str], str]:
    if shutil.which("pgbouncer") is None:
        pytest.skip("no PgBouncer is installed here (Debian: apt-get install pgbouncer)")
    return lambda port: f"postgresql://{OWNER}@127.0.0.1:{port}"


CALLS = 300


def test_transaction_pooler_records_every_call(postgres: Server, pooled: Callable[[str], str], tmp_path: Path) -> None:
    """Its few connections change hands with every transaction, beside other clients that prepare statements."""
    direct = postgres.database()
    with postgres.pooler() as port:
        url = f"{pooled(str(port))}/{parse(direct).database}"

        async def main() -> None:
            engine = await open_store(url)
            others = [asyncio.create_task(trouble(url)) for _ in range(4)]
            recorder = Recorder(engine, tmp_path / "journal", 0.01)
            await recorder.start()
            writer = Writer(tmp_path / "journal")
            for number in range(CALLS):
                writer.write(opened(number), closed(number))
                if number % 10 == 0:
                    await asyncio.sleep(0.01)
                    async with engine.connect() as connection:
                        await connection.scalar(text("SELECT count(*) FROM requests"))
            await recorder.catch_up()
            assert recorder.lag().error is None and recorder.lag().records_behind == 0
            for other in others:
                other.cancel()
            await recorder.stop()
            await engine.dispose()

        run(main())
    rows = ask(direct, "SELECT id FROM requests WHERE outcome = 'delivered'")
    assert {row["id"] for row in rows} == {ident(number) for number in range(CALLS)}


async def trouble(url: str) -> None:
    """Transactions of another client, so that nobody gets the same connection twice in a row."""
    engine = await open_store(url)
    try:
        while True:
            async with engine.begin() as connection:
                await write_meta(engine, connection, f"trouble {id(engine)}", os.urandom(4).hex())
                await asyncio.sleep(random.uniform(0, 0.004))
    finally:
        await engine.dispose()


def test_a_new_database_is_made_through_a_pooler(postgres: Server, pooled: Callable[[str], str]) -> None:
    name = f"empty_{os.getpid()}"
    postgres.ask("postgres", f"CREATE DATABASE {name}")
    with postgres.pooler() as port:
        assert run(use(f"{pooled(str(port))}/{name}?sslmode=prefer&application_name=hg"))["name"] == "hg"


def test_a_pooler_that_refuses_an_option_is_quoted(postgres: Server, pooled: Callable[[str], str]) -> None:
    with postgres.pooler() as port, pytest.raises(StoreUnusable, match=r"unsupported startup parameter|options"):
        run(use(f"{pooled(str(port))}/postgres?options=-cwork_mem%3D7MB"))


def test_the_options_are_documented() -> None:
    page = (ROOT / "docs" / "operation.md").read_text()
    assert not [name for name in urls._OPTIONS if f"`{name}`" not in page]
