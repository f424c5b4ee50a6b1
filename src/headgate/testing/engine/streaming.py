"""One stream of the fixture engine: its events in order, and where and how it breaks off."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from headgate.testing.engine.answer import EngineAnswer, Piece
from headgate.testing.provider import shapes
from headgate.testing.provider.playing import EVENT_STREAM
from headgate.testing.provider.server import ReplyWriter
from headgate.testing.provider.shapes import Shape

NEVER = -1
_STEP = 4096  # most bytes of a piece of a body that is written in arbitrary pieces


class Streaming:
    """One stream: its events in order, and the place and manner of its break."""

    def __init__(self, reply: ReplyWriter, answer: EngineAnswer, shape: Shape) -> None:
        self._reply, self._answer, self._shape = reply, answer, shape
        self._request, self._settings = answer.request, answer.settings
        self._tokens_sent = 0
        self.events = [self._event(index, piece) for index, piece in _interleaved(answer.pieces)]
        self.events += [self._finish(index) for index in range(len(answer.pieces))]

    def _event(self, index: int, piece: Piece) -> bytes:
        self._tokens_sent += piece.tokens
        shape = self._shape
        plain = index == 0 and self._settings.usage != "each" and not self._request.logprobs
        if plain and piece.text is not None and not self._settings.ascii:
            return shape.content(piece.text)
        value = shape.chunk(piece.delta)
        value["choices"][0]["index"] = index
        if self._request.logprobs and piece.text is not None:
            value["choices"][0]["logprobs"] = {"content": [_logprob(piece.text)]}
        if self._settings.usage == "each":
            value["usage"] = shapes.usage(self._answer.prompt_tokens, self._tokens_sent)
        return shapes.event(value, ascii=self._settings.ascii)

    def _finish(self, index: int) -> bytes:
        value = self._shape.chunk({}, self._answer.reason)
        value["choices"][0]["index"] = index
        if self._settings.usage in ("each", "finish"):
            value["usage"] = self._answer.usage
        return shapes.event(value)

    def _tail(self) -> bytes:
        if self._settings.usage == "asked" and self._request.include_usage:
            return shapes.event({**self._shape.chunk({}), "choices": [], "usage": self._answer.usage}) + shapes.DONE
        return shapes.DONE

    async def send(self, kill: int, cut: float) -> None:
        """Send the stream up to its end, ``kill`` or ``cut``, then end it as the settings demand."""
        reply, settings = self._reply, self._settings
        reply.head(200, EVENT_STREAM)
        if settings.cut or settings.split:
            return await self._send_bytes(cut)
        end = len(self.events) if kill == NEVER else min(kill, len(self.events))
        if settings.burst:
            reply.send(self._shape.first() + b"".join(self.events[:end]))
        else:
            reply.send(self._shape.first())
            for event in self.events[:end]:
                await asyncio.sleep(settings.pace / 1e3)
                reply.send(event)
                reply.seen.tokens += 1
                await reply.room()
        if kill != NEVER:
            await self._fail(end)
        if not reply.over:
            reply.send(self._tail())
            reply.end()

    async def _send_bytes(self, cut: float) -> None:
        """Send the body as bytes, independent of the ends of events."""
        reply, settings = self._reply, self._settings
        body = self._shape.first() + b"".join(self.events) + self._tail()
        if settings.eol == "crlf":
            body = body.replace(b"\n", b"\r\n")  # no event has a line break of its own: JSON escapes it
        end = len(body) if cut >= 1 else int(len(body) * cut)
        chance = random.Random(settings.split)
        at = 0
        while at < end:
            size = min(end - at, 1 + chance.randrange(chance.choice((3, 60, _STEP)))) if settings.split else end - at
            reply.send(body[at : at + size])
            at += size
            await reply.room()
            if chance.random() < 0.1:
                await asyncio.sleep(0)
        if cut >= 1:
            reply.end()
        elif settings.how == "close" and chance.random() < 0.5:
            reply.raw(b"%x\r\n" % (len(body) + 1) + body[end : end + 1])  # the framing is cut as well
            reply.close()
        else:
            await self._fail(len(self.events))

    async def _fail(self, at: int) -> None:
        reply, settings = self._reply, self._settings
        match settings.how:
            case "close":
                reply.close()
            case "reset":
                await asyncio.sleep(0.05)  # an RST throws away what the client's kernel has not handed over yet
                reply.reset()
            case "half":
                whole = (self.events[at:] or [self._tail()])[0]
                reply.send(whole[: len(whole) // 2])
                reply.close()
            case "stall":
                await asyncio.sleep(settings.stall / 1e3)
                reply.send(b"".join(self.events[at:]))
            case "end":
                reply.end()
            case how:
                broken = shapes.error("The engine has lost its worker.", "server_error", "internal_error")
                reply.send((shapes.DONE if how == "done" else shapes.event(broken)) + self._late(at))
                reply.end()

    def _late(self, at: int) -> bytes:
        late = self._settings.late
        return b"".join(self.events[max(0, at - 1) : at + late]) if late else b""


def _interleaved(choices: list[list[Piece]]) -> list[tuple[int, Piece]]:
    longest = max(map(len, choices))
    return [(i, pieces[at]) for at in range(longest) for i, pieces in enumerate(choices) if at < len(pieces)]


def _logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": []}
