"""A running gateway, started as a user starts it, with the real processes; an upstream that wants keys; and shells
without a gateway.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headgate.testing import Provider, serve_in_thread
from tests import forked, forked_gateway
from tests.ports import free_port
from tests.waiting import wait_until

OF_PYTHON = ("PYTHON", "LC_", "LANG", "LD_")  # variables that are read when Python starts
MODEL = "mock/echo"
KEY = "sk-test-0123456789abcdef-good"  # what the upstream of these tests takes


def bare(home: Path) -> dict[str, str]:
    """An environment that says nothing: no settings, no provider's key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADGATE_", "XDG_"))}
    kept = {name: value for name, value in kept.items() if not name.endswith(("_KEY", "_TOKEN"))}
    return {**kept, "HOME": str(home), "COLUMNS": "80"}


class Shell:
    """One user's shell: a home, an environment, and the command."""

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        """``folder`` is where the commands are run; ``home`` is the user's, by default the same."""
        self.home = folder
        self.environ = bare(home or folder)
        self.state = (home or folder) / ".local" / "state" / "headgate"

    def run(
        self, *arguments: str, stdin: str | None = None, environ: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        if not any(name.startswith(OF_PYTHON) for name in environ):
            return forked.command(*arguments, stdin=stdin, cwd=self.home, environ={**self.environ, **environ})
        return subprocess.run(
            [sys.executable, "-m", "headgate", *arguments],
            cwd=self.home,
            env={**self.environ, **environ},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def good(self, *arguments: str, stdin: str | None = None, environ: Mapping[str, str] = {}) -> str:
        """What a command prints that must not fail."""
        done = self.run(*arguments, stdin=stdin, environ=environ)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def told(self, *arguments: str, stdin: str | None = None, environ: Mapping[str, str] = {}) -> Any:
        """Its JSON."""
        return json.loads(self.good(*arguments, "--json", stdin=stdin, environ=environ))


class Gateway(Shell):
    """``headgate serve`` in a home of its own; ``run`` is the same user's shell.  Where the home has a configuration,
    that is what it serves with.  ``environ``: variables of its terminal alone; ``file``: false where it starts without
    a configuration.
    """

    def __init__(
        self, home: Path, user: Path | None = None, *, environ: Mapping[str, str] = {}, file: bool = True
    ) -> None:
        super().__init__(home, user)
        self.config = home / "headgate.yaml"
        if file and not self.config.exists():
            self.config.write_text(
                f"server: {{port: {free_port()}, drain_s: 1}}\ncontrol: {{port: {free_port()}}}\n"
                "tokens: [{name: ci, secret: hg_test_0123456789abcdef}]\ndetect: {local_engines: false}\n"
            )
        self.out, self.err = home / "out", home / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = forked_gateway.start(home, {**self.environ, **environ}, out.fileno(), err.fileno())
        found = wait_until(self._addresses, 120, 0.02, self.err.read_text)
        self.data_url = f"http://{found[1]}"

    def _addresses(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.err.read_text()
        return re.search(r"^listening data=(\S+) control=(\S+)$", self.err.read_text(), re.M)

    def elsewhere(self, folder: Path) -> Shell:
        """The same user in another directory."""
        return Shell(folder, Path(self.environ["HOME"]))

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    one = Gateway(tmp_path_factory.mktemp("home"))
    yield one
    assert one.end() == 0


@pytest.fixture
def start() -> Iterator[Callable[..., Gateway]]:
    """Starts gateways as ``Gateway`` does, and ends them."""
    started: list[Gateway] = []

    def start_one(*arguments: Any, **options: Any) -> Gateway:
        started.append(Gateway(*arguments, **options))
        return started[-1]

    yield start_one
    for one in started:
        one.end()


@pytest.fixture(scope="session")
def upstream() -> Iterator[Provider]:
    """A provider on this machine that wants a key."""
    with serve_in_thread(keys=[KEY]) as provider:
        yield provider


@pytest.fixture(scope="module")
def mock(gateway: Gateway, upstream: Provider) -> Iterator[Gateway]:
    """The gateway, with the upstream as its provider ``mock``."""
    gateway.good("providers", "add", "mock", "--base-url", upstream.url, "--model", "echo", "--model", "lorem")
    gateway.good("vault", "add", "mock", "--label", "main", stdin=KEY + "\n")
    gateway.good("models", "set", MODEL, "--input-price", "2", "--output-price", "4")
    yield gateway
    gateway.run("providers", "remove", "mock")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A user who never started anything."""
    return Shell(tmp_path)
