"""Stand-ins for the three children: the boot protocol and nothing else, so that the supervisor is tested alone.

``standins.py serve CONFIG NOTES`` runs the real supervisor over them; each child appends a line to NOTES at every turn
of its life.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time

from headgate.model import DataBoot
from headgate.process import boot
from headgate.process.boot import BuiltinBoot, ControlBoot, Failed, Ready


def note(*words: object) -> None:
    with open(sys.argv[-1], "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def wait_for_end(channel: socket.socket, role: str, ended: threading.Event) -> None:
    """Blocks until SIGTERM or until the supervisor's end of the boot socket is gone."""

    def orphaned() -> None:
        with contextlib.suppress(OSError):
            channel.recv(1)
        note(role, "orphaned", os.getpid())
        os._exit(0)

    threading.Thread(target=orphaned, daemon=True).start()
    while not ended.wait(0.05):
        pass


def ending(role: str) -> threading.Event:
    ended = threading.Event()

    def on_term(_number: int, _frame: object) -> None:
        note(role, "term", os.getpid())
        ended.set()

    signal.signal(signal.SIGTERM, on_term)
    return ended


def answer(listener: socket.socket, text: str) -> None:
    while True:
        try:
            connection, _address = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            body = text.encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)


def data(channel: socket.socket) -> int:
    order, (descriptor,) = boot.receive(channel, DataBoot)
    listener = socket.socket(fileno=descriptor)
    ended = ending("data")
    note("data", "boot", os.getpid(), len(order.snapshot.tokens), order.snapshot.default_model)
    threading.Thread(target=answer, args=(listener, f"data {os.getpid()}"), daemon=True).start()
    boot.send(channel, Ready(*listener.getsockname()[:2]))
    wait_for_end(channel, "data", ended)
    time.sleep(float(os.environ.get("STANDIN_DRAIN", "0")))
    note("data", "ended", os.getpid())
    return 0


def control(channel: socket.socket) -> int:
    if pause := os.environ.get("STANDIN_SLOW"):
        time.sleep(float(pause))  # importing: no signal is handled yet
    order, _fds = boot.receive(channel, ControlBoot)
    ended = ending("control")
    signal.signal(signal.SIGHUP, lambda _number, _frame: note("control", "reload"))
    note("control", "boot", os.getpid(), order.admin_token, order.first_token)
    if os.environ.get("STANDIN_CRASH"):
        return 1
    if code := os.environ.get("STANDIN_FAIL"):
        boot.send(channel, Failed(int(code), "the control port is taken"))
        return int(code)
    note("control", "declared", order.declared.default_model)
    if pause := os.environ.get("STANDIN_HESITATE"):
        ours, theirs = socket.socketpair()
        boot.send(ours, Ready(order.host, order.port))
        sentence = theirs.recv(4096)
        channel.sendall(sentence[:4])
        time.sleep(float(pause))
        channel.sendall(sentence[4:])
    else:
        boot.send(channel, Ready(order.host, order.port))
    wait_for_end(channel, "control", ended)
    note("control", "ended", os.getpid())
    return 0


def builtin(channel: socket.socket) -> int:
    _order, (descriptor,) = boot.receive(channel, BuiltinBoot)
    listener = socket.socket(fileno=descriptor)
    ended = ending("builtin")
    note("builtin", "boot", os.getpid(), listener.getsockname()[1])
    threading.Thread(target=answer, args=(listener, f"builtin {os.getpid()}"), daemon=True).start()
    wait_for_end(channel, "builtin", ended)
    return 0


def serve() -> int:
    from headgate import app  # not above: the children do without
    from headgate.process.supervisor import ChildPrograms

    def me(role: str) -> tuple[str, ...]:
        return (sys.executable, __file__, role, sys.argv[-1])

    return app.serve(sys.argv[2], {}, ChildPrograms(me("data"), me("control"), me("builtin")))


if __name__ == "__main__":
    role = sys.argv[1]
    if role == "serve":
        sys.exit(serve())
    try:
        sys.exit({"data": data, "control": control, "builtin": builtin}[role](socket.socket(fileno=boot.CHILD_FD)))
    except EOFError:
        sys.exit(0)
