"""/admin/v1/requests and /admin/v1/usage: what was asked, how it went, what it cost."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, Field, create_model

from headgate.catalog.money import NANO, nano
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.tokens import token_id
from headgate.control.api.views import Page, View
from headgate.control.ledger import reprice, verify
from headgate.control.refusals import TOKEN_NOT_FOUND
from headgate.control.reports import breakdown, reconcile, requests, usage
from headgate.control.reports.wishes import MAX_USD, ReconcileWish, RepriceWish
from headgate.control.store.receipt_columns import RECEIPT
from headgate.errors import CONTROL_AWAY, INVALID_VALUE, REQUEST_NOT_FOUND, GatewayError
from headgate.resources.fields import printable

CATCH_UP_S = 5.0
DAY_MS = 86_400_000

# Printable: PostgreSQL has no NUL in its texts
Printable = Annotated[str, AfterValidator(printable)]
RequestIdent = Annotated[
    Printable,
    Path(min_length=1, max_length=512, description="An id, with or without its prefix, or a label: its latest call."),
]
Word = Annotated[Printable | None, Query(min_length=1, max_length=512)]
Instant = Annotated[
    str | None,
    Query(min_length=1, max_length=64, description="Unix seconds, or ISO 8601 (UTC where no zone is given).",
          examples=["2027-01-31T12:00:00Z"]),
]  # fmt: skip
GroupBy = Literal[
    "model", "provider", "requested", "token", "outcome", "day", "tenant", "session", "user", "tag", "hour"
]
Outcome = Literal["delivered", "failed", "cancelled", "truncated", "hollow", "refused", "lost", "running"]
_PUBLIC_ID = re.compile(r"[0-9a-f]{8}|file-\S+")
_encode = msgspec.json.Encoder().encode


def _columns(group: str = "") -> type[View]:
    """A view's fields, of the receipt's columns."""
    paths = ((column, *column.shown.rpartition(".")) for column in RECEIPT if column.shown)
    fields: dict[str, Any] = {name: (column.view, ...) for column, place, _dot, name in paths if place == group}
    return create_model("Columns", __base__=View, **fields)


class UsageView(_columns("usage")):  # type: ignore[misc]
    """``basis``: `provider` (reported), `counted` or `estimated`."""

    total_tokens: int


class TimingsView(_columns("timings_ms")):  # type: ignore[misc]
    """Milliseconds, null where the call never got there."""


class AttemptView(View):
    """One upstream request; milliseconds since the call was received.  ``why`` it was made: `first`, `retry` (the same
    target again), `account` (another key), `fallback` (another target), `probe` (is it well again?), `continue` and
    `restart` (a broken stream was gone on with, from its text or afresh), `prefill_probe` (what does it do with white
    space?).  Its own usage, and what that cost: of a
    failed one mostly nothing.  ``status`` is null where there was no answer.
    """

    account: str | None
    provider: str
    model: str
    why: str
    status: int | None
    code: str | None
    started_ms: float
    ended_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


class SeamView(View):
    """A stream that broke after so many characters went on, from one target to another.  ``why``: what broke it."""

    after: int
    from_: str = Field(alias="from")
    to: str
    why: str


class ShareView(View):
    """What one target wrote of an answer that several did; the prompt is the first one's."""

    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


class RequestView(_columns()):  # type: ignore[misc]
    """One call.  ``outcome`` and ``status`` are null while it runs; ``cost_usd`` is null where the price is unknown.

    ``cost_usd`` is what the caller pays, ``upstream_cost_usd`` what all attempts cost together.  ``not_continued``: why
    a stream that broke could not go on.
    """

    object: Literal["headgate.request"]
    usage: UsageView
    upstream_cost_usd: float | None
    continued: list[SeamView]
    shares: list[ShareView]
    timings_ms: TimingsView
    attempts: list[AttemptView]


class FiguresView(View):
    """Totals.  ``failed``: neither delivered nor left by the client; ``cost_usd`` sums what is known, calls of unknown
    price are counted in ``unpriced_requests``.  ``operator_cost_usd``: what the providers charge, for failed attempts
    too; null in sums of whole days.
    """

    requests: int
    delivered: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    unpriced_requests: int
    operator_cost_usd: float | None


class GroupView(FiguresView):
    """``group``: null for calls that no model served."""

    group: str | None


class UsageReport(Page[GroupView]):
    """Days (UTC) count whole, but where grouped by hours or labels: ``since`` and ``until`` say which."""

    group_by: str
    since: int | None
    until: int | None
    total: FiguresView


class LedgerCheckView(View):
    """``found``: examples of what is wrong."""

    name: str
    ok: bool
    found: list[str]


class LedgerView(View):
    object: Literal["headgate.ledger_check"]
    ok: bool
    checks: list[LedgerCheckView]


class ChangeView(View):
    """The calls of one model, as charged (corrections included) and at today's price."""

    provider: str
    model: str
    requests: int
    charged_usd: float
    corrected_usd: float
    difference_usd: float


class RepricingView(View):
    """``unknown``: calls whose model has no price today; ``posted``: corrections that were posted."""

    object: Literal["headgate.repricing"]
    applied: bool
    posted: int
    unknown: int
    data: list[ChangeView]


class ComparedView(View):
    """``capture_rate``: the part of the provider's cost, or else of its tokens, that is recorded here."""

    provider_cost_usd: float | None
    cost_usd: float | None
    difference_usd: float | None
    provider_input_tokens: int | None
    input_tokens: int
    provider_output_tokens: int | None
    output_tokens: int
    capture_rate: float | None


class ComparedDayView(ComparedView):
    day: str


class ReconciliationView(View):
    object: Literal["headgate.reconciliation"]
    providers: list[str]
    data: list[ComparedDayView]
    total: ComparedView


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("requests")

    @api.get("/requests", response_model=Page[RequestView])
    async def list_requests(
        limit: Annotated[int, Query(ge=1, le=requests.MAX_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
        token: Word = None,
        model: Word = None,
        requested: Word = None,
        provider: Word = None,
        outcome: Annotated[Outcome | None, Query()] = None,
        code: Word = None,
        stream: bool | None = None,
        label: Word = None,
        continued: Annotated[bool | None, Query(description="Streams that went on at another attempt.")] = None,
        since: Instant = None,
        until: Instant = None,
        min_cost_usd: Annotated[Decimal | None, Query(ge=0, le=MAX_USD, allow_inf_nan=False)] = None,
        min_duration_ms: Annotated[float | None, Query(ge=0, le=DAY_MS, allow_inf_nan=False)] = None,
    ) -> Response:
        """Calls, newest first; the filters hold together."""
        filters = requests.Filters(
            token=None if token is None else await _token(admin, token),
            model=model,
            requested=requested,
            provider=provider,
            outcome=outcome,
            code=code,
            stream=stream,
            label=label,
            continued=continued,
            since=_instant("since", since),
            until=_instant("until", until),
            min_cost=None if min_cost_usd is None else int(min_cost_usd * NANO),
            min_duration_us=None if min_duration_ms is None else int(min_duration_ms * 1000),
        )
        await _caught_up(admin)
        try:
            page = await requests.page(admin.engine, filters, limit, cursor)
        except ValueError as error:
            raise GatewayError(INVALID_VALUE, str(error), param="cursor") from error
        body = {"object": "list", "data": page.rows, "has_more": page.has_more, "next": page.next}
        return Response(_encode(body), media_type="application/json")

    @api.get("/requests/{ident:path}", response_model=RequestView, responses=documented(404))
    async def get_request(
        ident: RequestIdent,
    ) -> Response:
        """One call, with every attempt."""
        await _caught_up(admin)
        found = await requests.one(admin.engine, ident)
        if found is None:
            raise GatewayError(REQUEST_NOT_FOUND, f"No request {ident!r} is known.")
        return Response(_encode(found), media_type="application/json")

    return api


def usage_routes(admin: Admin) -> APIRouter:
    """The route of sums."""
    api = router("requests")

    @api.get("/usage", response_model=UsageReport)
    async def report_usage(
        group_by: GroupBy = "model",
        since: Instant = None,
        until: Instant = None,
        token: Word = None,
        model: Word = None,
        provider: Word = None,
        tenant: Word = None,
        session: Word = None,
        user: Word = None,
        tag: Annotated[str | None, Query(max_length=600, description="`name=value`, or a name: any value.")] = None,
    ) -> Response:
        """What was used, added up; days and hours in their order, everything else by requests.

        By tenant, session, user, tag or hour, or of one of them: of the calls that began in the window, to the instant.
        Else days count whole.
        """
        filters = usage.Filters(
            since=_instant("since", since),
            until=_instant("until", until),
            token=None if token is None else await _token(admin, token),
            model=model,
            provider=provider,
        )
        labels = breakdown.Labels(tenant=tenant, session=session, user=user, tag=tag)
        await _caught_up(admin)
        try:
            if group_by in breakdown.GROUPS or labels:
                report = await breakdown.report(admin.engine, group_by, filters, labels)
            else:
                report = await usage.report(admin.engine, group_by, filters)
        except ValueError as error:
            raise GatewayError(INVALID_VALUE, str(error)) from error
        return Response(_encode(report), media_type="application/json")

    return api


def ledger_routes(admin: Admin) -> APIRouter:
    """The routes of the ledger."""
    api = router("requests")

    @api.get("/usage/verify")
    async def verify_usage() -> LedgerView:
        """Checks the ledger: entries add up to 0, holds are those of running calls, receipts and journal are posted."""
        await _caught_up(admin)
        checks = await verify.verify(admin.engine, admin.recorder.folder)
        views = [LedgerCheckView(name=check.name, ok=check.ok, found=list(check.found)) for check in checks]
        return LedgerView(object="headgate.ledger_check", ok=all(view.ok for view in views), checks=views)

    @api.post("/usage/reprice")
    async def reprice_usage(wish: RepriceWish) -> RepricingView:
        """What today's prices would change for past calls; with `apply` the differences are posted to the ledger.

        Receipts are never changed.
        """
        await _caught_up(admin)
        window = (_instant("since", wish.since), _instant("until", wish.until))
        providers = admin.publication.snapshot.providers
        found = await reprice.reprice(admin.engine, providers, *window, apply=wish.apply)
        changes = sorted(found.changes.values(), key=lambda one: -abs(one.corrected - one.charged))
        return RepricingView(
            object="headgate.repricing", applied=wish.apply, posted=found.posted, unknown=found.unknown,
            data=[_change(one) for one in changes],
        )  # fmt: skip

    @api.post("/usage/reconcile")
    async def reconcile_usage(wish: ReconcileWish) -> ReconciliationView:
        """Puts a provider's own figures beside the ledger's, by UTC day."""
        await _caught_up(admin)
        charged = [
            reconcile.Charged(row.day, nano(row.cost_usd), row.input_tokens, row.output_tokens) for row in wish.rows
        ]
        return ReconciliationView(**await reconcile.reconcile(admin.engine, wish.providers, charged))

    return api


def _change(one: reprice.Change) -> ChangeView:
    return ChangeView(
        provider=one.provider, model=one.model, requests=one.calls, charged_usd=one.charged / NANO,
        corrected_usd=one.corrected / NANO, difference_usd=(one.corrected - one.charged) / NANO,
    )  # fmt: skip


async def _caught_up(admin: Admin) -> None:
    """What has finished is found.  Raises GatewayError where the store does not take the journal for so long."""
    try:
        async with asyncio.timeout(CATCH_UP_S):
            await admin.recorder.catch_up()
    except TimeoutError:
        raise GatewayError(CONTROL_AWAY, "The store is busy and does not have the last calls yet; try again.") from None


async def _token(admin: Admin, wanted: str) -> str:
    """The id behind a token's name.  What no token has passes as it is: calls may outlast their token's row."""
    try:
        return await token_id(admin, wanted)
    except GatewayError as refusal:
        if refusal.kind is TOKEN_NOT_FOUND and _PUBLIC_ID.fullmatch(wanted):
            return wanted
        raise


def _instant(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return requests.instant(text)
    except ValueError as error:
        raise GatewayError(INVALID_VALUE, str(error), param=name) from error
