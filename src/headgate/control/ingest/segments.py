"""Journal files as the recorder reads them: where they are, how far they are read, whether their writer lives.

Owns file descriptors and locks; knows nothing of what the records mean.  Reads only: the writer alone appends, and the
recorder alone decides what may be deleted.  Names are ``<worker>-<boot id>-<n>``; the part before the last dash is
the *boot*, one life of one data process.  A segment is locked by its writer from before it has its name until the
process ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from headgate.wire.records import HEADER, MAX_RECORD, next_sound, steps

log = structlog.get_logger("headgate.recorder")

FIRST_READ = 16 << 10
CHUNK = 256 << 10  # about 1,500 records: the loop is not held for longer than some 10 ms
PROBE_S = 0.5
TICK_NS = 100_000_000
SETTLE_S = 0.2  # a record that is not sound for so long is not being written
WINDOW = 1 << 20  # of a search for the next sound record
MAX_PIECES = 1000  # in torn/
TORN = "torn"  # beside the journal folder: the unreadable bytes


class Damage(NamedTuple):
    """Bytes of a segment in which ``records`` records were (as far as one can tell), and which are left out."""

    start: int
    end: int
    records: int


class Segment:
    """One open journal file.  ``rotated`` is set once its last record has been read; ``exhausted`` once no sound record
    can follow, though none said that it is the last.
    """

    __slots__ = (
        "_fd", "_probed_at", "_suspect", "_want", "boot", "exhausted", "free", "name", "number", "offset", "rotated",
    )  # fmt: skip

    def __init__(self, folder: Path, name: str, offset: int) -> None:
        self.name = name
        self.boot, _, number = name.rpartition("-")
        self.number = int(number)
        self.offset = offset
        self.rotated = False
        self.exhausted = False
        self.free = False  # its writer is gone: nothing will be added
        self._fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        self._want = FIRST_READ
        self._probed_at = float("-inf")
        self._suspect = (-1, 0.0)  # an offset at which no sound record stands, and since when

    @property
    def begun(self) -> bool:
        """Something is written in it."""
        return any(os.pread(self._fd, HEADER.size, 0))

    def peek(self) -> bytes:
        """Return the bytes at the offset: up to CHUNK, empty if no record begins there.

        The header is looked at first, since reading a preallocated file's zeros several times a second is work too.
        """
        head = os.pread(self._fd, HEADER.size, self.offset)
        if len(head) < HEADER.size:
            return b""
        length, _crc = HEADER.unpack(head)
        if not 0 < length <= MAX_RECORD:
            return b""
        return os.pread(self._fd, max(self._want, HEADER.size + length), self.offset)

    def consumed(self, size: int, buffer: bytes) -> bool:
        """Moves on by ``size`` bytes of the ``buffer``.  True where there is more to read: it ends within a record.

        False if zeros follow, for any requested size.  Otherwise a recorder on a busy gateway would commit record by
        record and never rest.  At 1,000 calls/s that cost four times as much.
        """
        self.offset += size
        rest = buffer[size : size + HEADER.size]
        more = size > 0 and (len(rest) < HEADER.size or any(rest))
        self._want = min(self._want * 4, CHUNK) if more else FIRST_READ
        return more

    def probe(self, now: float) -> None:
        """Finds out whether the writer lives: its lock cannot be had.  At most every PROBE_S."""
        if self.free or now - self._probed_at < PROBE_S:
            return
        self._probed_at = now
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.free = True

    def behind(self, start: int, limit: int = 16 << 20) -> tuple[int, int]:
        """How many bytes and records are written from ``start`` on; stops counting at ``limit`` bytes."""
        offset = start
        count = 0
        while offset - start < limit:
            head = os.pread(self._fd, HEADER.size, offset)
            if len(head) < HEADER.size:
                break
            length, _crc = HEADER.unpack(head)
            if not 0 < length <= MAX_RECORD:
                break
            offset += HEADER.size + length
            count += 1
        return offset - start, count

    def damage(self, now: float, settled: bool) -> Damage | None:
        """Return the bytes between the offset and the next sound record, if the record at the offset is not sound.

        ``settled``: nothing will be written here any more, so the whole rest is searched, once.  Else a record counts
        as damaged only if it stays so for SETTLE_S and a sound one follows.  Before that it may be in the middle of
        its write.
        """
        if self.exhausted:
            return None
        if not settled:
            if not any(os.pread(self._fd, HEADER.size, self.offset)):
                return None
            if self._suspect[0] != self.offset:
                self._suspect = (self.offset, now)
            if now - self._suspect[1] < SETTLE_S:
                return None
        for position, window in self._windows(self.offset):
            found = next_sound(window)
            if found is not None:
                end = position + found
                if end == self.offset:  # it was written after the last look
                    return None
                return Damage(self.offset, end, steps(os.pread(self._fd, end - self.offset, self.offset)))
            if not settled:
                return None
        self.exhausted = True
        return None

    def _windows(self, position: int) -> Iterator[tuple[int, bytes]]:
        """The rest of the file, each piece beginning so early that no record lies across two of them."""
        try:  # what was only preallocated is a hole
            position = max(position, os.lseek(self._fd, position, os.SEEK_DATA))
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but that
                return
        while window := os.pread(self._fd, WINDOW, position):
            if window.count(0) != len(window):
                yield position, window
            if len(window) < WINDOW:
                return
            position += WINDOW - MAX_RECORD - HEADER.size

    def blank(self) -> bool:
        """True where nothing but zeros follows."""
        return next(self._windows(self.offset), None) is None

    def read(self, damage: Damage) -> bytes:
        return os.pread(self._fd, damage.end - damage.start, damage.start)

    def close(self) -> None:
        os.close(self._fd)


class Shelf:
    """The journal folder.  Segments come in the order in which they were written, boot by boot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: Mapping[str, int] = {}
        self._stamp = -1
        self._segments: dict[str, Segment] = {}

    def resume(self, offsets: Mapping[str, int]) -> None:
        """Opens what there is, each file at the offset that an earlier life of control has committed.  Raises
        OSError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._offsets = dict(offsets)
        self.discover()

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments.values())

    def discover(self) -> None:
        """Opens what has appeared.  List the folder only if its modification time has changed, or is so young that a
        newer file could bear the same: the kernel's clock ticks every few ms.
        """
        stamp = self._folder.stat().st_mtime_ns
        if stamp == self._stamp:
            return
        found = [name for name in os.listdir(self._folder) if _is_segment(name) and name not in self._segments]
        for name in sorted(found, key=_order):
            self._segments[name] = Segment(self._folder, name, self._offsets.get(name, 0))
        self._stamp = stamp if time.time_ns() - stamp > TICK_NS else -1

    def names(self) -> set[str]:
        return set(self._segments)

    def of(self, boot: str) -> list[Segment]:
        return [segment for segment in self if segment.boot == boot]

    def settled(self, segment: Segment) -> bool:
        """True if it is final: its writer is gone, or writes to a later segment."""
        return segment.free or any(s.number > segment.number and s.begun for s in self.of(segment.boot))

    def pass_over(self, segment: Segment, damage: Damage) -> None:
        """Skip damaged bytes; they are kept in ``torn/``.  Raises OSError."""
        log.error(
            "the journal is damaged: records were skipped",
            file=segment.name, at=damage.start, bytes=damage.end - damage.start, records=damage.records,
        )  # fmt: skip
        folder = self._torn()
        if len(os.listdir(folder)) < MAX_PIECES:
            (folder / f"{segment.name}@{damage.start}").write_bytes(segment.read(damage)[:MAX_RECORD])
        segment.offset = damage.end

    def _torn(self) -> Path:
        folder = self._folder.parent / TORN
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def remove(self, segment: Segment) -> None:
        """Deletes the file, of which the caller has committed everything that can be read; one that holds more is put
        aside in ``torn/``.
        """
        del self._segments[segment.name]
        blank = segment.rotated or segment.blank()
        segment.close()
        path = self._folder / segment.name
        if blank:
            path.unlink(missing_ok=True)
            return
        log.warning(
            "a journal file ends in bytes that are no record; kept in torn/", file=segment.name, at=segment.offset
        )
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it
            path.rename(self._torn() / segment.name)

    def close(self) -> None:
        for segment in self:
            segment.close()
        self._segments.clear()


def _is_segment(name: str) -> bool:
    # A leading dot: a segment that has not been locked yet
    boot, _, number = name.rpartition("-")
    return bool(boot) and not name.startswith(".") and number.isascii() and number.isdigit()


def _order(name: str) -> tuple[str, int]:
    boot, _, number = name.rpartition("-")
    return boot, int(number)
