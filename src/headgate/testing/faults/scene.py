"""The parts of a fault: its row in the table, and the tools of its act.

A Fault is ``fault/<name>`` as a model.  Its parameters come as a suffix of the model id,
``fault/stall?after=20&for=30``.  Every fault has ``tokens`` (the length of the whole answer), ``rate`` (tokens/s, 0:
at once) and ``key``.  Faults that count ("once", "for 60 s") count per key, so that parallel tests do not disturb
each other.  A count is forgotten after two idle minutes, or by POST /__reset.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from headgate.testing.provider import lorem, shapes
from headgate.testing.provider.playing import EVENT_STREAM, Pace, capped, play
from headgate.testing.provider.server import Headers, ReplyWriter
from headgate.testing.provider.shapes import ChatRequest, Shape

FOREVER = 3600.0
_FORGET = 120.0
_COMMON = {"tokens": 60.0, "rate": 0.0}
Act = Callable[["Scene"], Awaitable[None]]


class Fault(Struct, frozen=True):
    """One fault.  ``params`` are the parameters it knows, with their defaults (seconds and counts).

    ``survivable``: it contains the whole answer.  A streaming client that is strict about the right rules gets all of
    it at the first attempt.
    """

    name: str
    summary: str
    act: Act
    params: dict[str, float]
    survivable: bool = False

    @property
    def model(self) -> str:
        return f"fault/{self.name}"


FAULTS: dict[str, Fault] = {}


def fault(name: str, summary: str, *, survivable: bool = False, **params: float) -> Callable[[Act], Act]:
    """Enter an act into the table.  A parameter named like a Python word (``for``) is written with a trailing
    underscore.
    """

    def enter(act: Act) -> Act:
        if name in FAULTS:
            raise ValueError(f"two faults are named {name}")
        given = {label.rstrip("_"): float(value) for label, value in params.items()}
        FAULTS[name] = Fault(name, summary, act, {**_COMMON, **given}, survivable)
        return act

    return enter


class FaultCounts:
    """The number and the first time of requests for each (fault, key): the only state of faults."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, float, float]] = {}
        self._due = 0.0  # the time of the next removal of idle counts

    def visit(self, name: str, key: str) -> tuple[int, float]:
        """Count a visit.  Return its number (1 is the first) and the seconds since the first."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _FORGET / 4
            self._counts = {who: seen for who, seen in self._counts.items() if now - seen[2] < _FORGET}
        count, first, _ = self._counts.get((name, key), (0, now, now))
        self._counts[name, key] = (count + 1, first, now)
        return count + 1, now - first

    def reset(self) -> None:
        self._counts.clear()


class Scene:
    """One faulty answer: the request, the fault's parameters, and the steps that acts are made of.

    ``answer_tokens`` are the whole answer's tokens; ``at`` is the number of sent ones.
    """

    def __init__(
        self,
        reply: ReplyWriter,
        chat: ChatRequest,
        shape: Shape,
        row: Fault,
        params: dict[str, float],
        memory: FaultCounts,
        key: str,
    ) -> None:
        self.reply, self.chat, self.shape, self.row, self.params = reply, chat, shape, row, params
        self._memory, self._key = memory, key
        planned = lorem.tokens(min(int(params["tokens"]), lorem.MAX_TOKENS))
        self.answer_tokens, self.reason = capped(chat, lorem.remaining(planned, chat.prefill))
        self.at = 0

    @property
    def streamed(self) -> bool:
        return bool(self.chat.stream)

    @property
    def authorization(self) -> str:
        """The key that the client sent, without its scheme."""
        return (self.reply.request.header("authorization") or "").removeprefix("Bearer ")

    def visit(self) -> tuple[int, float]:
        """Count this visit.  Return its number and the seconds since the first."""
        return self._memory.visit(self.row.name, self._key)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # ---- whole answers

    def answer(self) -> None:
        """The answer that a healthy provider gives."""
        planned = lorem.tokens(min(int(self.params["tokens"]), lorem.MAX_TOKENS))
        tokens = lorem.remaining(planned, self.chat.prefill)
        play(self.reply, self.chat, self.shape, tokens, Pace(self.params["rate"]))

    def error(
        self,
        status: int,
        message: str,
        kind: str,
        code: str | None = None,
        param: str | None = None,
        headers: Headers = (),
    ) -> None:
        """An error status with OpenAI's body."""
        self.reply.whole(status, shapes.dumps(shapes.error(message, kind, code, param)), headers=headers)

    def document(self) -> bytes:
        """The whole answer as one JSON document."""
        return self.shape.answer(
            "".join(self.answer_tokens), self.reason, self.chat.prompt_tokens, len(self.answer_tokens)
        )

    def transcript(self) -> bytes:
        """The whole answer as a stream's bytes."""
        content = self.shape.content
        body = b"".join(content(token) for token in self.answer_tokens)
        return self.shape.first() + body + self.ending()

    def ending(self) -> bytes:
        return self.shape.ending(self.reason, self.chat.prompt_tokens, len(self.answer_tokens))

    # ---- a stream, step by step

    def begin(self, headers: Headers = ()) -> None:
        """Head and role chunk."""
        self.open(headers)
        self.reply.send(self.shape.first())

    def open(self, headers: Headers = ()) -> None:
        """The head alone."""
        self.reply.head(200, [*EVENT_STREAM, *headers])

    async def say(self, upto: float | None = None, render: Callable[[str], bytes] | None = None) -> None:
        """Send tokens up to number ``upto`` (all), one per event, at the scene's rate."""
        end = len(self.answer_tokens) if upto is None else min(int(upto), len(self.answer_tokens))
        rate, content = self.params["rate"], render or self.shape.content
        while self.at < end:
            self.reply.send(content(self.answer_tokens[self.at]))
            self.at += 1
            self.reply.seen.tokens = self.at
            await self.reply.room()
            await asyncio.sleep(1 / rate if rate else 0)

    def send(self, *events: bytes) -> None:
        for event in events:
            self.reply.send(event)

    def event(self, value: Any) -> None:
        self.reply.send(shapes.event(value))

    def finish(self) -> None:
        """A proper end of the stream and of the body."""
        self.send(self.ending())
        self.reply.end()
