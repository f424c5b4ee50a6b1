"""/admin/v1/alerts: what was raised.  /admin/v1/webhooks: who is told of it, and whether that works."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from headgate.catalog.names import ended, nearest
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.views import Page, View, seconds, view_of
from headgate.control.audit.chain import Change, record_alone
from headgate.control.refusals import WEBHOOK_NOT_FOUND
from headgate.control.telemetry.book import NANO, RaisedAlert, page
from headgate.control.telemetry.delivery import HookAttempt
from headgate.control.telemetry.webhooks import WebhookState
from headgate.errors import GatewayError
from headgate.process.boot import WebhookSettings
from headgate.resources.fields import Text

MAX_PAGE = 500
TEST = "webhook.test"
TEST_MESSAGE = "This is a test of the webhook: nothing has happened."

Name = Annotated[Text, Path(description="The name of the webhook, or its host where it has none.")]


class AlertView(View):
    """``data``: names, ids and figures of its type.  ``pending``: the webhooks that have not got it yet."""

    object: Literal["headgate.alert"] = "headgate.alert"
    id: str
    at: int | None
    type: str
    subject: str
    message: str
    data: dict[str, Any]
    pending: list[str]


class HookAttemptView(view_of(HookAttempt)):  # type: ignore[misc]
    """One attempt.  ``gone``: the receiver answered 410 and gets no more alerts."""


class WebhookView(View):
    """``events`` is empty where it gets all.  ``last``: the newest attempt since control has started."""

    object: Literal["headgate.webhook"] = "headgate.webhook"
    name: str
    host: str
    events: list[str]
    format: str
    signed: bool
    waiting: int
    delivered: int
    given_up: int
    dropped: int
    last: HookAttemptView | None
    last_at: float | None


class WebhookTest(HookAttemptView):
    object: Literal["headgate.webhook.test"] = "headgate.webhook.test"
    name: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("alerts")

    @api.get("/alerts")
    async def list_alerts(
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        cursor: Annotated[
            str | None, Query(pattern="^[0-9a-f]{1,64}$", description="`next` of the page before.")
        ] = None,
    ) -> Page[AlertView]:
        """Alerts of the last 90 days, newest first."""
        rows = await page(admin.engine, limit + 1, cursor)
        listed = [AlertView.of(row, at=seconds(row.at), pending=list(row.pending)) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(data=listed, has_more=more, next=listed[-1].id if more else None)

    @api.get("/webhooks")
    async def list_webhooks() -> Page[WebhookView]:
        """The webhooks of the configuration file, with their deliveries since control has started."""
        return Page(data=[_view(hook, state) for hook, state in admin.webhooks])

    @api.post("/webhooks/{name}/test", responses=documented(404))
    async def test_webhook(name: Name) -> WebhookTest:
        """Sends a test alert once, at once."""
        hook = admin.webhooks.find(name)
        if hook is None:
            near = nearest(name, [one.name for one, _state in admin.webhooks])
            raise GatewayError(WEBHOOK_NOT_FOUND, ended(f"There is no webhook {name!r}{near}"))
        await record_alone(admin.engine, Change("webhook", name, "tested"))
        at = int(time.time() * NANO)
        alert = RaisedAlert(f"{at:016x}{secrets.token_hex(4)}", at, TEST, name, TEST_MESSAGE, {})
        result: WebhookTest = WebhookTest.of(await admin.webhooks.test(hook, alert), name=name)
        return result

    return api


def _view(hook: WebhookSettings, state: WebhookState) -> WebhookView:
    return WebhookView.of(
        state,
        name=hook.name,
        host=hook.host,
        events=list(hook.events),
        format=hook.format,
        signed=bool(hook.key),
        last=None if state.last is None else HookAttemptView.of(state.last),
    )
