"""The provider as the supervisor's child: its socket comes on descriptor 3, and it ends with its parent."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headgate.process import boot
from headgate.process.boot import BuiltinBoot, Failed, Ready
from tests.testing.raw import ask, chat, run

COMMAND = [sys.executable, "-m", "headgate.testing"]


@contextmanager
def child() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket, int]]:
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listening, ours:
        port = listening.getsockname()[1]
        # bash moves the descriptor to 3, as a supervisor's spawn would
        argv = ["bash", "-c", f'exec 3<&{theirs.fileno()} {theirs.fileno()}<&-; exec "$@"', "bash", *COMMAND]
        with subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            boot.send(ours, BuiltinBoot(log_level="warning"), (listening.fileno(),))
            listening.close()
            try:
                ours.settimeout(30)
                answer, _ = boot.receive(ours, Ready | Failed)  # type: ignore[arg-type]
                assert answer == Ready("127.0.0.1", port)
                yield process, ours, port
            finally:
                process.kill()


def test_it_serves_the_inherited_socket_until_its_parent_ends() -> None:
    with child() as (process, ours, port):
        assert run(ask(port, chat("echo"))).text == "say something please"
        ours.close()
        assert process.wait(30) == 0


def test_sigterm_ends_it_and_sigint_does_not() -> None:
    with child() as (process, _, port):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert run(ask(port, chat("echo"))).status == 200
        process.terminate()
        assert process.wait(30) == 0


def test_it_stays_small_and_imports_nothing_heavy() -> None:
    with child() as (process, _, port):
        assert run(ask(port, chat("echo"))).status == 200
        with open(f"/proc/{process.pid}/statm") as statm:
            assert int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") < 45 << 20
    listing = "import headgate.testing.__main__, sys; print(*sys.modules)"
    imported = set(subprocess.check_output([sys.executable, "-c", listing], text=True).split())
    assert not imported & {"pydantic", "fastapi", "sqlalchemy", "yaml", "argparse"}
    assert "headgate.testing.provider.provider" in imported


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_is_up_soon() -> None:
    took = []
    for _ in range(3):
        with child() as (process, _ours, _port):
            took.append(_cpu_seconds(process.pid))
    # 2.5 times as much on an idle machine; CPU time, as the clock would measure the neighbours.
    assert min(took) < 5 * min(_import_seconds() for _ in range(3))


def _import_seconds() -> float:
    """CPU time of a Python process that imports asyncio: what the other figure is compared with."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.parametrize(
    ("argv", "code"),
    [([], 2), (["--port"], 2), (["--port", "x"], 2), (["--port", "70000"], 2), (["--colour", "1"], 2), (["--help"], 0)],
)
def test_a_wrong_command_line_says_so(argv: list[str], code: int) -> None:
    done = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    assert done.returncode == code
    assert done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_exit_code_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=10)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
