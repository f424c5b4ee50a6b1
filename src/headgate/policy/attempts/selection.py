"""Select the next target, its account and the wait before it: (progress, health, time) → Step.

Does not change state that calls share: a Step names its claims, and the caller commits them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec.structs import replace

from headgate import errors
from headgate.errors import GatewayError, LimitReached
from headgate.model import Attempt, Plan
from headgate.policy.attempts.progress import MOST_RETRIES, CallProgress, Step, TargetProgress
from headgate.policy.health.account_limits import EXPIRED, FOR_GOOD, LIMITED, OVERSPENT
from headgate.policy.health.accounts import ACTIVE, ALONE_S, OUT, PROBE, REFUSED, AccountState, key_of
from headgate.policy.health.targets import HealthState, key_of_target

LONGEST_WAIT_S = 60.0  # if there is no other target; clients' libraries do not wait longer either
BACKOFF_S, LONGEST_BACKOFF_S = 0.25, 2.0
MARGIN_S = 0.05
RESTING = ("cooling", "exhausted", LIMITED, OVERSPENT)  # states that end by themselves
CONNECTIONS = "connections:"  # before a provider's name: the key of those that wait for one


class Selection:
    """The selection for one call.  ``deadline``: the end of the whole call, monotonic seconds."""

    __slots__ = ("_chance", "_health", "_plan", "_progress", "deadline", "passed_over")

    def __init__(
        self, plan: Plan, health: HealthState, progress: CallProgress, chance: Callable[[], float], deadline: float
    ) -> None:
        self._plan = plan
        self._health = health
        self._progress = progress
        self._chance = chance
        self.deadline = deadline
        self.passed_over: dict[str, str] = {}  # account id → why its own terms kept it from being used

    # ------------------------------------------------------------------------------------- nothing has been sent yet

    def any_target(self, now: float) -> Step | None:
        """Return the next attempt for a client that has seen nothing: at a usable target, else the least bad one."""
        return self._usable(now) or self._least_bad(now) or self._soonest(now)

    def at_once(self, now: float, is_full: Callable[[Attempt], bool]) -> Step:
        """Return the first attempt of a call that waits in a queue where no target can be asked now."""
        full = [one for one in self._progress.targets if is_full(one.attempts[0])]
        step = self._usable(now, full)
        if step is None:
            limit = self._limit(now, full)
            step = None if limit is not None else self._least_bad(now)
            if step is None:
                raise limit or self.refusal(now)
        return step

    def same_target(
        self, one: TargetProgress, attempt: Attempt, now: float, most: int, least: float, *, at_once: bool = False
    ) -> Step | None:
        """Return ``attempt`` again, after ``least`` seconds or longer; None unless its ``most`` retries, the provider's
        budget and the deadline allow it.
        """
        if one.retries >= min(most, self._plan.retries):
            return None
        wait = 0.0 if at_once else least + self._jitter(one.retries)
        if not self._in_time(now + wait) or not self._health.may_retry(one.target.provider.name, now):
            return None
        one.retries += 1
        return Step(attempt, wait, "retry", ("retry",))

    def other_account(self, one: TargetProgress, now: float) -> Step | None:
        """Return an attempt with the first usable account of a target."""
        accounts = self._health.accounts
        for attempt in one.attempts:
            if attempt in one.refused or self._passed_over(attempt, now):
                continue
            may = accounts.may(key_of(attempt), one.target.upstream_model, now)
            if may == PROBE:
                return Step(attempt, 0.0, "probe", ("account",))
            if may == ACTIVE:
                return Step(attempt, 0.0, "fallback")
        return None

    def is_ejected(self, one: TargetProgress, now: float) -> bool:
        return key_of_target(one.target) in self._ejected(now)

    def _usable(self, now: float, full: Collection[TargetProgress] = ()) -> Step | None:
        """Return the first attempt in the order whose target is unspent and healthy, not ``full``, and has a usable
        account.
        """
        ejected = self._ejected(now)
        for one in self._progress.targets:
            state = ejected.get(key_of_target(one.target), ACTIVE)
            if one.is_spent or state == OUT or one in full or not self._progress.fits(one):
                continue
            step = self.other_account(one, now)
            if step is not None:
                return replace(step, why="probe", claims=(*step.claims, "target")) if state == PROBE else step
        return None

    def _least_bad(self, now: float) -> Step | None:
        """Return an attempt if every target is out: at the unspent one that is back first.

        It ignores rests that Headgate guessed, but not those that the upstream asked for (``_soonest``).
        """
        best: tuple[float, Attempt] | None = None
        for one in self._progress.targets:
            if one.is_spent or not self._progress.fits(one):
                continue
            usable = self._by_guess(one, now)
            if usable is not None:
                failures = self._health.failures(one.target)
                badness = max(failures.until if failures is not None else 0.0, usable[0])
                if best is None or badness < best[0]:
                    best = (badness, usable[1])
        return Step(best[1], 0.0, "fallback", ("account",)) if best is not None else None

    def _by_guess(self, one: TargetProgress, now: float) -> tuple[float, Attempt] | None:
        """Return the end of a guessed rest, and the target's account that rests; of several, the first to be back.
        None if there is none.
        """
        best: tuple[float, Attempt] | None = None
        for attempt in one.attempts:
            state = self._state(attempt, now)
            if attempt in one.refused or (state is not None and not _is_a_guess(state, now)):
                continue
            until = state.until if state is not None else 0.0
            if best is None or until < best[0]:
                best = (until, attempt)
        return best

    def _limit(self, now: float, full: Collection[TargetProgress]) -> LimitReached | None:
        """Return what a call that has made no attempt may wait for; None if that brings no target back."""
        ejected = self._ejected(now)
        busy = [
            one.target.provider.name
            for one in full
            if ejected.get(key_of_target(one.target)) != OUT and self.other_account(one, now) is not None
        ]
        rests = [
            (state.out_until - now, f"account:{key_of(attempt)}/{attempt.target.upstream_model}")
            for one in self._progress.targets
            for attempt in one.attempts
            if (state := self._state(attempt, now)) is not None
            and state.name in RESTING
            and state.out_until > now
            and not _is_a_guess(state, now)
        ]
        if not busy and not rests:
            return None
        soonest = min(rests, default=None)
        keys = [f"{CONNECTIONS}{name}" for name in dict.fromkeys(busy)]
        if soonest is not None:
            keys.append(soonest[1])
        wait = None if soonest is None else soonest[0]
        if not busy:
            refusal = self.refusal(now)
            return LimitReached(
                refusal.kind, refusal.message, keys=tuple(keys), wait=wait, sooner=False,
                retry_after=refusal.retry_after,
            )  # fmt: skip
        message = f"every connection to {', '.join(dict.fromkeys(busy))} is busy"
        return LimitReached(errors.POOL_FULL, message, keys=tuple(keys), wait=wait, sooner=True, retry_after=1)

    def _soonest(self, now: float) -> Step | None:
        """Return the attempt that may be made again soonest, if there is no other target and it is soon enough."""
        best: Step | None = None
        for one in self._progress.targets:
            again = one.is_spent
            spent = not one.waits or one.retries >= min(self._plan.retries, MOST_RETRIES)
            if not self._progress.fits(one) or (again and spent):
                continue
            for attempt in one.attempts:
                wait = self._wait_for(one, attempt, now)
                if wait is not None and (best is None or wait < best.wait):
                    best = Step(attempt, wait, "retry" if again else "fallback")
        if best is None or best.wait > LONGEST_WAIT_S or not self._in_time(now + best.wait):
            return None
        return self._retried(best, now) if best.why == "retry" else best

    # ------------------------------------------------------------------------------------- part of it has been sent

    def continuation(self, last: TargetProgress, now: float, prefill: bool) -> Step | None:
        """Return the attempt that continues a broken stream; ``last`` broke it.

        Targets that have sent nothing come last.  Targets whose stream has already broken come before those.
        """
        progress = self._progress
        able = [one for one in progress.targets if progress.may_continue(one)]
        able.sort(key=lambda one: (progress.silent.count(one), one is last, one.was_tried))
        return self._continue_now(able, last, now, prefill) or self._continue_later(able, now, prefill)

    def _continue_now(self, able: list[TargetProgress], last: TargetProgress, now: float, prefill: bool) -> Step | None:
        """Return a continuation at a target that may be asked now, or after a short pause."""
        ways = ("continue", "restart") if prefill else ("restart",)
        ejected = self._ejected(now)
        for least_bad in (False, True):
            for why in ways:
                for one in able:
                    if one.ready > now or (why == "continue" and not self._takes_prefill(one, now)):
                        continue
                    if not least_bad and one is not last and ejected.get(key_of_target(one.target)) == OUT:
                        continue
                    step = self.other_account(one, now)
                    paused = step is None
                    if step is None and least_bad and (guess := self._by_guess(one, now)) is not None:
                        step = Step(guess[1])
                    if step is not None:
                        before = self._progress.broken + len(self._progress.silent) - 1
                        wait = self._jitter(before) if paused or (one is last and before) else 0.0
                        return replace(step, wait=wait, why=why) if self._in_time(now + wait) else None
        return None

    def _continue_later(self, able: list[TargetProgress], now: float, prefill: bool) -> Step | None:
        """Return a continuation at the target that may be asked soonest, if that is soon enough."""
        best: Step | None = None
        for one in able:
            if one.retries >= min(MOST_RETRIES, self._plan.retries):
                continue
            for attempt in one.attempts:
                wait = self._wait_for(one, attempt, now)
                if wait is not None and (best is None or wait < best.wait):
                    continues = prefill and self._takes_prefill(one, now)
                    best = Step(attempt, wait, "continue" if continues else "restart")
        if best is None or best.wait > LONGEST_WAIT_S or not self._in_time(now + best.wait):
            return None
        return self._retried(best, now)

    def _takes_prefill(self, one: TargetProgress, now: float) -> bool:
        return one not in self._progress.plain and self._health.takes_prefill(one.target, now)

    # ------------------------------------------------------------------------------------- what both need

    def _retried(self, step: Step, now: float) -> Step | None:
        if not self._health.may_retry(step.attempt.target.provider.name, now):
            return None
        self._progress.find(step.attempt).retries += 1
        return replace(step, claims=("retry",))

    def _wait_for(self, one: TargetProgress, attempt: Attempt, now: float) -> float | None:
        """Return the seconds until ``attempt`` may be made; None if its account must be changed first."""
        state = self._state(attempt, now)
        if state is not None and state.name in (*REFUSED, *FOR_GOOD, "parked"):
            return None
        named = state is not None and (state.declared or state.name == "exhausted")
        until = state.until if state is not None and named else 0.0
        return max(0.0, max(until, one.ready) - now) + self._jitter(one.retries)

    def _state(self, attempt: Attempt, now: float) -> AccountState | None:
        accounts = self._health.accounts
        own = accounts.own_state(attempt, now) if self._plan.has_terms else None
        return own or accounts.state(key_of(attempt), attempt.target.upstream_model, now)

    def _passed_over(self, attempt: Attempt, now: float) -> bool:
        """True if the account's own terms keep it from being used.  The route trace gets the reason."""
        if not self._plan.has_terms or attempt.account is None:
            return False
        own = self._health.accounts.own_state(attempt, now)
        if own is not None:
            self.passed_over[attempt.account.id] = own.name
        return own is not None

    def _ejected(self, now: float) -> dict[tuple[str, str], str]:
        return self._health.ejected([one.target for one in self._progress.targets], now)

    def _in_time(self, at: float) -> bool:
        return at + MARGIN_S < self.deadline

    def _jitter(self, times: int) -> float:
        """Return full jitter: a random wait up to a bound that doubles."""
        return self._chance() * float(min(LONGEST_BACKOFF_S, BACKOFF_S * 2**times))

    def refusal(self, now: float) -> GatewayError:
        """Return the client's error if no attempt can be made."""
        names = ", ".join(dict.fromkeys(one.target.provider.name for one in self._progress.targets))
        attempts = [attempt for one in self._progress.targets for attempt in one.attempts]
        states = [state for attempt in attempts if (state := self._state(attempt, now)) is not None]
        limited = [state.until for state in states if state.name in RESTING]
        if limited:
            wait = max(1.0, min(limited) - now)
            return GatewayError(
                errors.RATE_LIMITED,
                f"{names}: every account has reached its limit; the first may be asked again in {wait:.0f} s",
                retry_after=wait,
            )
        if any(state.name == "dead" for state in states):
            return GatewayError(
                errors.UPSTREAM_AUTH,
                f"{names} refused the credentials that this gateway has for it; they are tried again now and then, and "
                "at once when they have been changed",
            )
        if any(state.name == "denied" for state in states):
            return GatewayError(
                errors.UPSTREAM_MODEL_DENIED,
                f"{names} does not let this gateway use the model; it is asked again now and then",
            )
        if any(state.name == EXPIRED for state in states):
            return GatewayError(
                errors.NO_PROVIDER_KEY, f"the keys of {names} have expired here; add a new one: headgate vault add"
            )
        return GatewayError(
            errors.NO_PROVIDER_KEY,
            f"no key for {names} is known here yet; add one under providers: in the configuration, or try again "
            "shortly",
            retry_after=2,
        )


def _is_a_guess(state: AccountState, now: float) -> bool:
    """True if an account rests only because of Headgate's own guess."""
    if state.name == "denied":
        return True  # of this model alone: if no other target has it, the client reads the provider's own reason
    if state.name == "dead":
        return now - state.asked_at >= ALONE_S
    return state.name == "cooling" and (not state.declared or now >= state.until)
