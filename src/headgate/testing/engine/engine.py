"""The fixture engine: a small language model's server without the model, for honest tests of broken streams.

It is the model ``engine`` of the built-in provider.  Its text is a pure function of (seed, mode, all text so far): see
``walk``.  ``EngineSettings`` set the form of its events and its faults.  They come as a suffix of the model id,
``engine?mode=code&chunk=3``, or as ``"engine": {…}`` in the body, which takes precedence.  ``kill`` and ``key`` cut one
call several times: the n-th request with a key dies at ``kill[n-1]``; requests beyond the list complete.

It does not answer questions: the prompt only chooses the words.
"""

from __future__ import annotations

import asyncio
import time

from headgate.testing.engine.answer import EngineAnswer, read
from headgate.testing.engine.streaming import NEVER, Streaming
from headgate.testing.faults.scene import FaultCounts
from headgate.testing.provider.server import ReplyWriter
from headgate.testing.provider.shapes import Shape


async def _perform(reply: ReplyWriter, shape: Shape, answer: EngineAnswer, kill: int, cut: float) -> None:
    if answer.request.stream:
        return await Streaming(reply, answer, shape).send(kill, cut)
    await asyncio.sleep(answer.settings.pace / 1e3 * len(answer.pieces[0]))
    if kill != NEVER or cut < 1:
        return reply.close()
    return reply.whole(200, answer.document(shape))


def begin(reply: ReplyWriter, memory: FaultCounts, id: str) -> None:
    """Read the request and start its answer.  Raises Invalid."""
    request, settings = read(reply.request.body)
    answer = EngineAnswer(request, settings)
    visit = memory.visit("engine", settings.key)[0] if settings.key else 1
    kill = settings.kill[visit - 1] if visit <= len(settings.kill) else NEVER
    cut = settings.cut[visit - 1] if visit <= len(settings.cut) else 1.0
    shape = Shape(id, int(time.time()), "engine", request.include_usage)
    reply.run(_perform(reply, shape, answer, kill, cut), f"engine on connection {reply.seen.connection}")
