"""The data process's end of the channel.

Connects and reconnects for as long as the process lives.  It delivers control's messages to the Directory and to the
file that outlives the process.  It sends gauges, events and questions up.  The data plane never waits for it: a
question has its deadline, and other messages are dropped when the socket is full.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
from msgspec.structs import replace

from headgate.errors import CONTROL_AWAY, GatewayError
from headgate.process.channel import (
    Ack,
    Ask,
    AskReply,
    Down,
    Gauges,
    Hello,
    Patch,
    Resume,
    Secrets,
    SnapshotPart,
    SpentBefore,
    Up,
    Uses,
    address,
    down_frames,
    frame,
)
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.unconnected import UNCONNECTED
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.serving.uplink import operator_questions
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.snapshots import Assembly, SnapshotFile, patched

FULL = 256 << 10
MAX_QUESTIONS = 256
BACKOFF_S = (0.05, 0.25)  # a try costs 30 µs, and a new token waits for the link

log = logging.getLogger("headgate.link")


class Uplink:
    """The connection to control, if there is one.  ``hello`` identifies this process; its generation, and whether it
    wants SpentBefore, are filled in.  ``answers``: to questions that only other parts of this process can answer.
    """

    def __init__(
        self,
        path: Path,
        file: SnapshotFile,
        hello: Hello,
        directory: SnapshotDirectory,
        wheel: Wheel,
        answers: operator_questions.Answers,
    ) -> None:
        self._answers = answers
        self._path = path
        self._file = file
        self._hello = hello
        self._directory = directory
        self._wheel = wheel
        self._wire: _Wire | None = None
        self._had_message = False
        self._assembly = Assembly()
        self._questions: dict[int, _Question] = {}
        self._count = 0

    @property
    def connected(self) -> bool:
        return self._wire is not None

    async def run(self) -> None:
        """Connect, and reconnect after each loss, until cancelled."""
        loop = asyncio.get_running_loop()
        pause = BACKOFF_S[0] / 2
        while True:
            try:
                with address(self._path) as reachable:
                    _, wire = await loop.create_unix_connection(lambda: _Wire(self), reachable)
            except OSError:
                had_message = False
            else:
                had_message = await self._while_connected(wire)
            # A peer that accepts but sends no frame counts as away: only a frame makes the next try soon.
            pause = BACKOFF_S[0] if had_message else min(pause * 2, BACKOFF_S[1])
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _while_connected(self, wire: _Wire) -> bool:
        """Read until the connection is lost.  Return True if any frame came."""
        await wire.lost.wait()
        self._wire = None
        self._assembly.drop()
        for question in list(self._questions.values()):
            question.fail()
        return self._had_message

    # --------------------------------------------------------------- up

    def ask(self, kind: str, grant: str, params: Mapping[str, str], timeout: float) -> Signal[AskReply]:
        """Ask control.  Raises GatewayError (503) at once if control is away; later, the Signal fails with the same
        error.
        """
        if self._wire is None or len(self._questions) >= MAX_QUESTIONS:
            raise _away()
        self._count += 1
        question = _Question(self, self._count)
        self._questions[question.id] = question
        self._wheel.set(question, self._wheel.now + timeout)
        self._wire.send(Ask(question.id, kind, grant, timeout, params))
        return question.answer

    def report(self, gauges: Mapping[str, float]) -> None:
        """Called once a second."""
        wire = self._wire
        if wire is None or wire.full:
            return
        wire.send(Gauges(time.time_ns(), gauges))

    def _say_hello(self) -> None:
        directory = self._directory
        since = 0.0 if directory.counters.restored else self._hello.since
        hello = replace(self._hello, generation=directory.snapshot.generation, since=since)
        cast(_Wire, self._wire).send(hello)

    # --------------------------------------------------------------- down

    def opened(self, wire: _Wire) -> None:
        """Take the connection at once, before ``run`` resumes, so that the first frame is answered too."""
        self._wire = wire
        self._had_message = False
        self._say_hello()

    def received(self, message: Down) -> None:
        self._had_message = True
        match message:
            case SnapshotPart():
                self._take_part(message)
            case Patch():
                self._take_patch(message)
            case Secrets():
                self._directory.rekey(message.keys)
            case Resume():
                self._directory.resume(message, self._wheel.now)
            case Uses():
                if message != self._directory.uses:  # equal counts: keep the old object, and the bodies made with it
                    self._directory.uses = message
            case SpentBefore():
                self._directory.restore(message, time.time())
            case AskReply():
                question = self._questions.get(message.id)
                if question is not None:
                    question.end()
                    question.answer.set(message)
            case Ask():
                reply = operator_questions.answer(message, self._directory, self._wheel.now, self._answers)
                cast(_Wire, self._wire).send(reply)

    def _take_part(self, part: SnapshotPart) -> None:
        if not self._assembly.follows(part):
            log.warning("a part of snapshot %d is missing; asking anew", part.generation)
            self._assembly.drop()
            self._say_hello()
            return
        snapshot = self._assembly.take(part)
        self._file.take_part(part)
        if snapshot is not None:
            self._directory.replace(snapshot)
            self._acknowledge(snapshot.generation)

    def _take_patch(self, patch: Patch) -> None:
        snapshot = self._directory.snapshot
        if patch.base != snapshot.generation or self._file.full:
            self._say_hello()
            return
        self._directory.replace(patched(snapshot, patch))
        self._acknowledge(patch.generation)
        self._file.take_patch(patch)

    def _acknowledge(self, generation: int) -> None:
        if self._wire is not None:
            self._wire.send(Ack(generation))

    def forget(self, question: _Question) -> None:
        self._questions.pop(question.id, None)
        self._wheel.drop(question)


class _Question:
    """One ``Ask`` that waits for its answer."""

    __slots__ = ("answer", "due", "id", "link", "slot")

    def __init__(self, link: Uplink, number: int) -> None:
        self.link = link
        self.id = number
        self.answer: Signal[AskReply] = Signal()
        self.due = NEVER
        self.slot = -1

    def end(self) -> None:
        self.link.forget(self)

    def fail(self) -> None:
        self.end()
        self.answer.fail(_away())

    def expire(self, now: float) -> None:
        self.fail()


class _Wire(asyncio.Protocol):
    """The socket itself."""

    def __init__(self, link: Uplink) -> None:
        self._link = link
        self._frames = down_frames()
        self._transport: asyncio.Transport = UNCONNECTED
        self.lost = asyncio.Event()  # of this very connection: it may be lost before anybody waits for that

    @property
    def full(self) -> bool:
        return self._transport.get_write_buffer_size() > FULL

    def send(self, message: Up) -> None:
        self._transport.write(frame(message))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._link.received(message)
        except (ValueError, KeyError, msgspec.MsgspecError) as error:
            log.error("control sent what cannot be read (%r); connecting anew", error)
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()


def _away() -> GatewayError:
    return GatewayError(
        CONTROL_AWAY, "the control process does not answer; streams go on, this question has to wait", retry_after=2
    )
