"""Start the processes, watch them, restart them, and end them in order.

Owns the children's lives, and none of their work.  It is a small synchronous loop.  It sleeps in ``select`` until a
child sends a message, a child dies, a signal comes, or the built-in provider's first connection waits.  Children are
spawned, never forked: no copied locks, no copied memory.  Mutable state: the slots, the phase and its deadline.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

from msgspec import Struct

from headgate.process import boot
from headgate.process.boot import Adopted, DrainGateway, Failed, Ready, Reloaded
from headgate.process.log import VOICE

HEALTHY_S = 60.0
MAX_DELAY_S = 5.0
BOOT_TIMEOUT_S = 10.0  # for a child to take its boot message (it may still be importing), or to end its sentence
END_S = 15.0  # for control to ingest the last receipts
WORKERS = 1  # data processes
HOPELESS = 3  # deaths after which the log lists the missing services
GRACE_S = 5.0  # beyond the data process's own drain limit
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

Orders = tuple[Struct, tuple[int, ...]]
ChildMessage = Ready | Adopted | Reloaded | DrainGateway | Failed

# glibc gives memory back to the kernel, and takes it anew, page by page, for every body over 128 KiB.  Keeping up to
# 4 MiB made requests of 200 KB cost 1.7 instead of 2.8 times nginx's CPU (docs/decisions/006).  Other allocators ignore
# it.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(4 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}


def _python(*arguments: str) -> tuple[str, ...]:
    # -P: a file in the working directory must not stand in for a library's module.
    return (sys.executable, "-P", "-m", *arguments)


@dataclass(frozen=True)
class ChildPrograms:
    """The programs of the three children; tests use others."""

    data: tuple[str, ...] = field(default_factory=lambda: _python("headgate.data"))
    control: tuple[str, ...] = field(default_factory=lambda: _python("headgate.app", "control"))
    builtin: tuple[str, ...] = field(default_factory=lambda: _python("headgate.testing"))


@dataclass(frozen=True)
class Duties:
    """The inputs of the running supervisor.  The functions make a child's boot message and its descriptors, anew for
    every start.  ``listeners`` stay open while a process is away: connections wait, none is refused.
    """

    data: Callable[[str], Orders]  # of the worker with this name
    control: Callable[[], Orders]
    builtin: Callable[[], Orders]
    data_listener: socket.socket
    builtin_listener: socket.socket
    drain_s: float
    on_answering: Callable[[], None]  # data takes calls, and the store has the first token; control is not ready yet
    on_listening: Callable[[Ready, Ready], None]
    on_reloaded: Callable[[], None]
    on_draining: Callable[[], None]  # once: no new calls from now on


class _Phase(Enum):
    STARTING = "until both planes have answered once"
    RUNNING = "either plane is restarted when it ends"
    DRAINING = "the data process finishes its streams"
    ENDING = "control takes in the last receipts"


@dataclass
class _Slot:
    """One child's place: its present process, and the time of the next start.  ``worker`` names a data process."""

    name: str
    argv: tuple[str, ...]
    worker: str = ""
    pid: int | None = None
    channel: socket.socket | None = None
    ready: Ready | None = None
    started_at: float = 0.0
    deaths: int = 0
    due: float | None = None


say = VOICE.say


def backoff(deaths: int) -> float:
    """Seconds before the next start: none after a first death, then 0.1 doubling to 5."""
    return 0.0 if deaths <= 1 else min(MAX_DELAY_S, 0.1 * 2.0 ** (deaths - 2))


class Supervisor:
    """Construct, ``spawn_planes``, then ``run`` (or ``abandon``).  Owns the process's signals from construction on."""

    def __init__(self, commands: ChildPrograms) -> None:
        self._workers = tuple(_Slot("data", commands.data, f"w{number}") for number in range(WORKERS))
        self._control = _Slot("control", commands.control)
        self._builtin = _Slot("builtin", commands.builtin)
        self._phase = _Phase.STARTING
        self._deadline = 0.0
        self._stops = 0
        self._exit = 0
        self._adopted = self._answering = False  # the store has the first token; data takes calls too
        self._selector = selectors.DefaultSelector()
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._waker = wake
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda _number, _frame: None)  # the wakeup descriptor carries them into the loop

    # --------------------------------------------------------------------------------- starting

    def spawn_planes(self) -> None:
        """Start data and control without their boot messages: they import while the settings are read."""
        for slot in self._workers:
            self._spawn(slot)
        self._spawn(self._control)

    def _spawn(self, slot: _Slot) -> None:
        own_end, child_end = socket.socketpair()
        if child_end.fileno() == boot.CHILD_FD:  # dup2 onto itself would leave close-on-exec set
            moved = child_end.dup()
            child_end.close()
            child_end = moved
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, child_end.fileno(), boot.CHILD_FD),
        ]
        # A group of its own: Ctrl-C reaches the supervisor alone, which then ends the planes in order.
        slot.pid = os.posix_spawn(
            slot.argv[0],
            slot.argv,
            {**ALLOCATOR, **os.environ},
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
        child_end.close()
        slot.channel, slot.ready, slot.started_at, slot.due = own_end, None, time.monotonic(), None
        self._selector.register(own_end, selectors.EVENT_READ, slot)

    def _brief(self, slot: _Slot, orders: Orders) -> None:
        """Send a child its boot message.  A child that does not take it is killed and restarted."""
        if slot.channel is None:
            return
        slot.channel.settimeout(BOOT_TIMEOUT_S)
        try:
            boot.send(slot.channel, orders[0], orders[1])
        except OSError as error:
            say(f"the {slot.name} process did not take its settings ({error}); ending it", "error")
            self._kill(slot, signal.SIGKILL)

    # --------------------------------------------------------------------------------- running

    def run(self, duties: Duties) -> int:
        """Run until a signal or a child's Failed ends it.  Return the exit code."""
        if not self._serving:
            self.spawn_planes()
        for slot in self._workers:
            self._brief(slot, duties.data(slot.worker))
        self._brief(self._control, duties.control())
        self._await_builtin(duties)
        while True:
            now = time.monotonic()
            if self._phase is _Phase.DRAINING and (not self._serving or now >= self._deadline):
                self._end_control(duties, now)
            if self._phase is _Phase.ENDING and self._ended(now):
                return self._exit
            self._restart_due(duties, now)
            for key, _events in self._selector.select(self._patience(now)):
                if key.fileobj is self._wake:
                    self._signals(duties)
                elif key.fileobj is duties.builtin_listener:
                    self._selector.unregister(duties.builtin_listener)
                    self._spawn(self._builtin)
                    self._brief(self._builtin, duties.builtin())
                elif isinstance(key.data, _Slot):
                    self._listen_to(key.data, duties)

    def _patience(self, now: float) -> float | None:
        moments = [slot.due for slot in self._slots() if slot.due is not None]
        if self._phase in (_Phase.DRAINING, _Phase.ENDING):
            moments.append(self._deadline)
        return max(0.0, min(moments) - now) if moments else None

    def _slots(self) -> tuple[_Slot, ...]:
        return *self._workers, self._control, self._builtin

    @property
    def _serving(self) -> bool:
        """True if any data process lives."""
        return any(slot.pid is not None for slot in self._workers)

    @property
    def _data_ready(self) -> Ready | None:
        """The first worker's answer, once every worker has answered; they listen on the same socket."""
        return self._workers[0].ready if all(slot.ready for slot in self._workers) else None

    def _kill_workers(self, number: signal.Signals) -> None:
        for slot in self._workers:
            self._kill(slot, number)

    def _restart_due(self, duties: Duties, now: float) -> None:
        for slot in self._slots():
            if slot.due is None or slot.due > now:
                continue
            slot.due = None
            if slot is self._builtin:
                self._await_builtin(duties)
            else:
                self._spawn(slot)
                self._brief(slot, duties.data(slot.worker) if slot.worker else duties.control())

    def _await_builtin(self, duties: Duties) -> None:
        """Start the built-in provider at its first connection, and again after a death."""
        self._selector.register(duties.builtin_listener, selectors.EVENT_READ)

    def _listen_to(self, slot: _Slot, duties: Duties) -> None:
        """Read a child's message: Ready, Failed, or the end of its side of the socket."""
        channel = slot.channel
        if channel is None:
            return
        channel.settimeout(BOOT_TIMEOUT_S)
        try:
            # A union is no class to mypy, yet it is what msgspec decodes tagged structs by.
            message, _fds = boot.receive(channel, cast("type[ChildMessage]", ChildMessage))
        except (EOFError, ConnectionError):
            self._selector.unregister(channel)
            return
        except (OSError, ValueError) as error:  # its later messages could not be read: it starts anew
            self._selector.unregister(channel)
            say(f"the {slot.name} process cannot be understood ({error}); ending it", "error")
            self._kill(slot, signal.SIGKILL)
            return
        if isinstance(message, Failed):
            VOICE.announce(f"headgate: {message.message}")
            if self._phase is _Phase.STARTING:
                self._exit = message.code
                self._drain(duties, 0.0)
            return
        if isinstance(message, Adopted):
            self._adopted = True
            self._say_answering(duties)
            return
        if isinstance(message, Reloaded):
            duties.on_reloaded()
            return
        if isinstance(message, DrainGateway):
            if self._phase in (_Phase.STARTING, _Phase.RUNNING):  # a request to end is not a second signal
                self._stop(duties)
            return
        slot.ready = message
        if slot.deaths:
            say(f"the {slot.name} process answers again")
        self._adopted = self._adopted or slot is self._control
        self._say_answering(duties)
        if self._phase is _Phase.STARTING and (data := self._data_ready) and self._control.ready:
            self._phase = _Phase.RUNNING
            duties.on_listening(data, self._control.ready)

    def _say_answering(self, duties: Duties) -> None:
        if self._phase is _Phase.STARTING and self._data_ready and self._adopted and not self._answering:
            self._answering = True
            duties.on_answering()

    # --------------------------------------------------------------------------------- ending

    def _signals(self, duties: Duties) -> None:
        numbers = set(self._wake.recv(4096))
        if signal.SIGCHLD in numbers:
            self._reap(duties)
        if signal.SIGHUP in numbers and self._control.ready:  # else it has yet to read the file at all
            self._kill(self._control, signal.SIGHUP)
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._stop(duties)

    def _stop(self, duties: Duties) -> None:
        """First signal: drain.  Second: end now, with two seconds to write the receipts.  Third: at once."""
        self._stops += 1
        if self._stops == 1 and self._phase in (_Phase.STARTING, _Phase.RUNNING):
            say(f"draining: running streams have {duties.drain_s:g} s; a second signal ends them now")
            duties.on_draining()
            self._drain(duties, duties.drain_s)
        elif self._stops == 2:
            self._kill_workers(signal.SIGTERM)
            self._deadline = time.monotonic() + 2.0
        else:
            self._deadline = time.monotonic()

    def _drain(self, duties: Duties, seconds: float) -> None:
        self._phase = _Phase.DRAINING
        self._deadline = time.monotonic() + seconds + GRACE_S
        # Our copy too: with it open, new connections would wait for a process that accepts no more.
        duties.data_listener.close()
        for slot in (*self._workers, self._control):
            slot.due = None
        self._kill_workers(signal.SIGTERM)

    def _end_control(self, duties: Duties, now: float) -> None:
        """End control after the data process, so that its last receipts are ingested."""
        if duties.builtin_listener in self._selector.get_map():
            self._selector.unregister(duties.builtin_listener)
        self._phase = _Phase.ENDING
        self._deadline = now + (END_S if self._stops < 2 else 2.0)
        self._kill_workers(signal.SIGKILL)
        if self._control.pid is None and self._exit == 0 and self._stops < 2:
            self._spawn(self._control)  # it waited for its restart: start it once more, to read the journal
            self._brief(self._control, duties.control())
        self._end_last_reading()
        self._kill(self._builtin, signal.SIGTERM)

    def _end_last_reading(self) -> None:
        """End control after it has read the journal to its end.  During its start, a signal would kill it.  So its
        socket is closed, which it finds when it has started.
        """
        if self._control.ready is None and self._control.channel is not None and self._stops < 2:
            with contextlib.suppress(OSError):
                self._control.channel.shutdown(socket.SHUT_WR)
        else:
            self._kill(self._control, signal.SIGTERM)

    def _ended(self, now: float) -> bool:
        alive = [slot for slot in self._slots() if slot.pid is not None]
        if alive and now >= self._deadline:
            for slot in alive:
                self._kill(slot, signal.SIGKILL)
            self._deadline = now + 1.0
        return not alive

    def abandon(self) -> None:
        """End children that got no boot message."""
        for slot in self._slots():
            self._kill(slot, signal.SIGKILL)
            if slot.pid is not None:
                os.waitpid(slot.pid, 0)

    def _kill(self, slot: _Slot, number: signal.Signals) -> None:
        if slot.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended and will be reaped
                os.kill(slot.pid, number)

    def _reap(self, duties: Duties) -> None:
        for slot in self._slots():
            if slot.pid is None:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if not pid:
                continue
            slot.pid = None
            # Its last words (Failed) may not have been read yet: the signal can overtake them.
            while slot.channel is not None and slot.channel in self._selector.get_map():
                self._listen_to(slot, duties)
            self._bury(slot, os.waitstatus_to_exitcode(status))

    def _bury(self, slot: _Slot, code: int) -> None:
        now = time.monotonic()
        if slot.channel is not None:
            slot.channel.close()
        slot.channel = slot.ready = None
        if self._phase is _Phase.ENDING or (self._phase is _Phase.DRAINING and slot is not self._builtin):
            return
        slot.deaths = 1 if now - slot.started_at >= HEALTHY_S else slot.deaths + 1
        slot.due = now + backoff(slot.deaths)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        say(f"the {slot.name} process ended ({how}); starting it again in {slot.due - now:g} s", "warning")
        if slot is self._control and slot.deaths == HOPELESS and self._phase is _Phase.STARTING:
            say(
                "the control process does not come up, its lines above say why: streams are served, "
                "but there is no admin API, no store and no new token until it does",
                "error",
            )
