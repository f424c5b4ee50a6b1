"""The deadlines of one attempt: of each phase of an answer, and of the whole.

Owns the phase that an attempt is in and the instant that ends it.  A deadline that moves with each event costs one
assignment (``last_event_at``): the wheel looks at it when the slot comes up.  Knows no socket: any kind of upstream has
a ``Patience``.
"""

from __future__ import annotations

from collections.abc import Callable

from headgate.errors import UPSTREAM_TIMEOUT, GatewayError
from headgate.model import Timeouts
from headgate.serving.loop.wheel import NEVER, Wheel

_OVER = ""  # the phase between two attempts
_NONE = Timeouts()
_PHASES = {
    "headers": "the response head",
    "first_token": "the first token",
    "stall": "the next token",
    "end": "the end of the answer",
    "total": "the whole answer",
}


class Patience:
    """One attempt's deadlines, for one attempt after another.

    ``begin`` starts an attempt, ``end`` disarms it, ``drop`` takes it off the wheel for good: the only end of one that
    is paused.  ``out_of_time`` gets the error of a deadline that has passed.  No phase lasts beyond ``deadline``, the
    latest end of the attempt.
    """

    __slots__ = (
        "_deadline", "_ending", "_out_of_time", "_paused", "_timeouts", "_wheel", "due", "last_event_at", "phase",
        "slot",
    )  # fmt: skip

    def __init__(self, wheel: Wheel, out_of_time: Callable[[GatewayError], None]) -> None:
        self._wheel = wheel
        self._out_of_time = out_of_time
        self._timeouts = _NONE
        self._deadline = NEVER
        self._ending = 0.0  # seconds allowed for the end
        self._paused = False
        self.phase = _OVER  # while paused: the phase to return to
        self.last_event_at = 0.0  # the wheel's now at the last event: the pump assigns it
        self.due = NEVER
        self.slot = -1

    def begin(self, timeouts: Timeouts, deadline: float, streamed: bool) -> None:
        """Start an attempt: the request was sent.  Only a streamed answer has a deadline for its head."""
        self._timeouts = timeouts
        self._deadline = deadline
        self.phase = "total"
        if streamed:
            self._expect("headers", timeouts.headers)
        else:
            self._wheel.set(self, deadline)

    def end(self) -> None:
        """End the attempt: no deadline is armed, even if later calls set a phase."""
        self.phase = _OVER
        self.due = NEVER

    def drop(self) -> None:
        """Leave the wheel: there will be no other attempt."""
        self.end()
        self._wheel.drop(self)

    def begin_first_token(self) -> None:
        """Start the phase after the head of a streamed answer."""
        self._expect("first_token", self._timeouts.first_token)

    def begin_stalling(self) -> None:
        """Start the phase after the first token: the silence between events is bounded."""
        self.last_event_at = self._wheel.now
        self._expect("stall", self._timeouts.stall)

    def begin_ending(self, seconds: float) -> None:
        """Start the last phase: only the end of the body is missing."""
        if self.phase in ("stall", "first_token", "end"):
            self._ending = seconds
            self._expect("end", seconds)

    def pause(self) -> None:
        """Stop the phase's clock while the client is slow.  Only the whole attempt is bounded."""
        self._paused = True
        self.due = self._deadline

    def resume(self) -> None:
        """Give the phase its full time again."""
        self._paused = False
        if self.phase == "first_token":
            self.begin_first_token()
        elif self.phase == "end":
            self._expect("end", self._ending)
        else:
            self.begin_stalling()

    def _expect(self, phase: str, seconds: float) -> None:
        if self.phase == _OVER:
            return
        self.phase = phase
        if not self._paused:
            self._wheel.set(self, min(self._wheel.now + seconds, self._deadline))

    def expire(self, now: float) -> None:
        """Called by the wheel: end the attempt if the phase's deadline has passed without an event since."""
        if self.phase == "stall" and not self._paused:
            quiet_until = self.last_event_at + self._timeouts.stall
            if now < min(quiet_until, self._deadline):
                self._expect("stall", quiet_until - now)
                return
        phase = "total" if now >= self._deadline else self.phase
        self._out_of_time(
            GatewayError(UPSTREAM_TIMEOUT, f"the provider did not answer in time ({_PHASES[phase]} took too long)")
        )
