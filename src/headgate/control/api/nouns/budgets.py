"""/admin/v1/budgets: limits and budgets of groups of calls, whichever token they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Path

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
from headgate.control.objects import holders
from headgate.model import CallGroup
from headgate.policy.admission.standings import HolderStanding
from headgate.resources.callers.group import GroupName, GroupWish
from headgate.resources.fields import Text

Name = Annotated[GroupName, Path(description="The name of the budget.")]
Wanted = Annotated[Text, Path(description="The name of the budget, or what a nameless one of the file matches.")]


class MatchView(View):
    tag: dict[str, str]
    session: str | None
    model: str | None
    user: str | None


class CallGroupView(View):
    """``standing``: null where no gateway runs."""

    object: Literal["headgate.budget"] = "headgate.budget"
    name: str
    match: MatchView
    limits: LimitsView
    budget: BudgetView | None
    standing: HolderStandingView | None
    origin: Literal["file", "store"]
    managed_by_file: bool
    created: int | None


class ChangedBudget(CallGroupView, Changed):
    pass


class DeletedBudget(Changed):
    object: Literal["headgate.budget.deleted"] = "headgate.budget.deleted"
    name: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("budgets")
    publication = admin.publication

    async def views(*names: str) -> list[CallGroupView]:
        groups = [group for group in publication.snapshot.groups if not names or group.id in names]
        standings = await used(admin, [f"group:{group.id}" for group in groups]) or {}
        stored = publication.sources.objects.groups
        return [_view(group, standings, created_of(group, stored.get(group.id))) for group in groups]

    async def view_of(name: str) -> CallGroupView:
        found = await views(name)
        if not found:
            raise holders.no_group(name, [group.id for group in publication.snapshot.groups])
        return found[0]

    @api.get("/budgets")
    async def list_budgets() -> Page[CallGroupView]:
        """Every group of calls with a limit or a budget: the file's, then the store's."""
        return Page(data=await views() if publication.snapshot.groups else [])

    @api.get("/budgets/{name}", responses=documented(404))
    async def get_budget(name: Wanted) -> CallGroupView:
        """One of them, with what it has used and has left."""
        return await view_of(name)

    @api.put("/budgets/{name}", responses=documented(409))
    async def put_budget(name: Name, wish: GroupWish) -> ChangedBudget:
        """Stores a limit or a budget of a group of calls, whole."""
        _, effective = await publication.change(lambda sources: (holders.put_group(sources, name, wish), None))
        return ChangedBudget.now(effective, await view_of(name))

    @api.delete("/budgets/{name}", responses=documented(404, 409))
    async def delete_budget(name: Wanted) -> DeletedBudget:
        """Deletes a stored one."""
        _, effective = await publication.change(lambda sources: (holders.drop_group(sources, name), None))
        return DeletedBudget.now(effective, name=name)

    return api


def _view(group: CallGroup, standings: Mapping[str, HolderStanding], created: int | None) -> CallGroupView:
    return CallGroupView.of(
        group,
        name=group.id,
        match=MatchView(
            tag=dict(group.tags), session=group.session or None, model=group.model or None, user=group.user or None
        ),
        **of_holder(group, standings.get(f"group:{group.id}"), created),
    )
