"""How a database gets the schema of this release: made whole where it is empty, migrated where it is older.

Owns the list of revisions and both ways.  A test holds their results equal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, inspect, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

# Every revision of migrations/versions, oldest first; the last is what this release needs
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0009", "0010", "0011", "0012", "0013", "0014")
HEAD = REVISIONS[-1]
MIGRATIONS = Path(__file__).with_name("migrations")

# As Alembic makes it
_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def current(connection: Connection) -> str | None:
    """The database's revision; None where it has none."""
    if not inspect(connection).has_table(_version.name):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


async def create(engine: AsyncEngine, metadata: MetaData) -> bool:
    """Make all tables of an empty database, in one transaction.  Returns false where there are tables already.

    A first start pays neither for the import of Alembic nor for five migrations of nothing.
    """

    def make(connection: Connection) -> bool:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver begins none before DDL
        if inspect(connection).get_table_names():
            return False
        metadata.create_all(connection, checkfirst=False)
        _version.create(connection)
        connection.execute(_version.insert().values(version_num=HEAD))
        return True

    async with engine.begin() as connection:
        return await connection.run_sync(make)


def migrate(connect: Callable[[], AsyncEngine]) -> None:
    """Run the migrations on a loop and an engine of its own.  The drivers are async, Alembic is not, and the control
    process's loop must not stand still meanwhile.
    """
    # Late: Alembic costs 0.2 s at import and nearly every start finds the schema at HEAD
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async def run() -> None:
        engine = connect()
        try:
            async with engine.begin() as connection:
                await connection.run_sync(upgrade)
        finally:
            await engine.dispose()

    asyncio.run(run())
