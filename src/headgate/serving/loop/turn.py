"""One turn of the loop, in three steps: work through the input, write the records, send the answers.

The callbacks of a turn only keep the bytes that they read.  At the end of the turn all of these are worked through in
one go: bytes are parsed, calls run, events are relayed.  Their records go to the journal in one write.  Only then are
the bytes sent that depend on these records.  That order keeps the promise that a stream which a client saw finish is
on record.  Working through a turn in one go keeps Python's code in the processor's caches between system calls
(measured: docs/decisions/005).  Input of one turn leaves in the same turn; no answer waits for a fuller batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

log = logging.getLogger("headgate.turn")


class Turn:
    """The work that is left in this turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._armed = False
        self._runs: list[tuple[Callable[[Any], object], Any]] = []
        self._sends: list[tuple[Callable[[Any], object], Any]] = []
        self._writer: asyncio.WriteTransport | None = None  # whose bytes ``_sends`` ends with, and these
        self._written: list[bytes] = []
        # In some versions from 3.12 on, `writelines` of asyncio's own loops does not pause a protocol (CVE-2024-12254)
        # and does not check for a lost connection.  uvloop has another `writelines`.
        self._gathers = not isinstance(loop, asyncio.BaseEventLoop)
        self.record: Callable[[], None] = _nothing

    def arm(self) -> None:
        """Schedule the end of this turn."""
        if not self._armed:
            self._armed = True
            self._call_soon(self._end)

    def run(self, step: Callable[[Any], object], argument: object) -> None:
        """Do ``step(argument)`` in this turn, before records are written and bytes are sent."""
        self._runs.append((step, argument))
        if not self._armed:
            self.arm()

    def send(self, step: Callable[[Any], object], argument: object) -> None:
        """Do ``step(argument)`` when the kernel has the records of this turn."""
        self._sends.append((step, argument))
        self._writer = None
        if not self._armed:
            self.arm()

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """``send`` of bytes to a client.  A response's head, events and end of one turn leave in one system call,
        which costs as much as Python spends on an event.
        """
        if transport is self._writer:
            self._written.append(data)
            return
        self._writer = transport
        self._written = written = [data]
        self._sends.append((transport.writelines if self._gathers else partial(_write_joined, transport), written))
        if not self._armed:
            self.arm()

    def _end(self) -> None:
        runs, sends = self._runs, self._sends
        for step, argument in runs:  # grows while it is walked: a step may bring others
            try:
                step(argument)
            except Exception:  # a step's boundary: one call's bug must not stop the others of its turn
                log.exception("a bug in a step of this turn")
        runs.clear()
        try:
            self.record()
        except Exception:  # as above: the process continues, with or without the records
            log.exception("a bug while recording this turn")
        self._armed = False
        self._sends = []
        self._writer = None
        self._written = []
        for step, argument in sends:
            try:
                step(argument)
            except Exception:  # as above: the bytes of the others are sent
                log.exception("a bug while sending in this turn")


def _write_joined(transport: asyncio.WriteTransport, written: list[bytes]) -> None:
    transport.write(b"".join(written))


def _nothing() -> None:
    """Do nothing: this process keeps no records."""
