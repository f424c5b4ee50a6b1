"""The driver of a call's coroutine: it resumes inside the callback that completes its await.

The loop resumes an ``asyncio.Task`` in its next turn.  So every await of the spine would cost one more turn of the
loop (and one more poll if no other work is due).  A call awaits only things that one of our own protocol callbacks
completes: a connection, a response head, the end of a relay.  So the callback resumes the coroutine itself.  Measured
with uvloop, creation and one await: 2.4 → 1.1 µs at 16 calls at a time, 5.1 → 3.8 µs alone (docs/decisions/003).

Only a ``Signal`` may be awaited here.  Work that needs asyncio (name look-up, TLS) runs in a named task of its owner
and sets a Signal at its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Signal(Generic[T]):
    """A value that will be set once.  One fiber may wait; later settings are ignored."""

    # Defaults stand on the class: a Signal costs one allocation and nothing else until it is set.
    done = False
    _fiber: Fiber | None = None
    _value: T | None = None
    _error: BaseException | None = None

    def set(self, value: T) -> None:
        """Hand over the value.  The waiting fiber runs on before this returns."""
        if not self.done:
            self.done = True
            self._value = value
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the waiting fiber."""
        if not self.done:
            self.done = True
            self._error = error
            self._wake()

    def _wake(self) -> None:
        fiber = self._fiber
        if fiber is not None:
            self._fiber = None
            fiber.step()

    def __await__(self) -> Generator[Signal[T], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set() gave a T


def next_turn() -> Signal[None]:
    """A Signal that the next turn of the loop sets: long work awaits one after each part, so that others run too."""
    signal: Signal[None] = Signal()
    asyncio.get_running_loop().call_soon(signal.set, None)
    return signal


class Fiber:
    """One running coroutine.  ``ended`` is called once, after success or failure; it must not raise."""

    __slots__ = ("_awaiting", "_coroutine", "_ended", "name")

    def __init__(
        self, coroutine: Coroutine[Signal[Any], None, None], name: str, ended: Callable[[Fiber], None]
    ) -> None:
        self.name = name
        self._coroutine = coroutine
        self._ended = ended
        self._awaiting: Signal[Any] | None = None

    def step(self) -> None:
        """Run until the next Signal that is not set yet."""
        self._awaiting = None
        try:
            signal = self._coroutine.send(None)
        except StopIteration:
            self._ended(self)
            return
        except BaseException:
            self._ended(self)
            raise
        self._awaiting = signal
        signal._fiber = self

    def throw(self, error: BaseException) -> bool:
        """Raise ``error`` in the waiting coroutine.  Return False if it is running right now, or over."""
        signal = self._awaiting
        if signal is None:
            return False
        self._awaiting = signal._fiber = None
        try:
            signal = self._coroutine.throw(error)
        except StopIteration:
            self._ended(self)
            return True
        except BaseException:
            self._ended(self)
            raise
        self._awaiting = signal
        signal._fiber = self
        return True
