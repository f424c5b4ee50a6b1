"""/admin/v1/prompts: messages that clients name instead of sending them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, Field

from headgate.control.api.access.callers import Caller
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Changed, Page, View, seconds
from headgate.control.identity.roles import Principal
from headgate.control.objects import prompts
from headgate.control.refusals import FORBIDDEN
from headgate.control.snapshot.publication import Publication
from headgate.errors import GatewayError
from headgate.model.prompts import PromptVersion, SavedPrompt, key_of
from headgate.policy import saved_prompts
from headgate.resources.callers.prompt import LabelsEdit, PromptName, VersionNumber, VersionWish, digest
from headgate.resources.callers.tenant import TenantName
from headgate.resources.fields import Resource, printable

Name = Annotated[PromptName, Path(description="The prompt's name.")]
Of = Annotated[
    TenantName | None, Query(description="The tenant whose prompt it is; without one, a prompt for all tokens.")
]
Version = Annotated[
    str,
    Path(min_length=1, max_length=32, description="A number, a label, or `latest`.", examples=["latest"]),
    AfterValidator(printable),
]


class MessageView(View):
    role: str
    content: str


class VersionView(View):
    """``labels``: those that name it.  ``digest``: equal where messages and variables are.  ``created``: null where the
    file declares it.
    """

    object: Literal["headgate.prompt_version"] = "headgate.prompt_version"
    prompt: str
    tenant: str | None
    version: int
    messages: list[MessageView]
    variables: dict[str, str | None] = Field(description="Their defaults; null: the caller must give a value.")
    labels: list[str]
    note: str | None
    digest: str
    created: int | None


class PromptView(View):
    """``tenant``: whose tokens may use it; null: all.  ``variables`` are the latest version's.  ``shadowed``: a stored
    one that the file declares too, which wins.
    """

    object: Literal["headgate.prompt"] = "headgate.prompt"
    name: str
    tenant: str | None
    latest: int
    versions: list[int]
    labels: dict[str, int]
    variables: dict[str, str | None]
    origin: Literal["file", "store"]
    managed_by_file: bool
    shadowed: bool
    created: int | None


class ChangedPrompt(PromptView, Changed):
    pass


class NewVersion(VersionView, Changed):
    """``made``: false where the latest version was the same already."""

    made: bool


class DeletedPrompt(Changed):
    object: Literal["headgate.prompt.deleted"] = "headgate.prompt.deleted"
    name: str
    tenant: str | None


class DeletedVersion(DeletedPrompt):
    object: Literal["headgate.prompt_version.deleted"] = "headgate.prompt_version.deleted"  # type: ignore[assignment]
    version: int


class RenderWish(Resource):
    """What a client would send as ``headgate.prompt``, without the id."""

    version: Annotated[str, Field(max_length=32)] = "latest"
    variables: dict[str, str] = Field({}, max_length=64)


class RenderedPrompt(View):
    object: Literal["headgate.prompt.rendered"] = "headgate.prompt.rendered"
    name: str
    version: int
    messages: list[MessageView]


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("prompts")
    _add_reading(api, admin.publication)
    _add_versions(api, admin.publication)
    _add_changes(api, admin.publication)
    return api


def _add_reading(api: APIRouter, publication: Publication) -> None:
    @api.get("/prompts")
    async def list_prompts(caller: Caller, tenant: Of = None) -> Page[PromptView]:
        """Every prompt: the file's, then the store's; of one tenant, where it is given."""
        wanted = caller.bound_to or tenant
        _hold(caller, tenant)
        known = publication.snapshot.prompts
        shadowed = [
            _view(kept.body.stored_prompt(), publication, shadowed=True)
            for key, kept in publication.sources.objects.prompts.items()
            if key in known and known[key].origin == "file" and wanted in (None, kept.body.tenant)
        ]
        listed = [_view(one, publication) for one in known.values() if wanted in (None, one.tenant)]
        return Page(data=listed + shadowed)

    @api.get("/prompts/{name}", responses=documented(404))
    async def get_prompt(name: Name, caller: Caller, tenant: Of = None) -> PromptView:
        """One prompt, without its texts."""
        return _view(_found(publication, _key(caller, tenant, name)), publication)

    @api.post("/prompts/{name}/render", responses=documented(404))
    async def render_prompt(name: Name, wish: RenderWish, caller: Caller, tenant: Of = None) -> RenderedPrompt:
        """The messages that a client's request would get, with these variables.  Sends nothing."""
        version = _version(_found(publication, _key(caller, tenant, name)), wish.version)
        messages = saved_prompts.filled(version, wish.variables, "variables")
        shown = [MessageView(role=one.role, content=one.text) for one in messages]
        return RenderedPrompt(name=name, version=version.number, messages=shown)


def _add_versions(api: APIRouter, publication: Publication) -> None:
    @api.get("/prompts/{name}/versions", responses=documented(404))
    async def list_prompt_versions(name: Name, caller: Caller, tenant: Of = None) -> Page[VersionView]:
        """All versions with their texts, the latest first."""
        prompt = _found(publication, _key(caller, tenant, name))
        return Page(data=[_version_view(prompt, one, publication) for one in reversed(prompt.versions)])

    @api.get("/prompts/{name}/versions/{version}", responses=documented(404))
    async def get_prompt_version(name: Name, version: Version, caller: Caller, tenant: Of = None) -> VersionView:
        """One version with its texts."""
        prompt = _found(publication, _key(caller, tenant, name))
        return _version_view(prompt, _version(prompt, version), publication)

    @api.post("/prompts/{name}/versions", status_code=201, responses=documented(404, 409))
    async def add_prompt_version(
        name: Name, wish: VersionWish, caller: Caller, response: Response, tenant: Of = None
    ) -> NewVersion:
        """Adds a version, and makes the prompt where there is none.  The same as the latest is not added again: 200."""
        key, owner = _key(caller, tenant, name), caller.bound_to or tenant or ""
        (number, made), effective = await publication.change(
            lambda sources: prompts.add_version(sources, owner, name, wish)
        )
        response.status_code = 201 if made else 200
        prompt = _found(publication, key)
        view = _version_view(prompt, _version(prompt, str(number)), publication)
        return NewVersion.now(effective, view, made=made)

    @api.delete("/prompts/{name}/versions/{version}", responses=documented(404, 409))
    async def delete_prompt_version(
        name: Name, version: VersionNumber, caller: Caller, tenant: Of = None
    ) -> DeletedVersion:
        """Deletes one version.  A version that a label names stays, and so does the only one."""
        key = _key(caller, tenant, name)
        _, effective = await publication.change(lambda sources: (prompts.drop_version(sources, key, version), None))
        return DeletedVersion.now(effective, name=name, tenant=caller.bound_to or tenant, version=version)


def _add_changes(api: APIRouter, publication: Publication) -> None:
    @api.patch("/prompts/{name}", responses=documented(404, 409))
    async def label_prompt(name: Name, wish: LabelsEdit, caller: Caller, tenant: Of = None) -> ChangedPrompt:
        """Sets and removes labels.  Calls that name a label are served by its version at once."""
        key = _key(caller, tenant, name)
        _, effective = await publication.change(lambda sources: (prompts.set_labels(sources, key, wish.labels), None))
        return ChangedPrompt.now(effective, _view(_found(publication, key), publication))

    @api.delete("/prompts/{name}", responses=documented(404, 409))
    async def delete_prompt(name: Name, caller: Caller, tenant: Of = None) -> DeletedPrompt:
        """Deletes a stored prompt with all its versions."""
        key = _key(caller, tenant, name)
        _, effective = await publication.change(lambda sources: (prompts.drop_prompt(sources, key), None))
        return DeletedPrompt.now(effective, name=name, tenant=caller.bound_to or tenant)


def _hold(caller: Principal, tenant: str | None) -> None:
    """Raises GatewayError (403) for another tenant's prompts."""
    if caller.bound_to is not None and tenant not in (None, caller.bound_to):
        raise GatewayError(FORBIDDEN, "Your role knows prompts of its own tenant only.", param="tenant")


def _key(caller: Principal, tenant: str | None, name: str) -> str:
    """The key of the prompt that is meant; a tenant admin means its own tenant's."""
    _hold(caller, tenant)
    return key_of(caller.bound_to or tenant or "", name)


def _found(publication: Publication, key: str) -> SavedPrompt:
    known = publication.snapshot.prompts
    if key not in known:
        raise prompts.no_prompt(key, known)
    return known[key]


def _version(prompt: SavedPrompt, wanted: str) -> PromptVersion:
    found = prompt.version(wanted)
    if found is None:
        raise prompts.no_version(prompt, wanted)
    return found


def _view(prompt: SavedPrompt, publication: Publication, *, shadowed: bool = False) -> PromptView:
    kept = publication.sources.objects.prompts.get(prompt.key) if prompt.origin == "store" else None
    return PromptView.of(
        prompt,
        tenant=prompt.tenant or None,
        latest=prompt.versions[-1].number,
        versions=[version.number for version in prompt.versions],
        labels=dict(prompt.labels),
        variables=dict(prompt.versions[-1].variables),
        managed_by_file=prompt.origin == "file",
        shadowed=shadowed,
        created=None if kept is None else seconds(kept.created_at),
    )


def _version_view(prompt: SavedPrompt, version: PromptVersion, publication: Publication) -> VersionView:
    kept = publication.sources.objects.prompts.get(prompt.key) if prompt.origin == "store" else None
    instants = {} if kept is None else {one.version: one.created_at for one in kept.body.versions}
    return VersionView(
        prompt=prompt.name,
        tenant=prompt.tenant or None,
        version=version.number,
        messages=[MessageView(role=one.role, content=one.text) for one in version.messages],
        variables=dict(version.variables),
        labels=[label for label, number in prompt.labels.items() if number == version.number],
        note=version.note or None,
        digest=digest(version),
        created=seconds(instants.get(version.number)),
    )
