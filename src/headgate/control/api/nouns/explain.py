"""/admin/v1/explain: where a request would go, and why not elsewhere.  Nothing is sent and nothing is spent."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Query
from pydantic import Field

from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.standings import State
from headgate.control.api.views import view_of
from headgate.control.objects import named
from headgate.dialects.registry import DEFAULT
from headgate.model import Call, Grant
from headgate.policy import saved_prompts
from headgate.policy.routing.explain import CandidateAccount, CandidateView, Explanation
from headgate.policy.routing.router import Router

OPERATOR = Grant("", "the operator")


class RouteAccountView(view_of(CandidateAccount)):  # type: ignore[misc]
    """``wait_s``: until its next chance.  ``headroom``: the share of its limits that is left, as well as is known."""

    state: Literal["active", State]
    wait_s: float | None = Field(description="Null: until something is done about it.")


class RouteCandidateView(view_of(CandidateView)):  # type: ignore[misc]
    """A target that was looked at.  ``place``: its turn, from 1; null: it is left out, and ``reason`` says why.
    ``score``: with the strategies that learn, less is better.
    """

    reason: str | None
    state: Literal["well", "failing", "ejected", "probe"]
    cost_usd: float | None = Field(description="What the call is expected to cost there; null: not known, not asked.")
    prefill: str = Field(description="How it would be asked to go on with a broken stream.")
    accounts: list[RouteAccountView]


class RouteView(view_of(Explanation)):  # type: ignore[misc]
    """``live``: states and waits are those of the data process now; without one they are not known.  ``code`` and
    ``message``: the error that the client would get.
    """

    object: Literal["headgate.route"] = "headgate.route"
    alias: str | None
    live: bool
    code: str | None
    message: str | None
    candidates: list[RouteCandidateView]


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("requests")
    publication = admin.publication

    @api.post("/explain", responses=documented(404))
    async def explain(
        body: Annotated[dict[str, Any], Body(description="A chat completion, as a client would send it.")],
        token: Annotated[
            str | None, Query(min_length=1, max_length=256, description="As this token's holder (its id or name).")
        ] = None,
    ) -> RouteView:
        """Where a request would go, in which order, and why not elsewhere.  Sends nothing."""
        raw = json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")
        grant = OPERATOR if token is None else _grant(token)
        prompts = publication.snapshot.prompts
        call = saved_prompts.put_before(DEFAULT.read(raw), grant.tenant, prompts, DEFAULT.with_prompt)
        answer = await admin.link.ask("explain", grant.id, {"body": raw.decode()})
        if answer is not None and answer.status == 200:
            return _view(msgspec.json.decode(answer.body, type=Explanation), live=True)
        return _view(_unlived(call, grant), live=False)

    def _grant(ident: str) -> Grant:
        grants = publication.snapshot.tokens.values()
        found = named.token_id(ident, grants)
        return next(grant for grant in grants if grant.id == found)

    def _unlived(call: Call, grant: Grant) -> Explanation:
        return Router(publication.snapshot).explain(call, grant, None, 0.0)

    return api


def _view(found: Explanation, *, live: bool) -> RouteView:
    view: RouteView = RouteView.of(
        found,
        alias=found.alias or None,
        live=live,
        code=found.code or None,
        message=found.message or None,
        candidates=[_candidate(one) for one in found.candidates],
    )
    return view


def _candidate(one: CandidateView) -> RouteCandidateView:
    accounts = [_account(account) for account in one.accounts]
    view: RouteCandidateView = RouteCandidateView.of(one, reason=one.reason or None, accounts=accounts)
    return view


def _account(one: CandidateAccount) -> RouteAccountView:
    wait = None if one.state == "parked" else round(one.wait_s, 3)
    view: RouteAccountView = RouteAccountView.of(one, wait_s=wait)
    return view
