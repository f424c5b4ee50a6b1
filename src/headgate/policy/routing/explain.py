"""What the router thinks of a call, and what became of one, for people.  Decides nothing, and changes nothing.

What the command line prints and the admin API answers, as it stands; and an attempt as the route trace has it.
"""

from __future__ import annotations

from collections import defaultdict
from math import isinf

from msgspec import Struct

from headgate.errors import GatewayError
from headgate.model import Attempt, AttemptRecord, Candidate, Plan, Seam, Target
from headgate.policy.attempts.next_attempt import Course
from headgate.policy.attempts.strategies import LEARNING, Leg, legs, scores
from headgate.policy.health.accounts import OUT, PROBE, Accounts, key_of
from headgate.policy.health.targets import Health, key_of_target

MOST_NAMED = 3
_MIDDLE = 0.5


class AccountView(Struct, frozen=True):
    """``state``: active | probe | cooling | exhausted | dead | denied | parked.  ``wait_s``: until its next chance,
    where there is one.
    ``headroom``: the share of its limits that is left, where it is known; 1.0 otherwise.
    """

    id: str
    state: str = "active"
    wait_s: float = 0.0
    headroom: float = 1.0


class StandingView(Struct, frozen=True):
    """Why an account, or one ``model`` of it (empty: all of it), is not used.  ``wait_s``: until its next chance, None
    until something is done about it; ``state``: as in ``AccountView``.
    """

    account: str
    model: str
    state: str
    wait_s: float | None


class CandidateView(Struct, frozen=True):
    """One target that was looked at.  ``place`` is its turn, from 1; None: not used, and ``reason`` says why.

    ``state``: well | failing | ejected | probe.  Durations in seconds, None where nothing was learnt.
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
    accounts: tuple[AccountView, ...] = ()


class Explanation(Struct, frozen=True):
    """``code`` and ``message`` are the error that the client would get, empty where the call would be tried.
    ``strategy``: of an order that is computed, with what decides about this call: ``auto (hard)``.
    """

    requested: str
    alias: str
    strategy: str
    retries: int
    candidates: tuple[CandidateView, ...] = ()
    code: str = ""
    message: str = ""


def told(attempt: AttemptRecord) -> dict[str, object]:
    """One attempt of a call, in its route trace and in its receipt alike; milliseconds since the call was received."""
    return {
        "provider": attempt.provider,
        "model": attempt.model,
        "why": attempt.why,
        "status": attempt.status or None,
        "code": attempt.code or None,
        "started_ms": attempt.started_us / 1000,
        "ended_ms": attempt.ended_us / 1000,
        "prompt_tokens": attempt.prompt_tokens,
        "completion_tokens": attempt.completion_tokens,
        "cost_usd": attempt.cost / 1e9 if attempt.cost >= 0 else None,
        "skipped_events": attempt.skipped,
    }


def standings(accounts: Accounts, now: float) -> list[StandingView]:
    """Of every account that is not active."""
    return [
        StandingView(
            account, model,
            PROBE if standing.name != "parked" and standing.may(now) == PROBE else standing.name,
            None if isinf(standing.until) else max(0.0, standing.until - now),
        )
        for account, model, standing in accounts.listed()
    ]  # fmt: skip


def joined(seam: Seam) -> dict[str, object]:
    """Where a broken stream went on, as the answer's own figures, its trace and its receipt have it."""
    return {"after": seam.after, "from": seam.origin, "to": seam.target, "why": seam.why}


def failed(requested: str, error: GatewayError) -> Explanation:
    """Of a name that leads nowhere."""
    return Explanation(requested, "", "priority", 0, code=error.kind.code, message=error.message)


def described(
    plan: Plan, health: Health | None, now: float, error: GatewayError | None = None, timeout: float | None = None
) -> Explanation:
    """Of a plan, in the order in which its targets would most likely be tried: what is out at the moment, last.

    ``timeout`` is how long the client would wait, in seconds.
    """
    health = _Glance(health or Health())
    order = legs(plan, health, now, None)
    states = health.ejected([leg.target for leg in order], now)
    first = None
    if order:
        total = order[0].target.timeouts.total
        try:
            step = Course(plan, health, lambda: _MIDDLE).first(now, now + min(total, timeout or total))
            first = step.attempt.target
        except GatewayError as refusal:
            error = refusal
    out = {
        id(leg.target) for leg in order if states.get(key_of_target(leg.target)) == OUT or _all_out(leg, health, now)
    }
    order.sort(key=lambda leg: id(leg.target) in out)
    if order and id(order[0].target) in out:  # all of them: whoever is asked all the same
        order.sort(key=lambda leg: leg.target is not first)
    places = {id(leg.target): place for place, leg in enumerate(order, 1) if error is None}
    pools = {id(leg.target): leg.attempts for leg in order}
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
        reason = one.reason or (_resting(accounts) if place is None and ident in out else "")
        views.append(_view(one, place, reason, by_target.get(ident), state, accounts, health, now))
    views.sort(key=lambda view: view.place or len(plan.candidates) + 1)
    return Explanation(
        plan.requested, plan.alias.name, strategy, plan.retries, tuple(views),
        error.kind.code if error is not None else "", error.message if error is not None else "",
    )  # fmt: skip


class _Unclaimed(Accounts):
    """Other ``Accounts``, as they are: what is said of them changes nothing."""

    __slots__ = ()

    def __init__(self, accounts: Accounts) -> None:
        for name in Accounts.__slots__:
            setattr(self, name, getattr(accounts, name))

    def claim(self, account: str, model: str, now: float) -> None:
        """Nobody is on the way."""


class _Glance(Health):
    """Another ``Health``, as it is: a course can be asked where a call would begin, and none has begun."""

    __slots__ = ()

    def __init__(self, health: Health) -> None:
        for name in Health.__slots__:
            setattr(self, name, getattr(health, name))
        self.accounts = _Unclaimed(health.accounts)
        self.traffic = defaultdict(int)

    def sweep(self, now: float) -> None:
        """Forgets nothing."""

    def claim(self, target: Target, now: float) -> None:
        """Nobody is on the way."""

    def may_retry(self, pool: str, now: float) -> bool:
        """Takes nothing from the budget."""
        return True


def _resting(accounts: tuple[AccountView, ...]) -> str:
    """Why a target cannot be asked at all."""
    named = [f"{one.id} is {one.state}" + (f" for {one.wait_s:.0f} s" if one.wait_s else "") for one in accounts]
    more = f", and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"out: {', '.join(named[:MOST_NAMED])}{more}"


def _all_out(leg: Leg, health: Health, now: float) -> bool:
    """None of its accounts may be used now."""
    model = leg.target.upstream_model
    return all(health.accounts.may(key_of(attempt), model, now) == OUT for attempt in leg.attempts)


def _view(
    one: Candidate,
    place: int | None,
    reason: str,
    score: float | None,
    state: str | None,
    accounts: tuple[AccountView, ...],
    health: Health,
    now: float,
) -> CandidateView:
    target = one.target
    ailment = health.ailment(target)
    latency = health.latency(target)
    named = {OUT: "ejected", PROBE: "probe", None: "well" if ailment is None else "failing"}[state]
    return CandidateView(
        target.provider.name, target.model, target.upstream_model, place, reason, named,
        max(0.0, ailment.until - now) if ailment is not None and state == OUT else 0.0,
        one.cost / 1e9 if one.cost is not None else None, score, latency.first if latency is not None else None,
        one.weight, _prefill(one, health, now), accounts,
    )  # fmt: skip


def _prefill(one: Candidate, health: Health, now: float) -> str:
    return one.target.prefill if health.takes_prefill(one.target, now) else "none"


def _account(attempt: Attempt, health: Health, now: float) -> AccountView:
    account, model = key_of(attempt), attempt.target.upstream_model
    headroom = health.accounts.headroom(account, now)
    standing = health.accounts.standing(account, model, now)
    if standing is None:
        return AccountView(account, headroom=headroom)
    if health.accounts.may(account, model, now) == PROBE:
        return AccountView(account, PROBE, headroom=headroom)
    wait = 0.0 if isinf(standing.until) else max(0.0, standing.until - now)
    return AccountView(account, standing.name, wait, headroom)
