"""Standard output and error of the gateway's processes, for writers that must neither fail nor wait.

A log reader that is gone (EPIPE), a full disk behind ``2>``, or a reader that has stopped reading costs only lines of
the log.  ``install`` replaces ``sys.stdout`` and ``sys.stderr``, so this holds for ``print``, logging, structlog,
warnings and tracebacks alike.  Commands that print answers do not use this: they must say that they failed.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable

BACKLOG = 256 << 10  # bytes kept for a reader that does not read
PIECE = 4096  # PIPE_BUF: a pipe that polls as writable takes so much without waiting
LAST_S = 0.2  # for the rest at the end of the process


def install() -> None:
    """Make this process's standard streams safe, and open those that were closed before its start.

    Without the latter the next socket would get descriptor 2, and every log line would go into it.
    """
    _occupy()
    for name, fd in (("stdout", 1), ("stderr", 2)):
        current = getattr(sys, name)
        if not isinstance(current, Output):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                current.flush()
            output = Output(fd, getattr(current, "encoding", None) or "utf-8")
            setattr(sys, name, output)
            atexit.register(output.finish)


def _occupy() -> None:
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)


class Output(io.TextIOBase):
    """A text stream on ``fd`` whose ``write`` never raises and never waits.

    Whole lines are written at once.  Mutable: the backlog, and how many lines were lost since the last one that was
    written.  Safe to use from threads.
    """

    def __init__(self, fd: int, encoding: str) -> None:
        self._fd = fd
        self._encoding = encoding
        self._send = _sender(fd)
        self._lock = threading.RLock()  # a signal's traceback may come in the middle of a write
        self._backlog = bytearray()
        self._lost = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    @property
    def lost(self) -> int:
        """Lines lost since the last written one."""
        return self._lost

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = text.encode(self._encoding, "backslashreplace")
        with self._lock:
            if len(self._backlog) + len(data) > BACKLOG:
                self._lost += data.count(b"\n")
            else:
                self._backlog += data
            if data.endswith(b"\n"):
                self._push()
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._push()

    def finish(self) -> None:
        """Write the rest, as long as the reader takes bytes, within a limit."""
        end = time.monotonic() + LAST_S
        while self._backlog and time.monotonic() < end:
            self.flush()
            if self._backlog:
                time.sleep(0.01)

    def _push(self) -> None:
        try:
            while self._backlog:
                sent = self._send(self._backlog)
                if not sent:
                    return
                del self._backlog[:sent]
            if self._lost:
                self._backlog += f"headgate: {self._lost} lines of this log are missing here\n".encode()
                self._lost = 0
                self._push()
        except OSError:  # its reader is gone, or its disk is full: tried again with the next line
            self._lost += max(1, self._backlog.count(b"\n"))
            self._backlog.clear()


Send = Callable[[bytearray], int]


def _sender(fd: int) -> Send:
    """Return a function that writes bytes to ``fd`` without waiting and returns their number.  It raises OSError.

    The descriptor's own flags are shared with other processes and the user's terminal, so they stay as they are.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return _on_socket(socket.socket(fileno=os.dup(fd)))
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        with contextlib.suppress(OSError):
            # Linux: a descriptor of its own on the same pipe or terminal, with flags of its own
            return _on_own(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        return _polled(fd)
    return lambda data: os.write(fd, data)


def _on_own(fd: int) -> Send:
    def send(data: bytearray) -> int:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            return 0

    return send


def _on_socket(sock: socket.socket) -> Send:
    def send(data: bytearray) -> int:
        try:
            return sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    return send


def _polled(fd: int) -> Send:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)

    def send(data: bytearray) -> int:
        return os.write(fd, memoryview(data)[:PIECE]) if poll.poll(0) else 0

    return send
