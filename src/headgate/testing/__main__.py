"""The built-in provider as a process.

Without arguments it is a child of the supervisor.  Its Boot message and its listening socket come on file descriptor
3; it ends when that is closed.  With ``--port`` it stands alone.  SIGTERM ends both at once; SIGINT only the latter,
as the supervisor's children are ended by it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from headgate.process import boot, stdio
from headgate.process.boot import BuiltinBoot, Ready
from headgate.process.log import configure
from headgate.testing.provider.provider import serve

try:
    from uvloop import new_event_loop as new_loop
except ImportError:  # not built for every platform
    new_loop = asyncio.new_event_loop  # type: ignore[assignment]

USAGE = """\
usage: python -m headgate.testing --port PORT [--host HOST] [--key KEY]... [--keep N]

An OpenAI-compatible provider for tests: models echo, lorem, engine and fault/<name>.
  --port PORT  listen there (0: any free port, printed)
  --host HOST  default 127.0.0.1
  --key KEY    let in only this bearer key (repeatable); default: any
  --keep N     remember the last N requests with their bodies, shown at GET /__seen; default 0
"""


class CommandLine:
    """The command line of the standalone provider.  Raises ValueError with a sentence.

    Read by hand: argparse costs a tenth of the start-up time that the child process is allowed.
    """

    def __init__(self, argv: list[str]) -> None:
        self.host, self.port, self.keep = "127.0.0.1", -1, 0
        self.keys: list[str] = []
        rest = iter(argv)
        for flag in rest:
            value = next(rest, None)
            if value is None:
                raise ValueError(f"{flag} needs a value")
            self._take(flag, value)
        if not 0 <= self.port <= 65535:
            raise ValueError("--port must be between 0 and 65535")

    def _take(self, flag: str, value: str) -> None:
        match flag:
            case "--port":
                self.port = int(value)
            case "--keep":
                self.keep = int(value)
            case "--host":
                self.host = value
            case "--key":
                self.keys.append(value)
            case _:
                raise ValueError(f"unknown argument {flag}")


async def _until_signalled(stop: asyncio.Event, signals: tuple[signal.Signals, ...]) -> None:
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def stand_alone(arguments: CommandLine) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with serve(arguments.host, arguments.port, keys=arguments.keys, keep=arguments.keep) as provider:
        print(f"listening {provider.url}", flush=True)
        await _until_signalled(asyncio.Event(), (signal.SIGTERM, signal.SIGINT))


async def be_child(parent: socket.socket) -> None:
    """Serve on the socket that ``parent`` passes, until ``parent`` is closed or SIGTERM comes."""
    stop = asyncio.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told, fds = boot.receive(parent, BuiltinBoot)
    configure(told.log_level, told.log_format)
    async with serve(sock=socket.socket(fileno=fds[0]), keep=0) as provider:
        boot.send(parent, Ready(provider.host, provider.port))
        parent.setblocking(False)
        asyncio.get_running_loop().add_reader(parent, _on_readable, parent, stop.set)
        await _until_signalled(stop, (signal.SIGTERM,))


def _on_readable(parent: socket.socket, stop: Callable[[], None]) -> None:
    """The supervisor sends nothing after Boot: a readable socket is its end, orderly or not."""
    try:
        ended = not parent.recv(4096)
    except BlockingIOError:
        return
    except OSError:
        ended = True
    if ended:
        stop()


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


def main(argv: list[str]) -> int:
    """Return the exit code: 0, 2 for a wrong command line, 3 for a port in use."""
    if "-h" in argv or "--help" in argv:
        print(USAGE, end="")
        return 0
    if not argv:
        if not _is_socket(boot.CHILD_FD):
            print(USAGE, end="", file=sys.stderr)
            return 2
        stdio.install()
        _run(be_child(socket.socket(fileno=boot.CHILD_FD)))
        return 0
    try:
        arguments = CommandLine(argv)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        _run(stand_alone(arguments))
    except OSError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
