"""The outbox: this process's append-only files, which control reads, commits and deletes.

Owns ``STATE/journal/<worker>-<boot id>-<n>``.  The records of one turn of the loop share one write(2) (no fsync): a
``kill -9`` loses nothing, a power cut may lose the last moments.  Segments are preallocated, so that a full disk
shows when a segment is made and not in the middle of a call.  They are locked for as long as this process lives: a
free lock tells control that the writer is gone.  This process deletes no segment.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import threading
from pathlib import Path

from headgate.model import Record, Refused, Rotated
from headgate.serving.loop.turn import Turn
from headgate.wire.records import encode

SEGMENT = 64 << 20
RESERVE_PER_CALL = 2048  # a progress record or two and the close
RESERVE = 64 << 10
RETRY_S = 2.0
MARK = 64  # bytes before a remembered offset; zeros in their place mean a hole
MAX_HELD = 16 << 20  # of records that wait for a disk that cannot be written

log = logging.getLogger("headgate.journal")


class Journal:
    """See ports.Journal.  Raises OSError only when it is made; later failures turn ``accepting`` off and are logged."""

    def __init__(self, folder: Path, worker: str, boot_id: str, turn: Turn, segment: int = SEGMENT) -> None:
        self._folder = folder
        self._stem = f"{worker}-{boot_id}"
        self._segment = segment
        self._number = 0
        self._fd = self._make(0)
        self._offset = 0
        self._next_fd: int | None = None
        self._making: asyncio.Task[None] | None = None
        self._full: list[int] = []  # rotated segments stay locked while this process lives
        self._broken = False
        self._turn = turn
        turn.record = self.flush
        self._pending: list[bytes] = []
        self.running = 0  # calls opened and not closed
        self._mark = (0, b"")  # an offset of the last check, and the bytes before it
        self.lost_segments = 0

    @property
    def accepting(self) -> bool:
        room = self._segment - self._offset + (self._segment if self._next_fd is not None else 0)
        return not self._broken and room > RESERVE + self.running * RESERVE_PER_CALL

    def write(self, record: Record) -> None:
        """Append one record.  The kernel has it before bytes of this turn are sent."""
        if not self._pending:
            self._turn.arm()
        self._pending.append(encode(record))

    def flush(self) -> None:
        """Write the records of this turn, at once.  Raises nothing: unwritten records are held, and new calls are
        refused until they are written.
        """
        pending = self._pending
        if not pending:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        end = self._offset + len(data)
        if end + RESERVE_PER_CALL > self._segment:
            self._rotate()
            end = self._offset + len(data)
        elif self._next_fd is None and end > self._segment // 2 and self._making is None:
            self._prepare()
        try:
            if os.pwrite(self._fd, data, self._offset) != len(data):
                raise OSError(errno.ENOSPC, "only a part of the records could be written")
        except OSError as error:
            # The offset stays: a half-written record will be overwritten, or read as a torn tail.
            self._hold(data, error)
            return
        self._offset = end
        self._broken = False

    def _hold(self, data: bytes, error: OSError) -> None:
        if not self._broken:
            log.error("the journal cannot be written: %s; new calls are refused until it can", error.strerror)
        self._broken = True
        if len(data) > MAX_HELD:
            log.error("%d bytes of the journal are lost: the disk has been full for too long", len(data))
        else:
            self._pending.append(data)
        self._prepare()

    def check(self) -> None:
        """Continue in a new segment if this one was removed, replaced or cut.  Called once a second.

        A write would not fail: it goes to a file without a name, or after a hole.
        """
        if self._broken or (damage := self._damage()) is None:
            return
        self.lost_segments += 1
        log.error("the journal segment %s was %s: going on in a new one", self._name(self._number), damage)
        self._rotate()

    def _damage(self) -> str | None:
        try:
            there, ours = os.stat(self._folder / self._name(self._number)), os.fstat(self._fd)
            offset, tail = self._mark
            if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
                return "replaced"
            if ours.st_size < self._offset or os.pread(self._fd, len(tail), offset - len(tail)) != tail:
                return "cut or overwritten"
            start = max(0, self._offset - MARK)
            self._mark = self._offset, os.pread(self._fd, self._offset - start, start)
        except FileNotFoundError:
            return "removed"
        except OSError as error:
            log.warning("the journal segment cannot be looked at: %s", error.strerror)
        return None

    def _name(self, number: int) -> str:
        return f"{self._stem}-{number:06d}"

    def close(self) -> None:
        """Free every lock; the process ends."""
        self.flush()
        if self._making is not None:
            self._making.cancel()
        for fd in (self._fd, *self._full, *([self._next_fd] if self._next_fd is not None else [])):
            os.close(fd)

    def _rotate(self) -> None:
        if self._next_fd is None:
            if self._broken:
                return  # a thread is trying to make one, again and again
            try:
                self._next_fd = self._make(self._number + 1)
            except OSError as error:
                log.error("no room for a new journal segment: %s", error.strerror)
                self._prepare()
                return  # the reserve of this segment is used while it lasts
        try:
            os.pwrite(self._fd, encode(Rotated(self._number + 1)), self._offset)
        except OSError as error:  # the segment counts as unfinished while this process lives
            log.error("a journal segment could not be closed: %s", error.strerror)
        self._full.append(self._fd)
        self._fd, self._next_fd = self._next_fd, None
        self._number += 1
        self._offset = 0
        self._mark = (0, b"")

    def _prepare(self) -> None:
        """Make the next segment in a thread: allocating 64 MiB may take a disk a while."""
        if self._making is None or self._making.done():
            self._making = asyncio.get_running_loop().create_task(self._prepare_soon(), name="journal: next segment")

    async def _prepare_soon(self) -> None:
        number = self._number
        while self._broken or (self._next_fd is None and self._number == number):
            if self._next_fd is None:
                await self._make_next()
            if self._next_fd is not None and self._broken:
                self._rotate()
                self.flush()
            if self._broken or (self._next_fd is None and self._number == number):
                await asyncio.sleep(RETRY_S)
        self._making = None

    async def _make_next(self) -> None:
        number = self._number + 1
        try:
            fd = await asyncio.get_running_loop().run_in_executor(None, self._make, number)
        except FileExistsError:
            return  # an urgent record has made it meanwhile
        except OSError as error:
            log.warning("no journal segment yet: %s; trying again in %.0f s", error.strerror, RETRY_S)
            return
        if number == self._number + 1 and self._next_fd is None:
            self._next_fd = fd
        else:
            os.close(fd)

    def _make(self, number: int) -> int:
        path = self._folder / self._name(number)
        self._folder.mkdir(mode=0o700, exist_ok=True)  # it may have been removed, too
        # Under another name until it is locked: control assumes that the writer of an unlocked segment is gone.
        unborn = self._folder / f".{path.name}.{threading.get_ident()}"
        fd = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _allocate(fd, self._segment)
            os.link(unborn, path)
        except OSError:
            os.close(fd)
            raise
        finally:
            unborn.unlink()
        return fd


def _allocate(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (
            errno.EOPNOTSUPP,
            errno.EINVAL,
        ):  # a file system without preallocation: a write will show a full disk
            raise


class Refusals:
    """Requests refused before a token is known: counted, one record per code and second, so that a flood cannot fill
    the disk.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._counts: dict[str, int] = {}

    def count(self, code: str) -> None:
        self._counts[code] = self._counts.get(code, 0) + 1

    def flush(self, at: int) -> None:
        """Called once a second; ``at`` is Unix ns.  Counts wait while room is short: running calls need it."""
        if self._counts and self._journal.accepting:
            counts, self._counts = self._counts, {}
            for code, count in counts.items():
                self._journal.write(Refused(at, code, count))
