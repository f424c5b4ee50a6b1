"""The data process's end of the channel.

Connects and reconnects for as long as the process lives; brings the Directory what control sends, takes up gauges,
events and questions.  Nothing on the data plane ever waits for it: a question has its deadline, the rest is dropped
when the socket is full. Keeps the last Snapshot on disk as the frames it came in, so that a process that starts while
control is away still knows whom to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import msgspec

from headgate.channel import (
    Ack,
    Answer,
    Ask,
    Down,
    Drain,
    Events,
    Gauges,
    Hello,
    Patch,
    Secrets,
    SnapshotPart,
    Up,
    World,
    address,
    down_frames,
    frame,
)
from headgate.errors import CONTROL_AWAY, GatewayError
from headgate.model import Grant, Snapshot
from headgate.serving.directory import Directory, compose, patched
from headgate.serving.fiber import Signal
from headgate.serving.wheel import NEVER, Wheel

FULL = 256 << 10
MAX_EVENTS = 1000
MAX_QUESTIONS = 256
MAX_PATCHES = 1000  # on disk behind a whole Snapshot; then it is asked for anew
BACKOFF_S = (0.05, 0.25)  # a try costs 30 µs, and a new token waits for the link

log = logging.getLogger("headgate.link")


class Link:
    """One connection to control, whenever there is one."""

    def __init__(
        self,
        path: Path,
        saved: Path,
        worker: str,
        boot_id: str,
        directory: Directory,
        wheel: Wheel,
        drain: Callable[[], None],
    ) -> None:
        self._path = path
        self._saved = saved
        self._hello = (worker, boot_id)
        self._directory = directory
        self._wheel = wheel
        self._drain = drain
        self._wire: _Wire | None = None
        self._gone = asyncio.Event()
        self._heard = False
        self._parts: list[SnapshotPart] = []
        self._patches = 0
        self._questions: dict[int, _Question] = {}
        self._count = 0
        self._events: list[tuple[int, str, str]] = []
        self._dropped = 0

    @property
    def connected(self) -> bool:
        return self._wire is not None

    async def run(self) -> None:
        """Connects, and connects again; ends by being cancelled."""
        loop = asyncio.get_running_loop()
        pause = BACKOFF_S[0] / 2
        while True:
            try:
                with address(self._path) as reachable:
                    _, self._wire = await loop.create_unix_connection(lambda: _Wire(self), reachable)
            except OSError:
                heard = False
            else:
                heard = await self._while_connected()
            # A peer that accepts and says nothing is no better than none: only a frame makes the next try soon.
            pause = BACKOFF_S[0] if heard else min(pause * 2, BACKOFF_S[1])
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _while_connected(self) -> bool:
        """Until the connection is lost.  True where anything came on it."""
        self._gone.clear()
        self._heard = False
        self._say_hello()
        await self._gone.wait()
        self._wire = None
        self._parts = []
        for question in list(self._questions.values()):
            question.fail()
        return self._heard

    # --------------------------------------------------------------- up

    def ask(self, kind: str, grant: str, params: Mapping[str, str], timeout: float) -> Signal[Answer]:
        """Puts a question to control.  Raises GatewayError (503) at once where control is away; the Signal fails
        alike later.
        """
        if self._wire is None or len(self._questions) >= MAX_QUESTIONS:
            raise _away()
        self._count += 1
        question = _Question(self, self._count)
        self._questions[question.id] = question
        self._wheel.set(question, self._wheel.now + timeout)
        self._wire.send(Ask(question.id, kind, grant, timeout, params))
        return question.answer

    def event(self, name: str, detail: str) -> None:
        """Something worth a line on the other side; dropped, and counted, where nobody takes it."""
        if len(self._events) < MAX_EVENTS:
            self._events.append((time.time_ns(), name, detail))
        else:
            self._dropped += 1

    def report(self, gauges: Mapping[str, float]) -> None:
        """Called once a second."""
        wire = self._wire
        if wire is None or wire.full:
            return
        wire.send(Gauges(time.time_ns(), gauges))
        if self._events or self._dropped:
            wire.send(Events(tuple(self._events), self._dropped))
            self._events, self._dropped = [], 0

    def _say_hello(self) -> None:
        worker, boot_id = self._hello
        self._patches = 0
        cast(_Wire, self._wire).send(Hello(worker, boot_id, self._directory.snapshot.generation, os.getpid()))

    # --------------------------------------------------------------- down

    def received(self, message: Down) -> None:
        self._heard = True
        match message:
            case SnapshotPart():
                self._take_part(message)
            case Patch():
                self._take_patch(message)
            case Secrets():
                self._directory.secrets = message.keys
            case Answer():
                question = self._questions.get(message.id)
                if question is not None:
                    question.end()
                    question.answer.set(message)
            case Drain():
                self._drain()

    def _take_part(self, part: SnapshotPart) -> None:
        if part.seq == 0:
            self._parts = []
        if part.seq != len(self._parts) or (self._parts and part.generation != self._parts[0].generation):
            log.warning("a part of snapshot %d is missing; asking anew", part.generation)
            self._parts = []
            self._say_hello()
            return
        self._parts.append(part)
        if not part.last:
            return
        parts, self._parts = self._parts, []
        snapshot = assembled(parts)
        if snapshot is None:
            log.error("snapshot %d came without its world; keeping the last one", part.generation)
            return
        self._directory.replace(snapshot)
        self._acknowledge(snapshot.generation)
        self._save(b"".join(map(frame, parts)), whole=True)

    def _take_patch(self, patch: Patch) -> None:
        snapshot = self._directory.snapshot
        if patch.base != snapshot.generation or self._patches >= MAX_PATCHES:
            self._say_hello()
            return
        self._patches += 1
        self._directory.replace(patched(snapshot, patch.generation, patch.world, patch.tokens, patch.removed_tokens))
        self._acknowledge(patch.generation)
        self._save(frame(patch), whole=False)

    def _acknowledge(self, generation: int) -> None:
        if self._wire is not None:
            self._wire.send(Ack(generation))

    def _save(self, data: bytes, *, whole: bool) -> None:
        try:
            save(self._saved, data, whole=whole)
        except OSError as error:
            log.warning("the snapshot could not be kept on disk: %s", error.strerror)

    def closed(self) -> None:
        self._gone.set()

    def forget(self, question: _Question) -> None:
        self._questions.pop(question.id, None)
        self._wheel.drop(question)


class _Question:
    """One Ask under way."""

    __slots__ = ("answer", "due", "id", "link", "slot")

    def __init__(self, link: Link, number: int) -> None:
        self.link = link
        self.id = number
        self.answer: Signal[Answer] = Signal()
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

    def __init__(self, link: Link) -> None:
        self._link = link
        self._frames = down_frames()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)

    @property
    def full(self) -> bool:
        return self._transport.get_write_buffer_size() > FULL

    def send(self, message: Up) -> None:
        self._transport.write(frame(message))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._link.received(message)
        except (ValueError, msgspec.MsgspecError) as error:
            log.error("control sent what cannot be read (%s); connecting anew", error)
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.closed()


def assembled(parts: list[SnapshotPart]) -> Snapshot | None:
    """One Snapshot from all its parts; None where the first one has no world."""
    world = parts[0].world
    if world is None:
        return None
    tokens: dict[bytes, Grant] = {}
    for part in parts:
        tokens.update(part.tokens)
    return compose(parts[0].generation, world, tokens)


def save(path: Path, data: bytes, *, whole: bool) -> None:
    """Keeps frames on disk, 0600: a whole Snapshot replaces the file, a Patch is added to it.  Raises OSError."""
    if whole:
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        fresh.replace(path)
    else:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab") as file:
            file.write(data)


def load(path: Path) -> Snapshot | None:
    """The Snapshot that ``save`` kept, as far as it is sound; None where there is none."""
    snapshot: Snapshot | None = None
    parts: list[SnapshotPart] = []
    with contextlib.suppress(FileNotFoundError, ValueError, msgspec.MsgspecError):
        for message in down_frames().feed(path.read_bytes()):
            if isinstance(message, SnapshotPart):
                parts = [*parts, message] if message.seq else [message]
                if message.last:
                    snapshot = assembled(parts)
            elif isinstance(message, Patch) and snapshot is not None and message.base == snapshot.generation:
                snapshot = patched(snapshot, message.generation, message.world, message.tokens, message.removed_tokens)
    return snapshot


def boot_snapshot(declared: Snapshot, kept: Snapshot | None) -> Snapshot:
    """What to serve with until control speaks: the file's objects as they are now, the store's as they last were."""
    if kept is None:
        return declared
    tokens = {digest: grant for digest, grant in kept.tokens.items() if grant.origin != "file"}
    world = World(declared.providers, declared.aliases, declared.default_model, declared.timeouts, declared.retries)
    return compose(0, world, {**tokens, **declared.tokens})


def _away() -> GatewayError:
    return GatewayError(
        CONTROL_AWAY, "the control process does not answer; streams go on, this question has to wait", retry_after=2
    )
