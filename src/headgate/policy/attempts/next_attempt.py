"""Decide the next attempt of a call, the pause before it, and the end of the call.

::

    what failed                                     what comes next
    refused or reset before the head, 500, 502      the same target once more, then the next one
    401, 402, 403, 429                              the next account of the target, then the next target
    503, 529, a timeout, 404 of the model, hollow   the next target
    the prompt is too long                          a target with a larger context
    any other 4xx, a content filter                 none: the client gets the error

If there is no other target, the call waits for one that is limited or overloaded, within the deadline.  If all are out
(ejected, or cooling by Headgate's own guess), the least bad one is asked.  There are at most two retries of a target,
six attempts of a call, and two continuations of a stream that send text.  No attempt begins after the call's deadline.

Pure: time and chance are arguments.  A decision returns its claims on shared state with the Step.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from headgate import errors
from headgate.errors import GatewayError, Retry
from headgate.model import Attempt, Plan, Target
from headgate.policy.attempts.progress import MOST_RETRIES, CallProgress, Step, TargetProgress
from headgate.policy.attempts.selection import MARGIN_S, Selection
from headgate.policy.attempts.strategies import LEARNING, intended_target, order
from headgate.policy.health.accounts import key_of
from headgate.policy.health.affinity import Bound
from headgate.policy.health.targets import HealthState, key_of_target

MOST_ATTEMPTS = 6
MOST_CONTINUATIONS = 2
SHORT_S = 3.0  # a call waits for a Retry-After up to this, even if there is another target
_UNABLE = (400, 404, 405, 415, 422, 500, 501)  # servers' answers to a prefill that they do not support
_FOR_GOOD = (400, 422, 501)
_ITS_OWN = (errors.UPSTREAM_REFUSED, errors.UPSTREAM_UNPROCESSABLE, errors.PAYLOAD_TOO_LARGE)
_COME_AGAIN = (errors.RATE_LIMITED, errors.UPSTREAM_OVERLOADED)  # refusals that may have a Retry-After


class NextAttempt:
    """One call's decisions: ``first`` at the start, ``after`` each failed attempt.

    ``intended``, from the start on, is the first target of the order, whether it is well or not: where another one
    serves, the call has fallen back.  ``given_up`` says why ``after`` has found no way.  ``passed_over``: accounts that
    their own limits have kept from being used so far, and why.
    """

    # Defaults stand on the class: most calls set none of them
    given_up = ""
    intended: Target | None = None
    passed_over: dict[str, str] | None = None
    _selection: Selection | None = None
    _why = "first"

    def __init__(self, plan: Plan, health: HealthState, chance: Callable[[], float]) -> None:
        """``chance`` gives floats in [0, 1): for jitter and weighted choices."""
        self._plan = plan
        self._health = health
        self._chance = chance

    def first(self, now: float, deadline: float) -> Step:
        """Return the first attempt.  ``now`` is monotonic seconds, ``deadline`` the end of the whole call.

        Raises GatewayError if no attempt can be made: every account is dead or exhausted, …
        """
        plan = self._plan
        self._deadline = deadline
        self._began = now
        attempt = self._attempt = plan.attempts[0]
        self.intended = attempt.target
        if plan.ordered and self._health.quiet:
            return Step(attempt)
        selection = self._select(now)
        first = self._progress.targets[0]
        if self._health.quiet and not plan.has_terms:
            return self._take_first(Step(first.attempts[0]), now)
        step = selection.any_target(now)
        if step is None:
            raise selection.refusal(now)
        return self._take_first(step, now)

    def first_at_once(self, now: float, deadline: float, is_full: Callable[[Attempt], bool]) -> Step:
        """Return the first attempt of a call that would rather wait in a queue than for one of its targets.

        ``is_full``: the attempt's target has no place for it.  Raises GatewayError: LimitReached if every target that
        is well is full, or may not be asked yet; otherwise as ``first``.
        """
        if self._plan.ordered and self._health.quiet and not is_full(self._plan.attempts[0]):
            return self.first(now, deadline)
        self._deadline = deadline
        return self._take_first(self._select(now).at_once(now, is_full), now)

    def extend(self, deadline: float) -> float:
        """Return the end of the call, later if the next attempt's target allows more time.  It never becomes earlier: a
        fallback with a deadline that has already passed could not be asked.
        """
        self._deadline = max(self._deadline, deadline)
        if self._selection is not None:
            self._selection.deadline = self._deadline
        return self._deadline

    def after(
        self,
        error: GatewayError,
        now: float,
        *,
        continuing: bool = False,
        spoke: bool = True,
        unclear: bool = False,
        prefill: bool = True,
    ) -> Step | None:
        """Return the attempt after a failed one; None if there is none, and the client gets the error.

        ``continuing``: the client has seen part of the answer.  Targets that declare prefill continue it
        (``why="continue"``); others begin afresh, and the answer is spliced (``why="restart"``).  At most two of these
        attempts may send text.  ``spoke``: the failed attempt sent text; attempts without text do not count.
        ``unclear``: the failed attempt may have continued or begun again; a fresh one shows which.  ``prefill`` is
        False if the client has members that no target takes back (reasoning).  Every continuation is then a restart.
        """
        selection = self._selection or self._select(now, attempts_made=1)
        progress = self._progress
        one = progress.find(self._attempt)
        blamed = continuing and self._why == "continue" and _may_blame_prefill(error, spoke)
        afresh = unclear or (blamed and error.upstream_status in _UNABLE)
        too_long = error.kind is errors.CONTEXT_LENGTH
        self._note_failure(one, error, now, blamed=blamed, afresh=afresh)
        if blamed or unclear:
            progress.plain.append(one)
        if continuing and not afresh:
            if spoke:
                progress.broken += 1
            elif error.retry is not Retry.ACCOUNT and not one.ready:
                progress.silent.append(one)  # its account rests separately
        if too_long and not afresh:
            progress.note_too_small(one)
        its_own = continuing and not spoke and error.kind in _ITS_OWN
        if its_own:
            one.is_spent, one.waits = True, False  # another target has taken this request
        final = error.retry is Retry.NEVER and not (afresh or its_own or too_long)
        self.given_up = self._why_over(now) or (f"{one.target.provider.name} refused the request" if final else "")
        if self.given_up:
            return None
        if afresh:
            step: Step | None = Step(self._attempt, 0.0, "restart")  # in place of the failed continuation
        elif continuing:
            step = self._continuation(selection, one, error, now, prefill)
        elif too_long:
            step = selection.any_target(now)
        else:
            step = self._instead(selection, one, error, now)
        return self._take(step, now) if step is not None else None

    def succeeded(self, now: float, first_at: float | None = None, tokens: int = 0) -> None:
        """Note that the last attempt has delivered, for health and affinity.

        ``first_at``: time of its first token.  ``tokens``: number of tokens that came one by one.
        """
        health = self._health
        if not health.quiet:
            health.served(self._attempt, self._began, now)
        plan = self._plan
        if plan.ordered:
            return
        target = self._attempt.target
        health.affinity.served(plan.affinity, Bound(key_of_target(target), key_of(self._attempt)), now)
        alone = self._selection is None or self._progress.attempts_made == 1  # else the time contains other attempts
        if first_at is not None and alone and plan.alias.strategy in LEARNING:
            between = (now - first_at) / (tokens - 1) if tokens > 1 else None
            health.learn_latency(target, max(0.0, first_at - self._began), between)

    # ------------------------------------------------------------------------------------- after a failure

    def _note_failure(
        self, one: TargetProgress, error: GatewayError, now: float, *, blamed: bool, afresh: bool
    ) -> None:
        """Note the failure for health.  ``blamed``: the prefill may have caused it.  ``afresh``: the attempt does not
        count, and the same target is asked without a prefill.
        """
        one.was_tried = True
        one.ready = now + error.retry_after if error.retry_after is not None and _says_when(error) else 0.0
        if blamed and error.upstream_status in _FOR_GOOD and error.kind is not errors.CONTEXT_LENGTH:
            self._health.rejects_prefill(one.target, now)
        elif not afresh and not self._out_of_time(error, one, now):
            self._health.failed(self._attempt, error, now)

    def _why_over(self, now: float) -> str:
        """Return the reason why no attempt may follow at any target; empty if one may."""
        attempts_made = self._progress.attempts_made
        if attempts_made >= MOST_ATTEMPTS:
            return f"{attempts_made} attempts were made"
        return "the call's deadline has passed" if now + MARGIN_S >= self._deadline else ""

    def _instead(self, selection: Selection, one: TargetProgress, error: GatewayError, now: float) -> Step | None:
        """Return the attempt in place of the failed one, for a client that has seen nothing."""
        kind = error.kind
        long = error.retry is Retry.SAME and (error.retry_after or 0.0) > SHORT_S
        one.waits = kind in _COME_AGAIN or long
        one.ready = now + (error.retry_after or 0.0) if one.waits else 0.0
        if error.retry is Retry.ACCOUNT:
            one.refused.append(self._attempt)
            other = selection.other_account(one, now)
            if other is not None:
                return replace(other, why="probe" if other.why == "probe" else "account")
            if kind is errors.RATE_LIMITED and error.retry_after is not None and error.retry_after <= SHORT_S:
                step = selection.same_target(one, self._attempt, now, MOST_RETRIES, error.retry_after)
                if step is not None:
                    return step
        elif error.retry is Retry.SAME and not selection.is_ejected(one, now):
            least = error.retry_after or 0.0
            if least <= SHORT_S:
                at_once = kind is errors.UPSTREAM_RESET
                step = selection.same_target(one, self._attempt, now, 1, least, at_once=at_once)
                if step is not None:
                    return step
        one.is_spent = True
        return selection.any_target(now)

    def _continuation(
        self, selection: Selection, one: TargetProgress, error: GatewayError, now: float, prefill: bool
    ) -> Step | None:
        """Return the attempt that continues the answer, for a client that has seen a part of it."""
        broken = self._progress.broken
        if broken > MOST_CONTINUATIONS:
            self.given_up = f"the answer broke off {broken} times"
            return None
        if error.kind is errors.UPSTREAM_HOLLOW and not prefill:
            one.is_spent = True  # it has sent only reasoning
        step = selection.continuation(one, now, prefill)
        if step is None:
            self.given_up = "no other target can go on with it now"
        return step

    def _out_of_time(self, error: GatewayError, one: TargetProgress, now: float) -> bool:
        """True if the call's own, shorter deadline has passed.  That is no failure of the target."""
        return (
            error.kind is errors.UPSTREAM_TIMEOUT
            and now + MARGIN_S >= self._deadline
            and now + MARGIN_S - self._began < one.target.timeouts.total
        )

    # ------------------------------------------------------------------------------------- its own state

    def _select(self, now: float, attempts_made: int = 0) -> Selection:
        plan, health = self._plan, self._health
        self._progress = CallProgress(order(plan, health, now, self._chance), attempts_made)
        self._selection = Selection(plan, health, self._progress, self._chance, self._deadline)
        self.passed_over = self._selection.passed_over
        return self._selection

    def _take_first(self, step: Step, now: float) -> Step:
        first = self._progress.targets[0].target
        self.intended = intended_target(self._plan, first)
        if step.why == "fallback" and step.attempt.target is first:
            step = replace(step, why="first")  # by its place in the order, with any account
        return self._take(step, now)

    def _take(self, step: Step, now: float) -> Step:
        self._attempt = step.attempt
        self._why = step.why
        self._began = now + step.wait
        self._progress.attempts_made += 1
        if self._plan.has_terms and step.attempt.account is not None and step.attempt.account.has_terms:
            return replace(step, claims=(*step.claims, "use"))
        return step


def _says_when(error: GatewayError) -> bool:
    """True if a target says when it may be asked again.  Limits concern the account instead."""
    named = error.kind is errors.UPSTREAM_OVERLOADED or error.retry is Retry.SAME
    return named and error.retry_after is not None


def _may_blame_prefill(error: GatewayError, spoke: bool) -> bool:
    """True if a continuation may have failed because of its prefill.  A fresh request may then succeed."""
    if spoke or _says_when(error):
        return False
    status = error.upstream_status or 0
    return status >= 400 and error.retry is not Retry.ACCOUNT and error.kind is not errors.CONTENT_FILTER
