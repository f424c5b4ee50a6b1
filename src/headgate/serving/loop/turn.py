"""One turn of the loop, in three steps: run what arrived, write down what must be remembered, send what then may be.

The callbacks of a turn only note what they have read.  At the end of the turn all of it is worked through in one go:
bytes are parsed, calls run, events are relayed, their records go to the journal in one write, and only then do the
bytes leave that those records vouch for.  That order is the promise that what a client has seen finished is on
record; doing it together is what keeps Python's code in the processor's caches between system calls (measured:
docs/decisions/005). Nothing waits for a second turn, and nothing is held back for company: what came in one turn
leaves in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

log = logging.getLogger("headgate.turn")


class Turn:
    """What is left to do in this turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._armed = False
        self._runs: list[tuple[Callable[[Any], object], Any]] = []
        self._sends: list[tuple[Callable[[Any], object], Any]] = []
        self._writer: asyncio.WriteTransport | None = None  # whose bytes ``_sends`` ends with, and these
        self._written: list[bytes] = []
        # asyncio's own `writelines` neither pauses a protocol (CVE-2024-12254) nor looks whether its connection is
        # gone, in some versions from 3.12 on.  uvloop's loop is none of asyncio's.
        self._gathers = not isinstance(loop, asyncio.BaseEventLoop)
        self.record: Callable[[], None] = _nothing

    def arm(self) -> None:
        """This turn has an end to see to."""
        if not self._armed:
            self._armed = True
            self._call_soon(self._end)

    def run(self, step: Callable[[Any], object], argument: object) -> None:
        """Does ``step(argument)`` in this turn, before anything is recorded or sent."""
        self._runs.append((step, argument))
        if not self._armed:
            self.arm()

    def send(self, step: Callable[[Any], object], argument: object) -> None:
        """Does ``step(argument)`` when the records written in this turn are with the kernel."""
        self._sends.append((step, argument))
        self._writer = None
        if not self._armed:
            self.arm()

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """``send`` of bytes to a client.  A response's head, its events and its end leave in one system call where they
        came in one turn: each of them costs as much as Python spends on an event.
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
            except Exception:  # the edge of a step: one call's bug must not keep the others of its turn from being done
                log.exception("a bug in a step of this turn")
        runs.clear()
        try:
            self.record()
        except Exception:  # as above: whatever became of the records, this process has to go on
            log.exception("a bug while recording this turn")
        self._armed = False
        self._sends = []
        self._writer = None
        self._written = []
        for step, argument in sends:
            try:
                step(argument)
            except Exception:  # as above: the bytes of the others leave
                log.exception("a bug while sending in this turn")


def _write_joined(transport: asyncio.WriteTransport, written: list[bytes]) -> None:
    transport.write(b"".join(written))


def _nothing() -> None:
    """Nobody keeps records."""
