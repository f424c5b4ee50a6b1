"""Which limits and budgets a call counts against: its token's, its tenant's, and those of the groups it matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate.model import HARD, UNLIMITED, Attempt, Budget, CallGroup, CallLimits, Grant, Quota, Snapshot, Target

Quotas = tuple[Quota, ...]


class QuotaTable:
    """The quotas of one Snapshot.  ``empty``: there are none, so no call is counted."""

    __slots__ = ("_groups", "_of", "_snapshot", "empty")

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._of: dict[str, Quotas] = {}
        self._groups = tuple(
            (group, quota)
            for group in snapshot.groups
            if (
                quota := _quota(f"group:{group.id}", f"the group {group.id!r}", group.limits, group.budget, group.model)
            )
        )
        self.empty = (
            not self._groups
            and not any(grant.budget is not None or _has_any(grant.limits) for grant in snapshot.tokens.values())
            and not any(one.budget is not None or _has_any(one.limits) for one in snapshot.tenants.values())
        )

    def of(self, grant: Grant) -> Quotas:
        """A token's and its tenant's."""
        found = self._of.get(grant.id)
        if found is None:
            found = self._of[grant.id] = self._make(grant)
        return found

    def matching(self, tags: Mapping[str, str], session: Callable[[], bytes], attempts: tuple[Attempt, ...]) -> Quotas:
        """Those of the groups that a call matches.  ``session`` is asked only where a group depends on it.

        A group of a model applies where the model may serve; where another one does, the call is taken back.
        """
        return tuple(quota for group, quota in self._groups if _matches(group, tags, session, attempts))

    def _make(self, grant: Grant) -> Quotas:
        tenant = self._snapshot.tenants.get(grant.tenant) if grant.tenant else None
        found = [_quota(f"token:{grant.id}", f"the API key {grant.name!r}", grant.limits, grant.budget)]
        if tenant is not None:
            found.append(_quota(f"tenant:{tenant.name}", f"the tenant {tenant.name!r}", tenant.limits, tenant.budget))
        return tuple(quota for quota in found if quota is not None)


def is_model(target: Target, name: str) -> bool:
    """True if a quota on the model ``name`` counts what ``target`` serves."""
    return name in (f"{target.provider.name}/{target.model}", target.model)


def is_hard(quotas: Quotas) -> bool:
    """True if some budget among them must not be overrun."""
    return any(quota.most < UNLIMITED for quota in quotas)


def _matches(
    group: CallGroup, tags: Mapping[str, str], session: Callable[[], bytes], attempts: tuple[Attempt, ...]
) -> bool:
    if any(tags.get(name) != value for name, value in group.tags.items()):
        return False
    if group.model and not any(is_model(attempt.target, group.model) for attempt in attempts):
        return False
    return not group.session or session() == group.session.encode()


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
