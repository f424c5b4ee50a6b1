"""A second kind of upstream, without a socket: what it takes to be one is ``ports.Carrier``, ``Asking``, ``Upstream``.

Scripts say how each request is answered: an error to raise, a whole body, or the pieces of a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from headgate.errors import GatewayError
from headgate.model import Attempt, Rendered
from headgate.ports import Sink
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import Wheel
from headgate.serving.upstream.patience import Patience

Script = GatewayError | bytes | list[bytes | GatewayError]


class MemoryCarrier:
    """Implements ``ports.Carrier``.  ``asked`` has every asking, ``scripts`` the answers by provider."""

    def __init__(self, wheel: Wheel, scripts: dict[str, list[Script]]) -> None:
        self.wheel = wheel
        self.scripts = scripts
        self.asked: list[MemoryAsking] = []

    def ask(
        self, attempt: Attempt, rendered: Rendered, headers: dict[bytes, bytes], stream: bool, deadline: float,
        max_answer: int,
    ) -> MemoryAsking:  # fmt: skip
        script = self.scripts[attempt.target.provider.name].pop(0)
        asking = MemoryAsking(headers, rendered.body, asyncio.get_running_loop().time())
        upstream = MemoryUpstream(asking, self.wheel, script)
        upstream.patience.begin(attempt.target.timeouts, deadline, stream)
        asyncio.get_running_loop().call_soon(upstream.answer)
        self.asked.append(asking)
        return asking

    def is_full(self, attempt: Attempt, freed: Callable[[], None]) -> bool:
        return False

    def secrets_of(self, attempt: Attempt) -> tuple[str, ...]:
        return ()


class MemoryAsking:
    """Implements ``ports.Asking``."""

    def __init__(self, headers: dict[bytes, bytes], body: bytes, now: float) -> None:
        self.headers = headers
        self.body = body
        self.queued = self.connected = now
        self.released: list[bool] = []
        self.answered: Signal[MemoryUpstream] = Signal()

    def __await__(self) -> Generator[Any, None, MemoryUpstream]:
        return self.answered.__await__()

    def release(self, *, finished: bool) -> None:
        self.released.append(finished)
        if self.answered.done and self.answered._value is not None:
            self.answered._value.patience.drop()


class MemoryUpstream:
    """Implements ``ports.Upstream``."""

    def __init__(self, asking: MemoryAsking, wheel: Wheel, script: Script) -> None:
        self.status = 200
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.streamed = isinstance(script, list)
        self.asking = asking
        self.patience = Patience(wheel, self.fail)
        self.reading = True
        self._script = script
        self._sink: Sink | None = None
        self._loop = asyncio.get_running_loop()

    def answer(self) -> None:
        if isinstance(self._script, GatewayError):
            self.fail(self._script)
        elif isinstance(self._script, bytes):
            self.body = self._script
            self.asking.answered.set(self)
        else:
            self.patience.begin_first_token()
            self.asking.answered.set(self)

    def fail(self, error: GatewayError) -> None:
        self.patience.drop()
        if self._sink is not None:
            self._sink.failed(error)
        else:
            self.asking.answered.fail(error)

    def attach(self, sink: Sink) -> None:
        self._sink = sink
        self._loop.call_soon(self._feed)

    def detach(self) -> None:
        self._sink = None

    def pause(self) -> None:
        self.reading = False
        self.patience.pause()

    def resume(self) -> None:
        self.reading = True
        self.patience.resume()
        self._loop.call_soon(self._feed)

    def _feed(self) -> None:
        """Give one piece of the stream to the sink, the next in the next turn."""
        sink, script = self._sink, self._script
        if sink is None or not self.reading or not isinstance(script, list):
            return
        if not script:
            return  # silence
        piece = script.pop(0)
        if isinstance(piece, GatewayError):
            self.fail(piece)
        elif piece:
            sink.feed(piece)
            self._loop.call_soon(self._feed)
        else:
            sink.ended()
