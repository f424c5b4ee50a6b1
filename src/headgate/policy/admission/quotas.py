"""Which limits and budgets a call counts against: its token's, its tenant's, and those of the groups it matches."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import msgspec

from headgate.model import (
    HARD,
    NO_LIMITS,
    NO_QUOTAS,
    UNLIMITED,
    Attempt,
    Budget,
    Call,
    CallGroup,
    CallLimits,
    Grant,
    Quota,
    Quotas,
    Snapshot,
    Target,
    Tenant,
)

_BUDGET, _LIMITS = attrgetter("budget"), attrgetter("limits")


class QuotaTable:
    """The quotas of one Snapshot.  ``empty``: there are none, so no call is counted.  ``grouped``: some are groups'.

    ``before`` is the table of an earlier one: parents of tokens are looked for where they were then.
    """

    __slots__ = ("_counted", "_groups", "_made", "_parents", "_scanned", "_snapshot", "empty", "grouped", "known")

    def __init__(self, snapshot: Snapshot, before: QuotaTable | None = None) -> None:
        self._snapshot = snapshot
        self.known: dict[str, Quotas] = {}  # by the grant's id: what ``of`` has found
        self._made: dict[str, Quota | None] = {}  # by key: the counters know one that is the same object at once
        self._parents: dict[str, bytes] = {} if before is None else before._parents  # digests of tokens by id
        self._scanned = False
        self._counted: dict[str, Grant] | None = None
        self._groups = tuple(
            (group, quota)
            for group in snapshot.groups
            if (
                quota := _quota(f"group:{group.id}", f"the group {group.id!r}", group.limits, group.budget, group.model)
            )
        )
        self.grouped = bool(self._groups)
        self.empty = (
            not self._groups
            # In C: there may be ten thousands of tokens, and a Snapshot's coming must not hold the loop
            and not any(map(_BUDGET, snapshot.tokens.values()))
            and not any(map(NO_LIMITS.__ne__, map(_LIMITS, snapshot.tokens.values())))
            and not any(one.budget is not None or _has_any(one.limits) for one in snapshot.tenants.values())
        )

    def of(self, grant: Grant) -> Quotas:
        """A token's and its tenant's."""
        found = self.known.get(grant.id)
        if found is None:
            found = self.known[grant.id] = self._make(grant)
        return found

    def matching(self, call: Call, session: Callable[[], bytes], attempts: tuple[Attempt, ...]) -> tuple[Quota, ...]:
        """Those of the groups that a call matches.  ``session`` is asked only where a group depends on it.

        A group of a model applies where the model may serve; where another one does, the call is taken back.
        """
        return tuple(quota for group, quota in self._groups if _matches(group, call, session, attempts))

    def over_budget(self, grant: Grant) -> str:
        """The alias that serves a token's calls where a budget is spent; empty: none does."""
        if grant.over_budget or not grant.tenant:
            return grant.over_budget
        tenant = self._snapshot.tenants.get(grant.tenant)
        return tenant.over_budget if tenant is not None else ""

    def _make(self, grant: Grant) -> Quotas:
        return quotas_of(tuple(quota for quota in map(self.quota, self.holders(grant)) if quota is not None))

    def holders(self, grant: Grant) -> list[Grant | Tenant]:
        """Whose quotas a token's calls count against: its own, its parent's, its tenant's."""
        found: list[Grant | Tenant] = [grant]
        if grant.parent and (parent := self._parent(grant.parent)) is not None:
            found.append(parent)
        if grant.tenant and (tenant := self._snapshot.tenants.get(grant.tenant)) is not None:
            found.append(tenant)
        return found

    def named(self, key: str) -> tuple[str, Quota] | None:
        """The name of a holder, and the quota whose counters have this key; None: there is none."""
        kind, _, name = key.partition(":")
        if kind == "group":
            return next(((name, quota) for _group, quota in self._groups if quota.key == key), None)
        if kind == "tenant":
            holder: Grant | Tenant | None = self._snapshot.tenants.get(name)
        else:
            holder = self._counted_token(name)
        quota = self.quota(holder) if holder is not None else None
        return (holder.name, quota) if holder is not None and quota is not None else None

    def quota(self, holder: Grant | Tenant) -> Quota | None:
        """A token's or a tenant's own; None where nothing of it is counted."""
        if isinstance(holder, Grant):
            key, shown = f"token:{holder.id}", f"the API key {holder.name!r}"
        else:
            key, shown = f"tenant:{holder.name}", f"the tenant {holder.name!r}"
        if key not in self._made:
            self._made[key] = _quota(key, shown, holder.limits, holder.budget)
        return self._made[key]

    def _counted_token(self, ident: str) -> Grant | None:
        """A token that has limits or a budget.  Looked up among those: once for a Snapshot."""
        if self._counted is None:
            tokens = self._snapshot.tokens.values()
            self._counted = {one.id: one for one in tokens if one.budget is not None or _has_any(one.limits)}
        return self._counted.get(ident)

    def _parent(self, ident: str) -> Grant | None:
        """Looked for among all tokens only where it is not where it was: at most once for a Snapshot."""
        tokens = self._snapshot.tokens
        found = tokens.get(self._parents.get(ident, b""))
        if (found is None or found.id != ident) and not self._scanned:
            wanted = {grant.parent for grant in tokens.values() if grant.parent}
            self._parents = {grant.id: digest for digest, grant in tokens.items() if grant.id in wanted}
            self._scanned = True
            found = tokens.get(self._parents.get(ident, b""))
        return found if found is not None and found.id == ident else None


def quotas_of(each: tuple[Quota, ...]) -> Quotas:
    if not each:
        return NO_QUOTAS
    hard = any(quota.most < UNLIMITED for quota in each)
    metered = hard or any(quota.tpm < UNLIMITED for quota in each)
    return Quotas(each, hard, metered, len(each) == 1 and each[0].timed and each[0].rpd == UNLIMITED)


def is_model(target: Target, name: str) -> bool:
    """True if a quota on the model ``name`` counts what ``target`` serves."""
    return name in (target.name, target.model)


def _matches(group: CallGroup, call: Call, session: Callable[[], bytes], attempts: tuple[Attempt, ...]) -> bool:
    tags = call.metadata or {}
    if any(tags.get(name) != value for name, value in group.tags.items()):
        return False
    if group.model and not any(is_model(attempt.target, group.model) for attempt in attempts):
        return False
    if group.user and not _is_named(call.prompt.user, group.user):
        return False
    return not group.session or _is_named(session(), group.session)


def _is_named(said: bytes, name: str) -> bool:
    """Whether a client's name for something, as a header or as a JSON string of the body, is ``name``."""
    if not said.startswith(b'"'):
        return said == name.encode()
    try:
        return msgspec.json.decode(said, type=str) == name
    except msgspec.DecodeError:
        return False


def _quota(key: str, holder: str, limits: CallLimits, budget: Budget | None, model: str = "") -> Quota | None:
    """None where there is nothing to count."""
    if budget is None and not _has_any(limits):
        return None
    return Quota(
        key, holder, _or_unlimited(limits.rpm), _or_unlimited(limits.tpm), _or_unlimited(limits.rpd),
        _or_unlimited(limits.parallel), budget.amount if budget is not None and budget.mode == HARD else UNLIMITED,
        limits.rpm is not None or limits.tpm is not None, budget, model,
    )  # fmt: skip


def _has_any(limits: CallLimits) -> bool:
    return limits != CallLimits()


def _or_unlimited(limit: int | None) -> int:
    return UNLIMITED if limit is None else limit
