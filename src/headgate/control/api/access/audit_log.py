"""/admin/v1/audit: every change, who made it, and whether the log is whole."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from headgate.control.api.access.callers import Caller
from headgate.control.api.nouns.requests import Instant, Word, instant_of
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Page, View, seconds
from headgate.control.audit import chain
from headgate.control.audit.chain import AuditFilters, AuditRow
from headgate.control.identity.roles import Principal

MAX_PAGE = 500


class AuditEntryView(View):
    """One change.  ``before`` and ``after`` are what may be shown of the object: a secret never is.  ``session`` and
    ``address`` are null for callers who are no admins.
    """

    object: Literal["headgate.audit_entry"] = "headgate.audit_entry"
    seq: int
    at: int | None
    actor_kind: str
    actor: str
    session: str | None
    address: str | None
    noun: str
    id: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class ChainView(View):
    """``head``: the hash of the last sound row.  Kept elsewhere, it proves later that no row up to it was replaced."""

    object: Literal["headgate.audit_chain"] = "headgate.audit_chain"
    sound: bool
    rows: int
    head: str
    broken: int | None
    reason: str | None


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("audit")

    @api.get("/audit")
    async def list_audit(
        caller: Caller,
        actor: Word = None,
        noun: Word = None,
        id: Word = None,
        action: Word = None,
        since: Instant = None,
        until: Instant = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        cursor: Annotated[int | None, Query(ge=1, le=1 << 62, description="`next` of the page before.")] = None,
    ) -> Page[AuditEntryView]:
        """Changes, newest first; the filters hold together."""
        filters = AuditFilters(
            actor, noun, id, action, instant_of("since", since), instant_of("until", until), before=cursor
        )
        rows = await chain.page(admin.engine, filters, limit + 1)
        more = len(rows) > limit
        listed = [_view(row, caller) for row in rows[:limit]]
        return Page(data=listed, has_more=more, next=str(rows[limit - 1].seq) if more else None)

    @api.get("/audit/verify")
    async def verify_audit() -> ChainView:
        """Walks the whole chain of hashes, and names the first row that does not fit."""
        state = await chain.verify(admin.engine)
        return ChainView.of(state, sound=state.broken is None)

    return api


def _view(row: AuditRow, caller: Principal) -> AuditEntryView:
    shown = caller.role == "admin"
    return AuditEntryView.of(
        row,
        object="headgate.audit_entry",
        id=row.object,
        at=seconds(row.at),
        session=row.session if shown else None,
        address=row.address if shown else None,
        before=None if row.before is None else json.loads(row.before),
        after=None if row.after is None else json.loads(row.after),
    )
