"""/admin/v1/requests: what was asked, how it went, what it cost."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, create_model

from headgate.catalog.money import NANO
from headgate.catalog.words import Outcome
from headgate.control.api.access.callers import Caller
from headgate.control.api.errors import documented
from headgate.control.api.nouns.tokens import token_id
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Page, View, view_of
from headgate.control.identity.roles import Principal
from headgate.control.refusals import TOKEN_NOT_FOUND
from headgate.control.reports import instants, requests
from headgate.control.reports.receipts import ShownShare
from headgate.control.reports.wishes import MAX_USD
from headgate.control.store.receipt_columns import RECEIPT
from headgate.errors import CONTROL_AWAY, INVALID_VALUE, REQUEST_NOT_FOUND, GatewayError
from headgate.policy.routing.explain import ShownAttempt, ShownSeam
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


class AttemptView(view_of(ShownAttempt)):  # type: ignore[misc]
    """One upstream request; milliseconds since the call was received.  ``why`` it was made: `first`, `retry` (the same
    target again), `account` (another key), `fallback` (another target), `probe` (is it well again?), `continue` and
    `restart` (a broken stream was gone on with, from its text or afresh), `prefill_probe` (what does it do with white
    space?).  Its own usage, and what that cost: of a failed one mostly nothing.  ``status`` is null where there was no
    answer.  ``skipped_events`` of its stream could not be read.
    """

    account: str | None


class SeamView(view_of(ShownSeam)):  # type: ignore[misc]
    """A stream that broke after so many characters went on, from one target to another.  ``why``: what broke it."""


class ShareView(view_of(ShownShare)):  # type: ignore[misc]
    """What one target wrote of an answer that several did; the prompt is the first one's."""


class RequestView(_columns()):  # type: ignore[misc]
    """One call.  ``outcome`` and ``status`` are null while it runs; ``cost_usd`` is null where the price is unknown.

    ``cost_usd`` is what the caller pays, ``upstream_cost_usd`` what all attempts cost together.  ``not_continued``: why
    a stream that broke could not go on.  For a tenant admin ``upstream_cost_usd`` and an attempt's ``account`` are
    null.
    """

    object: Literal["headgate.request"]
    usage: UsageView
    upstream_cost_usd: float | None
    skipped_events: int
    continued: list[SeamView]
    shares: list[ShareView]
    timings_ms: TimingsView
    attempts: list[AttemptView]


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("requests")

    @api.get("/requests", response_model=Page[RequestView], responses=documented(404, 409))
    async def list_requests(
        caller: Caller,
        limit: Annotated[int, Query(ge=1, le=requests.MAX_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
        token: Word = None,
        model: Word = None,
        requested: Word = None,
        provider: Word = None,
        outcome: Annotated[Literal[Outcome, "running"] | None, Query()] = None,
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
        filters = requests.RequestFilters(
            token=None if token is None else await grant_of(admin, token, caller),
            model=model,
            requested=requested,
            provider=provider,
            outcome=outcome,
            code=code,
            stream=stream,
            label=label,
            continued=continued,
            since=instant_of("since", since),
            until=instant_of("until", until),
            min_cost=None if min_cost_usd is None else int(min_cost_usd * NANO),
            min_duration_us=None if min_duration_ms is None else int(min_duration_ms * 1000),
            tenant=caller.bound_to,
        )
        await caught_up(admin)
        try:
            page = await requests.page(admin.engine, filters, limit, cursor)
        except ValueError as error:
            raise GatewayError(INVALID_VALUE, str(error), param="cursor") from error
        rows = [_shown_to(caller, row) for row in page.rows]
        body = {"object": "list", "data": rows, "has_more": page.has_more, "next": page.next}
        return Response(_encode(body), media_type="application/json")

    @api.get("/requests/{ident:path}", response_model=RequestView, responses=documented(404))
    async def get_request(ident: RequestIdent, caller: Caller) -> Response:
        """One call, with every attempt."""
        await caught_up(admin)
        found = await requests.one(admin.engine, ident, tenant=caller.bound_to)
        if found is None:
            raise GatewayError(REQUEST_NOT_FOUND, f"No request {ident!r} is known.")
        return Response(_encode(_shown_to(caller, found)), media_type="application/json")

    return api


def _shown_to(caller: Principal, row: dict[str, Any]) -> dict[str, Any]:
    """A call without the operator's own figures, where the caller is a tenant's."""
    if caller.bound_to is None:
        return row
    attempts = [{**one, "account": None} for one in row["attempts"]]
    return {**row, "upstream_cost_usd": None, "attempts": attempts}


async def caught_up(admin: Admin) -> None:
    """What has finished is found.  Raises GatewayError where the store does not take the journal for so long."""
    try:
        async with asyncio.timeout(CATCH_UP_S):
            await admin.recorder.catch_up()
    except TimeoutError:
        raise GatewayError(CONTROL_AWAY, "The store is busy and does not have the last calls yet; try again.") from None


async def grant_of(admin: Admin, wanted: str, caller: Principal) -> str:
    """The id behind a token's name.  What no token has passes as it is: calls may outlast their token's row."""
    try:
        return await token_id(admin, wanted, caller)
    except GatewayError as refusal:
        if refusal.kind is TOKEN_NOT_FOUND and _PUBLIC_ID.fullmatch(wanted):
            return wanted
        raise


def instant_of(name: str, text: str | None) -> int | None:
    """Unix ns of a query parameter.  Raises GatewayError (400)."""
    if text is None:
        return None
    try:
        return instants.instant(text)
    except ValueError as error:
        raise GatewayError(INVALID_VALUE, str(error), param=name) from error
