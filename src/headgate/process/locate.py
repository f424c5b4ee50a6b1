"""Find the configuration file, the state directory, and this user's running gateways.

Owns the search orders, and the notes that gateways outside the default place leave in it.  Of a configuration it
reads only ``state_dir``, from the text.  A second terminal's commands must find the gateway although the file is
broken or a variable is unset there.  It imports no slow library.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headgate.process import statedir

FILE = "headgate.yaml"
RUNNING = "running"  # in the default state directory: a note for each gateway that runs with another one
MAX_READ = 4 << 20

# At the beginning of a line, as YAML writes it; or anywhere in a file that is one table in braces
_BLOCK = re.compile(r"""^["']?state_dir["']?[ \t]*:[ \t]+("[^"\n]*"|'[^'\n]*'|[^\s#"'][^\n#]*)""", re.M)
_FLOW = re.compile(r"""["']?state_dir["']?[ \t]*:[ \t]*("[^"\n]*"|'[^'\n]*'|[^\s,}\n"']+)""")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class NoSuchFile(ValueError):
    """A configuration file was named and does not exist.  ``source`` is the option or variable that named it."""

    def __init__(self, source: str, path: Path) -> None:
        super().__init__(f"{source}: there is no file {path}")


@dataclass(frozen=True)
class Place:
    """A gateway's state directory, the file that this shell's ``serve`` would read, and the source of the directory's
    name.
    """

    state_dir: Path
    config: Path | None
    by: Literal["option", "file", "default"]  # option: or a variable of the environment


@dataclass(frozen=True)
class RunningGateway:
    """The note of a running gateway: its state directory, and the file that it reads."""

    state_dir: Path
    config: Path | None


def config_file(explicit: str | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: ``--config``, HEADGATE_CONFIG, ``headgate.yaml`` here, the user's config directory,
    none.

    Absolute, and with its links kept: a link is followed at every reading.  So a link with a new target (a
    ConfigMap's, a release's) is a change.  Raises NoSuchFile if a named file does not exist.
    """
    named = explicit or environ.get("HEADGATE_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise NoSuchFile("--config" if explicit else "HEADGATE_CONFIG", path)
        return path.absolute()
    return next((path.absolute() for path in candidates(environ) if path.is_file()), None)


def candidates(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the places of a file that is not named."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(FILE), Path(base) / "headgate" / FILE


def appeared(environ: Mapping[str, str]) -> Path | None:
    """Return the file of a gateway that started without one, if it exists now."""
    try:
        return config_file(None, environ)
    except NoSuchFile:
        return None


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """Return XDG_STATE_HOME/headgate, else ~/.local/state/headgate; absolute."""
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path("~/.local/state").expanduser()).absolute() / "headgate"


def place(config: str | None, state_dir: str | None, environ: Mapping[str, str]) -> Place:
    """Return the place that the options, the environment and the text of the file name.  Raises NoSuchFile for
    ``--config`` only.
    """
    try:
        path = config_file(config, environ)
    except NoSuchFile:
        if config:
            raise
        path = None  # HEADGATE_CONFIG of another shell: the running gateway may be found without it
    option = state_dir or environ.get("HEADGATE_STATE_DIR")
    named = option or (declared_state_dir(path, environ) if path else None)
    if named:
        with contextlib.suppress(RuntimeError):  # ~nobody
            return Place(Path(named).expanduser().absolute(), path, "option" if option else "file")
    return Place(default_state_dir(environ), path, "default")


def declared_state_dir(path: Path, environ: Mapping[str, str]) -> str | None:
    """Return the file's ``state_dir``, also if the rest of the file is broken; None if it has none that can be read."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_READ).decode("utf-8", "replace")
    except OSError:
        return None
    if "state_dir" not in text:
        return None
    found = _BLOCK.search(text) or (_FLOW.search(text) if text.lstrip("\ufeff \t\r\n").startswith("{") else None)
    if found is None:
        return None
    value = found[1].strip()
    if value[:1] in ("'", '"'):
        value = value[1:-1]
    missing = False

    def replace(match: re.Match[str]) -> str:
        nonlocal missing
        value = environ.get(match[1]) or match[2]
        missing = missing or value is None
        return value or ""

    value = _VARIABLE.sub(replace, value)
    return None if missing or value in ("", "null", "~") else value


# ------------------------------------------------------------------------------------- gateways that run


def note(running: RunningGateway, environ: Mapping[str, str]) -> None:
    """Leave a note in the default place, for commands in other directories.  Raises statedir.StateError."""
    default = default_state_dir(environ)
    folder = default / RUNNING
    try:
        for part in reversed((folder, *folder.parents)):  # private ones: `parents=True` leaves them to the umask
            if not part.exists():
                part.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise statedir.StateError(f"{folder} cannot be made ({error.strerror})") from error
    config = str(running.config) if running.config else None
    content = json.dumps({"state_dir": str(running.state_dir), "config": config}).encode()
    statedir.write_private(folder / _name(running.state_dir), content)


def forget(state_dir: Path, environ: Mapping[str, str]) -> None:
    """Remove the note."""
    with contextlib.suppress(OSError):
        (default_state_dir(environ) / RUNNING / _name(state_dir)).unlink(missing_ok=True)


def running(environ: Mapping[str, str]) -> Iterator[RunningGateway]:
    """Yield the running gateways that left a note.  Notes of ended ones are removed."""
    folder = default_state_dir(environ) / RUNNING
    try:
        names = sorted(folder.iterdir())
    except OSError:
        return
    for name in names:
        try:
            note = json.loads(name.read_bytes())
            found = RunningGateway(Path(note["state_dir"]), Path(note["config"]) if note["config"] else None)
            holder = statedir.holder(found.state_dir)
        except (OSError, ValueError, KeyError, TypeError, statedir.StateError):
            continue
        if holder is not None and not holder.command:
            yield found
        elif holder is None:
            with contextlib.suppress(OSError):
                name.unlink()


def _name(state_dir: Path) -> str:
    return f"{zlib.crc32(os.fsencode(state_dir)):08x}.json"


# ------------------------------------------------------------------------------------- a file that changes

QUIET_S = 2.0  # wait after the last write to a file that is written in place

Stamp = tuple[int, int, int] | None


def stamp(path: str | Path | None) -> Stamp:
    """Return the values that differ when a file does: modification time in ns, size, inode.  None without a file."""
    try:
        found = os.stat(path) if path else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None


def unfinished(read: Stamp, now: Stamp, at: float) -> bool:
    """True if it may still be written to at ``at`` (Unix seconds): it changed in place, and just now.

    A file that replaced another (by a rename, or by a changed link) is whole at once.
    """
    if now is None or now == read or (read is not None and read[2] != now[2]):
        return False
    return 0 <= at - now[0] / 1e9 < QUIET_S
