"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, reached by a Unix socket, gone afterwards.

PostgreSQL refuses to run as root, so root hands it to ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

OWNER = "headgate"
TEMPLATE = "template_headgate"


def binaries() -> Path | None:
    """The folder of initdb and postgres; None where this machine has none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists() and (folder / "initdb").exists()), None)


class Server:
    """Started by the constructor; every ``database()`` is a new one with Headgate's schema."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder
        self._count = 0
        # Not below pytest's folder, which only root may enter; and a socket's address is short
        self.home = Path(tempfile.mkdtemp(prefix="headgate-pg-", dir="/tmp"))
        self._user = _somebody()
        if self._user is not None:
            os.chown(self.home, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", "data", "-U", OWNER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions")
        self._start()

    def _run(self, program: str, *arguments: str) -> None:
        who: dict[str, Any] = {}
        if self._user is not None:
            who = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [self._bin / program, *arguments], cwd=self.home, capture_output=True, text=True, timeout=60, **who
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.home} -c fsync=off -c max_connections=200"
        # pg_ctl leaves its log to the server, so that nothing here waits for a pipe of it
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "30", "-o", options, "start")

    def url(self, database: str) -> str:
        return f"postgresql://{OWNER}@/{database}?host={quote(str(self.home))}"

    def prepare(self) -> None:
        """Makes the template: one migration for all databases."""
        from headgate.control.store import open_store

        async def migrate() -> None:
            await (await open_store(self.url(TEMPLATE))).dispose()

        self.ask("postgres", f"CREATE DATABASE {TEMPLATE}")
        in_a_thread(migrate())

    def database(self) -> str:
        """The URL of a new database."""
        self._count += 1
        name = f"test_{os.getpid()}_{self._count}"
        self.ask("postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.url(name)

    def ask(self, database: str, sql: str, *parameters: object) -> list[dict[str, Any]]:
        return ask(self.url(database), sql, *parameters)

    def restart(self) -> None:
        """Every connection breaks."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        self._start()

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(self.home, ignore_errors=True)


def _somebody() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def ask(url: str, sql: str, *parameters: object) -> list[dict[str, Any]]:
    """Rows as another program sees them."""
    import asyncpg

    async def query() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(url)
        try:
            return [dict(row) for row in await connection.fetch(sql, *parameters)]
        finally:
            await connection.close()

    return in_a_thread(query())


def in_a_thread(main: Coroutine[Any, Any, Any]) -> Any:
    """Runs it on a loop of its own, whether or not the caller has one."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(main)))
    thread.start()
    thread.join()
    return found[0]
