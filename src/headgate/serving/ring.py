"""The last events of one stream, numbered, within a bound of its own and one of all streams together.

Owns bytes and their count.  Nothing is said here about who reads them.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

HEADER = 56  # of a bytes object, rounded as allocators do, and the reference to it
MOST_FRAMES = 16  # of a stream: text, reasoning, arguments, usage, and the same of another provider
WORTH = 64  # bytes of each event that a frame must save


class Memory:
    """What all that is kept may take, in bytes, and takes."""

    __slots__ = ("most", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def take(self, size: int) -> bool:
        """Sets ``size`` aside; False where there is no room."""
        if self.used + size > self.most:
            return False
        self.used += size
        return True


class Ring:
    """Events as they were sent, each with its line ``id: <stream>.<number>``; numbers start at 1.

    The chunks of a stream differ in a word and share three hundred bytes around it.  Those are kept once, as a frame
    (what an event begins and ends with), and of each event the number of its frame and what is its own; so five
    times as many fit.  A frame is what two events in a row have in common that fit into no earlier one.

    One small object an event and no large buffer: ten thousand buffers that grow and shrink beside the large but brief
    objects of the same calls leave half of the heap in holes (measured), events fill them.
    """

    __slots__ = ("_frames", "_kept", "_memory", "_most", "_odd", "_prefix", "_size", "last")

    def __init__(self, ident: str, most: int, memory: Memory) -> None:
        self._prefix = b"id: %b." % ident.encode()
        self._kept: deque[bytes] = deque()
        self._frames = [(b"", b"")]  # the last one is tried
        self._odd = b""  # the last event that did not fit into it
        self._size = 0
        self._most = most
        self._memory = memory
        self.last = 0

    @property
    def first(self) -> int:
        """The number of the oldest event that is here; ``last + 1`` where there is none."""
        return self.last + 1 - len(self._kept)

    def add(self, events: bytes) -> bytes:
        """Numbers whole events and keeps them; returns them as they are to be sent.

        What is over a bound goes at the other end: the stream's own oldest events, never another's.
        """
        number = self.last
        sent, size = [], 0
        for event in events[:-2].split(b"\n\n"):
            number += 1
            sent.append(b"%b%d\n%b\n\n" % (self._prefix, number, event))
            kept = self._framed(event)
            size += len(kept) + HEADER
            self._kept.append(kept)
        self.last = number
        self._size += size
        memory = self._memory
        memory.used += size
        while self._kept and (self._size > self._most or memory.used > memory.most):
            size = len(self._kept.popleft()) + HEADER
            self._size -= size
            memory.used -= size
        return b"".join(sent)

    def since(self, number: int, most: int) -> tuple[bytes, int] | None:
        """The events behind ``number``, as many as make ``most`` bytes, and the last one's number; None where some
        of them are gone.
        """
        if number + 1 < self.first:
            return None
        found = []
        for kept in islice(self._kept, number + 1 - self.first, None):
            if most <= 0:
                break
            number += 1
            head, foot = self._frames[kept[0]]
            event = b"%b%d\n%b%b%b\n\n" % (self._prefix, number, head, kept[1:], foot)
            most -= len(event)
            found.append(event)
        return b"".join(found), number

    def clear(self) -> None:
        """Forgets everything."""
        self._memory.used -= self._size
        self._size = 0
        self._kept.clear()

    def _framed(self, event: bytes) -> bytes:
        frames = self._frames
        head, foot = frames[-1]
        if len(frames) == 1 or not self._fits(event, head, foot):
            odd, self._odd = self._odd, event
            if len(frames) == MOST_FRAMES or (frame := _common(odd, event)) is None:
                return b"\0" + event
            frames.append(frame)
            head, foot = frame
        return b"%c%b" % (len(frames) - 1, event[len(head) : len(event) - len(foot)])

    @staticmethod
    def _fits(event: bytes, head: bytes, foot: bytes) -> bool:
        return len(event) >= len(head) + len(foot) and event.startswith(head) and event.endswith(foot)


def _common(one: bytes, other: bytes) -> tuple[bytes, bytes] | None:
    """What both begin and end with, up to the quotation marks around what differs; None where that is not worth it."""
    least = min(len(one), len(other))
    start = next((at for at in range(least) if one[at] != other[at]), least)
    start = one.rfind(b'"', 0, start) + 1
    end = next((at for at in range(least - start) if one[-1 - at] != other[-1 - at]), least - start)
    mark = one.find(b'"', len(one) - end)
    foot = one[mark:] if end and mark >= 0 else b""
    return (one[:start], foot) if start + len(foot) >= WORTH and one != other else None
