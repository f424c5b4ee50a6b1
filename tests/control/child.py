"""A control process of its own, as the supervisor starts one; its configuration is a JSON file of tests' own making."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx2

from headgate.catalog.presets import rows
from headgate.control.process import run
from headgate.control.snapshot.compose import compose
from headgate.model import Account, Alias, CallLimits, Grant, Provider, Tenant
from headgate.process import boot
from headgate.process.boot import Adopted, ControlBoot, Failed, Ready
from headgate.process.channel import World
from headgate.resources.compiled import Compiled
from tests.forked import WHOLE, fork

ADMIN = "hg_admin_canary_0123456789"
SECRET = "sk-canary-upstream-key"


def compiled(path: Path) -> Compiled:
    """{"aliases": […], "tokens": {digest hex: name}, "key": …}"""
    document = json.loads(path.read_text())
    providers = {"up-a": Provider("up-a", "http://127.0.0.1:1/v1", accounts=(Account("up-a/0"),))}
    aliases = {name: Alias(name) for name in document["aliases"]}
    tokens = {bytes.fromhex(key): Grant(name, name, origin="file") for key, name in document["tokens"].items()}
    tenants = {name: Tenant(name, limits=CallLimits(rpm=1000)) for name in document.get("tenants", ())}
    secrets = {"up-a/0": document["key"]}
    return Compiled(World(providers, aliases, tenants=tenants), tokens, secrets, rows=rows(), detect_engines=False)


def main() -> int:
    sock = socket.socket(fileno=boot.CHILD_FD)
    message, _fds = boot.receive(sock, ControlBoot)
    assert message.config_path is not None
    config = Path(message.config_path)
    return run(message, lambda: compiled(config), sock)


class Child:
    """Started and, unless told otherwise, answering."""

    def __init__(self, state: Path, **changes: Any) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.state = state
        self.config = state / "headgate.json"
        if not self.config.exists():
            self.configure()
        self.log = state / "control.log"
        values: dict[str, Any] = {
            "state_dir": str(state),
            "database": f"sqlite:///{state}/headgate.db",
            "host": "127.0.0.1",
            "port": 0,
            "admin_token": ADMIN,
            "config_path": str(self.config),
            "data_url": "http://127.0.0.1:4000",
        }
        self.sock, theirs = socket.socketpair()
        with theirs, self.log.open("ab") as log:
            fds = {2: log.fileno(), boot.CHILD_FD: theirs.fileno()}
            self.process = fork("tests.control.child:main", modules=WHOLE, fds=fds)
        if "declared" not in changes:
            declared = compiled(self.config)
            values |= {"declared": compose(0, declared, {}), "secrets": declared.secrets}
        boot.send(self.sock, ControlBoot(**(values | changes)))
        self.sock.settimeout(90)
        answer, _fds = boot.receive(self.sock, Adopted | Ready | Failed)  # type: ignore[arg-type]
        while isinstance(answer, Adopted):
            answer, _fds = boot.receive(self.sock, Adopted | Ready | Failed)  # type: ignore[arg-type]
        self.answer: Ready | Failed = answer

    def configure(
        self, *aliases: str, tokens: dict[str, str] | None = None, key: str = SECRET, tenants: tuple[str, ...] = ()
    ) -> None:
        draft = self.config.with_suffix(".draft")
        draft.write_text(json.dumps({"aliases": aliases, "tokens": tokens or {}, "key": key, "tenants": tenants}))
        draft.rename(self.config)

    @property
    def url(self) -> str:
        assert isinstance(self.answer, Ready), self.answer
        return f"http://{self.answer.host}:{self.answer.port}"

    def call(self, method: str, path: str, token: str | None = ADMIN, **options: Any) -> httpx2.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        options.setdefault("timeout", 60)  # control yields the processor to everything else that runs
        return httpx2.request(method, self.url + path, headers=headers, trust_env=False, verify=False, **options)

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        code = self.process.wait(60)
        self.sock.close()
        return code

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.sock.close()
