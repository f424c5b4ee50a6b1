"""Both databases that the store can be: tests with ``database`` run once on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.postgres_server import Server, binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    pytest.importorskip("asyncpg", reason="asyncpg (the extra `postgres`) is not installed")
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    server = Server(folder)
    try:
        server.prepare()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/headgate.db"
    server: Server = request.getfixturevalue("postgres")
    return server.database()
