"""The progress of one call: its tried targets, and the results of each.

Made only for calls with an unordered plan, or at a call's first failure.  Owned by that call alone.
"""

from __future__ import annotations

from msgspec import Struct

from headgate.model import Attempt, Target
from headgate.policy.health.targets import Claim

MOST_RETRIES = 2  # of a target, in one call


class Step(Struct, frozen=True, gc=False):
    """``attempt`` is to be made ``wait`` seconds from now.  ``why``: first | retry | account | fallback | probe |
    continue | restart (model.AttemptRecord).

    ``claims``: the parts of the shared state that the attempt takes: see ``HealthState.commit``.
    """

    attempt: Attempt
    wait: float = 0.0
    why: str = "first"
    claims: tuple[Claim, ...] = ()


class TargetProgress:
    """One target of a call: its accounts in the order to try, and its results in this call."""

    __slots__ = ("attempts", "is_spent", "ready", "refused", "retries", "target", "waits", "was_tried")

    def __init__(self, target: Target, attempts: list[Attempt]) -> None:
        self.target = target
        self.attempts = attempts
        self.was_tried = False
        self.retries = 0
        self.refused: list[Attempt] = []  # their accounts refused this call
        self.is_spent = False  # it gets no other chance
        self.waits = False  # it may be asked again later, if there is no other
        self.ready = 0.0  # the time of its own Retry-After


class CallProgress:
    """The targets of a call in their order, and the counts that bound its attempts."""

    __slots__ = ("_small", "_window", "attempts_made", "broken", "plain", "silent", "targets")

    def __init__(self, targets: list[TargetProgress], attempts_made: int = 0) -> None:
        self.targets = targets
        self.attempts_made = attempts_made
        self.broken = 0  # breaks of the client's stream: attempts that sent text, but not all of it
        self.silent: list[TargetProgress] = []  # continuations that sent nothing; a target may occur several times
        self.plain: list[TargetProgress] = []  # targets that get no prefill any more in this call
        self._window = -1  # the largest context, in tokens, that was too small for the prompt
        self._small: set[str | None] = set()  # models whose context was too small, at any provider

    def find(self, attempt: Attempt) -> TargetProgress:
        return next(one for one in self.targets if one.target is attempt.target)

    def may_continue(self, one: TargetProgress) -> bool:
        """True if it may be asked to continue the client's stream, at once or after a wait."""
        open_ = not one.is_spent or one.waits
        return open_ and self.fits(one) and self.silent.count(one) < MOST_RETRIES

    def note_too_small(self, one: TargetProgress) -> None:
        """Note that the prompt is too long for this target's context."""
        one.is_spent = True
        self._window = max(self._window, _window(one.target))
        self._small |= {one.target.upstream_model, _canonical(one.target) or one.target.model}

    def fits(self, one: TargetProgress) -> bool:
        """True if the prompt is not known to be too long.  Once it was, only a larger declared context fits."""
        if not self._small:
            return True
        target = one.target
        return _window(target) > self._window and not {target.upstream_model, _canonical(target)} & self._small


def _window(target: Target) -> int:
    return (target.row.context_window or 0) if target.row is not None else 0


def _canonical(target: Target) -> str | None:
    return target.row.canonical if target.row is not None else None
