"""Control's end of the channel: a Unix socket on which every data process is told what it needs to know.

Owns the connections, who has acked what, and the tasks that answer questions.  Nobody waits for a peer: frames are
handed to the transport, and a peer that does not read is dropped when MAX_UNSENT is waiting for it.  A peer that
sends anything but frames of the channel is dropped too; a data process simply connects again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import msgspec
import structlog

from headgate.control.snapshot.compose import parts
from headgate.dialects.registry import DEFAULT
from headgate.errors import CONTROL_AWAY, GatewayError
from headgate.model import Snapshot, receipt_ids
from headgate.process.channel import (
    Ack,
    Ask,
    AskReply,
    Down,
    Gauges,
    Hello,
    Patch,
    Secrets,
    Up,
    Uses,
    address,
    frame,
    up_frames,
)

MAX_UNSENT = 64 << 20  # several whole Snapshots
MAX_ASKS = 256  # questions of one peer at a time; more are answered 503 at once
ACK_WITHIN_S = 1.0
ASK_S = 2.0
MARGIN_S = 0.05  # a reply is sent this long before the asker's timeout

log = structlog.get_logger("headgate.link")


class SnapshotSource(Protocol):
    """Where the link finds what a peer is told when it says Hello.

    Until it is ``settled``, its Snapshot may know less than that of the last life of control, whose last generation is
    ``inherited``.
    """

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def secrets(self) -> Mapping[str, str]: ...

    @property
    def uses(self) -> Uses: ...

    @property
    def inherited(self) -> int: ...

    @property
    def settled(self) -> bool: ...


Answering = Callable[[Ask], Awaitable[tuple[int, bytes]]]


@dataclass(slots=True)
class Worker:
    """What is known of one connected data process.  ``generation`` is the last that it acked on this connection, -1
    before.
    """

    name: str
    boot_id: str
    pid: int
    salt: str = ""
    generation: int = -1
    gauges: Mapping[str, float] = field(default_factory=dict)
    gauges_at: int = 0


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, link: Hub) -> None:
        self._link = link
        self._frames = up_frames()
        self._transport: asyncio.Transport | None = None
        self.worker: Worker | None = None
        self.waiting = False  # it said Hello and has not been told anything yet
        self.asking: set[asyncio.Task[None]] = set()
        self._asked: dict[int, asyncio.Future[AskReply]] = {}
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._transport.set_write_buffer_limits(high=MAX_UNSENT)
        self._link.peers.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._take(message)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            self.drop(f"it sent what is not a frame of the channel: {error}")

    def pause_writing(self) -> None:
        self.drop(f"it does not read: {MAX_UNSENT} bytes wait for it")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._link.peers.discard(self)
        for task in self.asking:
            task.cancel()
        for answer in self._asked.values():
            answer.cancel()
        if self.worker is not None:
            log.info("data process disconnected", worker=self.worker.name, pid=self.worker.pid)
        self._link.acked.set()

    def send(self, message: Down) -> None:
        if self._transport is not None:
            self._transport.write(frame(message))

    def drop(self, reason: str) -> None:
        if self._transport is not None:
            log.warning("connection dropped", worker=self.worker.name if self.worker else None, reason=reason)
            self._transport.abort()
            self._transport = None

    def _take(self, message: Up) -> None:
        if self._transport is None:
            return
        if isinstance(message, Hello):
            self._greet(message)
            return
        worker = self.worker
        if worker is None:
            raise ValueError(f"{type(message).__name__} before Hello")
        match message:
            case Ack(generation):
                worker.generation = generation
                self._link.acked.set()
            case Gauges(at, values):
                worker.gauges, worker.gauges_at = values, at
            case Ask():
                self._ask(message)
            case AskReply():
                answer = self._asked.pop(message.id, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)

    async def put(self, kind: str, grant: str, params: Mapping[str, str], within: float) -> AskReply | None:
        """A question to this data process; None where it does not answer in time."""
        self._count += 1
        number = self._count
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self.send(Ask(number, kind, grant, within, params))
        await asyncio.wait((answer,), timeout=within)
        self._asked.pop(number, None)
        return answer.result() if answer.done() and not answer.cancelled() else None

    def _greet(self, hello: Hello) -> None:
        """Also a data process that lost the thread of Patches says Hello: it is told everything anew.

        One that already serves with what the last life of control knew keeps that until this one has looked around:
        an engine that detection has yet to find again must not be gone for half a second.
        """
        if self.worker is None:
            log.info("data process connected", worker=hello.worker, pid=hello.pid, generation=hello.generation)
        self.worker = Worker(hello.worker, hello.boot_id, hello.pid, hello.salt)
        source = self._link.source
        self.waiting = not source.settled and hello.generation == source.inherited > 0
        if not self.waiting:
            self.tell_everything()

    def tell_everything(self) -> None:
        """Secrets, the whole Snapshot, the uses."""
        self.waiting = False
        source = self._link.source
        self.send(Secrets(source.secrets))
        for part in parts(source.snapshot):
            self.send(part)
        self.send(source.uses)

    def _ask(self, ask: Ask) -> None:
        if len(self.asking) >= MAX_ASKS:
            self.send(AskReply(ask.id, *_away("too many questions at a time")))
            return
        task = asyncio.get_running_loop().create_task(self._answer(ask), name=f"answer {ask.kind} {ask.id}")
        self.asking.add(task)
        task.add_done_callback(self.asking.discard)

    async def _answer(self, ask: Ask) -> None:
        try:
            async with asyncio.timeout(max(ask.timeout - MARGIN_S, 0)):
                status, body = await self._link.answering(ask)
        except TimeoutError:
            status, body = _away("the store did not answer in time")
        except Exception as error:  # noqa: BLE001  (a question must be answered, whatever its defect)
            log.error("a question failed", kind=ask.kind, error=repr(error))
            status, body = _away("the store cannot be read")
        self.send(AskReply(ask.id, status, body))


def _away(reason: str) -> tuple[int, bytes]:
    return CONTROL_AWAY.status, DEFAULT.error_body(GatewayError(CONTROL_AWAY, f"Try again: {reason}."))


class Hub:
    """The listener and all its peers.  ``source`` may be given a newer Snapshot at any time; then ``publish`` it."""

    def __init__(self, path: Path, source: SnapshotSource, answering: Answering) -> None:
        self.source = source
        self.answering = answering
        self.peers: set[Peer] = set()
        self.acked = asyncio.Event()  # set at every Ack and at every lost peer
        self._path = path
        self._server: asyncio.Server | None = None

    @property
    def workers(self) -> list[Worker]:
        """The data processes that have said Hello."""
        return sorted((p.worker for p in self.peers if p.worker is not None), key=lambda w: (w.name, w.pid))

    def process_of(self, ident: str) -> Peer | None:
        """The data process that took the call with this receipt id; None where it is not connected."""
        found = receipt_ids.bare(ident)
        salt = None if found is None else receipt_ids.salt_of(found)
        return next((peer for peer in self.peers if peer.worker is not None and peer.worker.salt == salt), None)

    async def ask(self, kind: str, grant: str, params: Mapping[str, str], within: float = ASK_S) -> AskReply | None:
        """A question to the data process that took the call ``params["id"]``; without an id, to the first that answers
        any.  None where there is no such process, or no answer in ``within`` seconds.
        """
        if "id" in params:
            owner = self.process_of(params["id"])
            return None if owner is None else await owner.put(kind, grant, params, within)
        for peer in sorted(self.peers, key=lambda peer: peer.worker.name if peer.worker is not None else ""):
            if peer.worker is not None and not peer.waiting:
                return await peer.put(kind, grant, params, within)
        return None

    async def ask_each(self, kind: str, params: Mapping[str, str], within: float = ASK_S) -> list[AskReply]:
        """A question to every data process; the answers that come in ``within`` seconds."""
        peers = [peer for peer in self.peers if peer.worker is not None and not peer.waiting]
        answers = await asyncio.gather(*(peer.put(kind, "", params, within) for peer in peers))
        return [answer for answer in answers if answer is not None]

    async def start(self) -> None:
        """Listens.  Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Peer(self), sock=_listen(self._path))

    async def close(self) -> None:
        """Drops everybody.  The socket's file stays: removing it could hit the one that a successor has put in its
        place.
        """
        if self._server is not None:
            self._server.close()
        tasks = [task for peer in self.peers for task in peer.asking]
        for peer in list(self.peers):
            peer.drop("control ends")
        if tasks:
            await asyncio.wait(tasks)

    def tell(self, message: Down) -> None:
        """To everybody who has been told everything; who has not yet is told this with the rest."""
        for peer in list(self.peers):
            if peer.worker is not None and not peer.waiting:
                peer.send(message)

    def send_patch(self, patch: Patch | None) -> None:
        """``None``: the whole of ``source.snapshot`` instead."""
        pieces = parts(self.source.snapshot) if patch is None else (patch,)
        waiting = [peer for peer in self.peers if peer.waiting]
        for piece in pieces:
            self.tell(piece)
        for peer in waiting:
            peer.tell_everything()

    def release(self) -> None:
        """The source is settled: whoever waits is told everything."""
        for peer in list(self.peers):
            if peer.waiting:
                peer.tell_everything()

    async def effective(self, generation: int, within: float = ACK_WITHIN_S) -> bool:
        """True when every connected data process serves with ``generation`` or a later one, False ("pending") after
        ``within`` seconds.

        With none connected it is False at once: a data process that is alive but cut off may still serve with an
        older one.
        """
        deadline = time.monotonic() + within
        while True:
            workers = self.workers
            if not workers:
                return False
            if all(worker.generation >= generation for worker in workers):
                return True
            self.acked.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self.acked.wait()
            except TimeoutError:
                return False


def _listen(path: Path) -> socket.socket:
    """Binds under another name and renames: there is never a moment without a socket, and a stale one is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        with address(draft) as reachable:
            listener.bind(reachable)
        draft.chmod(0o600)
        listener.listen(64)
        draft.rename(path)
    except OSError:
        listener.close()
        raise
    return listener
