"""An upstream's answer, recorded while it passes, and played again later.

Both ends implement ``ports.Upstream``: a call reads a recorded answer, and one that comes now, in the same way.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from array import array

from headgate.errors import UPSTREAM_TIMEOUT, GatewayError
from headgate.ports import Asking, Sink, StreamDeadlines, Upstream
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.serving.replay.answers import AnswerCache, Recorded, StoredAnswer
from headgate.wire.bodies import framing
from headgate.wire.bodies.framing import BodyForm

LARGEST_STREAM = 4 << 20  # bytes of an answer; a longer one is not stored
LARGEST_WHOLE = 1 << 20  # it is deflated in one go
BLOCK = 64 << 10  # bytes that are deflated in one go
PIECE = 64 << 10  # bytes that are played in one go: a client's connection buffer
MERGED_MS = 20  # what came within this time is played together
LONGEST_GAP_MS = 1000
_WINDOW, _MEMORY = 13, 6  # of zlib
_DEFLATER = 64 << 10  # bytes that zlib takes with these

_monotonic = time.monotonic


class Recording:
    """Passes one attempt's answer on, and keeps it.  Implements ``ports.Upstream`` and ``ports.Sink``.

    Gives up when the answer is too large, or when too much is being recorded.  Then nothing of it is kept.
    """

    def __init__(self, upstream: Upstream, cache: AnswerCache) -> None:
        self.status = upstream.status
        self.headers = upstream.headers
        self.body = upstream.body
        self.streamed = upstream.streamed
        self._upstream = upstream
        self._room = cache.recording
        self._sink: Sink | None = None
        self._deflater: zlib._Compress | None = None  # made for the first block: most answers are shorter
        self._raw: list[bytes] = []  # not deflated yet
        self._raw_size = 0
        self._deflated: list[bytes] = []
        self._held = 0  # bytes of ``_room``
        self._size = 0
        self._pace = array("I")
        self._last = 0.0
        self._is_kept = True

    @property
    def asking(self) -> Asking | None:
        return self._upstream.asking

    @property
    def patience(self) -> StreamDeadlines:
        return self._upstream.patience

    def attach(self, sink: Sink) -> None:
        self._sink = sink
        self._upstream.attach(self)

    def detach(self) -> None:
        self._sink = None
        self._upstream.detach()

    def pause(self) -> None:
        self._upstream.pause()

    def resume(self) -> None:
        self._upstream.resume()

    # --------------------------------------------------------------- what the upstream calls

    def feed(self, data: bytes) -> None:
        if self._is_kept and self.streamed:
            self._keep(data)
        if self._sink is not None:
            self._sink.feed(data)

    def ended(self) -> None:
        if self._sink is not None:
            self._sink.ended()

    def failed(self, error: GatewayError) -> None:
        if self._sink is not None:
            self._sink.failed(error)

    # --------------------------------------------------------------- what is kept

    def take(self) -> Recorded | None:
        """Return the answer; None if it was not kept.  Nothing is kept afterwards."""
        if not self.streamed:
            return _of_whole(self.body)
        if not self._is_kept:
            return None
        deflater = self._deflater or _new_deflater()
        self._deflate(deflater)
        self._deflated.append(deflater.flush())
        taken = Recorded(b"".join(self._deflated), self._size, self._pace)
        self.give_up()
        return taken

    def give_up(self) -> None:
        """Keep nothing.  A second call has no effect."""
        self._is_kept = False
        self._raw, self._deflated, self._deflater = [], [], None
        self._room.used -= self._held
        self._held = 0

    def _keep(self, data: bytes) -> None:
        size = len(data)
        self._size += size
        if self._size > LARGEST_STREAM or not self._room.take(size):
            self.give_up()
            return
        self._held += size
        self._raw.append(data)
        self._raw_size += size
        now = _monotonic()
        gap = min(int((now - self._last) * 1000), LONGEST_GAP_MS) if self._last else 0
        pace = self._pace
        if pace and gap < MERGED_MS:
            pace[-1] += size
        else:
            pace.extend((gap, size))
            self._last = now
        if self._raw_size >= BLOCK:
            if self._deflater is None:
                if not self._room.take(_DEFLATER):
                    self.give_up()
                    return
                self._held += _DEFLATER
                self._deflater = _new_deflater()
            self._deflate(self._deflater)

    def _deflate(self, deflater: zlib._Compress) -> None:
        out = deflater.compress(b"".join(self._raw))
        self._deflated.append(out)
        saved = self._raw_size - len(out)
        self._raw, self._raw_size = [], 0
        self._room.used -= saved
        self._held -= saved


def _new_deflater() -> zlib._Compress:
    return zlib.compressobj(1, wbits=_WINDOW, memLevel=_MEMORY)


def _of_whole(body: bytes) -> Recorded | None:
    """An answer that came whole.  Some upstreams send a stream all the same: it is stored as one."""
    if len(body) > LARGEST_WHOLE:
        return None
    pace = array("I")
    form = framing.form_of(body)
    if form is not BodyForm.DOCUMENT:
        body = framing.as_events(body, form)
        pace.extend((0, len(body)))
    return Recorded(zlib.compress(body, 1), len(body), pace)


class _NoDeadlines:
    """Implements ``ports.StreamDeadlines``: a stored answer does not stall."""

    last_event_at = 0.0

    def begin_stalling(self) -> None:
        pass

    def begin_ending(self, seconds: float) -> None:
        pass


class Playback:
    """A stored answer as an upstream that sends it now.  Implements ``ports.Upstream``.

    ``recorded``: at the pace at which it came, else as fast as its reader takes it.  A reader that has not taken all
    of it at ``deadline`` (monotonic seconds) gets an error.
    """

    status = 200
    asking: Asking | None = None
    slot = -1

    def __init__(self, stored: StoredAnswer, wheel: Wheel, *, as_stream: bool, recorded: bool, deadline: float) -> None:
        deflated, size, pace = stored.recorded
        self.headers: dict[bytes, bytes] = {}
        self.streamed = as_stream and len(pace) > 0
        self.body = b"" if self.streamed else zlib.decompress(deflated)
        self.patience: StreamDeadlines = _NoDeadlines()
        self.due = NEVER
        self._wheel = wheel
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._inflater = zlib.decompressobj()
        self._rest = deflated
        self._left = size
        self._pace = list(zip(pace[::2], pace[1::2], strict=True))[::-1] if recorded else [(0, size)]
        self._piece = 0  # bytes that are due
        self._sink: Sink | None = None
        self._paused = False
        self._timer: asyncio.Handle | None = None

    def attach(self, sink: Sink) -> None:
        self._sink = sink
        self._wheel.set(self, self._deadline)
        self._play()

    def detach(self) -> None:
        self._sink = None
        self._wheel.drop(self)
        self._stop()

    def pause(self) -> None:
        self._paused = True
        self._stop()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._timer = self._loop.call_soon(self._play)

    def expire(self, now: float) -> None:
        """Called by the wheel: its reader has not taken it in time."""
        if self._sink is not None:
            self._sink.failed(GatewayError(UPSTREAM_TIMEOUT, "this answer was not read in time"))

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _play(self) -> None:
        """Send the bytes that are due, and see to the next ones.  Only the next turn tells if the reader takes more."""
        self._timer = None
        sink = self._sink
        if sink is None:
            return
        if not self._piece and self._pace:
            self._piece = self._pace.pop()[1]
        data = self._inflater.decompress(self._rest, min(self._piece, PIECE))
        self._rest = self._inflater.unconsumed_tail
        self._piece -= len(data)
        self._left -= len(data)
        sink.feed(data)
        if self._sink is None:  # it has seen the end
            return
        if not self._left:
            sink.ended()
        elif not self._paused:
            wait = 0 if self._piece else self._pace[-1][0]
            self._timer = self._loop.call_later(wait / 1000, self._play) if wait else self._loop.call_soon(self._play)
