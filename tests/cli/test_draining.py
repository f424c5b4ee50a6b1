"""What is said of a gateway that finishes its running calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headgate.process import statedir
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.cli.conftest import Gateway
from tests.waiting import wait_until


def test_a_start_beside_a_draining_gateway_says_how_long_it_has(tmp_path: Path) -> None:
    lock = statedir.prepare(tmp_path)
    try:
        assert statedir.draining(tmp_path) is None
        (tmp_path / statedir.ADDRESSES).write_text(json.dumps({"draining_until": time.time() + 500}))
        with pytest.raises(statedir.StateError, match="it is draining and ends within"):
            statedir.prepare(tmp_path)
    finally:
        os.close(lock)


def test_status_and_chat_say_that_it_is_draining(tmp_path: Path, start: Callable[..., Gateway]) -> None:
    (tmp_path / "headgate.yaml").write_text(
        f"server: {{port: {free_port()}, drain_s: 60}}\ncontrol: {{port: {free_port()}}}\n"
        "detect: {local_engines: false}\n"
    )
    one = start(tmp_path)
    command = [sys.executable, "-m", "headgate", "chat", "-m", "builtin/lorem", "hello"]
    with subprocess.Popen(command, cwd=tmp_path, env=one.environ, stdout=subprocess.PIPE) as talk:
        assert talk.stdout is not None and talk.stdout.read(1)
        one.good("drain")
        state = tmp_path / ".local" / "state" / "headgate"
        wait_until(lambda: talk.poll() is not None or statedir.draining(state) is not None)
        status, chat = one.run("status"), one.run("chat", "hello")
    if status.returncode == 0:  # else the answer had ended by then
        assert "draining" in status.stdout and "draining" in chat.stderr
