"""The state directory: its lock and its admin token; all 0700 and 0600.

Owns the files that must exist there before either plane starts.  The store, the journal and the sockets in it belong
to the planes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LOCK = "lock"
# Held for the moment in which the lock is taken and signed, or read.  So a process that finds the lock taken can read
# its holder.
LOCK_GATE = "lock.gate"
ADMIN_TOKEN = "admin.token"
# Beside admin.token while that is a copy of the configuration's: a token that is removed from the file must stop
# working.
ADMIN_DECLARED = "admin.token.declared"
# The addresses of the running gateway, for the CLI: the command line may have changed those of the configuration.
ADDRESSES = "listening.json"
COMMAND_S = 10.0  # a command that works on the store ends sooner
LOOK_AGAIN_S = 0.01


class StateError(Exception):
    """The state directory cannot be used; the text is a sentence with the next step."""


@dataclass(frozen=True)
class Holder:
    """The holder of a state directory: the running gateway, or a command that works on the store."""

    pid: int | None
    command: bool


def prepare(path: Path, *, command: bool = False) -> int:
    """Make the directory and take its lock, for the life of this process.  Return the lock's descriptor.

    ``command``: a command, not a gateway, works on the store for a moment; a gateway that starts meanwhile waits for
    it.  Raises StateError if another gateway holds the lock, or if the directory cannot be written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"the state directory {path} cannot be used ({error.strerror}); choose another with --state-dir"
        ) from error
    try:
        if other := _take(path, descriptor, command):
            what = "a headgate command" if other.command else "another headgate"
            if not other.command and (seconds := draining(path)) is not None:
                raise StateError(
                    f"{what} (pid {other.pid or 'unknown'}) still serves from {path}: it is draining and ends within "
                    f"{seconds:.0f} s; wait for it, or choose another with --state-dir"
                )
            raise StateError(
                f"{what} (pid {other.pid or 'unknown'}) already {'works on' if other.command else 'serves from'} "
                f"{path}; stop it, or choose another with --state-dir"
            )
        if not command:
            (path / ADDRESSES).unlink(missing_ok=True)  # from an earlier run: another program may answer there now
    except OSError as error:
        os.close(descriptor)
        raise StateError(f"the state directory {path} cannot be written ({error.strerror})") from error
    except StateError:
        os.close(descriptor)
        raise
    return descriptor


def draining(path: Path) -> float | None:
    """Return the seconds that the gateway here still has for its running calls; None if it is not draining."""
    try:
        return max(0.0, float(json.loads((path / ADDRESSES).read_bytes())["draining_until"]) - time.time())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def abandoned(path: Path) -> bool:
    """True if the last gateway here did not end in order (it, or the machine, was killed): its processes may still be
    ending.  Call it before ``prepare``, which signs the lock anew.
    """
    try:
        last = _parse_holder((path / LOCK).read_bytes())
    except OSError:
        return False
    return last.pid is not None and not last.command


def release(descriptor: int) -> None:
    """Sign an orderly end: no process of this life is left.  The lock itself goes with the process."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)


def take_alone(file: Path) -> int | None:
    """Return the descriptor of a lock that only one process has; None if another has it.  Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _locked(descriptor, fcntl.LOCK_EX):
        return descriptor
    os.close(descriptor)
    return None


def holder(path: Path) -> Holder | None:
    """Return the present holder of the directory; None if there is no holder or no directory.  It takes no lock.

    Raises StateError if the lock cannot be read.
    """
    try:
        with _gate(path, os.O_RDONLY, fcntl.LOCK_SH):
            descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return None if _locked(descriptor, fcntl.LOCK_SH) else _read_holder(descriptor)
            finally:
                os.close(descriptor)  # inside the gate: no process meets a lock that is only being read
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path / LOCK} cannot be looked at ({error.strerror})") from error


def _take(path: Path, descriptor: int, command: bool) -> Holder | None:
    """Lock and sign; or return the holder, if it is a gateway or a command that does not end.

    Raises StateError, OSError.
    """
    end = time.monotonic() + COMMAND_S
    while True:
        with _gate(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX):
            if _locked(descriptor, fcntl.LOCK_EX):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}{' command' if command else ''}\n".encode(), 0)
                return None
            other = _read_holder(descriptor)
        if not other.command or time.monotonic() > end:
            return other
        time.sleep(LOOK_AGAIN_S)


@contextlib.contextmanager
def _gate(path: Path, flags: int, kind: int) -> Iterator[None]:
    """Take the lock for the lock, which each process holds for microseconds.  Raises StateError if one holds it longer,
    and OSError.
    """
    descriptor = os.open(path / LOCK_GATE, flags | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + COMMAND_S
        while not _locked(descriptor, kind):
            if time.monotonic() > end:
                raise StateError(f"a headgate process is stopped while it takes {path / LOCK}; end it, then try again")
            time.sleep(LOOK_AGAIN_S / 10)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(descriptor: int) -> Holder:
    return _parse_holder(os.pread(descriptor, 40, 0))


def _parse_holder(text: bytes) -> Holder:
    pid, _, role = text[:40].decode(errors="replace").strip().partition(" ")
    return Holder(int(pid) if pid.isdigit() else None, role == "command")


def write_private(file: Path, content: bytes) -> None:
    """Replace ``file`` in one step.  Only its owner can read it, from its first byte on."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        draft.replace(file)
    except OSError as error:
        raise StateError(f"{file} cannot be written ({error.strerror})") from error


def read_token(file: Path) -> str | None:
    """Return a token file's content; None without a file."""
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise StateError(f"{file} is damaged: it is no text; restore it from a backup, or remove it") from error
    except OSError as error:
        raise StateError(f"{file} cannot be read ({error.strerror})") from error


def url_of(host: str, port: int) -> str:
    """Return a URL that reaches a listener, with a loopback address in place of a wildcard."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


class AdminToken:
    """The admin token of this run.  ``first``: the state directory is new; ``made``: the token must be shown."""

    def __init__(self, path: Path, declared: str | None, mint: Callable[[], str]) -> None:
        self._path = path
        self._declared = declared
        stored = read_token(path / ADMIN_TOKEN)
        self.first = stored is None
        if stored is not None and declared is None and (path / ADMIN_DECLARED).exists():
            stored = None
        self.made = declared is None and stored is None
        self.token = declared or stored or mint()

    def keep(self) -> None:
        """Write the token for the CLI, once both planes answer.  Until then, a failed start still counts as first."""
        write_private(self._path / ADMIN_TOKEN, self.token.encode() + b"\n")
        marker = self._path / ADMIN_DECLARED
        if self._declared:
            write_private(marker, b"")
        else:
            marker.unlink(missing_ok=True)
