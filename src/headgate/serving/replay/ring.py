"""The last events of one stream, numbered, within its own bound and a common one of all streams.

Owns bytes and their count.  It does not know the readers.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

HEADER = 56  # of a bytes object, rounded as allocators do, and the reference to it
MOST_FRAMES = 16  # of a stream: text, reasoning, arguments, usage, and the same of another provider
WORTH = 64  # bytes of each event that a frame must save
LARGE = 4 << 10  # a larger event makes no frame: its shared part is rarely a chunk's wrapping, and frames stay


class EventMemory:
    """The memory of all kept events, in bytes: its limit and its use."""

    __slots__ = ("most", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserve ``size`` bytes.  Return False if there is no room."""
        if self.used + size > self.most:
            return False
        self.used += size
        return True


class Ring:
    """Events as they were sent, each with its line ``id: <stream>.<number>``; numbers start at 1.

    The chunks of a stream differ in a word and share three hundred bytes around it.  The shared bytes are kept once,
    as a frame: the beginning and the end of an event.  Each event keeps the number of its frame and its own bytes, so
    that five times as many fit.  If two events in a row fit into no earlier frame, their common bytes make a new one.
    A frame counts like an event, and stays as long as the ring has events.

    Each event is one small object; there is no large buffer.  Ten thousand buffers that grow and shrink beside the
    large but brief objects of the same calls leave half of the heap in holes (measured).  Small objects fill the
    holes.
    """

    __slots__ = ("_events", "_frames", "_memory", "_most", "_odd", "_prefix", "_size", "last")

    def __init__(self, ident: str, most: int, memory: EventMemory) -> None:
        self._prefix = b"id: %b." % ident.encode()
        self._events: deque[bytes] = deque()
        self._frames = [(b"", b"")]  # the last one is tried
        self._odd = (
            b""  # the stored form of the last event, if it did not fit into that frame; shared, so it takes no memory
        )
        self._size = 0
        self._most = most
        self._memory = memory
        self.last = 0

    @property
    def first(self) -> int:
        """Return the number of the oldest event; ``last + 1`` if there is none."""
        return self.last + 1 - len(self._events)

    def add(self, events: bytes) -> bytes:
        """Number whole events, keep them, and return them as they are sent.

        Above a bound, the oldest events of this stream are dropped, never those of another one.
        """
        number, before = self.last, self._size
        sent = []
        for event in events[:-2].split(b"\n\n"):
            number += 1
            sent.append(b"%b%d\n%b\n\n" % (self._prefix, number, event))
            stored = self._framed(event)
            self._size += len(stored) + HEADER
            self._events.append(stored)
        self.last = number
        memory = self._memory
        memory.used += self._size - before
        if self._size > self._most or memory.used > memory.most:
            self._shrink()
        return b"".join(sent)

    def _shrink(self) -> None:
        memory = self._memory
        while self._events and (self._size > self._most or memory.used > memory.most):
            stored = self._events.popleft()
            if stored is self._odd:
                self._odd = b""
            size = len(stored) + HEADER
            self._size -= size
            memory.used -= size
        if not self._events:
            self.clear()  # of its frames, too

    def since(self, number: int, most: int) -> tuple[bytes, int] | None:
        """Return the events after ``number``, up to about ``most`` bytes, and the number of the last one.  None if some
        of them are no longer kept.
        """
        if number + 1 < self.first:
            return None
        found = []
        for stored in islice(self._events, number + 1 - self.first, None):
            if most <= 0:
                break
            number += 1
            head, foot = self._frames[stored[0]]
            event = b"%b%d\n%b%b%b\n\n" % (self._prefix, number, head, stored[1:], foot)
            most -= len(event)
            found.append(event)
        return b"".join(found), number

    def clear(self) -> None:
        """Remove all events and frames."""
        self._memory.used -= self._size
        self._size = 0
        self._events.clear()
        del self._frames[1:]
        self._odd = b""

    def _framed(self, event: bytes) -> bytes:
        frames = self._frames
        head, foot = frames[-1]
        if len(frames) == 1 or not self._fits(event, head, foot):
            odd, self._odd = self._odd, b""
            raw = b"\0" + event
            if len(event) > LARGE or len(frames) == MOST_FRAMES:
                return raw
            if (frame := _common(odd[1:], event)) is None:
                self._odd = raw
                return raw
            frames.append(frame)
            head, foot = frame
            self._size += len(head) + len(foot)  # their objects: replay.WEIGHT
        return b"%c%b" % (len(frames) - 1, event[len(head) : len(event) - len(foot)])

    @staticmethod
    def _fits(event: bytes, head: bytes, foot: bytes) -> bool:
        return len(event) >= len(head) + len(foot) and event.startswith(head) and event.endswith(foot)


def _common(one: bytes, other: bytes) -> tuple[bytes, bytes] | None:
    """Return the common beginning and end, up to the quotation marks around the difference; None if they save too
    little.

    The bytes are compared as two large numbers at C's speed: the first and last different bits give the places.
    """
    least = min(len(one), len(other))
    differ = int.from_bytes(one[:least], "big") ^ int.from_bytes(other[:least], "big")
    start = one.rfind(b'"', 0, least - (differ.bit_length() + 7 >> 3)) + 1
    rest = least - start
    differ = int.from_bytes(one[len(one) - rest :], "big") ^ int.from_bytes(other[len(other) - rest :], "big")
    end = (differ & -differ).bit_length() - 1 >> 3 if differ else rest
    mark = one.find(b'"', len(one) - end)
    foot = one[mark:] if end and mark >= 0 else b""
    return (one[:start], foot) if start + len(foot) >= WORTH and one != other else None
