"""``headgate serve`` as a user starts it, with all its real processes, in a state directory of its own; and a client
that keeps what it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import forked, forked_gateway
from tests.ports import free_port
from tests.waiting import wait_until

FILE_TOKEN = "hg_test_0123456789abcdef0123456789abcdef"
ROLES = {"data": "headgate.data", "control": "headgate.app", "builtin": "headgate.testing"}
_BARE = {name: value for name, value in os.environ.items() if not name.startswith(("HEADGATE_", "XDG_"))}


Make = Callable[..., "Gateway"]
Report = Callable[[str], None]


class Gateway:
    """One state directory and the gateways that run in it, one after the other."""

    def __init__(
        self, home: Path, extra: str = "", drain_s: float = 5, state: Path | None = None, executed: bool = False
    ) -> None:
        """``executed``: started as users start it, where the start is what is measured."""
        self.home, self.executed = home, executed
        home.mkdir(parents=True, exist_ok=True)
        self.port, self.control_port, self.drain_s = free_port(), free_port(), drain_s
        self.state = state or home / "state"
        self.config = home / "headgate.yaml"
        self.environ = {**_BARE, "HOME": str(home)}
        self.out, self.err = home / "out", home / "err"
        self.configure(extra)

    def configure(self, extra: str) -> None:
        draft = self.config.with_suffix(".draft")
        draft.write_text(
            f"server: {{port: {self.port}, drain_s: {self.drain_s}}}\ncontrol: {{port: {self.control_port}}}\n"
            f"state_dir: {self.state}\ntokens: [{{name: ci, secret: {FILE_TOKEN}}}]\n{extra}"
        )
        draft.rename(self.config)

    # ------------------------------------------------------------------------------- its life

    def spawn(self) -> Gateway:
        self.started = time.monotonic()
        with self.out.open("w") as out, self.err.open("w") as err:
            if self.executed:
                self.process: forked.Forked | subprocess.Popen[bytes] = subprocess.Popen(
                    [sys.executable, "-m", "headgate", "serve"], cwd=self.home, env=self.environ, stdout=out, stderr=err
                )
            else:
                self.process = forked_gateway.start(self.home, self.environ, out.fileno(), err.fileno())
        return self

    def start(self) -> Gateway:
        self.spawn()
        self.until(lambda: re.search(r"^listening data=", self.err.read_text(), re.M))
        self.until(lambda: self.get("/health")[1]["control"] == "connected")
        return self

    def end(self, number: int = signal.SIGTERM, within: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(within)

    def clear(self) -> None:
        """Nothing that this test started may outlive it."""
        if not hasattr(self, "process"):
            return
        pids = self.pids() if self.process.poll() is None else {}
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pids(self) -> dict[str, int]:
        """The running children by role."""
        found: dict[str, int] = {}
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in map(int, children):
            try:
                started = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                forked = Path(f"/proc/{pid}/comm").read_text().strip()
            except FileNotFoundError:  # it has ended since it was listed
                continue
            for role, module in ROLES.items():
                if module in started or module[:15] == forked:  # the kernel keeps 15 characters
                    found[role] = pid
        return found

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        pid = self.pids()[role]
        os.kill(pid, number)
        return pid

    def until(self, condition: Callable[[], object], within: float = 120) -> Any:
        return wait_until(condition, within, why=lambda: f"its log:\n{self.err.read_text()[-4000:]}")

    # ------------------------------------------------------------------------------- what it says

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.err.read_text()

    @property
    def admin_token(self) -> str:
        return (self.state / "admin.token").read_text().strip()

    def cli(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return forked.command(*arguments, stdin=stdin, cwd=self.home, environ=self.environ)

    def get(self, path: str, token: str = FILE_TOKEN, timeout: float = 8) -> tuple[int, Any]:
        return ask("GET", self.url + path, token, timeout=timeout)

    def chat(self, model: str, token: str = FILE_TOKEN) -> tuple[int, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": "one two three"}]}
        return ask("POST", f"{self.url}/v1/chat/completions", token, body)

    def admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return ask(method, f"http://127.0.0.1:{self.control_port}/admin/v1{path}", self.admin_token, body)

    def health(self) -> dict[str, Any]:
        status, body = self.admin("GET", "/health")
        assert status == 200, body
        return dict(body)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The store's requests by their clients' ids, once control has read all that the journal holds."""
        self.until(self._recorded)
        # Control answers this when it has committed all that was written before the question.
        self.until(lambda: self.get("/v1/usage")[0] == 200)
        with closing(sqlite3.connect(self.state / "headgate.db")) as connection:
            connection.row_factory = sqlite3.Row
            return {f"chatcmpl-{row['id']}": dict(row) for row in connection.execute("SELECT * FROM requests")}

    def _recorded(self) -> bool:
        try:
            recorder = self.health()["recorder"]
        except OSError:
            return False
        return recorder["records_behind"] == 0 and recorder["running_calls"] == 0


def ask(method: str, url: str, token: str, body: Any = None, timeout: float = 8) -> tuple[int, Any]:
    """Status and decoded body.  Raises OSError where there is no answer."""
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {token}"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


# ------------------------------------------------------------------------------------- streams


@dataclass
class Streamed:
    """What one client saw of one stream.  ``done``: to its ``[DONE]``."""

    status: int = 0
    id: str = ""
    text: str = ""
    finish: str = ""
    done: bool = False
    error: str = ""
    began: float = 0.0
    ended: float = 0.0
    body: bytes = field(default=b"", repr=False)


async def stream(
    port: int, model: str, token: str = FILE_TOKEN, content: str = "one two three", seen: Streamed | None = None
) -> Streamed:
    """One streamed completion on a connection of its own, noted in ``seen`` as it comes.  A broken connection is noted,
    not raised.
    """
    seen = seen or Streamed()
    seen.began = time.monotonic()
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": content}]}).encode()
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (token.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        seen.status = int(head.split(b" ", 2)[1])
        if b"chunked" not in head.lower():
            seen.body = await reader.read()
            return seen
        await _events(reader, seen)
    except (OSError, asyncio.IncompleteReadError) as error:
        seen.error = repr(error)
    finally:
        seen.ended = time.monotonic()
        if writer is not None:
            writer.close()
    return seen


async def _events(reader: asyncio.StreamReader, seen: Streamed) -> None:
    rest = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *events, rest = rest.split(b"\n\n")
        for event in events:
            _take(event, seen)
    await reader.readline()


def _take(event: bytes, seen: Streamed) -> None:
    if not event.startswith(b"data:"):
        return
    data = event[5:].strip()
    if data == b"[DONE]":
        seen.done = True
        return
    chunk = json.loads(data)
    if "error" in chunk:
        seen.error = chunk["error"]["code"]
        return
    seen.id = chunk["id"]
    for choice in chunk["choices"]:
        seen.text += choice["delta"].get("content") or ""
        seen.finish = choice["finish_reason"] or seen.finish
