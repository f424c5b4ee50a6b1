"""Journal files as the recorder reads them: where they are, how far they are read, whether their writer lives.

Owns file descriptors and locks; knows nothing of what the records mean.  Reads only: the writer alone appends, and the
recorder alone decides what may be deleted.  Names are ``<worker>-<boot id>-<n>``; the part before the last dash is
the *boot*, one life of one data process.  A segment is locked by its writer from before it has its name until the
process ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog

from headgate.wire.records import HEADER, MAX_RECORD

log = structlog.get_logger("headgate.recorder")

FIRST_READ = 16 << 10
CHUNK = 256 << 10  # about 1,500 records: the loop is not held for longer than some 10 ms
PROBE_S = 0.5
TICK_NS = 100_000_000


class Segment:
    """One open journal file.  ``rotated`` is set once its last record has been read."""

    __slots__ = ("_fd", "_probed_at", "_want", "boot", "free", "name", "number", "offset", "rotated")

    def __init__(self, folder: Path, name: str, offset: int) -> None:
        self.name = name
        self.boot, _, number = name.rpartition("-")
        self.number = int(number)
        self.offset = offset
        self.rotated = False
        self.free = False  # its writer is gone: nothing will be added
        self._fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        self._want = FIRST_READ
        self._probed_at = float("-inf")

    def peek(self) -> bytes:
        """What stands at the offset: up to CHUNK bytes, empty where no record begins.

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

        Not where zeros follow, however many were asked for: whoever goes on until nothing more has come commits record
        by record while a gateway is busy, and never rests (at 1,000 calls/s that cost four times as much).
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

    def unreadable(self) -> int:
        """The length that stands where the next record would begin: 0 behind the last one."""
        head = os.pread(self._fd, HEADER.size, self.offset)
        return int(HEADER.unpack(head)[0]) if len(head) == HEADER.size else 0

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
        """Opens what has appeared.  Lists the folder only where its modification time has changed, or is so young that
        what appeared since could bear the same: the kernel's clock ticks every few ms.
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

    def remove(self, segment: Segment) -> None:
        """Deletes the file, of which the caller has committed everything that can be read; one that holds more is put
        aside in ``torn/``.
        """
        del self._segments[segment.name]
        left = 0 if segment.rotated else segment.unreadable()
        segment.close()
        path = self._folder / segment.name
        if not left:
            path.unlink(missing_ok=True)
            return
        log.warning(
            "a journal file ends in bytes that are no record; kept in torn/", file=segment.name, at=segment.offset
        )
        (self._folder.parent / "torn").mkdir(mode=0o700, exist_ok=True)
        path.rename(self._folder.parent / "torn" / segment.name)

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
