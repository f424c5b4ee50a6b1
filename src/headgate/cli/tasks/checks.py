"""The checks of ``headgate doctor`` on this machine, without gateway, network or store.

Each check gives findings: a mark, a subject, a sentence and the next step.  They change nothing.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import platform
import resource
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import headgate
from headgate.cli.display.terminal import count
from headgate.process import statedir

if TYPE_CHECKING:
    from headgate.settings import Settings

Mark = Literal["good", "warning", "bad"]
LITTLE_DISK, TOO_LITTLE_DISK = 1 << 30, 100 << 20  # bytes
FEW_DESCRIPTORS = 256
SPARE_DESCRIPTORS = 100
DESCRIPTORS_PER_CALL = 2  # the client's connection, the upstream's
CLOCK_S = 300.0  # a file system may be that much ahead of this machine


@dataclass(frozen=True)
class Finding:
    """``step`` is what to do next, where something is."""

    mark: Mark
    subject: str
    sentence: str
    step: str = ""


def configuration(
    config: str | None, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> tuple[Settings | None, list[Finding]]:
    """The settings, None where they do not hold."""
    from headgate.settings import ConfigError, load  # noqa: PLC0415 - late: see late.py

    try:
        settings = load(config, environ, overrides)
    except ConfigError as error:
        return None, [Finding("bad", "configuration", problem, "headgate config check") for problem in error.problems]
    return settings, [Finding("good", "configuration", str(settings.path or "no file: the defaults hold"))]


def python() -> Iterator[Finding]:
    version = platform.python_version()
    if importlib.util.find_spec("uvloop"):
        yield Finding("good", "Python", f"{version} with uvloop")
    else:
        yield Finding("warning", "Python", f"{version} without uvloop: streams cost more CPU", "pip install uvloop")


def clock(state: Path) -> Iterator[Finding]:
    """A clock that is far behind ends tokens late and writes requests into the past; only the past can be seen."""
    known = [Path(headgate.__file__), *(state.glob("*") if os.access(state, os.R_OK) else ())]
    latest = max((path.stat().st_mtime for path in known if path.exists()), default=0.0)
    now = time.time()
    if now + CLOCK_S < latest:
        behind = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
        yield Finding("bad", "clock", f"it says {behind} UTC, but files here are newer", "set the clock, or run NTP")
    else:
        yield Finding("good", "clock", f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC")


def state_directory(state: Path) -> Iterator[Finding]:
    """Whether it can be used, by nobody else, and whether there is room."""
    if not state.exists():
        yield from _room("state directory", state)
        return
    if not state.is_dir() or not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        step = f"chown -R {os.getuid()} {state}, or choose another with --state-dir"
        yield Finding("bad", "state directory", f"{state} cannot be written by this user", step)
        return
    step = f"chmod -R go-rwx {state}"
    if readable := [path.name for path in sorted(state.iterdir()) if _others_may(path)]:
        names = ", ".join(readable[:3]) + (", …" if len(readable) > 3 else "")
        yield Finding("bad", "state directory", f"others may read {names}", step)
    elif _others_may(state):
        yield Finding("warning", "state directory", f"others may see what lies in {state}, though not read it", step)
    yield from _room("state directory", state)


def _others_may(path: Path) -> bool:
    try:
        mode = path.lstat()
    except OSError:
        return False
    return not stat.S_ISLNK(mode.st_mode) and bool(stat.S_IMODE(mode.st_mode) & 0o077)


def _room(subject: str, state: Path) -> Iterator[Finding]:
    there = next(path for path in (state, *state.parents) if path.exists())
    if not state.exists() and not os.access(there, os.W_OK):
        yield Finding("bad", subject, f"{state} cannot be made: {there} is read-only here", "choose --state-dir")
        return
    free = shutil.disk_usage(there).free
    room = f"{free / (1 << 30):.1f} GiB free"
    if free < LITTLE_DISK:
        mark: Mark = "bad" if free < TOO_LITTLE_DISK else "warning"
        yield Finding(mark, subject, f"{state}: {room}", "make room: without it new calls are refused")
    elif state.exists():
        yield Finding("good", subject, f"{state}, {room}")
    else:
        yield Finding("good", subject, f"{state} is made by the first start, {room}")


def journal(state: Path) -> Iterator[Finding]:
    """Report records that the recorder could not read or store.  The log has them once; this check keeps reporting
    them.
    """
    torn = state / "torn"
    pieces = sorted(torn.iterdir()) if torn.is_dir() and os.access(torn, os.R_OK | os.X_OK) else []
    if pieces:
        count = f"{len(pieces)} damaged piece{'s' if len(pieces) > 1 else ''}"
        yield Finding(
            "warning", "journal", f"{count} of it could not be read; the calls in them may lack figures",
            f"check the disk; then remove {torn}",
        )  # fmt: skip
    if (refused := state / "unrecorded.jsonl").exists():
        yield Finding("warning", "store", "it refused some records for good", f"look into {refused}, then remove it")


def lock(holder: statedir.Holder | None) -> Iterator[Finding]:
    if holder is None:
        yield Finding("warning", "gateway", "none is running", "headgate serve")
    elif holder.command:
        yield Finding("warning", "gateway", f"a command (pid {holder.pid}) works on the store", "wait for it to end")
    else:
        yield Finding("good", "gateway", f"running, pid {holder.pid}")


def free_ports(settings: Settings) -> Iterator[Finding]:
    """Where no gateway of ours runs: whether it could listen."""
    server, control = settings.file.server, settings.file.control
    for key, host, port in (("server.port", server.host, server.port), ("control.port", control.host, control.port)):
        yield _port(key, host, port)


def _port(key: str, host: str, port: int) -> Finding:
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.create_server(address[:2], family=family):
            return Finding("good", "port", f"{port} on {host} is free")
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is in use by another program" if taken else f"cannot be listened on ({error.strerror})"
        return Finding("bad", "port", f"{port} on {host} {why}", f"stop it, or set {key}")


def descriptors(settings: Settings) -> Iterator[Finding]:
    """Whether as many connections as are configured can be open at once."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = settings.file.server.max_connections
    needed = DESCRIPTORS_PER_CALL * most + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield Finding("good", "limits", f"{soft} open files, enough for {most} connections")
        return
    calls = max(0, (soft - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_CALL)
    mark: Mark = "bad" if soft < FEW_DESCRIPTORS else "warning"
    sentence = f"{soft} open files are enough for {count(calls, 'call')} at once; server.max_connections is {most}"
    yield Finding(mark, "limits", sentence, f"ulimit -n {needed} before the start (systemd: LimitNOFILE)")
