"""The state of the providers' credentials: whether each may be used now, and how much of its limits is left.

::

    active ──429──▶ cooling(until)     ── its time ──▶ one probe ── success ──▶ active
           ──no money, a far reset──▶ exhausted(reset at) ── its time ──▶ one probe
           ──the key is refused──▶ dead  ── after 1, 5, then every 15 minutes ──▶ one probe
           ──it may not use the model──▶ denied, with that model ── as dead ──▶ one probe
           ──its key is gone──▶ parked ── its key is there ──▶ active

A 429 concerns the account *and the model*; it concerns the whole account when a second model gets one too.  A denial of
a model concerns only the account and that model, even if there are many.  A refused key, or a spent account, concerns
the whole account.  Times only extend, but none lasts longer than ``LONGEST_S`` without a probe.  ``revive`` ends a
rest: after a change of the key, a successful check, or an operator's request.  Only accounts that are not active are
stored.  ``now`` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from headgate.model import Account, Attempt
from headgate.model.bounded import Bounded
from headgate.policy.health.account_limits import AccountLimits
from headgate.wire.rate_limits import share_left

MAX_REMEMBERED = 4096
LONGEST_S = 900.0  # even if an upstream declares more: a probe costs less than a long mistake
COOL_S, LONGEST_COOL_S = 5.0, 300.0  # without a Retry-After: doubled each time
FAR_S = 600.0  # a reset further away than this is a quota's, not a rate's
UNPAID_S = 600.0
DEAD_S = (60.0, 300.0, LONGEST_S)  # the first rest, the second, every later one
ALONE_S = 60.0
LEASE_S = 10.0  # one probe excludes others this long; so a call whose client has left need not release it
STALE_S = 600.0
LEARNT_S = 60.0  # nearly all rate limits are per minute: they have recovered by then
LITTLE = 0.05

REFUSED = ("dead", "denied")

ACTIVE, PROBE, OUT = "active", "probe", "out"
WHOLE = ""  # in place of a model


class AccountState(Struct, gc=False):
    """The state of an account (or one model of it) that is not active.

    ``declared``: the upstream itself named ``until``.  ``times``: the number of rests in a row.  ``since``: the last
    refusal.  ``lease``: until then a probe is under way.
    """

    name: str  # cooling | exhausted | dead | denied | parked; by its own terms: expired | overspent | limited
    until: float
    declared: bool = False
    times: int = 0
    since: float = 0.0
    asked_at: float = 0.0
    lease: float = 0.0

    def is_over(self, now: float) -> bool:
        """True if it ended so long ago that it no longer counts."""
        return self.until + STALE_S < now

    @property
    def out_until(self) -> float:
        """When it may be asked: its rest is over, and the probe of another request has had its time."""
        return max(self.until, self.lease)

    def may(self, now: float) -> str:
        return OUT if now < self.out_until else PROBE


def key_of(attempt: Attempt) -> str:
    """Return the key of an attempt's credential.  A provider without credentials has one too, because it has limits."""
    return attempt.account.id if attempt.account is not None else attempt.target.provider.name


def belongs_to(account: Account, tenant: str) -> bool:
    """True if it is the tenant's own key.  Where there is no tenant, no key is."""
    return bool(tenant) and account.owner == tenant


class Accounts:
    """The states of all accounts, by account (``key_of``) and upstream model."""

    __slots__ = ("_by_account", "_room", "limits")

    def __init__(self) -> None:
        self.limits = AccountLimits()
        self._by_account: dict[str, dict[str, AccountState]] = {}
        # Account id → share left, and when that was learnt
        self._room: Bounded[str, tuple[float, float]] = Bounded(MAX_REMEMBERED)

    def __bool__(self) -> bool:
        """True if any account is not active."""
        return bool(self._by_account)

    # ------------------------------------------------------------------------------------- may it be used

    def own_state(self, attempt: Attempt, now: float) -> AccountState | None:
        """Return the state that its own terms (limits, expiry, spend) keep it in; None: they do not."""
        out = self.limits.why_out(attempt.account, now) if attempt.account is not None else None
        return AccountState(*out, declared=True) if out is not None else None

    def state(self, account: str, model: str, now: float) -> AccountState | None:
        """Return the state that keeps it from being used, or makes its next use a probe; None: active."""
        states = self._states(account, model, now)
        return max(states, key=lambda state: state.until, default=None)

    def may(self, account: str, model: str, now: float) -> str:
        """Return ``active``, ``probe`` (one request may try it: ``claim`` it), or ``out``."""
        found = [state.may(now) for state in self._states(account, model, now)]
        return OUT if OUT in found else PROBE if found else ACTIVE

    def _states(self, account: str, model: str, now: float) -> list[AccountState]:
        models = self._by_account.get(account)
        if models is None:
            return []
        states = [models[name] for name in (WHOLE, model) if name in models]
        return [state for state in states if not state.is_over(now)]

    def claim(self, account: str, model: str, now: float) -> None:
        """Note that a request probes it.  For ``LEASE_S``, no other request does."""
        models = self._by_account.get(account, {})
        for name in (WHOLE, model):
            state = models.get(name)
            if state is not None:
                state.lease = now + LEASE_S
                state.asked_at = now

    # ------------------------------------------------------------------------------------- what happened

    def limited(self, account: str, model: str, retry_after: float | None, now: float) -> None:
        """Note a 429.  ``retry_after``: the seconds that the upstream asked for."""
        times = self._rests(account, model, now)
        wait = min(COOL_S * 2 ** min(times - 1, 16), LONGEST_COOL_S) if retry_after is None else retry_after
        name = "exhausted" if wait > FAR_S else "cooling"
        self._extend(account, model, name, wait, now, declared=retry_after is not None)
        if self._others(account, model, ("cooling", "exhausted"), now):
            self._extend(account, WHOLE, name, wait, now, declared=retry_after is not None)

    def spent(self, account: str, retry_after: float | None, now: float) -> None:
        """Note that it has no money or no quota left."""
        self._rests(account, WHOLE, now)
        self._extend(account, WHOLE, "exhausted", retry_after or UNPAID_S, now, declared=retry_after is not None)

    def refused(self, account: str, now: float, model: str = WHOLE) -> None:
        """Note that its key was refused; with ``model``: that it may not use that model."""
        times = self._rests(account, model, now)
        self._extend(account, model, "denied" if model else "dead", DEAD_S[min(times, len(DEAD_S)) - 1], now)

    def served(self, account: str, model: str, began: float) -> None:
        """Note an answer to a request begun at ``began``: it is active again, unless it has refused one since."""
        models = self._by_account.get(account)
        if models is None:
            return
        for name in (WHOLE, model):
            state = models.get(name)
            if state is not None and state.name != "parked" and began >= state.since:
                del models[name]
        if not models:
            del self._by_account[account]

    def park(self, account: str) -> None:
        """Stop its use until ``revive``."""
        self._by_account.setdefault(account, {})[WHOLE] = AccountState("parked", float("inf"))

    def revive(self, account: str) -> None:
        """Forget its state, after a change of its key."""
        self._by_account.pop(account, None)

    def sweep(self, now: float) -> None:
        """Forget the states that are over."""
        for account, models in list(self._by_account.items()):
            for name, state in list(models.items()):
                if state.is_over(now):
                    del models[name]
            if not models:
                del self._by_account[account]

    def back_in(self, account: str, model: str, now: float) -> float | None:
        """Return the seconds until a limit of it ends, at least one; None if there is none, or that is not known."""
        state = self.state(account, model, now)
        if state is None or state.name not in ("cooling", "exhausted"):
            return None
        return max(1.0, state.until - now)

    def listed(self) -> list[tuple[str, str, AccountState]]:
        """Return (account, model or "" for all of it, state) of every account that is not active."""
        return [(account, model, one) for account, models in self._by_account.items() for model, one in models.items()]

    def _at(self, account: str, model: str, now: float) -> AccountState:
        models = self._by_account.get(account)
        if models is None:
            if len(self._by_account) >= MAX_REMEMBERED:
                self._forget_one()
            models = self._by_account[account] = {}
        elif len(models) >= MAX_REMEMBERED and model not in models:  # clients may name any model after a slash
            del models[next(name for name in models if name != WHOLE)]
        return models.setdefault(model, AccountState("cooling", now))

    def _forget_one(self) -> None:
        """Forget the oldest state that is not parked."""
        for account, models in self._by_account.items():
            if all(state.name != "parked" for state in models.values()):
                del self._by_account[account]
                return

    def _rests(self, account: str, model: str, now: float) -> int:
        """Return the number of rests in a row, with this refusal.  A refusal of a request that was under way when a
        rest began starts no new rest.  Otherwise a burst of calls would cause the longest rest at once.
        """
        state = self._at(account, model, now)
        if not state.times or now >= state.until or state.lease > 0:
            state.times += 1
        return state.times

    def _extend(self, account: str, model: str, name: str, wait: float, now: float, *, declared: bool = False) -> None:
        state = self._at(account, model, now)
        wait = min(wait, LONGEST_S)
        state.since = state.asked_at = now
        state.lease = 0.0
        if now + wait >= state.until:
            state.name, state.until, state.declared = name, now + wait, declared

    def _others(self, account: str, model: str, names: tuple[str, ...], now: float) -> bool:
        return any(
            other not in (model, WHOLE) and state.name in names and state.until > now
            for other, state in self._by_account.get(account, {}).items()
        )

    # ------------------------------------------------------------------------------------- which one of a pool

    def learn_limits(self, account: Account, headers: Mapping[bytes, bytes], now: float) -> None:
        """Read from an answer's head the share of the account's limits that is left.  For pools of several accounts."""
        share = share_left(headers)
        if share is None:
            return
        self._room.put(account.id, (share, now))

    def headroom(self, account: str, now: float) -> float:
        """Return the share of its limits that is left; 1.0 if unknown."""
        known = self._room.get(account)
        if known is None:
            return 1.0
        share, at = known
        return 1.0 - (1.0 - share) * max(0.0, 1.0 - (now - at) / LEARNT_S)

    def in_order(
        self, pool: Iterable[Attempt], preferred: str | None, now: float, chance: float, tenant: str = ""
    ) -> list[Attempt]:
        """Return one target's accounts in the order to try: the tenant's own, priority, free before paid, the one that
        holds the caller's prompt cache, then those with most room.  ``chance`` in [0, 1) says who begins among equals.
        """
        several = list(pool)
        turn = int(chance * len(several))
        places = []
        for index, attempt in enumerate(several):
            account = attempt.account
            if account is None:
                return several
            room = self.headroom(account.id, now) if self._room else 1.0
            worth = (-account.priority, not account.free, account.id != preferred, room < LITTLE, -int(room * 4))
            places.append((not belongs_to(account, tenant), *worth, (index - turn) % len(several), index))
        places.sort()
        return [several[place[-1]] for place in places]
