"""A running gateway, started as a user starts it, with the real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Gateway:
    """``headgate serve`` in a home of its own; ``run`` is the same user's shell."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HEADGATE_", "XDG_"))},
            "HOME": str(home),
        }
        self.state = home / ".local" / "state" / "headgate"
        self.config = home / "headgate.yaml"
        self.config.write_text(
            f"server: {{port: {free_port()}, drain_s: 1}}\ncontrol: {{port: {free_port()}}}\n"
            "tokens: [{name: ci, secret: hg_test_0123456789abcdef}]\n"
        )
        self.out, self.err = home / "out", home / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headgate", "serve"], cwd=home, env=self.environ, stdout=out, stderr=err
            )
        end = time.monotonic() + 20
        while not (found := re.search(r"^listening data=(\S+) control=(\S+)$", self.err.read_text(), re.M)):
            assert self.process.poll() is None and time.monotonic() < end, self.err.read_text()
            time.sleep(0.02)
        self.data_url = f"http://{found[1]}"

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headgate", *arguments],
            cwd=self.home,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    one = Gateway(tmp_path_factory.mktemp("home"))
    yield one
    assert one.end() == 0
