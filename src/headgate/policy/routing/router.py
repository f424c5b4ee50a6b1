"""The targets that may serve a call, in order: (Call, Grant, Snapshot) → Plan.  ``headgate explain`` prints it.

Names resolve in WIRE's order: an alias, then what ``offers`` says.  A bare model keeps its model: it may change
provider, never the model.  ``filters`` holds the reasons that exclude a target, ``strategies`` the orders that
depend on chance or on measurements.

Pure.  A plan that depends on its name alone is made once for a Snapshot, and then costs one look-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from math import inf
from typing import NamedTuple

from msgspec.structs import replace

from headgate.catalog.names import TENANT_ALIAS, tenant_of
from headgate.catalog.offers import Offers, known, price_of
from headgate.catalog.unknown import quote, unknown
from headgate.errors import INVALID_VALUE, MODEL_NOT_ALLOWED, NO_PROVIDER_KEY, GatewayError
from headgate.model import (
    FEATURES,
    NO_ALIAS,
    NO_OPTIONS,
    Alias,
    Attempt,
    Call,
    Candidate,
    Grant,
    ModelRow,
    Plan,
    Provider,
    Snapshot,
    Target,
    Timeouts,
)
from headgate.model.bounded import Bounded
from headgate.policy.admission.quotas import QuotaTable
from headgate.policy.attempts.strategies import CHOSEN, FALLBACK
from headgate.policy.health.accounts import belongs_to
from headgate.policy.health.targets import HealthState
from headgate.policy.routing import difficulty, explain, filters
from headgate.policy.routing.difficulty import COMPUTED
from headgate.policy.routing.explain import Explanation

MAX_REMEMBERED = 4096
SESSION_HEADERS = (b"x-session-id", b"x-session-affinity", b"session_id", b"session-id", b"x-claude-code-session-id")
_SESSION_HEADERS = frozenset(SESSION_HEADERS)
_PRICED = frozenset(("cheapest", "balanced", COMPUTED))
_ORDERED = frozenset(("cheapest", COMPUTED))  # by the cost of this call


class _Made(NamedTuple):
    """A name's plan, reused for calls within these bounds that use none of the features ``lacks``.  ``owned``: some
    account is a tenant's, so each tenant has a plan of its own.
    """

    plan: Plan
    fixed: bool  # the order does not depend on the cost of the call
    most_bytes: float
    most_output: float
    lacks: tuple[str, ...]
    owned: bool


class Router:
    """Plans for one Snapshot, and remembers them.

    ``before`` is the Router of an earlier one: offers and tokens' parents that are as before are taken from it.
    """

    __slots__ = ("_made", "_of_tenants", "offers", "quotas", "snapshot")

    def __init__(self, snapshot: Snapshot, before: Router | None = None) -> None:
        self.snapshot = snapshot
        self.offers: Offers
        self.quotas: QuotaTable
        if before is not None and before.snapshot.providers is snapshot.providers:
            self.offers = before.offers
        else:
            self.offers = Offers(snapshot.providers)
        self.quotas = QuotaTable(snapshot, None if before is None else before.quotas)
        self._made: Bounded[str, _Made] = Bounded(MAX_REMEMBERED)
        self._of_tenants: Bounded[tuple[str, str], _Made] = Bounded(MAX_REMEMBERED)

    def plan(self, call: Call, grant: Grant, headers: Mapping[bytes, bytes] | None = None) -> Plan:
        """Return the plan of ``call``.  ``headers`` may name its session, for the prompt cache.

        Raises GatewayError: 404 for an unknown name, 403 if this token may not use it, 503 if its providers have no
        key.  422: no target qualifies.  400: the prompt is too long for all of them.  Planning costs no tokens.
        """
        requested = call.model or self.snapshot.default_model
        made = self._made.get(requested)
        if made is None or made.owned:
            made = self._find(requested, grant.tenant)
        if (
            made.fixed
            and call.options is NO_OPTIONS
            and call.prompt.size <= made.most_bytes
            and (call.max_tokens or 0) <= made.most_output
            and (not grant.models or requested in grant.models)
            and not (grant.free_only or grant.priced_only)
            and not (made.lacks and call.prompt.uses(made.lacks))
        ):
            plan = made.plan
            return plan if plan.ordered else _with_affinity(plan, call, grant, headers or {})
        return self._plan_for(call, grant, made.plan, headers or {})

    def explain(self, call: Call, grant: Grant, health: HealthState | None, now: float) -> Explanation:
        """Return the plan with every candidate's reason, scores and state.  Raises nothing: an error is part of it."""
        requested = call.model or self.snapshot.default_model
        try:
            base = self._find(requested, grant.tenant).plan
        except GatewayError as error:
            return explain.explain_refusal(requested, error)
        refused = None
        try:
            plan = self._plan_for(call, grant, base, {})
        except GatewayError as error:
            refused = error
            try:
                candidates = self._candidates(call, grant, base)
            except GatewayError:
                candidates = []
            plan = Plan(requested, (), tuple(candidates), base.alias)
        timeout = call.timeout_ms / 1000 if call.timeout_ms else None
        found = explain.explain_plan(plan, health, now, refused, timeout)
        return replace(found, strategy=difficulty.describe(found.strategy, call))

    # ------------------------------------------------------------------------------------- plans

    def _find(self, requested: str, tenant: str) -> _Made:
        """Return a name's plan for a tenant's calls without options; it is made where there is none."""
        made = self._made.get(requested)
        if made is None:
            made = self._make(requested, "")
            self._made.put(requested, made)  # clients may name any model after a provider's slash
        if not made.owned or not tenant:
            return made
        own = self._of_tenants.get((requested, tenant))
        if own is None:
            own = self._make(requested, tenant)
            self._of_tenants.put((requested, tenant), own)
        return own

    def _make(self, requested: str, tenant: str) -> _Made:
        """Return a name's plan for a call without options."""
        alias, candidates = self._resolve(requested)
        owned = any(account.owner for one in candidates for account in one.target.provider.accounts)
        if owned:
            candidates = [_judge_owners(one, tenant) for one in candidates]
        usable = [candidate.target for candidate in candidates if not candidate.reason]
        attempts = tuple(attempt for target in usable for attempt in _accounts(target, tenant))
        retries = self.snapshot.retries if alias.retries is None else alias.retries
        pools = len(attempts) > len(usable)
        chosen = len(usable) > 1 and alias.strategy != "priority"
        has_terms = _have_terms(attempts)
        ordered = not (pools or has_terms or (chosen and alias.strategy in CHOSEN))
        keeps = alias.keeps
        plan = Plan(requested, attempts, tuple(candidates), alias, retries, ordered, b"", tenant, has_terms, keeps)
        rows = [target.row for target in usable if target.row is not None]
        windows = [row.context_window for row in rows if row.context_window is not None]
        outputs = [row.max_output for row in rows if row.max_output is not None]
        return _Made(
            plan,
            fixed=bool(attempts)
            and not (chosen and alias.strategy in _PRICED)
            and not alias.name.startswith(TENANT_ALIAS),  # whose token it is decides
            # A token has two and a half bytes at least: within these bounds no estimate can exceed a window.
            most_bytes=min(windows, default=inf),
            most_output=min([*outputs, *(0.8 * window for window in windows)], default=inf),
            lacks=tuple(name for name in FEATURES if any(name in filters.missing_features(one) for one in usable)),
            owned=owned,
        )

    def _plan_for(self, call: Call, grant: Grant, base: Plan, headers: Mapping[bytes, bytes]) -> Plan:
        """Return the plan of one call."""
        filters.hold_tier(grant, call.options.tier)
        candidates = self._candidates(call, grant, base)
        left = [candidate for candidate in candidates if not candidate.reason]
        if not left:
            raise filters.nothing_left(quote(base.requested), grant.name, candidates)
        usable = [candidate.target for candidate in left]
        attempts = tuple(attempt for target in usable for attempt in _accounts(target, grant.tenant))
        if grant.free_only:
            attempts = tuple(attempt for attempt in attempts if filters.is_free(attempt))
        has_terms = base.has_terms or (bool(call.options.fallback_models) and _have_terms(attempts))
        chosen = len(usable) > 1 and base.alias.strategy in CHOSEN
        pools = len(attempts) > len(usable)
        strays = left[0].rank >= FALLBACK  # none of the name's own targets is left: see ``intended_target``
        retries = base.retries if call.options.retries is None else call.options.retries
        ordered = not (pools or chosen or strays or has_terms)
        plan = Plan(
            base.requested, attempts, tuple(candidates), base.alias, retries, ordered, b"", grant.tenant, has_terms
        )
        return plan if plan.ordered else _with_affinity(plan, call, grant, headers)

    def _candidates(self, call: Call, grant: Grant, base: Plan) -> list[Candidate]:
        """Return every target that was considered, in the order to try, with its reason against it."""
        options = call.options
        _hold_tenant(base.alias.name, grant)
        preferred = {name: place for place, name in enumerate(options.preferred_providers)}
        found = [
            (candidate, base.requested, preferred.get(candidate.target.provider.name, len(preferred)))
            for candidate in base.candidates
        ]
        for name in options.fallback_models:
            _hold_tenant(name, grant, "headgate.fallback_models")
            for candidate in self._fallback(name, base, grant.tenant):
                found.append((candidate, name, FALLBACK + len(found)))
        wanted = filters.needs(call)
        priced = base.alias.strategy in _PRICED or options.max_cost is not None
        privacy = base.alias.privacy  # the name's own boundary holds for the client's fallback_models too
        candidates = []
        for one, name, rank in found:
            target = one.target
            reason = (
                one.reason
                or filters.why_private(target.provider, privacy)
                or filters.why_forbidden(grant, name, target)
                or filters.why_not_for(grant, target, _accounts(target, grant.tenant))
                or filters.why_not(target, wanted)
            )
            cost = filters.expected_cost(target, wanted.prompt, wanted.output) if priced else None
            candidates.append(Candidate(target, reason, cost, one.weight, rank))
        strategy = base.alias.strategy
        candidates = _each_once(candidates)
        if strategy in _ORDERED:
            hard = strategy == COMPUTED and difficulty.is_hard(call, wanted)
            candidates.sort(key=lambda one: difficulty.badness(one.target, one.cost, hard=hard))
        return sorted(candidates, key=lambda one: one.rank)

    def _fallback(self, name: str, base: Plan, tenant: str) -> tuple[Candidate, ...]:
        if base.alias.name.startswith(TENANT_ALIAS):
            raise GatewayError(
                INVALID_VALUE,
                f"{quote(base.requested)} keeps its own targets: it cannot be given fallback_models",
                param="headgate.fallback_models",
            )
        try:
            made = self._find(name, tenant)
        except GatewayError as error:
            raise GatewayError(error.kind, error.message, param="headgate.fallback_models") from None
        return made.plan.candidates

    # ------------------------------------------------------------------------------------- names

    def _resolve(self, requested: str) -> tuple[Alias, list[Candidate]]:
        snapshot = self.snapshot
        alias = snapshot.aliases.get(requested)
        if alias is None:
            targets = [self._target(*offer, None) for offer in self.offers.of(requested)]
            if not targets:
                named = self._alias_by_case(requested)
                if named is not None:
                    return self._resolve(named)
                raise unknown(requested, snapshot, self.offers)
            return NO_ALIAS, self._judge([(target, 1) for target in targets], NO_ALIAS)
        weighted = [
            (self._target(*offer, alias), ref.weight) for ref in alias.targets for offer in self.offers.of(ref.model)
        ]
        if not weighted:
            reason = alias.why or "no provider is configured; add one under providers: in the configuration"
            raise GatewayError(
                NO_PROVIDER_KEY,
                f"{quote(requested)} has nothing to choose from: {reason.rstrip('.')}. "
                "Ask for builtin/lorem to try the gateway itself",
            )
        candidates = self._judge(weighted, alias)
        if difficulty.is_computed(alias) and any(known(one.target.price) for one in candidates):
            alias = replace(alias, strategy=COMPUTED)
            candidates.sort(
                key=lambda one: not filters.is_own(one.target.provider)
            )  # stable: among equals, the operator's own first
        return alias, candidates

    def _alias_by_case(self, requested: str) -> str | None:
        folded = requested.strip().casefold()
        found = [name for name in self.snapshot.aliases if name.casefold() == folded]
        return found[0] if len(found) == 1 else None

    def _judge(self, weighted: list[tuple[Target, int]], alias: Alias) -> list[Candidate]:
        unpriced = alias.unpriced or self.snapshot.unpriced
        return _each_once(
            Candidate(target, filters.why_never(target, privacy=alias.privacy, unpriced=unpriced), weight=weight)
            for target, weight in weighted
        )

    def _target(self, provider: Provider, model: str, row: ModelRow | None, alias: Alias | None) -> Target:
        timeouts = self.snapshot.timeouts
        if alias is not None and alias.timeouts:
            timeouts = _replace_timeouts(timeouts, alias.timeouts)
        raised = row.timeouts if row is not None else {}
        if raised:  # a model row may raise a deadline, never lower it
            timeouts = _replace_timeouts(
                timeouts, {name: max(value, getattr(timeouts, name)) for name, value in raised.items()}
            )
        # Without a head there is no token either.  A row that raises only ``headers`` means both.
        latest = max(timeouts.first_token, raised.get("headers", 0.0))
        if timeouts.headers > latest:
            timeouts = _replace_timeouts(timeouts, {"headers": latest})
        price = price_of(provider, row)
        if row is None:
            return Target(
                provider, model, model, price, timeouts, None, provider.prefill, _trims(provider.prefill_trims)
            )
        prefill = provider.prefill if row.prefill is None else row.prefill
        trims = _trims(row.prefill_trims or provider.prefill_trims)
        return Target(provider, model, row.upstream_model or model, price, timeouts, row, prefill, trims)


def _each_once(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Keep a target that is named twice once: its first mention, or the first one without a reason against it."""
    found: dict[tuple[str, str], Candidate] = {}
    for one in candidates:
        key = (one.target.provider.name, one.target.upstream_model)
        before = found.get(key)
        if before is None or (before.reason and not one.reason):
            found[key] = one
    return list(found.values())


def _accounts(target: Target, tenant: str) -> list[Attempt]:
    """The accounts that a tenant's calls may use, its own first."""
    if target.provider.auth == "none":
        return [Attempt(target, None)]
    usable = (account for account in target.provider.accounts if account.may_serve(tenant))
    ordered = sorted(usable, key=lambda one: (not belongs_to(one, tenant), -one.priority, not one.free))
    return [Attempt(target, account) for account in ordered]


def _judge_owners(one: Candidate, tenant: str) -> Candidate:
    """A candidate, with the reason against it where all of its provider's keys are other tenants'."""
    provider = one.target.provider
    if one.reason or provider.auth == "none" or any(account.may_serve(tenant) for account in provider.accounts):
        return one
    reason = f"no_key: every key of {provider.name} here belongs to a tenant that does not share it"
    return Candidate(one.target, reason, one.cost, one.weight, one.rank)


def _have_terms(attempts: Iterable[Attempt]) -> bool:
    return any(attempt.account is not None and attempt.account.has_terms for attempt in attempts)


def _hold_tenant(name: str, grant: Grant, param: str = "model") -> None:
    """Raises GatewayError (403) where ``name`` is an alias of a tenant that is not the token's.  A token without an id
    is the operator, who may ask where anything would go.
    """
    tenant = tenant_of(name)
    if tenant is not None and grant.id and grant.tenant != tenant:
        sentence = f"{quote(name)} is an alias of a tenant that the API key {grant.name!r} does not belong to"
        raise GatewayError(MODEL_NOT_ALLOWED, sentence, param=param)


def _replace_timeouts(timeouts: Timeouts, changes: Mapping[str, float]) -> Timeouts:
    return Timeouts(**{name: changes.get(name, getattr(timeouts, name)) for name in Timeouts.__struct_fields__})


def _with_affinity(plan: Plan, call: Call, grant: Grant, headers: Mapping[bytes, bytes]) -> Plan:
    """An unordered plan.  The account with the prompt cache may decide its order."""
    affinity = _affinity(call, grant, plan.alias.affinity, headers)
    return replace(plan, ordered=False, affinity=affinity)


def _affinity(call: Call, grant: Grant, mode: str, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key of the call's prompt cache: the caller's own name for it, else the conversation's beginning."""
    if mode == "none":
        return b""
    key = session_of(call, headers)
    if not key and mode == "prompt_cache":
        key = call.prompt.beginning
    return blake2b(grant.id.encode() + b"\0" + key, digest_size=16).digest() if key else b""


def session_of(call: Call, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the client's name for the call's session, else for its user, or b""."""
    return named_session(call, headers) or call.prompt.user


def named_session(call: Call, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the client's name for the call's session, or b""."""
    key = call.prompt.cache_key if "prompt_cache_key" in call.body else b""
    if key or _SESSION_HEADERS.isdisjoint(headers):
        return key
    return next((headers[name] for name in SESSION_HEADERS if headers.get(name)), b"")


def _trims(declared: str | None) -> bool | None:
    return None if declared is None else declared == "yes"
