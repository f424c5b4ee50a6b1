"""One call's way through its plan: which attempt comes next, after which pause, and when to stop.

::

    what failed                                     what comes next
    refused or reset before the head, 500, 502      the same target once more, then the next one
    401, 402, 403, 429                              the next account of the target, then the next target
    503, 529, a timeout, 404 of the model, hollow   the next target
    the prompt is too long                          a target with a larger context
    any other 4xx, a content filter                 nothing: the client is told

Where there is no other target, one that is limited or overloaded is waited for, within the deadline; one that is out
(ejected, cooling by our own guess) is asked all the same: the least bad serves.  At most two retries of a target, six
attempts of a call, two continuations of a stream that say something, and never past the call's deadline.

Pure: what time it is, and chance, are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headgate import errors
from headgate.errors import GatewayError, Retry
from headgate.model import Attempt, Plan, Target
from headgate.policy.attempts.strategies import LEARNING, Leg, legs, meant
from headgate.policy.health.accounts import ACTIVE, ALONE_S, OUT, PROBE, REFUSED, Standing, key_of
from headgate.policy.health.affinity import Bound
from headgate.policy.health.targets import Health, key_of_target

MOST_ATTEMPTS = 6
MOST_RETRIES = 2
MOST_CONTINUATIONS = 2
SHORT_S = 3.0  # a Retry-After up to this is waited for, though there be another target
LONGEST_WAIT_S = 60.0  # where there is none; the clients' own libraries wait no longer either
BACKOFF_S, LONGEST_BACKOFF_S = 0.25, 2.0
_MARGIN_S = 0.05
_UNABLE = (400, 404, 405, 415, 422, 500, 501)  # statuses with which servers answer a prefill that they do not take
_FOR_GOOD = (400, 422, 501)
_ITS_OWN = (errors.UPSTREAM_REFUSED, errors.UPSTREAM_UNPROCESSABLE, errors.PAYLOAD_TOO_LARGE)
_COME_AGAIN = (errors.RATE_LIMITED, errors.UPSTREAM_OVERLOADED)  # refusals that a Retry-After goes with


class Step(NamedTuple):
    """``attempt`` is to be made ``wait`` seconds from now.  ``why``: first | retry | account | fallback | probe |
    continue | restart (model.AttemptRecord).
    """

    attempt: Attempt
    wait: float = 0.0
    why: str = "first"


class Course:
    """Made for each call; asked once at the start, and once after each failed attempt.

    ``meant``, from the start on, is the first target of the order, whether it is well or not: where another one
    serves, the call has fallen back.  ``given_up`` says why ``after`` has found no way.
    """

    __slots__ = (
        "_attempt",
        "_began",
        "_chance",
        "_deadline",
        "_health",
        "_plan",
        "_trail",
        "_why",
        "given_up",
        "meant",
    )

    def __init__(self, plan: Plan, health: Health, chance: Callable[[], float]) -> None:
        """``chance`` gives floats in [0, 1): for jitter and weighted choices."""
        self._plan = plan
        self._health = health
        self._chance = chance
        self._trail: _Trail | None = None
        self._why = "first"
        self.given_up = ""

    def first(self, now: float, deadline: float) -> Step:
        """The first attempt.  ``now`` is monotonic seconds, ``deadline`` the end of the whole call.

        Raises GatewayError where no attempt can be made at all (every account dead or exhausted, …).
        """
        plan, health = self._plan, self._health
        self._deadline = deadline
        self._began = now
        attempt = self._attempt = plan.attempts[0]
        self.meant = attempt.target
        health.traffic[attempt.target.provider.name] += 1
        if health.quiet and plan.ordered:
            return Step(attempt)
        trail = self._trail = _Trail(legs(plan, health, now, self._chance))
        self.meant = meant(plan, trail.legs[0].target)
        if health.quiet:
            return self._take(trail, Step(trail.legs[0].attempts[0]), now)
        health.sweep(now)
        step = self._next(trail, now) or self._panic(trail, now) or self._wait(trail, now)
        if step is None:
            raise _refusal(trail, health, now)
        if step.why == "fallback" and step.attempt.target is trail.legs[0].target:
            step = step._replace(why="first")  # its place in the order, whichever account it goes to
        return self._take(trail, step, now)

    def extend(self, deadline: float) -> float:
        """The end of the call where the next attempt's target allows it so long; it never comes nearer: a fallback that
        allows less than has gone by would not be asked at all.
        """
        self._deadline = max(self._deadline, deadline)
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
        """What to do about a failed attempt; None: nothing, the caller tells the client.

        ``continuing``: the client has seen part of the answer; only targets that can go on are of use: those that
        declare prefill first (``why="continue"``), else ask afresh and splice (``why="restart"``); at most two of them
        that say something.  ``spoke``: the attempt that failed sent text.  Attempts that sent none do not count as
        continuations.  ``unclear``: whether it continued or began again cannot be told; asked afresh, it can.
        ``prefill`` is False where what the client has cannot be given to a target (reasoning): every continuation is
        then a restart.
        """
        health = self._health
        trail = self._trail
        if trail is None:
            trail = self._trail = _Trail(legs(self._plan, health, now, self._chance))
            trail.made = 1
        leg = trail.of(self._attempt)
        leg.asked = True
        leg.ready = now + error.retry_after if error.retry_after is not None and _says_when(error) else 0.0
        fails_prefill = continuing and self._why == "continue" and _fails_prefill(error, spoke)
        afresh = unclear or (fails_prefill and _is_unable(error))
        if fails_prefill or unclear:
            trail.plain.append(leg)
        if continuing and not afresh:
            if spoke:
                trail.broken += 1
            elif error.retry is not Retry.ACCOUNT and not leg.ready:
                trail.silent.append(leg)  # accounts are counted, and rest, by themselves
        if fails_prefill and error.upstream_status in _FOR_GOOD and error.kind is not errors.CONTEXT_LENGTH:
            health.rejects_prefill(leg.target, now)
        elif not afresh and not self._out_of_time(error, leg, now):
            health.failed(self._attempt, error, now)
        if error.kind is errors.CONTEXT_LENGTH and not afresh:
            trail.too_small(leg)
        its_own = continuing and not spoke and error.kind in _ITS_OWN
        if its_own:
            leg.closed, leg.waits = True, False  # another target has taken this request
        self.given_up = self._why_over(trail, now)
        if (
            not self.given_up
            and error.retry is Retry.NEVER
            and not (afresh or its_own or error.kind is errors.CONTEXT_LENGTH)
        ):
            self.given_up = f"{leg.target.provider.name} refused the request"
        if self.given_up:
            return None
        if afresh:
            step: Step | None = Step(self._attempt, 0.0, "restart")  # in place of the one that came to nothing
        elif continuing:
            step = self._going_on(trail, leg, error, now, prefill)
        elif error.kind is errors.CONTEXT_LENGTH:
            step = self._elsewhere(trail, now)
        else:
            step = self._instead(trail, leg, error, now)
        return self._take(trail, step, now) if step is not None else None

    def _why_over(self, trail: _Trail, now: float) -> str:
        """Why no attempt may follow, whoever it went to; empty where one may."""
        if trail.made >= MOST_ATTEMPTS:
            return f"{trail.made} attempts were made"
        return "the call's deadline has passed" if now + _MARGIN_S >= self._deadline else ""

    def succeeded(self, now: float, first_at: float | None = None, tokens: int = 0) -> None:
        """The last attempt has delivered: health and affinity are told.

        ``first_at`` is when its first token came, ``tokens`` how many came one by one.
        """
        plan, health = self._plan, self._health
        if not health.quiet:
            health.served(self._attempt, self._began, now)
        if plan.ordered:
            return
        target = self._attempt.target
        health.affinity.served(plan.affinity, Bound(key_of_target(target), key_of(self._attempt)), now)
        alone = self._trail is None or self._trail.made == 1  # else the time of other attempts is in it
        if first_at is not None and alone and plan.alias.strategy in LEARNING:
            between = (now - first_at) / (tokens - 1) if tokens > 1 else None
            health.learn_latency(target, max(0.0, first_at - self._began), between)

    # ------------------------------------------------------------------------------------- after a failure

    def _instead(self, trail: _Trail, leg: Leg, error: GatewayError, now: float) -> Step | None:
        """Nothing of an answer has been seen: what may be tried instead of the attempt that failed."""
        kind = error.kind
        long = error.retry is Retry.SAME and (error.retry_after or 0.0) > SHORT_S
        leg.waits = kind in _COME_AGAIN or long
        leg.ready = now + (error.retry_after or 0.0) if leg.waits else 0.0
        if error.retry is Retry.ACCOUNT:
            leg.refused.append(self._attempt)
            other = self._account(leg, now)
            if other is not None:
                return other._replace(why="probe" if other.why == "probe" else "account")
            if kind is errors.RATE_LIMITED and error.retry_after is not None and error.retry_after <= SHORT_S:
                step = self._again(leg, now, MOST_RETRIES, error.retry_after)
                if step is not None:
                    return step
        elif error.retry is Retry.SAME and self._is_in(trail, leg, now):
            least = error.retry_after or 0.0
            if least <= SHORT_S:
                step = self._again(leg, now, 1, least, at_once=kind is errors.UPSTREAM_RESET)
                if step is not None:
                    return step
        leg.closed = True
        return self._elsewhere(trail, now)

    def _elsewhere(self, trail: _Trail, now: float) -> Step | None:
        return self._next(trail, now) or self._panic(trail, now) or self._wait(trail, now)

    def _again(self, leg: Leg, now: float, most: int, least: float, *, at_once: bool = False) -> Step | None:
        """The attempt that failed, once more: where its retries, the provider's budget and the time allow."""
        if leg.retries >= min(most, self._plan.retries):
            return None
        wait = 0.0 if at_once else least + self._jitter(leg.retries)
        if now + wait + _MARGIN_S >= self._deadline:
            return None
        if not self._health.may_retry(leg.target.provider.name, now):
            return None
        leg.retries += 1
        return Step(self._attempt, wait, "retry")

    def _going_on(self, trail: _Trail, leg: Leg, error: GatewayError, now: float, prefill: bool) -> Step | None:
        """The client has seen part of the answer: who can go on with it?"""
        if trail.broken > MOST_CONTINUATIONS:
            self.given_up = f"the answer broke off {trail.broken} times"
            return None
        if error.kind is errors.UPSTREAM_HOLLOW and not prefill:
            leg.closed = True  # it has thought, and had nothing to say
        # Whoever has said nothing comes last, and before it whoever has broken off already
        able = [one for one in trail.legs if trail.may_go_on(one)]
        able.sort(key=lambda one: (trail.silent.count(one), one is leg, one.asked))
        step = self._who_goes_on(trail, able, leg, now, prefill) or self._wait_to_go_on(trail, able, now, prefill)
        if step is None:
            self.given_up = "no other target can go on with it now"
        return step

    def _who_goes_on(self, trail: _Trail, able: list[Leg], leg: Leg, now: float, prefill: bool) -> Step | None:
        """Whoever may be asked now, or after a short pause."""
        ways = ("continue", "restart") if prefill else ("restart",)
        ejected = self._health.ejected([one.target for one in trail.legs], now)
        for least_bad in (False, True):
            for why in ways:
                for one in able:
                    if one.ready > now or (why == "continue" and not self._takes_prefill(trail, one, now)):
                        continue
                    if not least_bad and one is not leg and ejected.get(key_of_target(one.target)) == OUT:
                        continue
                    usable = self._account(one, now)
                    attempt = usable.attempt if usable is not None else None
                    if attempt is None and least_bad and (guess := self._by_guess(one, now)) is not None:
                        attempt = guess[1]
                    if attempt is not None:
                        before = trail.broken + len(trail.silent) - 1
                        wait = self._jitter(before) if usable is None or (one is leg and before) else 0.0
                        return Step(attempt, wait, why) if now + wait + _MARGIN_S < self._deadline else None
        return None

    def _wait_to_go_on(self, trail: _Trail, able: list[Leg], now: float, prefill: bool) -> Step | None:
        """Nobody may be asked now: whoever has said that it may be asked soonest, where that is soon enough."""
        best: Step | None = None
        for leg in able:
            if leg.retries >= min(MOST_RETRIES, self._plan.retries):
                continue
            for attempt in leg.attempts:
                wait = self._wait_for(leg, attempt, now)
                if wait is not None and (best is None or wait < best.wait):
                    able_to = prefill and self._takes_prefill(trail, leg, now)
                    best = Step(attempt, wait, "continue" if able_to else "restart")
        if best is None or best.wait > LONGEST_WAIT_S or now + best.wait + _MARGIN_S >= self._deadline:
            return None
        if not self._health.may_retry(best.attempt.target.provider.name, now):
            return None
        trail.of(best.attempt).retries += 1
        return best

    def _takes_prefill(self, trail: _Trail, leg: Leg, now: float) -> bool:
        return leg not in trail.plain and self._health.takes_prefill(leg.target, now)

    # ------------------------------------------------------------------------------------- who may be asked

    def _next(self, trail: _Trail, now: float) -> Step | None:
        """The first target of the order that has not had its chance, is well, and has an account to use."""
        ejected = self._health.ejected([leg.target for leg in trail.legs], now)
        for leg in trail.legs:
            state = ejected.get(key_of_target(leg.target), ACTIVE)
            if leg.closed or state == OUT or not trail.fits(leg):
                continue
            step = self._account(leg, now)
            if step is not None:
                if state == PROBE:
                    self._health.claim(leg.target, now)
                    step = step._replace(why="probe")
                return step
        return None

    def _account(self, leg: Leg, now: float) -> Step | None:
        """The first account of a target that may be used; one that is to be probed is claimed."""
        accounts = self._health.accounts
        for attempt in leg.attempts:
            if attempt in leg.refused:
                continue
            may = accounts.may(key_of(attempt), leg.target.upstream_model, now)
            if may == PROBE:
                accounts.claim(key_of(attempt), leg.target.upstream_model, now)
                return Step(attempt, 0.0, "probe")
            if may == ACTIVE:
                return Step(attempt, 0.0, "fallback")
        return None

    def _panic(self, trail: _Trail, now: float) -> Step | None:
        """Every target is out: the least bad of those that have not had their chance is asked all the same.

        What an upstream itself has said is respected (``_wait``); our own guesses are not.
        """
        best: tuple[float, Attempt] | None = None
        for leg in trail.legs:
            if leg.closed or not trail.fits(leg):
                continue
            usable = self._by_guess(leg, now)
            if usable is not None:
                ailment = self._health.ailment(leg.target)
                badness = max(ailment.until if ailment is not None else 0.0, usable[0])
                if best is None or badness < best[0]:
                    best = (badness, usable[1])
        if best is None:
            return None
        attempt = best[1]
        self._health.accounts.claim(key_of(attempt), attempt.target.upstream_model, now)
        return Step(attempt, 0.0, "fallback")

    def _by_guess(self, leg: Leg, now: float) -> tuple[float, Attempt] | None:
        """The account of a target that nothing but our own guess keeps from being used, and until when; of several the
        first to be back.
        """
        best: tuple[float, Attempt] | None = None
        for attempt in leg.attempts:
            standing = self._standing(attempt, now)
            if attempt in leg.refused or (standing is not None and not _is_a_guess(standing, now)):
                continue
            until = standing.until if standing is not None else 0.0
            if best is None or until < best[0]:
                best = (until, attempt)
        return best

    def _wait(self, trail: _Trail, now: float) -> Step | None:
        """There is no other: whoever may be asked again soonest, where that is soon enough."""
        best: Step | None = None
        for leg in trail.legs:
            again = leg.closed
            spent = not leg.waits or leg.retries >= min(self._plan.retries, MOST_RETRIES)
            if not trail.fits(leg) or (again and spent):
                continue
            for attempt in leg.attempts:
                wait = self._wait_for(leg, attempt, now)
                if wait is not None and (best is None or wait < best.wait):
                    best = Step(attempt, wait, "retry" if again else "fallback")
        if best is None or best.wait > LONGEST_WAIT_S or now + best.wait + _MARGIN_S >= self._deadline:
            return None
        if best.why == "retry":
            if not self._health.may_retry(best.attempt.target.provider.name, now):
                return None
            trail.of(best.attempt).retries += 1
        return best

    def _wait_for(self, leg: Leg, attempt: Attempt, now: float) -> float | None:
        standing = self._standing(attempt, now)
        if standing is not None and standing.name in (*REFUSED, "parked"):
            return None
        named = standing is not None and (standing.said or standing.name == "exhausted")
        until = standing.until if standing is not None and named else 0.0
        return max(0.0, max(until, leg.ready) - now) + self._jitter(leg.retries)

    def _standing(self, attempt: Attempt, now: float) -> Standing | None:
        return self._health.accounts.standing(key_of(attempt), attempt.target.upstream_model, now)

    def _is_in(self, trail: _Trail, leg: Leg, now: float) -> bool:
        return key_of_target(leg.target) not in self._health.ejected([one.target for one in trail.legs], now)

    # ------------------------------------------------------------------------------------- small things

    def _jitter(self, times: int) -> float:
        """Full jitter: anything up to a bound that doubles."""
        return self._chance() * float(min(LONGEST_BACKOFF_S, BACKOFF_S * 2**times))

    def _out_of_time(self, error: GatewayError, leg: Leg, now: float) -> bool:
        """Whether it was the call's own deadline that has passed, a short one: the target has not failed then."""
        return (
            error.kind is errors.UPSTREAM_TIMEOUT
            and now + _MARGIN_S >= self._deadline
            and now + _MARGIN_S - self._began < leg.target.timeouts.total
        )

    def _take(self, trail: _Trail, step: Step, now: float) -> Step:
        self._attempt = step.attempt
        self._why = step.why
        self._began = now + step.wait
        trail.made += 1
        return step


class _Trail:
    """What has become of one call whose way is not the plain one."""

    __slots__ = ("_small", "_window", "broken", "legs", "made", "plain", "silent")

    def __init__(self, order: list[Leg]) -> None:
        self.legs = order
        self.made = 0
        self.broken = 0  # how often the client's stream has broken off: an attempt said something, and not all of it
        self.silent: list[Leg] = []  # who was to go on with it and said nothing, each time
        self.plain: list[Leg] = []  # who is given no prefill any more in this call
        self._window = -1  # the prompt has been found too long for a context of so many tokens
        self._small: set[str | None] = set()  # …and for these models, wherever they are

    def of(self, attempt: Attempt) -> Leg:
        return next(leg for leg in self.legs if leg.target is attempt.target)

    def may_go_on(self, leg: Leg) -> bool:
        """Whether it may be asked to go on with what the client has: now, or when it has said."""
        open_ = not leg.closed or leg.waits
        return open_ and self.fits(leg) and self.silent.count(leg) < MOST_RETRIES

    def too_small(self, leg: Leg) -> None:
        leg.closed = True
        self._window = max(self._window, _window(leg.target))
        self._small |= {leg.target.upstream_model, _canonical(leg.target) or leg.target.model}

    def fits(self, leg: Leg) -> bool:
        """Whether the prompt is not known to be too long.  Once it was, only what declares a larger context is."""
        if not self._small:
            return True
        target = leg.target
        return _window(target) > self._window and not {target.upstream_model, _canonical(target)} & self._small


def _window(target: Target) -> int:
    return (target.row.context_window or 0) if target.row is not None else 0


def _canonical(target: Target) -> str | None:
    return target.row.canonical if target.row is not None else None


def _says_when(error: GatewayError) -> bool:
    """Whether a target says when it may be asked again, and may be; limits are the account's."""
    named = error.kind is errors.UPSTREAM_OVERLOADED or error.retry is Retry.SAME
    return named and error.retry_after is not None


def _fails_prefill(error: GatewayError, spoke: bool) -> bool:
    """Whether the failure of a continuation may be about its prefill: asked afresh, the target may do."""
    if spoke or _says_when(error):
        return False
    status = error.upstream_status or 0
    return status >= 400 and error.retry is not Retry.ACCOUNT and error.kind is not errors.CONTENT_FILTER


def _is_unable(error: GatewayError) -> bool:
    return error.upstream_status in _UNABLE


def _is_a_guess(standing: Standing, now: float) -> bool:
    """Whether what keeps an account from being used is only our own idea of how long that should be."""
    if standing.name == "denied":
        return True  # of this model alone: where nobody else serves it, the client reads the provider's own reason
    if standing.name == "dead":
        return now - standing.asked >= ALONE_S
    return standing.name == "cooling" and (not standing.said or now >= standing.until)


def _refusal(trail: _Trail, health: Health, now: float) -> GatewayError:
    """Why no attempt can be made at all."""
    names = ", ".join(dict.fromkeys(leg.target.provider.name for leg in trail.legs))
    kept = [
        standing
        for leg in trail.legs
        for attempt in leg.attempts
        if (standing := health.accounts.standing(key_of(attempt), leg.target.upstream_model, now)) is not None
    ]
    limited = [standing.until for standing in kept if standing.name in ("cooling", "exhausted")]
    if limited:
        wait = max(1.0, min(limited) - now)
        return GatewayError(
            errors.RATE_LIMITED,
            f"{names}: every account has reached its limit; the first may be asked again in {wait:.0f} s",
            retry_after=wait,
        )
    if any(standing.name == "dead" for standing in kept):
        return GatewayError(
            errors.UPSTREAM_AUTH,
            f"{names} refused the credentials that this gateway has for it; they are tried again now and then, and at "
            "once when they have been changed",
        )
    if any(standing.name == "denied" for standing in kept):
        return GatewayError(
            errors.UPSTREAM_MODEL_DENIED,
            f"{names} does not let this gateway use the model; it is asked again now and then",
        )
    return GatewayError(
        errors.NO_PROVIDER_KEY,
        f"no key for {names} is known here yet; add one under providers: in the configuration, or try again shortly",
        retry_after=2,
    )
