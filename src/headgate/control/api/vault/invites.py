"""/admin/v1/invites: links with which others put a key into the vault."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import AfterValidator, Field

from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Page, View, seconds
from headgate.control.identity.invites import Invite
from headgate.resources.fields import Label, ProviderName, Resource, printable

Ident = Annotated[str, Path(pattern="^[0-9a-f]{8}$", description="The invite's id.")]


class InviteWish(Resource):
    """The holder of the link may store one key for ``provider``."""

    provider: ProviderName
    label: Label | None = Field(default=None, description="Of the account that it makes; left out: invite-ID.")
    note: Annotated[str, Field(max_length=500), AfterValidator(printable)] = Field(
        default="", description="Shown to the contributor."
    )


class InviteView(View):
    """``account``: the id that the contributed key has."""

    object: Literal["headgate.invite"] = "headgate.invite"
    id: str
    provider: str
    label: str
    note: str
    state: Literal["open", "used", "withdrawn", "revoked", "expired"]
    account: str | None
    created: int | None
    expires: int | None
    used: int | None


class NewInvite(InviteView):
    link: str = Field(description="Shown once; good once, for 72 hours.")


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("invites")
    contributors = admin.publishing.contributors

    @api.post("/invites", status_code=201, responses=documented(404, 409))
    async def create_invite(wish: InviteWish) -> NewInvite:
        """Makes a link.  Its holder pastes a key on a page of the control plane; the operator never sees it."""
        invite, link = await contributors.create(wish.provider, wish.label, wish.note)
        return NewInvite(**_view(invite).model_dump(), link=link)

    @api.get("/invites")
    async def list_invites() -> Page[InviteView]:
        """Every invite, the newest first."""
        return Page(data=[_view(one) for one in await contributors.every()])

    @api.delete("/invites/{ident}", responses=documented(404, 409))
    async def revoke_invite(ident: Ident) -> InviteView:
        """Ends an unused link."""
        return _view(await contributors.revoke(ident))

    return api


def _view(invite: Invite) -> InviteView:
    return InviteView(
        id=invite.id,
        provider=invite.provider,
        label=invite.label,
        note=invite.note,
        state=invite.state(time.time_ns()),  # type: ignore[arg-type]  # one of these words
        account=invite.account,
        created=seconds(invite.created_at),
        expires=seconds(invite.expires_at),
        used=seconds(invite.used_at),
    )
