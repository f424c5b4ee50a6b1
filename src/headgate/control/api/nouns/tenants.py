"""/admin/v1/tenants: what stands above tokens, with limits and a budget of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field

from headgate.control.api.access.callers import Caller
from headgate.control.api.errors import documented
from headgate.control.api.nouns.allowances import (
    BudgetView,
    HolderStandingView,
    LimitsView,
    of_holder,
    used,
)
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Changed, Page, View, created_of
from headgate.control.identity.roles import Principal
from headgate.control.objects import holders, named
from headgate.model import Tenant
from headgate.policy.admission.standings import HolderStanding
from headgate.resources.callers.tenant import TenantName, TenantWish

Name = Annotated[TenantName, Path(description="The tenant's name.")]


class TenantView(View):
    """``tokens``: how many are its own.  ``standing``: null where nothing is counted, or no gateway runs."""

    object: Literal["headgate.tenant"] = "headgate.tenant"
    name: str
    limits: LimitsView
    budget: BudgetView | None
    over_budget: str = Field(description="`refuse`, or the alias that serves what the budget cannot pay.")
    tokens: int
    standing: HolderStandingView | None
    origin: Literal["file", "store"]
    managed_by_file: bool
    created: int | None


class ChangedTenant(TenantView, Changed):
    pass


class DeletedTenant(Changed):
    object: Literal["headgate.tenant.deleted"] = "headgate.tenant.deleted"
    name: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("tenants")
    publication = admin.publication

    async def views(*names: str) -> list[TenantView]:
        tenants = publication.snapshot.tenants
        wanted = [tenants[name] for name in names if name in tenants]
        standings = await used(admin, [f"tenant:{tenant.name}" for tenant in wanted]) or {}
        counts: dict[str, set[str]] = {}
        for grant in publication.snapshot.tokens.values():
            counts.setdefault(grant.tenant, set()).add(grant.id)
        stored = publication.sources.objects.tenants
        return [
            _view(
                tenant, len(counts.get(tenant.name, ())), standings, created_of(tenant, stored.get(tenant.name))
            )
            for tenant in wanted
        ]  # fmt: skip

    async def view_of(name: str, caller: Principal) -> TenantView:
        known = [one for one in publication.snapshot.tenants if caller.bound_to in (None, one)]
        found = await views(name) if name in known else []
        if not found:
            raise holders.no_tenant(name, known)
        return found[0]

    @api.get("/tenants")
    async def list_tenants(caller: Caller) -> Page[TenantView]:
        """Every tenant: the file's, then the store's."""
        names = [name for name in publication.snapshot.tenants if caller.bound_to in (None, name)]
        return Page(data=await views(*names) if names else [])

    @api.get("/tenants/{name}", responses=documented(404))
    async def get_tenant(name: Name, caller: Caller) -> TenantView:
        """One tenant, with what it has used and has left."""
        return await view_of(name, caller)

    @api.put("/tenants/{name}", responses=documented(409))
    async def put_tenant(name: Name, wish: TenantWish, caller: Caller) -> ChangedTenant:
        """Stores a tenant, whole.  Its tokens are bound by it at once."""
        named.models(filter(None, [wish.instead]), publication.snapshot)
        _, effective = await publication.change(lambda sources: (holders.put_tenant(sources, name, wish), None))
        return ChangedTenant.now(effective, await view_of(name, caller))

    @api.delete("/tenants/{name}", responses=documented(404, 409))
    async def delete_tenant(name: Name) -> DeletedTenant:
        """Deletes a stored tenant that has no tokens, aliases or prompts."""
        grants = admin.publishing.tokens.all()
        _, effective = await publication.change(lambda sources: (holders.drop_tenant(sources, name, grants), None))
        return DeletedTenant.now(effective, name=name)

    return api


def _view(tenant: Tenant, tokens: int, standings: Mapping[str, HolderStanding], created: int | None) -> TenantView:
    return TenantView.of(
        tenant,
        over_budget=tenant.over_budget or "refuse",
        tokens=tokens,
        **of_holder(tenant, standings.get(f"tenant:{tenant.name}"), created),
    )
