"""Which budgets a receipt counts against, by the keys of their counters: of one Snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from headgate.control.ledger.spend import group_matches, served_as
from headgate.model import Grant, Snapshot
from headgate.policy.admission.quotas import QuotaTable


class BudgetedHolders:
    """Mutable: the keys of the tokens that were asked for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._table = QuotaTable(snapshot)
        self._groups = [group for group in snapshot.groups if group.budget is not None]
        self._served = {group.id: served_as(group.model, snapshot) for group in self._groups}
        self._grants: dict[str, Grant] | None = None
        self._of_grant: dict[str, tuple[str, ...]] = {}

    def all(self) -> Iterator[str]:
        """The keys of every budget."""
        yield from (f"token:{one.id}" for one in self.snapshot.tokens.values() if one.budget is not None)
        yield from (f"tenant:{one.name}" for one in self.snapshot.tenants.values() if one.budget is not None)
        yield from (f"group:{group.id}" for group in self._groups)

    def of(self, row: Mapping[str, Any]) -> Iterator[str]:
        """The keys of those that count a receipt."""
        yield from self._of_token(row["grant_id"])
        if self._groups:
            tags = json.loads(row["tags"]) if row["tags"] else {}
            for group in self._groups:
                if group_matches(group, row, tags, self._served[group.id]):
                    yield f"group:{group.id}"

    def name(self, key: str) -> str:
        """The name of a token or a tenant; its id where it is gone."""
        kind, _, ident = key.partition(":")
        grant = self._by_id().get(ident) if kind == "token" else None
        return grant.name if grant is not None else ident

    def _of_token(self, ident: str) -> tuple[str, ...]:
        found = self._of_grant.get(ident)
        if found is None:
            grant = self._by_id().get(ident)
            holders = self._table.holders(grant) if grant is not None else ()
            quotas = (self._table.quota(one) for one in holders if one.budget is not None)
            found = self._of_grant[ident] = tuple(quota.key for quota in quotas if quota is not None)
        return found

    def _by_id(self) -> dict[str, Grant]:
        if self._grants is None:  # there may be a hundred thousand
            self._grants = {grant.id: grant for grant in self.snapshot.tokens.values()}
        return self._grants
