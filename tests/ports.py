"""Ports that nobody uses: for processes that must be told theirs before they start."""

from __future__ import annotations

import random
import socket

_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens; never the same one twice.

    Below the range from which the kernel takes the ports of outgoing connections (32768 and up): between this answer
    and the child's bind, none of another test's connections can take it.
    """
    while True:
        port = random.randrange(12_000, 32_000)
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port
