"""The data process: listens, moves streams, writes the journal.  The supervisor starts ``python -m headgate.data``.

Puts its parts together and ends them in order.  Imports no pydantic, FastAPI or SQLAlchemy and knows no database.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from headgate import __version__
from headgate.hooks.chain import Hooks
from headgate.hooks.guard import UnusableHook
from headgate.model import DataBoot, HookSettings
from headgate.model.receipt_ids import salt_digits
from headgate.process import boot, stdio
from headgate.process.channel import Hello
from headgate.process.credentials import instance_key
from headgate.process.log import configure
from headgate.serving.call.exchange import Exchange
from headgate.serving.call.hooked import HookedExchange
from headgate.serving.call.receipt import Ids
from headgate.serving.client.listener import Listener
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.wheel import Wheel
from headgate.serving.public.routes import Routes
from headgate.serving.public.streams import Streams
from headgate.serving.replay.keeper import ReplayKeeper
from headgate.serving.uplink.directory import SnapshotDirectory
from headgate.serving.uplink.journal import Journal, Refusals
from headgate.serving.uplink.link import Uplink
from headgate.serving.uplink.snapshots import SnapshotFile, boot_snapshot, load
from headgate.serving.upstream.carriers import HTTP, Carriers
from headgate.serving.upstream.dialler import Dialer
from headgate.serving.upstream.transport import Transport
from headgate.wire.proxies import ProxyNotServed

try:
    from uvloop import run
except ImportError:  # Windows, PyPy: everything works, slower
    from asyncio import run  # type: ignore[assignment]

log = logging.getLogger("headgate.data")


class DataProcess:
    """One worker: its parts, from the first byte to the last."""

    def __init__(
        self, told: DataBoot, listening: socket.socket, parent: socket.socket, hooks: Hooks | None = None
    ) -> None:
        settings = told.settings
        state = Path(settings.state_dir)
        self._parent = parent
        self._listening = listening
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._at_once = asyncio.Event()
        boot_id = secrets.token_hex(8)
        self.wheel = Wheel(self._loop)
        self.turn = Turn(self._loop)
        folder = state / "journal"
        folder.mkdir(mode=0o700, exist_ok=True)
        self.journal = Journal(folder, settings.worker, boot_id, self.turn)
        self.refusals = Refusals(self.journal)
        saved = state / f"snapshot-{settings.worker}.bin"
        key = instance_key(state)
        self.directory = SnapshotDirectory(key, boot_snapshot(told.snapshot, load(saved)), told.secrets)
        self.transport = Transport(self.directory, Dialer(os.environ), self.wheel, self.turn)
        salt = secrets.randbits(28)
        hello = Hello(settings.worker, boot_id, 0, os.getpid(), salt_digits(salt), time.time())
        self.replay = ReplayKeeper(self.wheel, settings.limits, self.directory.digester, settings.public_url)
        answers = self.replay.answers.to_questions
        self.link = Uplink(state / "channel.sock", SnapshotFile(saved), hello, self.directory, self.wheel, answers)
        parts = (
            self.directory, self.journal, self.refusals, Carriers({HTTP: self.transport}), self.wheel, settings.limits,
            Ids(salt), self.replay,
        )  # fmt: skip
        exchange = Exchange(*parts) if hooks is None else HookedExchange(hooks, *parts)
        self._hooks = hooks
        self.queue = exchange.queue
        self.routes = Routes(
            exchange, self.directory, self.link, self.refusals, settings.cors_origins, self.summary,
            Streams(self.replay, self.directory), settings.public_catalog,
        )  # fmt: skip
        self.listener = Listener(self.routes, self.wheel, self.turn, settings.limits)
        self._lag = 0.0
        self._second = self._loop.time()
        self.directory.health.accounts.limits.epoch = time.time() - self._second

    async def run(self) -> None:
        """Serves until told to end; returns when every stream has ended or been cut."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._told_to_end)
        self._parent.setblocking(False)
        self._loop.add_reader(self._parent, self._parent_spoke)
        self.listener.start(self._listening)
        linking = self._loop.create_task(self.link.run(), name="link to control")
        self._loop.call_later(1.0, self._each_second)
        gc.collect()
        gc.freeze()  # the present objects stay: later collections need not look at them
        host, port = self._listening.getsockname()[:2]
        with contextlib.suppress(OSError):
            boot.send(self._parent, boot.Ready(host, port))
        await self._ending.wait()
        await self._drain()
        self.replay.close()  # before the calls: calls without a reader end as their client's leaving does
        self.routes.close()
        await self.listener.close()
        linking.cancel()
        self.refusals.flush(time.time_ns())
        self.transport.close()
        self.wheel.close()
        self.journal.close()

    async def _drain(self) -> None:
        seconds = self._settings.limits.drain
        log.info("draining: %d calls have up to %.0f s", self.routes.running, seconds)
        draining = self._loop.create_task(self.listener.drain(seconds), name="drain")
        at_once = self._loop.create_task(self._at_once.wait(), name="second signal")
        await asyncio.wait((draining, at_once), return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        at_once.cancel()

    def _told_to_end(self) -> None:
        if self._ending.is_set():
            self._at_once.set()
        self._ending.set()

    def _parent_spoke(self) -> None:
        """The supervisor sends nothing more: a readable socket is its end."""
        self._loop.remove_reader(self._parent)
        log.warning("the supervisor is gone; finishing the running calls")
        self._ending.set()

    def _each_second(self) -> None:
        now = self._loop.time()
        self._lag = max(0.0, now - self._second - 1.0)
        self._second = now
        self.directory.health.accounts.limits.epoch = time.time() - now
        self._loop.call_later(1.0, self._each_second)
        self.journal.check()
        self.transport.check_trust()
        self.directory.counters.sweep(time.time())
        self.refusals.flush(time.time_ns() // 1_000_000_000 * 1_000_000_000)
        self.link.report(self.gauges())

    def gauges(self) -> dict[str, float]:
        return {
            "calls": self.routes.running,
            "connections": len(self.listener.connections),
            "request_bodies_bytes": self.listener.bodies.held,
            "loop_lag_s": self._lag,
            "draining": float(self.listener.draining),
            "journal_accepts": float(self.journal.accepting),
            "journal_segments_lost": self.journal.lost_segments,
            "generation": self.directory.snapshot.generation,
            **self.transport.gauges(),
            **self.replay.gauges(),
            **self.queue.gauges(),
            **(self._hooks.gauges() if self._hooks is not None else {}),
        }

    def summary(self) -> Mapping[str, object]:
        """Return the body of /health.  It is public, so it has no names and no addresses."""
        status = "draining" if self.listener.draining else "ok" if self.journal.accepting else "journal_full"
        return {
            "status": status,
            "version": __version__,
            "control": "connected" if self.link.connected else "away",
            "calls": self.routes.running,
            "queued": self.queue.waiting,
        }


def _hooks(wanted: tuple[HookSettings, ...]) -> Hooks | None:
    """Raises UnusableHook."""
    if not wanted:
        return None
    # Late: importlib.metadata and the detectors' patterns take a third of a second, and most gateways have no hooks
    from headgate.hooks import loader  # noqa: PLC0415

    return loader.load(wanted)


async def _main(told: DataBoot, listening: socket.socket, parent: socket.socket, hooks: Hooks | None) -> None:
    await DataProcess(told, listening, parent, hooks).run()


def main() -> int:
    """Exit codes: 0 drained, 2 a proxy variable or a hook cannot be served, 4 the state directory cannot be used."""
    stdio.install()
    parent = socket.socket(fileno=boot.CHILD_FD)
    try:
        told, fds = boot.receive(parent, DataBoot)
    except EOFError:
        return 0  # the supervisor could not start and has printed the reason
    configure(told.settings.log_level, told.settings.log_format)
    listening = socket.socket(fileno=fds[0])
    listening.setblocking(False)
    try:
        run(_main(told, listening, parent, _hooks(told.settings.hooks)))
    except (ProxyNotServed, UnusableHook) as error:
        boot.send(parent, boot.Failed(2, str(error)))
        return 2
    except OSError as error:
        boot.send(parent, boot.Failed(4, f"the state directory cannot be used: {error}"))
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
