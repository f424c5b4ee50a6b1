"""The store: its tables, and how it is opened and brought up to date.

Owns the schema as this release knows it; `revisions` owns how a database gets there (a test holds the two equal).
Portable between SQLite (the default) and PostgreSQL; queries stand beside their subject (tokens, recorder, receipts).
Refuses a database that a newer release has written: it may mean things that this one would destroy.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    event,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from headgate.control.store import (
    access_tables,  # noqa: F401 - its tables are part of the schema
    alert_tables,  # noqa: F401 - its tables are part of the schema
    ledger_tables,  # noqa: F401 - its tables are part of the schema
    postgres,
    revisions,
    vault_tables,  # noqa: F401 - its tables are part of the schema
)
from headgate.control.store.metadata import metadata as metadata
from headgate.control.store.receipt_columns import RECEIPT
from headgate.control.store.revisions import HEAD, REVISIONS

MEND = "; put a backup in its place, or move it away to begin with an empty one"
PATIENCE_S = 5.0  # for a free connection: a longer wait is answered with the error that the store is busy

# Agent tokens.  The token itself is nowhere: `digest` is HMAC-SHA256(instance key, whole token).
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),  # public
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON array
    Column("models", Text, nullable=False),  # JSON array
    Column("created_at", BigInteger, nullable=False),  # Unix ns, as every *_at
    Column("expires", Float),  # Unix seconds, as in model.Grant
    Column("revoked_at", BigInteger),
    Column("tenant", Text, nullable=False, server_default=""),  # empty: none
    Column("parent", Text, nullable=False, server_default=""),  # the token whose holder has made it; empty: none
    Column("terms", Text, nullable=False, server_default="{}"),  # JSON: the other fields of model.Grant
)
_CHILDREN = tokens.c.parent != text("''")
Index("tokens_by_parent", tokens.c.parent, sqlite_where=_CHILDREN, postgresql_where=_CHILDREN)

# The secrets that a rotated token had before, as long as they are good beside the new one.
superseded_tokens = Table(
    "superseded_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("token_id", Text, nullable=False),
    Column("until", Float, nullable=False),  # Unix seconds
)

# One row per call; receipt_columns.py has the columns.  `outcome` is NULL while it runs; `completion_tokens` then is
# what it has delivered so far.
# Durations are µs, NULL where the call never got there; cost is nano-USD, NULL unknown.  The key is ordered by time,
# so a table without row ids appends.  Every index ends in the key, so a list with any filter needs no sorting. The
# partial indexes hold only the rows that they are for: labelled, failed and running calls.
requests = Table(
    "requests",
    metadata,
    *(Column(one.name, one.kind, primary_key=one.name == "id", nullable=not one.required) for one in RECEIPT),
    sqlite_with_rowid=False,
)
Index("requests_by_grant", requests.c.grant_id, requests.c.id)
Index("requests_by_model", requests.c.model, requests.c.id)
Index("requests_by_requested", requests.c.requested, requests.c.id)
Index("requests_by_provider", requests.c.provider, requests.c.id)


def _partial(name: str, condition: ColumnElement[bool], *columns: str) -> None:
    Index(name, *(requests.c[column] for column in columns), sqlite_where=condition, postgresql_where=condition)


LABELLED = requests.c.label.is_not(None)
UNDELIVERED = requests.c.outcome != text("'delivered'")
WITH_CODE = requests.c.code != text("''")
CONTINUED = requests.c.continued.is_not(None)
OF_TENANT = requests.c.tenant.is_not(None)
_partial("requests_by_label", LABELLED, "label", "id")
_partial("requests_by_grant_label", LABELLED, "grant_id", "label", "id")
_partial("requests_by_outcome", UNDELIVERED, "outcome", "id")
_partial("requests_by_code", WITH_CODE, "code", "id")
_partial("requests_continued", CONTINUED, "id")
_partial("requests_by_session", requests.c.session.is_not(None), "session", "id")
_partial("requests_by_tenant", OF_TENANT, "tenant", "id")
_partial("requests_tagged", requests.c.tags.is_not(None), "id")
_partial("requests_cached", requests.c.cache.is_not(None), "id", "cache", "saved")
_partial("requests_running", requests.c.outcome.is_(None), "outcome", "id")

# The maxima of the rows of one stretch of time, so that a list with a minimum skips the stretches without such rows.
# `zone` is the start of their ids, the same for about a minute (2**16 ms).  The recorder widens it (control/rollup.py).
ZONE_LENGTH = 7
request_zones = Table(
    "request_zones",
    metadata,
    Column("zone", Text, primary_key=True),
    Column("streamed", Boolean, nullable=False),  # there is a streamed call among them
    Column("plain", Boolean, nullable=False),  # there is one that is not
    Column("max_cost", BigInteger, nullable=False),  # nano-USD; -1: none is known
    Column("max_duration_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Ended calls, added up per UTC day by the recorder, in the transaction that writes their rows (control/rollup.py):
# each three times, so that a question reads only the groups that it needs.
ALL_TOKENS, ALL_NAMES, IN_FULL = range(3)
usage_days = Table(
    "usage_days",
    metadata,
    # ALL_TOKENS: no grant_id; ALL_NAMES: no provider, model and requested; IN_FULL: everything
    Column("detail", Integer, primary_key=True, autoincrement=False),
    Column("day", Integer, primary_key=True, autoincrement=False),  # days since 1970-01-01 UTC, by created_at
    Column("grant_id", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("requested", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),  # of the calls whose cost is known
    Column("unpriced", BigInteger, nullable=False),  # calls that used tokens at an unknown price
    Column("first_at", BigInteger, nullable=False),  # of the first call, or earlier: corrections do not move it
    sqlite_with_rowid=False,
)


def _objects(name: str, key: str) -> Table:
    """A table of the operator's objects (others are in the file).  ``body`` is JSON, checked by the resource's class
    when it is written and when it is read.  Other objects refer to the key.
    """
    return Table(
        name,
        metadata,
        Column(key, Text, primary_key=True),
        Column("body", Text, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
    )


stored_providers = _objects("providers", "name")
stored_aliases = _objects("aliases", "name")
stored_tenants = _objects("tenants", "name")
stored_groups = _objects("call_groups", "name")
stored_prompts = _objects("prompts", "key")  # `<tenant>/<name>`, or the name of a prompt for all
model_overrides = _objects("model_overrides", "id")  # `<provider>/<model id>`: better known than by the price list

# Providers' keys.  `sealed` is the key (identity/vault.py); `hint` is what may be shown of it; `terms` is JSON of
# resources.account.AccountTerms.
stored_accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),  # model.Account.id: `<provider>/<label>`
    Column("provider", Text, nullable=False),  # of the file or of the store
    Column("label", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("hint", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("free", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("terms", Text, nullable=False, server_default="{}"),
)

# How far each journal file has been read; committed together with what was read.
journal_offsets = Table(
    "journal_offsets",
    metadata,
    Column("file", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)

# Requests that were turned away before a token was known.
refusals = Table(
    "refusals",
    metadata,
    Column("second", BigInteger, primary_key=True),  # Unix seconds
    Column("code", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))


class StoreUnusable(Exception):
    """The store cannot be opened, or must not be.  The message is a sentence for the operator; exit code 4."""


def async_url(database: str) -> URL:
    """``sqlite:///PATH`` or ``postgresql://…`` with the async driver filled in.  Raises StoreUnusable on anything
    else.
    """
    if database.startswith("postgres"):
        try:
            postgres.parse(database)
        except postgres.BadUrl as error:
            raise StoreUnusable(f"database: {error}") from error
        return URL.create("postgresql+asyncpg")  # where and as whom: make_engine
    try:
        url = make_url(database)
    except (ArgumentError, ValueError) as error:
        raise StoreUnusable("the database setting is not a URL such as sqlite:///PATH or postgresql://…") from error
    if url.get_backend_name() != "sqlite":
        other = url.get_backend_name()
        raise StoreUnusable(f"the database {other!r} is not supported: use sqlite:///PATH or postgresql://…")
    return url.set(drivername="sqlite+aiosqlite")


def shown(database: str) -> str:
    """The URL without its password."""
    return postgres.masked(database) if database.startswith("postgres") else database


def make_engine(database: str) -> AsyncEngine:
    """Return an engine.  Its SQLite connections wait for each other instead of failing, and write ahead; on
    PostgreSQL it also works behind a pooler in transaction mode.  Raises StoreUnusable, ImportError, OSError.
    """
    url = async_url(database)
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, pool_timeout=PATIENCE_S)
        event.listen(engine.sync_engine, "connect", _tune_sqlite)
        return engine
    arguments = {
        **postgres.parse(database).arguments(),
        "async_creator_fn": _connect,
        "prepared_statement_cache_size": 0,
        # Unnamed: it is gone with the next one, and is never met by another client of the same pooler
        "prepared_statement_name_func": str,
    }
    engine = create_async_engine(url, pool_pre_ping=True, pool_timeout=PATIENCE_S, connect_args=arguments)
    dialect: Any = engine.sync_engine.dialect
    # They ask the server outside of a transaction, and no column here is JSON
    dialect.setup_asyncpg_json_codec = dialect.setup_asyncpg_jsonb_codec = _no_codec
    return engine


async def _connect(**arguments: Any) -> Any:
    """A connection of asyncpg's.  Raises OSError for any error of the driver: SQLAlchemy connects in many places."""
    # Late: an extra, which only some have
    import asyncpg  # noqa: PLC0415

    try:
        return await asyncpg.connect(**arguments)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TypeError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


async def _no_codec(_connection: Any) -> None:
    return None


def _tune_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 5000")
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL: a kill -9 loses nothing, a power cut may lose the last commits; the journal has the same promise
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


async def open_store(database: str) -> AsyncEngine:
    """Opens the database, creating it where it is a file that does not exist (0600), and migrates it to HEAD.

    Raises StoreUnusable.
    """
    url = async_url(database)
    engine: AsyncEngine | None = None
    try:
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            _own_file(str(url.database))
        engine = make_engine(database)
        await _bring_up_to_date(engine, database)
    except ImportError as error:
        raise StoreUnusable(f"the driver for {url.drivername} is missing: install headgate[postgres]") from error
    except (SQLAlchemyError, OSError) as error:
        if engine is not None:
            await engine.dispose()
        reason = (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, TimeoutError):
            reason = "it does not answer"
        step = MEND if url.get_backend_name() == "sqlite" and isinstance(error, DatabaseError) else ""
        raise StoreUnusable(f"the store {shown(database)} cannot be opened: {reason}{step}") from error
    except StoreUnusable:
        if engine is not None:
            await engine.dispose()
        raise
    return engine


def _own_file(path: str) -> None:
    # SQLite gives its -wal and -shm files the mode of the database itself
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


async def _bring_up_to_date(engine: AsyncEngine, database: str) -> None:
    async with engine.connect() as connection:
        revision = await connection.run_sync(revisions.current)
    if revision == HEAD:
        return
    if revision is not None and revision not in REVISIONS:
        raise StoreUnusable(
            f"the store {shown(database)} was written by a newer release of Headgate "
            f"(schema {revision}, this one knows {HEAD}): use that release, or another database"
        )
    if revision is None and await revisions.create(engine, metadata):
        return
    await asyncio.to_thread(revisions.migrate, lambda: make_engine(database))


def upsert(engine: AsyncEngine, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ``on_conflict_do_update``, in the engine's dialect."""
    return sqlite.insert(table) if engine.dialect.name == "sqlite" else postgresql.insert(table)


async def read_meta(connection: AsyncConnection, key: str) -> str | None:
    """A remembered value, None where there is none."""
    return (await connection.execute(select(meta.c.value).where(meta.c.key == key))).scalar()


async def write_meta(engine: AsyncEngine, connection: AsyncConnection, key: str, value: str) -> None:
    """Remembers a value; the caller commits."""
    statement = upsert(engine, meta).values(key=key, value=value)
    changed = statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value})
    await connection.execute(changed)
