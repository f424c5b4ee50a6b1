"""/admin/v1/aliases: names for jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Path

from headgate.catalog import names
from headgate.control.api.access.callers import Caller, hold_alias, own_alias
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Changed, Page, View, seconds
from headgate.control.objects import changes
from headgate.control.objects.assemble import HERE
from headgate.control.objects.registry import StoredAlias
from headgate.control.refusals import ALIAS_NOT_FOUND
from headgate.errors import GatewayError
from headgate.model import Alias
from headgate.process.channel import queued_at
from headgate.resources.alias import AliasSettings, AliasWish
from headgate.resources.fields import ModelName

AliasName = Annotated[ModelName, Path(description="The alias; it may contain slashes.", examples=["headgate/chat"])]


class TargetView(View):
    model: str
    weight: int


class AliasView(View, AliasSettings):
    """``why``: how a shipped alias came to its targets.  ``problem``: why a stored one does not do what it says.
    ``shadowed``: a stored one of a name that the file declares too, which wins.  ``queued``: calls that wait now.
    """

    object: Literal["headgate.alias"] = "headgate.alias"
    name: str
    targets: list[TargetView]
    use_case: str | None
    timeouts: dict[str, float]
    origin: Literal["file", "store", "shipped"]
    managed_by_file: bool
    why: str | None
    uses_30d: int
    queued: int
    shadowed: bool
    problem: str | None
    created: int | None


class ChangedAlias(AliasView, Changed):
    pass


class DeletedAlias(Changed):
    """``shipped``: a shipped alias of this name is there again."""

    object: Literal["headgate.alias.deleted"] = "headgate.alias.deleted"
    name: str
    shipped: bool


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("aliases")
    publication = admin.publication

    def all_views() -> list[AliasView]:
        snapshot, uses = publication.snapshot, publication.uses.names
        stored = publication.sources.objects.aliases
        known = {name: provider.models for name, provider in snapshot.providers.items()}
        views = [
            _of_store(name, kept, known, uses)
            if alias.origin == "store" and (kept := stored.get(name))
            else _of(alias, uses)
            for name, alias in snapshot.aliases.items()
        ]
        shadowed = [
            _of_store(name, kept, known, {}, shadowed=True)
            for name, kept in stored.items()
            if (alias := snapshot.aliases.get(name)) and alias.origin == "file"
        ]
        return [view.model_copy(update={"queued": _queued(admin, view.name)}) for view in views + shadowed]

    def view_of(name: str) -> AliasView:
        for view in all_views():
            if view.name == name:
                return view
        near = names.nearest(name, [view.name for view in all_views()])
        raise GatewayError(ALIAS_NOT_FOUND, names.ended(f"There is no alias {name!r}{near}"))

    @api.get("/aliases")
    async def list_aliases(caller: Caller) -> Page[AliasView]:
        """Every alias: the file's, the store's, the shipped ones."""
        return Page(data=[view for view in all_views() if own_alias(caller, view.name)])

    @api.get("/aliases/{name:path}", responses=documented(404))
    async def get_alias(name: AliasName, caller: Caller) -> AliasView:
        """One alias."""
        hold_alias(caller, name)
        return view_of(name)

    @api.put("/aliases/{name:path}", responses=documented(404, 409))
    async def put_alias(name: AliasName, wish: AliasWish, caller: Caller) -> ChangedAlias:
        """Stores an alias, whole.  Over a shipped one, it takes its place."""
        hold_alias(caller, name)
        _, effective = await publication.change(lambda sources: (changes.put_alias(sources, name, wish), None))
        return ChangedAlias.now(effective, view_of(name))

    @api.delete("/aliases/{name:path}", responses=documented(404, 409))
    async def delete_alias(name: AliasName, caller: Caller) -> DeletedAlias:
        """Deletes a stored alias.  A shipped one of its name comes back."""
        hold_alias(caller, name)
        _, effective = await publication.change(lambda sources: (changes.drop_alias(sources, name), None))
        left = publication.snapshot.aliases.get(name)
        shipped = left is not None and left.origin == "shipped"
        return DeletedAlias.now(effective, name=name, shipped=shipped)

    return api


def _queued(admin: Admin, name: str) -> int:
    """As the data processes said in the last second."""
    return sum(int(worker.gauges.get(queued_at(name), 0)) for worker in admin.link.workers)


def _of(alias: Alias, uses: Mapping[str, int]) -> AliasView:
    return AliasView.of(
        alias,
        targets=[TargetView.of(ref) for ref in alias.targets],
        timeouts=dict(alias.timeouts),
        managed_by_file=alias.origin == "file",
        uses_30d=uses.get(alias.name, 0),
        queued=0,
        shadowed=False,
        problem=None,
        created=None,
        **AliasSettings.values_of(alias),
    )


def _of_store(
    name: str, kept: StoredAlias, known: names.Known, uses: Mapping[str, int], shadowed: bool = False
) -> AliasView:
    body = kept.body
    broken = [sentence for ref in body.refs if (sentence := names.unresolved(ref.model, known, HERE))]
    view = _of(body.alias(name), uses)
    problem = "the configuration file declares an alias of this name" if shadowed else "; ".join(broken) or None
    return view.model_copy(update={"shadowed": shadowed, "problem": problem, "created": seconds(kept.created_at)})
