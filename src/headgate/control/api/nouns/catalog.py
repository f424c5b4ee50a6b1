"""/admin/v1/catalog: every model and alias that can be asked for, and what the operator knows better about one."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response

from headgate.catalog import entries, selection
from headgate.catalog.entries import Entry
from headgate.catalog.names import ended, nearest
from headgate.catalog.selection import MAX_LIMIT, MAX_WORDS, CatalogQuery
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Changed, Page, seconds, view_of
from headgate.control.objects import changes
from headgate.control.objects.registry import StoredModel
from headgate.errors import MODEL_NOT_FOUND, GatewayError
from headgate.resources.fields import STORE, ModelName
from headgate.resources.model_row import FactsWish

ModelId = Annotated[
    ModelName, Path(description="An id of the catalog; it may contain slashes.", examples=["openai/gpt-4o"])
]
Target = Annotated[
    ModelName, Path(description="provider/model; the model may contain slashes.", examples=["openai/gpt-4o"])
]
Words = Annotated[str | None, Query(min_length=1, max_length=MAX_WORDS)]
_encode = msgspec.json.Encoder().encode


class TierView(view_of(entries.TierInfo)):  # type: ignore[misc]
    """The price of a call of more than ``above`` prompt tokens."""


class PriceView(view_of(entries.PriceInfo)):  # type: ignore[misc]
    """USD per million tokens, null where unknown; ``source`` is the price list's snapshot id."""

    tiers: list[TierView]


class InfoView(view_of(entries.Info)):  # type: ignore[misc]
    """What is known of it.  An alias has the facts of what serves it now."""

    price: PriceView | None


class OverrideView(view_of(FactsWish)):  # type: ignore[misc]
    """What the operator said about ``provider/model``; null: not said."""

    target: str
    price: PriceView | None
    created: int | None
    updated: int | None


class ModelView(view_of(entries.Model)):  # type: ignore[misc]
    """An entry as `/v1/models` shows it."""

    object: Literal["model"]
    headgate: InfoView


class OneModelView(ModelView):
    """With what the operator said about the targets behind it."""

    overrides: list[OverrideView]


class CatalogPage(Page[ModelView]):
    """``total``: how many there are without limit and offset."""

    total: int


class ChangedModel(OverrideView, Changed):
    object: Literal["headgate.override"] = "headgate.override"


class DeletedModel(Changed):
    object: Literal["headgate.override.deleted"] = "headgate.override.deleted"
    target: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("catalog")
    _add_reading(api, admin)
    _add_changes(api, admin)
    return api


def _add_reading(api: APIRouter, admin: Admin) -> None:
    publication = admin.publication
    made: list[tuple[int, entries.Catalog, list[Entry]]] = []  # of the Snapshot that was asked about last

    def current() -> tuple[entries.Catalog, list[Entry]]:
        snapshot = publication.snapshot
        if not made or made[0][0] != snapshot.generation:
            found = entries.Catalog(snapshot)
            made[:] = [(snapshot.generation, found, list(found.entries()))]
        return made[0][1:]

    @api.get("/catalog", response_model=CatalogPage)
    async def list_catalog(
        provider: Words = None,
        free_only: bool = False,
        configured_only: bool = False,
        search: Words = None,
        capability: Words = None,
        sort_by: Literal["usage", "name", "provider", "context", "cost"] = "usage",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 500,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> Response:
        """The models and aliases that can be asked for, as GET /v1/models lists them."""
        if capability is not None:
            capability = selection.capability("capability", capability)
        wanted = CatalogQuery(provider, free_only, configured_only, search, capability, sort_by, limit, offset)
        page, total = selection.select(current()[1], wanted, publication.uses)
        body = {
            "object": "list",
            "data": [entries.shown(entry, publication.uses) for entry in page],
            "has_more": offset + len(page) < total,
            "next": None,
            "total": total,
        }
        return Response(_encode(body), media_type="application/json")

    @api.get("/catalog/{name:path}", response_model=OneModelView, responses=documented(404))
    async def get_model(name: ModelId) -> Response:
        """One entry, by any name that leads to it."""
        entry = current()[0].find(name)
        if entry is None:
            near = nearest(name, [one.model.id for one in current()[1]])
            raise GatewayError(MODEL_NOT_FOUND, ended(f"Nothing is known of a model or alias {name!r}{near}"))
        stored = publication.sources.objects.models
        said = [_override(key, stored[key]) for key in (*entry.reach, *entry.counted) if key in stored]
        shown = msgspec.to_builtins(entries.shown(entry, publication.uses))
        unique = {view.target: view.model_dump() for view in said}
        return Response(_encode({**shown, "overrides": list(unique.values())}), media_type="application/json")


def _add_changes(api: APIRouter, admin: Admin) -> None:
    publication = admin.publication

    @api.put("/catalog/{name:path}", responses=documented(404, 409))
    async def put_model(name: Target, wish: FactsWish) -> ChangedModel:
        """Says what is known better about `provider/model` than in the price list; whole: what is left out is not
        kept.  What the configuration file says is not changed here.
        """
        stored, effective = await publication.change(
            lambda sources: (after := changes.put_model(sources, name, wish), after.models[name])
        )
        return ChangedModel.now(effective, _override(name, stored))

    @api.delete("/catalog/{name:path}", responses=documented(404))
    async def delete_model(name: Target) -> DeletedModel:
        """Forgets what was said; the price list holds again."""
        _, effective = await publication.change(lambda sources: (changes.drop_model(sources, name), None))
        return DeletedModel.now(effective, target=name)


def _override(target: str, stored: StoredModel) -> OverrideView:
    price = stored.body.price
    view: OverrideView = OverrideView.of(
        stored.body,
        target=target,
        price=None if price is None else PriceView.of(price, source=STORE, tiers=[]),
        created=seconds(stored.created_at),
        updated=seconds(stored.updated_at),
    )
    return view
