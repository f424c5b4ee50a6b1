"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, reached by a Unix socket or by TLS on
127.0.0.1, gone afterwards; and a PgBouncer in front of it.

Both refuse to run as root, so root hands them to ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trustme

from tests.ports import free_port

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
        self.port = free_port()
        self.authority = trustme.CA()
        self._make_certificate()
        self._run("initdb", "-D", "data", "-U", OWNER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions")
        self._start()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.home, capture_output=True, text=True, timeout=60, **self._who(),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def _make_certificate(self) -> None:
        own = self.authority.issue_cert("localhost", "127.0.0.1")
        own.private_key_pem.write_to_path(str(self.home / "key.pem"))
        for blob in own.cert_chain_pems:
            blob.write_to_path(str(self.home / "cert.pem"), append=True)
        self.authority.cert_pem.write_to_path(str(self.home / "ca.pem"))
        (self.home / "key.pem").chmod(0o600)
        if self._user is not None:
            os.chown(self.home / "key.pem", self._user.pw_uid, self._user.pw_gid)

    def _start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.home} "
            f"-c ssl=on -c ssl_cert_file={self.home}/cert.pem -c ssl_key_file={self.home}/key.pem "
            "-c fsync=off -c max_connections=200"
        )
        # pg_ctl leaves its log to the server, so that nothing here waits for a pipe of it
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "30", "-o", options, "start")

    def url(self, database: str) -> str:
        return f"postgresql://{OWNER}@/{database}?host={quote(str(self.home))}&port={self.port}"

    @contextlib.contextmanager
    def pooler(self, size: int = 2) -> Iterator[int]:
        """The port of a PgBouncer in transaction mode, with few connections that many clients take turns in."""
        port = free_port()
        (self.home / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self.home} port={self.port} user={OWNER}\n[pgbouncer]\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {size}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"unix_socket_dir =\nlogfile = {self.home}/pgbouncer.log\n"
        )
        process = subprocess.Popen(["pgbouncer", "-q", self.home / "pgbouncer.ini"], cwd=self.home, **self._who())
        try:
            end = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < end and process.poll() is None, "PgBouncer does not start"
                    time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait(10)

    def _who(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def prepare(self) -> None:
        """Makes the template: one migration for all databases."""
        from headgate.control.store.database import open_store

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
