"""The fixture engine: a small language model's server without the model, for honest tests of broken streams.

``engine`` as a model of the built-in provider.  Its text is a pure function of (seed, mode, all text so far): see
``walk``.  ``answer.Settings`` set the form of its events and its faults: as a suffix of the model id,
``engine?mode=code&chunk=3``, or as ``"engine": {…}`` in the body, which wins.  ``kill`` and ``key`` let one call be
cut several times: the n-th request with a key dies at ``kill[n-1]``; requests beyond the list complete.

It is no engine to talk to: the prompt chooses the words, and nothing else.
"""

from __future__ import annotations

import asyncio
import time

from headgate.testing.engine.answer import Answer, read
from headgate.testing.engine.streaming import NEVER, Streaming
from headgate.testing.faults.scene import Memory
from headgate.testing.provider.server import Reply
from headgate.testing.provider.shapes import Shape


async def _perform(reply: Reply, shape: Shape, answer: Answer, kill: int, cut: float) -> None:
    if answer.request.stream:
        return await Streaming(reply, answer, shape).send(kill, cut)
    await asyncio.sleep(answer.settings.pace / 1e3 * len(answer.pieces[0]))
    if kill != NEVER or cut < 1:
        return reply.close()
    return reply.whole(200, answer.document(shape))


def begin(reply: Reply, memory: Memory, id: str) -> None:
    """Reads the request and starts its answer.  Raises Invalid."""
    request, settings = read(reply.request.body)
    answer = Answer(request, settings)
    visit = memory.visit("engine", settings.key)[0] if settings.key else 1
    kill = settings.kill[visit - 1] if visit <= len(settings.kill) else NEVER
    cut = settings.cut[visit - 1] if visit <= len(settings.cut) else 1.0
    shape = Shape(id, int(time.time()), "engine", request.include_usage)
    reply.run(_perform(reply, shape, answer, kill, cut), f"engine on connection {reply.seen.connection}")
