"""/admin/v1/usage: what was used and what it cost; the ledger's checks, corrections and comparisons."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import create_model

from headgate.catalog.money import NANO, nano
from headgate.control.api.access.callers import Caller
from headgate.control.api.errors import documented
from headgate.control.api.nouns.requests import Instant, Word, caught_up, grant_of, instant_of
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Page, View
from headgate.control.ledger import reprice, verify
from headgate.control.refusals import FORBIDDEN
from headgate.control.reports import breakdown, reconcile, usage
from headgate.control.reports.wishes import ReconcileWish, RepriceWish
from headgate.errors import GatewayError

GroupBy = Literal[
    "model", "provider", "requested", "token", "outcome", "day", "tenant", "session", "user", "tag", "hour"
]
_encode = msgspec.json.Encoder().encode


def _figures() -> type[View]:
    """A view's fields, of the totals of usage."""
    kinds: dict[str, Any] = {name: (float | None if name == "cost_usd" else int, ...) for name in usage.FIGURES}
    return create_model("Figures", __base__=View, **kinds)


class FiguresView(_figures()):  # type: ignore[misc]
    """Totals.  ``failed``: neither delivered, nor left by the client, nor ended by a spent budget.  ``cost_usd`` sums
    what is known, calls of unknown price are counted in ``unpriced_requests``.  ``operator_cost_usd``: what the
    providers charge, for failed attempts too; null in sums of whole days, and for a tenant admin.
    """

    operator_cost_usd: float | None


class GroupView(FiguresView):
    """``group``: null for calls that no model served."""

    group: str | None


class CacheFiguresView(View):
    """Calls that asked the response cache.  ``saved_usd``: what hits would have cost, as far as that is known."""

    hits: int
    misses: int
    saved_usd: float


class UsageReport(Page[GroupView]):
    """Days (UTC) count whole, but where grouped by hours or labels: ``since`` and ``until`` say which.  ``cache``: null
    where no call asked the response cache.
    """

    group_by: str
    since: int | None
    until: int | None
    total: FiguresView
    cache: CacheFiguresView | None


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
    _add_report(api, admin)
    _add_ledger(api, admin)
    return api


def _add_report(api: APIRouter, admin: Admin) -> None:
    @api.get("/usage", response_model=UsageReport, responses=documented(404, 409))
    async def report_usage(
        caller: Caller,
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

        By tenant, session, user, tag or hour, or of one of them (as for a tenant admin always): of the calls that began
        in the window, to the instant.  Else days count whole.
        """
        filters = usage.UsageFilters(
            since=instant_of("since", since),
            until=instant_of("until", until),
            token=None if token is None else await grant_of(admin, token, caller),
            model=model,
            provider=provider,
        )
        if caller.bound_to not in (None, tenant or caller.bound_to):
            raise GatewayError(FORBIDDEN, "Your role knows the usage of its own tenant only.", param="tenant")
        labels = breakdown.Labels(tenant=caller.bound_to or tenant, session=session, user=user, tag=tag)
        await caught_up(admin)
        if group_by in breakdown.GROUPS or labels:
            report = await breakdown.report(admin.engine, group_by, filters, labels)
        else:
            report = await usage.report(admin.engine, group_by, filters)
        if caller.bound_to is not None:
            for figures in (*report["data"], report["total"]):
                figures["operator_cost_usd"] = None
        return Response(_encode(report), media_type="application/json")


def _add_ledger(api: APIRouter, admin: Admin) -> None:
    @api.get("/usage/verify")
    async def verify_usage() -> LedgerView:
        """Checks the ledger: entries add up to 0, holds are those of running calls, receipts and journal are posted."""
        await caught_up(admin)
        checks = await verify.verify(admin.engine, admin.recorder.folder)
        views = [LedgerCheckView(name=check.name, ok=check.ok, found=list(check.found)) for check in checks]
        return LedgerView(object="headgate.ledger_check", ok=all(view.ok for view in views), checks=views)

    @api.post("/usage/reprice")
    async def reprice_usage(wish: RepriceWish) -> RepricingView:
        """What today's prices would change for past calls; with `apply` the differences are posted to the ledger.

        Receipts are never changed.
        """
        await caught_up(admin)
        window = (instant_of("since", wish.since), instant_of("until", wish.until))
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
        await caught_up(admin)
        charged = [
            reconcile.Charged(row.day, nano(row.cost_usd), row.input_tokens, row.output_tokens) for row in wish.rows
        ]
        return ReconciliationView(**await reconcile.reconcile(admin.engine, wish.providers, charged))


def _change(one: reprice.PriceEffect) -> ChangeView:
    return ChangeView(
        provider=one.provider, model=one.model, requests=one.calls, charged_usd=one.charged / NANO,
        corrected_usd=one.corrected / NANO, difference_usd=(one.corrected - one.charged) / NANO,
    )  # fmt: skip
