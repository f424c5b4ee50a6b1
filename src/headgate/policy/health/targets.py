"""The health of targets, learnt from earlier attempts: ejections, retry budgets, latencies, unsupported features.

A target is ejected after three failures in a row, or when fewer than 80 % of twenty attempts succeed.  An ejection
lasts 5 s, the next ones 10 s each (30 s after five minutes).  Then one live request probes the target, and fails over
like any other.  At most half of a call's targets are ejected.  A refusal because of keys, limits or the request itself
does not count as a failure of the target; ``accounts`` counts those of keys and limits.

Only failing targets are stored: while ``quiet`` holds, a call skips all of this.  Targets are named by provider and
upstream model.  ``now`` is monotonic seconds.  Every table is bounded, because clients may name any model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from msgspec import Struct

from headgate import errors
from headgate.errors import GatewayError
from headgate.model import Attempt, Target
from headgate.model.bounded import Bounded
from headgate.policy.health.accounts import LEASE_S, OUT, PROBE, Accounts, key_of
from headgate.policy.health.affinity import Affinity

MAX_REMEMBERED = 4096
REMEMBERED_S = 3600.0
TRIMS_REMEMBERED_S = 86_400.0

IN_A_ROW = 3
ENOUGH, WORST_SUCCESS = 20, 0.8
FIRST_S, NEXT_S, LATE_S, LATE_AFTER_S = 5.0, 10.0, 30.0, 300.0
STALE_S = 60.0
SWEEP_S = 30.0

RETRIES_PER_S, RETRIES_SHARE, MOST_RETRIES = 10.0, 0.2, 100.0
SMOOTHING = 0.2

_FAILURES = frozenset(
    (
        errors.UPSTREAM_UNREACHABLE, errors.UPSTREAM_RESET, errors.UPSTREAM_FAILED, errors.UPSTREAM_GARBAGE,
        errors.UPSTREAM_CUT, errors.UPSTREAM_ERROR_EVENT, errors.UPSTREAM_OVERLOADED, errors.UPSTREAM_TIMEOUT,
    )
)  # fmt: skip

_OF_A_FIELD = (
    errors.UPSTREAM_REFUSED, errors.UPSTREAM_UNPROCESSABLE, errors.UPSTREAM_FAILED, errors.UPSTREAM_ERROR_EVENT,
)  # fmt: skip
_REFUSALS = (errors.UPSTREAM_AUTH, errors.UPSTREAM_MODEL_DENIED, errors.UPSTREAM_UNPAID, errors.QUOTA_SPENT)

Key = tuple[str, str]
Claim = Literal["account", "target", "retry", "use"]


def key_of_target(target: Target) -> Key:
    return (target.provider.name, target.upstream_model)


class TargetFailures(Struct, gc=False):
    """A target that has failed lately.  ``since``: the time of its ejection; None if it is not ejected."""

    touched: float
    row: int = 0
    good: int = 0
    bad: int = 0
    since: float | None = None
    until: float = 0.0
    lease: float = 0.0

    def is_over(self, now: float) -> bool:
        """True if the last failure and the ejection are so long ago that they no longer count."""
        return max(self.touched, self.until) + STALE_S < now

    @property
    def is_poor(self) -> bool:
        seen = self.good + self.bad
        return self.row >= IN_A_ROW or (seen >= ENOUGH and self.good < WORST_SUCCESS * seen)


class Latency(Struct, gc=False):
    """Seconds to the first token, and between tokens; moving averages."""

    first: float
    between: float = 0.0


class RetryBudget(NamedTuple):
    """Retries ``left`` to a provider at a time when it had received ``calls`` calls."""

    left: float
    at: float
    calls: int


class HealthState:
    """The health state that all calls of a process share.

    ``NextAttempt`` tells it how attempts end; the caller commits the claims of each decision.
    """

    __slots__ = (
        "_budgets",
        "_failing",
        "_latency",
        "_refusals",
        "_swept",
        "_trims",
        "accounts",
        "affinity",
        "quiet",
        "traffic",
    )  # fmt: skip

    def __init__(self) -> None:
        self.quiet = True  # no target fails, every account is active
        self.traffic: defaultdict[str, int] = defaultdict(int)  # calls begun, by provider; the exchange counts them
        self.accounts = Accounts()
        self.affinity = Affinity()
        self._failing: Bounded[Key, TargetFailures] = Bounded(MAX_REMEMBERED)
        self._budgets: dict[str, RetryBudget] = {}
        self._latency: Bounded[Key, Latency] = Bounded(MAX_REMEMBERED)
        # (target, refused feature) → time until which that is believed; then the same for findings of probes
        self._refusals: Bounded[tuple[str, str, str], float] = Bounded(MAX_REMEMBERED)
        self._trims: Bounded[Key, tuple[bool | None, float]] = Bounded(MAX_REMEMBERED)
        self._swept = 0.0

    # ------------------------------------------------------------------------------------- what happened

    def failed(self, attempt: Attempt, error: GatewayError, now: float) -> None:
        """Count a failed attempt against its target or its account, if one of them caused the error."""
        self.sweep(now)
        kind, target = error.kind, attempt.target
        if kind is errors.RATE_LIMITED:
            self.accounts.limited(key_of(attempt), target.upstream_model, error.retry_after, now)
        elif attempt.account is not None and kind in _REFUSALS:  # without a credential, none can be dead
            if kind is errors.UPSTREAM_AUTH:
                self.accounts.refused(attempt.account.id, now)
            elif kind is errors.UPSTREAM_MODEL_DENIED:
                self.accounts.refused(attempt.account.id, now, target.upstream_model)
            else:
                self.accounts.spent(attempt.account.id, error.retry_after, now)
        elif kind in _FAILURES:
            self._failed(key_of_target(target), now)
        self._settle()

    def served(self, attempt: Attempt, began: float, now: float) -> None:
        """Count the success of an attempt that was begun at ``began``."""
        failures = self._failing.get(key_of_target(attempt.target))
        if failures is not None:
            self._recover(key_of_target(attempt.target), failures, began, now)
        if self.accounts:
            self.accounts.served(key_of(attempt), attempt.target.upstream_model, began)
        self.sweep(now)
        self._settle()

    def park(self, account: str) -> None:
        """Stop the use of an account without a key, until ``revive``."""
        self.accounts.park(account)
        self._settle()

    def revive(self, account: str) -> None:
        """Forget the state of an account, after a change of its key."""
        self.accounts.revive(account)
        self._settle()

    def readmit(self, provider: str) -> None:
        """Forget the failures of a provider's targets."""
        for key in [key for key in self._failing if key[0] == provider]:
            del self._failing[key]
        self._settle()

    def sweep(self, now: float) -> None:
        """Forget states that are over.  Decisions ignore them as well; this frees memory and restores ``quiet``."""
        if now - self._swept < SWEEP_S:
            return
        self._swept = now
        for key, failures in list(self._failing.items()):
            if failures.is_over(now):
                del self._failing[key]
        self.accounts.sweep(now)
        self._settle()

    def _settle(self) -> None:
        self.quiet = not self._failing and not self.accounts

    def _failed(self, key: Key, now: float) -> None:
        failures = self._failing.get(key)
        if failures is None:
            failures = TargetFailures(now)
            self._failing.put(key, failures)
        failures.touched = now
        failures.row += 1
        failures.bad += 1
        if failures.since is not None:
            # Attempts that were under way at the ejection prove nothing new; a probe does, and so do later ones.
            if now >= failures.until or failures.lease:
                failures.until = max(failures.until, now + (LATE_S if now - failures.since >= LATE_AFTER_S else NEXT_S))
                failures.lease = 0.0
        elif failures.is_poor:
            failures.since, failures.until = now, now + FIRST_S
        _halve(failures)

    def _recover(self, key: Key, failures: TargetFailures, began: float, now: float) -> None:
        failures.touched = now
        failures.row = 0
        failures.good += 1
        if failures.since is not None:
            if began >= failures.since:  # a stream from before the ejection proves nothing about the present
                self._failing.put(key, TargetFailures(now, good=1))
        elif failures.good >= ENOUGH and failures.bad * ENOUGH <= failures.good:
            del self._failing[key]
        _halve(failures)

    # ------------------------------------------------------------------------------------- who may be asked

    def ejected(self, targets: Iterable[Target], now: float) -> dict[Key, str]:
        """Return those of ``targets`` that are ejected: ``out``, or ``probe`` if one request may try it (``claim``).

        At most half of them, the longest ejected ones; the others serve.
        """
        failing = self._failing
        if not failing:
            return {}
        keys = dict.fromkeys(key_of_target(target) for target in targets)
        found = [
            (one.since, key, one)
            for key in keys
            if (one := failing.get(key)) is not None and one.since is not None and not one.is_over(now)
        ]
        found.sort(key=lambda place: place[:2])
        most = len(keys) // 2
        return {key: OUT if now < max(one.until, one.lease) else PROBE for _, key, one in found[:most]}

    def claim(self, target: Target, now: float) -> None:
        """Note that one request probes the target.  Others avoid it for a while."""
        failures = self._failing.get(key_of_target(target))
        if failures is not None:
            failures.lease = now + LEASE_S

    def commit(self, attempt: Attempt, claims: tuple[Claim, ...], now: float) -> None:
        """Take what a decision for ``attempt`` claims: the probe of its account or target, a retry of its provider, a
        request of its account's own limits.
        """
        target = attempt.target
        for claim in claims:
            if claim == "account":
                self.accounts.claim(key_of(attempt), target.upstream_model, now)
            elif claim == "target":
                self.claim(target, now)
            elif claim == "use":
                if attempt.account is not None:
                    self.accounts.limits.count(attempt.account, now)
            else:
                self._take_retry(target.provider.name, now)

    def failures(self, target: Target) -> TargetFailures | None:
        """Return the failures of a target; None: there are none."""
        return self._failing.get(key_of_target(target))

    def back_in(self, attempts: Iterable[Attempt], now: float) -> float | None:
        """Return the seconds until the first of them may be asked again, at least one; None if that is not known.

        It is unknown for a target that is neither limited nor ejected, because its next attempt may fail or succeed.
        """
        known = []
        for attempt in attempts:
            wait = self.accounts.back_in(key_of(attempt), attempt.target.upstream_model, now)
            failures = self._failing.get(key_of_target(attempt.target))
            if failures is not None and failures.since is not None and failures.until > now:
                wait = max(wait or 1.0, failures.until - now)
            if wait is not None:
                known.append(wait)
        return min(known, default=None)

    # ------------------------------------------------------------------------------------- retries

    def may_retry(self, provider: str, now: float) -> bool:
        """True if the provider's budget has a retry left: a fifth of its calls, and ten a second."""
        return self._budget(provider, now) >= 1

    def _take_retry(self, provider: str, now: float) -> None:
        left = self._budget(provider, now) - 1
        self._budgets[provider] = RetryBudget(left, now, self.traffic.get(provider, 0))

    def _budget(self, provider: str, now: float) -> float:
        budget = self._budgets.get(provider)
        if budget is None:
            return RETRIES_PER_S
        calls = self.traffic.get(provider, 0) - budget.calls
        earned = (now - budget.at) * RETRIES_PER_S + calls * RETRIES_SHARE
        return min(MOST_RETRIES, budget.left + max(0.0, earned))

    # ------------------------------------------------------------------------------------- latency

    def learn_latency(self, target: Target, first: float, between: float | None) -> None:
        """Add seconds to the first token, and between tokens (None: unknown), to the averages."""
        known = self._latency.get(key_of_target(target))
        if known is None:
            self._latency.put(key_of_target(target), Latency(first, between or 0.0))
            return
        known.first += SMOOTHING * (first - known.first)
        if between is not None:
            known.between += SMOOTHING * (between - known.between) if known.between else between

    def latency(self, target: Target) -> Latency | None:
        return self._latency.get(key_of_target(target))

    # ------------------------------------------------------------------------------------- unsupported features

    def asks_usage(self, target: Target, now: float) -> bool:
        """True if a stream of this target may be asked for its usage."""
        return not self._refusals or self._believes(target, "usage", now)

    def rejects_usage(self, target: Target, now: float) -> None:
        """Note that a stream without the field succeeded after one with it was refused.  A refusal alone proves
        nothing, because an upstream may quote its client.
        """
        self._disbelieve(target, "usage", now)

    def takes_prefill(self, target: Target, now: float) -> bool:
        """True if the target declares that it continues a text, and has not shown otherwise."""
        return target.prefill != "none" and self._believes(target, "prefill", now)

    def rejects_prefill(self, target: Target, now: float) -> None:
        """Note that the target refused a request because of its prefill, or ignored the prefill."""
        self._disbelieve(target, "prefill", now)

    def trims(self, target: Target, now: float) -> bool | None:
        """True if the target drops a prefill's trailing white space, by its declaration or a probe; None if that is not
        known.
        """
        if target.prefill_trims is not None:
            return target.prefill_trims
        found, until = self._trims.get(key_of_target(target), (None, 0.0))
        return found if now < until else None

    def probes_trims(self, target: Target, now: float) -> bool:
        """True if a probe has still to find that out."""
        return target.prefill_trims is None and now >= self._trims.get(key_of_target(target), (None, 0.0))[1]

    def learn_trims(self, key: Key, trims: bool | None, now: float) -> None:
        """Remember the finding of a probe; None: its answers were inconclusive."""
        self._trims.put(key, (trims, now + TRIMS_REMEMBERED_S))

    def _believes(self, target: Target, what: str, now: float) -> bool:
        return self._refusals.get((target.provider.name, target.upstream_model, what), 0.0) <= now

    def _disbelieve(self, target: Target, what: str, now: float) -> None:
        self._refusals.put((target.provider.name, target.upstream_model, what), now + REMEMBERED_S)


def _halve(failures: TargetFailures) -> None:
    """Halve the counts, so that older attempts count less."""
    if failures.good + failures.bad >= 2 * ENOUGH:
        failures.good >>= 1
        failures.bad >>= 1


def blames_our_field(error: GatewayError, ours: frozenset[str]) -> bool:
    """True if an upstream's refusal may concern one of the fields ``ours``, which only the gateway has added."""
    return error.kind in _OF_A_FIELD and not error.fields.isdisjoint(ours)
