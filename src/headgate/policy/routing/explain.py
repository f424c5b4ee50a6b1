"""The views of a plan, an account, an attempt and a seam, for people.  Decides nothing, and changes nothing.

The command line prints them and the admin API answers with them, unchanged.
"""

from __future__ import annotations

from math import isinf

from msgspec import Struct

from headgate.catalog.money import usd
from headgate.errors import GatewayError
from headgate.model import Attempt, AttemptRecord, Candidate, Plan, SeamRecord
from headgate.policy.attempts.next_attempt import NextAttempt
from headgate.policy.attempts.progress import TargetProgress
from headgate.policy.attempts.strategies import LEARNING, order, scores
from headgate.policy.health.account_limits import LIMITED
from headgate.policy.health.accounts import OUT, PROBE, Accounts, key_of
from headgate.policy.health.targets import HealthState, key_of_target

MOST_NAMED = 3
_MIDDLE = 0.5


class CandidateAccount(Struct, frozen=True):
    """``state``: active | probe | cooling | exhausted | dead | denied | parked; by its own terms expired | overspent |
    limited.  ``wait_s``: until its next chance,
    where there is one.
    ``headroom``: the share of its limits that is left, where it is known; 1.0 otherwise.
    """

    id: str
    state: str = "active"
    wait_s: float = 0.0
    headroom: float = 1.0


class AccountStateView(Struct, frozen=True):
    """The reason why an account, or one ``model`` of it (empty: all of it), is not used.

    ``state``: as in ``CandidateAccount``.  ``wait_s``: seconds until its next chance; None if an operator must act.
    """

    account: str
    model: str
    state: str
    wait_s: float | None


class CandidateView(Struct, frozen=True):
    """One target that was considered.  ``place`` is its turn, from 1; None: not used, and ``reason`` says why.

    ``state``: well | failing | ejected | probe.  Durations are seconds, None if unknown.
    """

    provider: str
    model: str
    upstream_model: str
    place: int | None
    reason: str = ""
    state: str = "well"
    wait_s: float = 0.0
    cost_usd: float | None = None
    score: float | None = None
    first_token_s: float | None = None
    weight: int = 1
    prefill: str = "none"
    accounts: tuple[CandidateAccount, ...] = ()


class Explanation(Struct, frozen=True):
    """``code`` and ``message``: the error that the client would get; empty if the call would be tried.  ``strategy``:
    for a computed order, with the class of this call: ``auto (hard)``.
    """

    requested_model: str
    alias: str
    strategy: str
    retries: int
    candidates: tuple[CandidateView, ...] = ()
    code: str = ""
    message: str = ""


class ShownAttempt(Struct, frozen=True):
    """One upstream request, as route trace and receipt have it; milliseconds since the call was received."""

    provider: str
    model: str
    why: str
    status: int | None
    code: str | None
    started_ms: float
    ended_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    skipped_events: int


class ShownSeam(Struct, frozen=True, rename={"origin": "from", "target": "to"}):
    """A seam as the answer's ``headgate`` object, its route trace and its receipt have it."""

    after: int
    origin: str
    target: str
    why: str


def attempt_view(attempt: AttemptRecord) -> ShownAttempt:
    """Return an attempt as people and clients see it: without its account."""
    return ShownAttempt(
        attempt.provider, attempt.model, attempt.why, attempt.status or None, attempt.code or None,
        attempt.started_us / 1000, attempt.ended_us / 1000, attempt.prompt_tokens, attempt.completion_tokens,
        usd(attempt.cost) if attempt.cost >= 0 else None, attempt.skipped,
    )  # fmt: skip


def account_states(accounts: Accounts, now: float) -> list[AccountStateView]:
    """Return the state of every account that is not active."""
    resting = [
        AccountStateView(
            account, model,
            PROBE if state.name != "parked" and state.may(now) == PROBE else state.name,
            None if isinf(state.until) else max(0.0, state.until - now),
        )
        for account, model, state in accounts.listed()
    ]  # fmt: skip
    limited = accounts.limits.limited(now)
    return [*resting, *(AccountStateView(account, "", LIMITED, until - now) for account, until in limited)]


def seam_view(seam: SeamRecord) -> ShownSeam:
    """Return a seam as people and clients see it."""
    return ShownSeam(seam.after, seam.origin, seam.target, seam.why)


def explain_refusal(requested: str, error: GatewayError) -> Explanation:
    """Return the explanation of a name that has no plan."""
    return Explanation(requested, "", "priority", 0, code=error.kind.code, message=error.message)


def explain_plan(
    plan: Plan, health: HealthState | None, now: float, error: GatewayError | None = None, timeout: float | None = None
) -> Explanation:
    """Return the explanation of a plan, its targets in the order in which they would most likely be tried.

    Targets that are out at the moment come last.

    ``timeout`` is how long the client would wait, in seconds.
    """
    health = health or HealthState()
    tried = order(plan, health, now, None)
    states = health.ejected([one.target for one in tried], now)
    first = None
    if tried:
        total = tried[0].target.timeouts.total
        try:
            step = NextAttempt(plan, health, lambda: _MIDDLE).first(now, now + min(total, timeout or total))
            first = step.attempt.target
        except GatewayError as refusal:
            error = refusal
    out = {
        id(one.target) for one in tried if states.get(key_of_target(one.target)) == OUT or _all_out(one, health, now)
    }
    tried.sort(key=lambda one: id(one.target) in out)
    if tried and id(tried[0].target) in out:  # all are out: the least bad one is asked, and comes first
        tried.sort(key=lambda one: one.target is not first)
    places = {id(one.target): place for place, one in enumerate(tried, 1) if error is None}
    pools = {id(one.target): one.attempts for one in tried}
    strategy = plan.alias.strategy
    used = [one for one in plan.candidates if id(one.target) in pools]
    scored = scores(strategy, used, health) if used and strategy in LEARNING else [None] * len(used)
    by_target = {id(one.target): score for one, score in zip(used, scored, strict=True)}
    views = []
    for one in plan.candidates:
        ident = id(one.target)
        accounts = tuple(_account(attempt, health, now) for attempt in pools.get(ident, ()))
        state = states.get(key_of_target(one.target))
        place = places.get(ident)
        reason = one.reason or (_why_resting(accounts) if place is None and ident in out else "")
        views.append(_view(one, place, reason, by_target.get(ident), state, accounts, health, now))
    views.sort(key=lambda view: view.place or len(plan.candidates) + 1)
    return Explanation(
        plan.requested, plan.alias.name, strategy, plan.retries, tuple(views),
        error.kind.code if error is not None else "", error.message if error is not None else "",
    )  # fmt: skip


def _why_resting(accounts: tuple[CandidateAccount, ...]) -> str:
    """Return the reason why a target cannot be asked."""
    named = [f"{one.id} is {one.state}" + (f" for {one.wait_s:.0f} s" if one.wait_s else "") for one in accounts]
    more = f", and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"out: {', '.join(named[:MOST_NAMED])}{more}"


def _all_out(one: TargetProgress, health: HealthState, now: float) -> bool:
    """True if none of its accounts may be used now."""
    model, accounts = one.target.upstream_model, health.accounts
    return all(
        accounts.own_state(attempt, now) is not None or accounts.may(key_of(attempt), model, now) == OUT
        for attempt in one.attempts
    )


def _view(
    one: Candidate,
    place: int | None,
    reason: str,
    score: float | None,
    state: str | None,
    accounts: tuple[CandidateAccount, ...],
    health: HealthState,
    now: float,
) -> CandidateView:
    target = one.target
    failures = health.failures(target)
    latency = health.latency(target)
    named = {OUT: "ejected", PROBE: "probe", None: "well" if failures is None else "failing"}[state]
    return CandidateView(
        target.provider.name, target.model, target.upstream_model, place, reason, named,
        max(0.0, failures.until - now) if failures is not None and state == OUT else 0.0,
        usd(one.cost), score, latency.first if latency is not None else None,
        one.weight, _prefill(one, health, now), accounts,
    )  # fmt: skip


def _prefill(one: Candidate, health: HealthState, now: float) -> str:
    return one.target.prefill if health.takes_prefill(one.target, now) else "none"


def _account(attempt: Attempt, health: HealthState, now: float) -> CandidateAccount:
    account, model = key_of(attempt), attempt.target.upstream_model
    headroom = health.accounts.headroom(account, now)
    own = health.accounts.own_state(attempt, now)
    state = own or health.accounts.state(account, model, now)
    if state is None:
        return CandidateAccount(account, headroom=headroom)
    if own is None and health.accounts.may(account, model, now) == PROBE:
        return CandidateAccount(account, PROBE, headroom=headroom)
    wait = 0.0 if isinf(state.until) else max(0.0, state.until - now)
    return CandidateAccount(account, state.name, wait, headroom)
