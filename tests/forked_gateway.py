"""``headgate serve`` and its children, forked from a process whose imports are done (see ``tests.forked``).

The supervisor is the program's own.  Its ``posix_spawn`` of a child is a fork here, with the same descriptors, signals,
group and environment.  A gateway's whole life costs 0.7 s of CPU instead of four.  The start as users start it is
tested in ``tests/e2e/test_cli_start.py``, and wherever a test runs ``python -m headgate`` or says ``executed``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import headgate.app
import headgate.cli
import headgate.data
import headgate.testing.__main__ as testing
from headgate.process.boot import CHILD_FD
from tests import forked

ENTRIES: dict[str, Callable[[list[str]], object]] = {
    "headgate.data": lambda _arguments: headgate.data.main(),
    "headgate.app": headgate.app.main,
    "headgate.testing": testing.main,
}


def start(cwd: Path, environ: Mapping[str, str], out: int, err: int) -> forked.Forked:
    """Start ``headgate serve``."""
    return forked.fork(
        "tests.forked_gateway:main", "serve", modules=forked.WHOLE, fds={1: out, 2: err}, cwd=cwd, environ=environ
    )


def main() -> None:
    os.posix_spawn = _spawn  # type: ignore[assignment]
    headgate.cli.main()


def _spawn(
    _path: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    file_actions: Sequence[tuple[Any, ...]],
    **options: Any,
) -> int:
    """Fork where the supervisor calls ``os.posix_spawn``: with /dev/null as standard input, the child's channel as
    descriptor 3, and a process group of its own.
    """
    module, *arguments = argv[3:]
    (channel,) = (action[1] for action in file_actions if action[0] == os.POSIX_SPAWN_DUP2)
    assert argv[:3] == (sys.executable, "-P", "-m") and options.pop("setpgroup") == 0, argv
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        forked.renew({0: os.open(os.devnull, os.O_RDONLY), 1: 1, 2: 2, CHILD_FD: channel}, env)
        Path("/proc/self/comm").write_text(module)
        forked.live(lambda: ENTRIES[module](arguments))
    return pid
