"""Processes whose imports are done: forked from one that has imported their modules and does nothing else.

A data process spends most of its start on imports, control nearly all of it, and the tests start hundreds.  Here a
start costs a fork, and an end no more.  Such a process is real: it has its own memory, descriptors, environment and
signals, and runs the same ``main``.  The start itself (``exec``, order and cost of imports) is tested where a whole
gateway is started.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from headgate.process.boot import CHILD_FD
from tests.paths import ROOT

WHOLE = (  # what control, the commands and the supervisor import, sooner or later
    "headgate.control.process", "headgate.control.api.web", "headgate.settings", "headgate.testing.__main__",
    "headgate.cli.commands", "headgate.cli.serve", "headgate.cli.reach.store", "headgate.cli.tasks.chat",
    "headgate.cli.tasks.doctor", "aiosqlite", "encodings.idna", "genai_prices", "pydantic.v1.types",
    "uvicorn.lifespan.off", "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto",
    "tests.control.child", "tests.forked_gateway", "tests.process.standins",
)  # fmt: skip
MESSAGE = 1 << 20
_HIGH = 64  # descriptors are moved above this before they get their numbers


class Forked:
    """One process, with the part of Popen's interface that tests use."""

    def __init__(self, arguments: tuple[str, ...], told: int) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._told = told  # the server writes the process's id here, and its exit code when it has ended
        self.pid = self._number()

    def _number(self) -> int:
        text = b""
        while not text.endswith(b"\n"):
            piece = os.read(self._told, 1)
            if not piece:
                raise RuntimeError("the process that forks others has ended")
            text += piece
        return int(text)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self.returncode = self._number()
        os.close(self._told)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_servers: dict[tuple[str, ...], socket.socket] = {}


def fork(
    entry: str,
    *arguments: str,
    modules: tuple[str, ...] = (),
    fds: Mapping[int, int] = {},
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Forked:
    """Start ``entry`` (``module:function``; what it returns is the exit code) as a process of its own.

    ``modules`` are imported once before, by default the entry's.  ``fds``: the child's descriptors and what they are
    here; standard streams are this process's where they are not named.  No other descriptor is inherited.
    """
    server = _server(modules or (entry.partition(":")[0],))
    mine, told = os.pipe()
    given = {0: 0, 1: 1, 2: 2, **fds}
    order = {
        "entry": entry, "arguments": arguments, "cwd": str(cwd or Path.cwd()), "fds": list(given),
        "environ": dict(os.environ if environ is None else environ),
    }  # fmt: skip
    socket.send_fds(server, [json.dumps(order).encode()], [told, *given.values()])
    os.close(told)
    return Forked((entry, *arguments), mine)


def spawn(entry: str) -> tuple[Forked, socket.socket]:
    """A child with a boot socket, and our end of that, as the supervisor starts it."""
    ours, theirs = socket.socketpair()
    with theirs:
        return fork(entry, fds={CHILD_FD: theirs.fileno()}), ours


def run(
    entry: str, *arguments: str, stdin: str | None = None, timeout: float = 60, **options: Any
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` with what it prints, for an entry; ``options`` are those of ``fork``."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write((stdin or "").encode())
        given.seek(0)
        fds = {0: given.fileno(), 1: out.fileno(), 2: err.fileno()}
        process = fork(entry, *arguments, fds=fds, **options)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read().decode(), err.read().decode())


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The ``headgate`` command, as ``run`` runs an entry."""
    return run("headgate.cli:main", *arguments, modules=WHOLE, **options)


def _server(modules: tuple[str, ...]) -> socket.socket:
    if modules not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno()), *modules]
            process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        _servers[modules] = ours
        atexit.register(_end, ours, process)
    return _servers[modules]


def _end(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    process.wait()


# ------------------------------------------------------------------------------- the process that forks others


def _serve(sock: socket.socket) -> Callable[[], object]:
    """Fork what is asked for, until the other end is closed.  Returns in each child its entry."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([sock, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap(told)
        if sock not in ready:
            continue
        data, fds, _flags, _address = socket.recv_fds(sock, MESSAGE, 16)
        if not data:
            return lambda: 0
        pid = os.fork()
        if pid == 0:
            sock.detach()  # its number is another descriptor's from now on
            return _become(json.loads(data), fds[1:])
        os.write(fds[0], b"%d\n" % pid)
        told[pid] = fds[0]
        for fd in fds[1:]:
            os.close(fd)


def _reap(told: dict[int, int]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(told[pid], b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(told.pop(pid))


def _become(order: dict[str, Any], fds: list[int]) -> Callable[[], object]:
    os.chdir(order["cwd"])
    renew(dict(zip(order["fds"], fds, strict=True)), order["environ"])
    module, _, function = order["entry"].partition(":")
    sys.argv = [module, *order["arguments"]]
    return getattr(sys.modules[module], function)  # type: ignore[no-any-return]


def renew(fds: Mapping[int, int], environ: Mapping[str, str]) -> None:
    """Make this fork like a new process: these descriptors (its numbers, and what they are here), this environment,
    streams and signals as Python sets them when it starts, and nothing to do at its end.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    high = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, _HIGH) for number, fd in fds.items()}
    os.closerange(0, _HIGH)
    for number, fd in high.items():
        os.dup2(fd, number)
    os.closerange(_HIGH, 1 << 16)
    os.environ.clear()
    os.environ.update(environ)
    for path in reversed(list(filter(None, environ.get("PYTHONPATH", "").split(os.pathsep)))):
        if path not in sys.path:
            sys.path.insert(0, path)
    time.tzset()
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, closefd=False, errors=errors)  # noqa: SIM115 - for the life of the process
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    sys.stderr.reconfigure(line_buffering=True)
    atexit._clear()


def live(entry: Callable[[], object]) -> NoReturn:
    """Run ``entry`` and end as Python does, but for one thing: nothing that was imported is taken apart, which would
    cost more than most of these processes do.
    """
    code: object = 1
    try:
        code = entry()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 0xFF)


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what children share with this process is not looked at again by their collections
    live(_serve(sock))


if __name__ == "__main__":
    main()
