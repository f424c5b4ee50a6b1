"""Nobody can write the log any more: calls, restarts, reloads and the end go on as before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests import forked_gateway
from tests.e2e.gateway import Gateway, Make


class Silent(Gateway):
    """A gateway whose standard output and error are what a test makes of them."""

    def begin(self, sink: int) -> Silent:
        self.started = time.monotonic()
        self.err.touch()
        self.process = forked_gateway.start(self.home, self.environ, sink, sink)
        return self

    def answers(self) -> bool:
        try:
            return self.get("/health")[1]["control"] == "connected" and self.health()["workers"] != []
        except OSError:
            return False


def closed_pipe() -> tuple[int, Callable[[], None]]:
    read, write = os.pipe()
    return write, lambda: os.close(read)


def full_disk() -> tuple[int, Callable[[], None]]:
    return os.open("/dev/full", os.O_WRONLY), lambda: None


def blocked_pipe() -> tuple[int, Callable[[], None]]:
    """Nobody reads, and it is full."""
    _read, write = os.pipe()

    def fill() -> None:
        own = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)
        with closing(os.fdopen(own, "wb", buffering=0)) as file:
            for size in (1 << 16, 1):
                while file.write(b"x" * size):
                    pass

    return write, fill


@pytest.mark.parametrize("lose", [closed_pipe, full_disk, blocked_pipe])
def test_losing_the_log_loses_the_log_only(lose: Callable[[], tuple[int, Callable[[], None]]], tmp_path: Path) -> None:
    one = Silent(tmp_path / "home")
    sink, gone = lose()
    try:
        one.begin(sink)
        one.until(one.answers)
        gone()
        for role in ("data", "control"):  # each death is a line of the supervisor's
            before = one.kill(role)
            one.until(lambda role=role, before=before: one.pids().get(role, before) != before)  # type: ignore[misc]
            one.until(one.answers)
        one.configure("not: yaml: at all")
        one.process.send_signal(signal.SIGHUP)  # a line of control's
        one.until(lambda: one.health()["config"]["reload_error"])
        assert one.chat("builtin/lorem")[0] == 200
        assert one.process.poll() is None
        assert one.end() == 0
    finally:
        one.clear()
        os.close(sink)


def test_a_gateway_starts_without_standard_streams(gateway: Make) -> None:
    one = gateway()
    one.process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "headgate", "serve"],
        cwd=one.home, env=one.environ,
    )  # fmt: skip
    one.err.touch()
    one.until(lambda: (one.state / "admin.token").exists())
    assert one.chat("builtin/lorem")[0] == 200
    assert one.end() == 0
