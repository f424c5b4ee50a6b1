"""/admin/v1/tokens: the agents' credentials."""

from __future__ import annotations

import base64
import binascii
import time
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, Field

from headgate.catalog.words import Tier
from headgate.control.api.access.callers import Caller, bounded, own_grants
from headgate.control.api.errors import documented
from headgate.control.api.nouns.allowances import (
    BudgetView,
    HolderStandingView,
    LimitsView,
    used,
    view_of_budget,
    view_of_standing,
)
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Changed, Page, View, seconds
from headgate.control.identity import tokens
from headgate.control.identity.roles import Principal
from headgate.control.objects import named
from headgate.control.refusals import FORBIDDEN, TOKEN_NOT_FOUND
from headgate.control.reports.instants import LATEST
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.model import NO_LIMITS, Grant
from headgate.policy.admission.standings import most_urgent
from headgate.resources.callers.allowance import budget_of, instead_of
from headgate.resources.callers.token import TokenEdit, TokenWish
from headgate.resources.fields import Resource, printable

MAX_PAGE = 1000
WEEK_S = 604_800
INHERITED = {"tenant", "over_budget", "free_only", "unpriced", "tier", "tiers"}  # by a child, see snapshot.children

Ident = Annotated[
    str,
    Path(min_length=1, max_length=256, description="The token's public id, or its name.", examples=["3f9a01c2"]),
    AfterValidator(printable),
]


class Rotation(Resource):
    overlap_s: float = Field(
        default=0, ge=0, le=WEEK_S, allow_inf_nan=False, description="How long the former secret stays good."
    )


class Token(View):
    """A token as the operator sees it.  Instants are Unix seconds; ``created`` is null where the file declares it."""

    object: Literal["headgate.token"] = "headgate.token"
    id: str
    name: str
    scopes: list[str]
    models: list[str]
    expires: float | None
    tenant: str | None
    limits: LimitsView
    budget: BudgetView | None
    over_budget: str = Field(description="`refuse`, or the alias that serves what the budget cannot pay.")
    free_only: bool
    unpriced: Literal["allow", "refuse"]
    tier: Tier | None
    tiers: list[Tier]
    parent: str | None = Field(description="The id of the token whose holder has made it.")
    run: str | None = Field(description="The holder's name for what it is for.")
    created: int | None
    revoked: int | None = None
    origin: Literal["store", "file"]
    managed_by_file: bool


class TokenDetail(Token):
    """``standings``: what it and the tenant above it have used and have left, null where no gateway runs."""

    standings: list[HolderStandingView] | None
    alert: str | None


class NewToken(Token, Changed):
    """``token`` is shown here and never again."""

    token: str


class RotatedToken(NewToken):
    """``former_valid_until``: Unix seconds; null where the former secret is refused at once."""

    former_valid_until: float | None


class EditedToken(Token, Changed):
    pass


class Revoked(Changed):
    object: Literal["headgate.token.revoked"] = "headgate.token.revoked"
    id: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("tokens")
    _add_reading(api, admin)
    _add_changes(api, admin)
    _add_secrets(api, admin)
    return api


def _add_reading(api: APIRouter, admin: Admin) -> None:
    agents = admin.publishing.tokens

    @api.get("/tokens")
    async def list_tokens(
        caller: Caller,
        include_revoked: bool = False,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
        cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    ) -> Page[Token]:
        """Every token: those of the file first, then those of the store, oldest first."""
        after = None if cursor is None else _read_cursor(cursor)
        rows = await tokens.page(admin.engine, limit + 1, after, include_revoked, caller.bound_to)
        declared = [] if after else [shown(grant, None) for grant in own_grants(caller, agents.of_file())]
        more = len(rows) > limit
        page = rows[:limit]
        listed = [shown(row.grant, row.created_at, row.revoked_at) for row in page]
        return Page(data=declared + listed, has_more=more, next=_cursor(page[-1]) if more else None)

    @api.get("/tokens/{ident}", responses=documented(404, 409))
    async def get_token(ident: Ident, caller: Caller) -> TokenDetail:
        """One token, a revoked one too, with what is used and left."""
        ident = await token_id(admin, ident, caller)
        row = await tokens.one(admin.engine, ident)
        if row is not None:
            view = shown(row.grant, row.created_at, row.revoked_at)
        else:
            view = shown(next(grant for grant in agents.of_file() if grant.id == ident), None)
        keys = [f"token:{ident}"]
        keys += [f"token:{view.parent}"] if view.parent else []
        keys += [f"tenant:{view.tenant}"] if view.tenant else []
        found = await used(admin, keys)
        urgent = most_urgent(found.values()) if found else None
        listed = None if found is None else [view_of_standing(one) for one in found.values()]
        return TokenDetail.of(view, standings=listed, alert=urgent)


def _add_changes(api: APIRouter, admin: Admin) -> None:
    publication, agents = admin.publication, admin.publishing.tokens

    @api.post("/tokens", status_code=201, responses=documented(409))
    async def create_token(wish: TokenWish, caller: Caller) -> NewToken:
        """Makes an agent token.  It is shown in this answer only.  No two tokens in use have one name."""
        named.models([*wish.models, *filter(None, [wish.instead])], publication.snapshot)
        _expiry(wish.expires)
        minted, effective = await agents.create(bounded(caller, wish.grant()), wish.format)
        return NewToken.now(effective, shown(minted.grant, minted.created_at), token=minted.token)

    @api.patch("/tokens/{ident}", responses=documented(404, 409))
    async def edit_token(ident: Ident, wish: TokenEdit, caller: Caller) -> EditedToken:
        """Changes what a token may do; its secret stays."""
        said = wish.model_fields_set
        if "tenant" in said and caller.bound_to not in (None, wish.tenant):
            raise GatewayError(FORBIDDEN, "Your role cannot move a token to another tenant.", param="tenant")
        changes: dict[str, Any] = {"expires": _expiry(wish.expires)} if "expires" in said else {}
        changes |= {name: _required(name, getattr(wish, name)) for name in ("name", "scopes", "models") if name in said}

        def edited(grant: Grant) -> Grant:
            # What it holds already stays, also where the model has gone since
            named.models(set(changes.get("models", ())) - set(grant.models), publication.snapshot)
            found = changes | _terms(wish, grant)
            named.models(filter(None, [found.get("over_budget", "")]), publication.snapshot)
            return msgspec.structs.replace(grant, **found)

        row, effective = await agents.edit(await token_id(admin, ident, caller), edited)
        return EditedToken.now(effective, shown(row.grant, row.created_at))


def _add_secrets(api: APIRouter, admin: Admin) -> None:
    agents = admin.publishing.tokens

    @api.post("/tokens/{ident}/rotate", responses=documented(404, 409))
    async def rotate_token(ident: Ident, caller: Caller, wish: Rotation | None = None) -> RotatedToken:
        """Makes a new secret for the same token: its id, rights and usage stay.  It is shown in this answer only."""
        overlap_s = (wish or Rotation()).overlap_s
        minted, until, effective = await agents.rotate(await token_id(admin, ident, caller), overlap_s)
        view = shown(minted.grant, minted.created_at)
        return RotatedToken.now(effective, view, token=minted.token, former_valid_until=until)

    @api.delete("/tokens/{ident}", responses=documented(404, 409))
    async def revoke_token(ident: Ident, caller: Caller) -> Revoked:
        """Revokes a token for good.  Calls that are running with it go on to their end."""
        ident, effective = await agents.revoke(await token_id(admin, ident, caller))
        return Revoked.now(effective, id=ident)


async def token_id(admin: Admin, wanted: str, caller: Principal) -> str:
    """The id of the caller's token with this id or name; of one that was revoked where none in use has it.  Raises
    GatewayError (404, 409), SQLAlchemyError.
    """
    try:
        return named.token_id(wanted, own_grants(caller, admin.publishing.tokens.all()))
    except GatewayError as refusal:
        gone = refusal.kind is TOKEN_NOT_FOUND
        ident = await tokens.revoked_id(admin.engine, wanted, caller.bound_to) if gone else None
        if ident is None:
            raise
        return ident


def _terms(wish: TokenEdit, grant: Grant) -> dict[str, Any]:
    """The fields of ``Grant`` that ``wish`` changes, beside its name, scopes, models and expiry."""
    said = wish.model_fields_set
    if grant.parent and (inherited := sorted(said & INHERITED)):
        sentence = f"A child has its parent's {' and '.join(inherited)}; change the parent."
        raise GatewayError(INVALID_VALUE, sentence, param=inherited[0])
    found: dict[str, Any] = {}
    if "limits" in said:
        found["limits"] = NO_LIMITS if wish.limits is None else wish.limits.over(grant.limits)
    if "budget" in said:
        found["budget"] = budget_of(wish.budget)
    if "over_budget" in said:
        found["over_budget"] = instead_of(wish.over_budget or "refuse")
    if "free_only" in said:
        found["free_only"] = bool(wish.free_only)
    if "unpriced" in said:
        found["priced_only"] = wish.unpriced == "refuse"
    if "tenant" in said:
        found["tenant"] = wish.tenant or ""
    if "tier" in said:
        found["tier"] = wish.tier or ""
    if "tiers" in said:
        found["tiers"] = tuple(wish.tiers or ())
    return found


def _required(name: str, value: Any) -> Any:
    if value is None:
        raise GatewayError(INVALID_VALUE, f"`{name}` cannot be null; leave it out to keep it.", param=name)
    return tuple(value) if isinstance(value, list) else value


def _expiry(at: float | None) -> float | None:
    if at is not None and at <= time.time():
        raise GatewayError(INVALID_VALUE, "`expires` is in the past.", param="expires")
    return at


def _cursor(row: tokens.Stored) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at}/{row.grant.id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        at, _, ident = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").partition("/")
        if not at.isdigit() or int(at) >= LATEST or not ident or not ident.isprintable():
            raise ValueError
        return int(at), ident
    except (ValueError, binascii.Error):
        raise GatewayError(
            INVALID_VALUE, "`cursor` is not the `next` of a page of this list.", param="cursor"
        ) from None


def shown(grant: Grant, created_at: int | None, revoked_at: int | None = None) -> Token:
    """A grant as the operator sees it."""
    of_file = grant.origin == "file"
    return Token.of(
        grant,
        created=seconds(created_at),
        revoked=seconds(revoked_at),
        origin="file" if of_file else "store",
        managed_by_file=of_file,
        tenant=grant.tenant or None,
        limits=LimitsView.of(grant.limits),
        budget=view_of_budget(grant.budget),
        over_budget=grant.over_budget or "refuse",
        unpriced="refuse" if grant.priced_only else "allow",
        tier=grant.tier or None,
        parent=grant.parent or None,
        run=grant.run or None,
    )
