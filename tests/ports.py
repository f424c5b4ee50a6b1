"""Ports that nobody uses: for processes that must be told theirs before they start."""

from __future__ import annotations

import os
import random
import re
import socket

_FIRST, _BEYOND = 12_000, 32_000
_WORKERS = 16
_given: set[int] = set()
_random = random.Random()  # Hypothesis seeds the shared one alike in every process


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens; never the same one twice.

    Below the range from which the kernel takes the ports of outgoing connections (32768 and up): between this answer
    and the child's bind, none of another test's connections can take it.  Each xdist worker draws from a range of its
    own.
    """
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "0")))
    size = (_BEYOND - _FIRST) // _WORKERS
    first = _FIRST + worker % _WORKERS * size
    while True:
        port = _random.randrange(first, first + size)
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port
