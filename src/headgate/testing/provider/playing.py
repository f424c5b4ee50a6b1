"""One answer, token by token, on one timer: no task per stream, so that a thousand streams cost little more than
their writes.

A stream that has fallen behind its rate catches up with several events in one write.  A full socket stops it until
there is room.
"""

from __future__ import annotations

import asyncio
import time

from headgate.testing.provider.server import ReplyWriter
from headgate.testing.provider.shapes import ChatRequest, Shape

EVENT_STREAM = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
_BATCH = 256


class Pace:
    """``rate`` tokens/s after ``ttft`` seconds; a rate of 0 means as fast as the socket takes them."""

    __slots__ = ("rate", "ttft")

    def __init__(self, rate: float = 0.0, ttft: float = 0.0) -> None:
        self.rate, self.ttft = rate, ttft

    def duration(self, count: int) -> float:
        """Return the seconds until ``count`` tokens are sent."""
        return self.ttft + (count - 1) / self.rate if self.rate and count else self.ttft

    def due(self, elapsed: float, total: int) -> int:
        """Return the number of ``total`` tokens that are due after ``elapsed`` seconds."""
        if elapsed < self.ttft:
            return 0
        return min(total, int((elapsed - self.ttft) * self.rate) + 1) if self.rate else total


def capped(chat: ChatRequest, tokens: list[str]) -> tuple[list[str], str]:
    """Return the part of ``tokens`` that the client's ``max_tokens`` admits, and the finish reason."""
    if chat.cap is not None and chat.cap < len(tokens):
        return tokens[: chat.cap], "length"
    return tokens, "stop"


def play(reply: ReplyWriter, chat: ChatRequest, shape: Shape, tokens: list[str], pace: Pace) -> None:
    """Answer with ``tokens`` at ``pace``, streamed or whole by the request."""
    said, reason = capped(chat, tokens)
    _Stream(reply, chat, shape, said, reason, pace).begin()


class _Stream:
    __slots__ = ("_at", "_chat", "_pace", "_reason", "_reply", "_sent", "_shape", "_timer", "_tokens")

    def __init__(
        self, reply: ReplyWriter, chat: ChatRequest, shape: Shape, tokens: list[str], reason: str, pace: Pace
    ) -> None:
        self._reply, self._chat, self._shape = reply, chat, shape
        self._tokens, self._reason, self._pace = tokens, reason, pace
        self._sent = 0
        self._at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._reply.on_gone = self._cancel
        if self._chat.stream:
            self._reply.on_room = self._tick
            self._reply.head(200, EVENT_STREAM)
            self._reply.send(self._shape.first())
            self._tick()
        else:
            self._wait(self._at + self._pace.duration(len(self._tokens)))

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _wait(self, until: float) -> None:
        delay = max(0.0, until - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick if self._chat.stream else self._whole)

    def _whole(self) -> None:
        count = self._reply.seen.tokens = len(self._tokens)
        prompt = self._chat.prompt_tokens
        self._reply.whole(200, self._shape.answer("".join(self._tokens), self._reason, prompt, count))

    def _tick(self) -> None:
        self._cancel()
        total = len(self._tokens)
        while not self._reply.full:
            elapsed = time.monotonic() - self._at
            due = self._pace.due(elapsed, total)
            self._send_up_to(min(due, self._sent + _BATCH))
            if self._sent == total and elapsed >= self._pace.ttft:
                return self._end()
            if self._sent == due:
                return self._wait(self._at + self._pace.duration(self._sent + 1))
        return None

    def _send_up_to(self, end: int) -> None:
        if end > self._sent:
            content = self._shape.content
            self._reply.send(b"".join([content(token) for token in self._tokens[self._sent : end]]))
            self._sent = self._reply.seen.tokens = end

    def _end(self) -> None:
        self._reply.on_room = None
        self._reply.send(self._shape.ending(self._reason, self._chat.prompt_tokens, self._sent))
        self._reply.end()
