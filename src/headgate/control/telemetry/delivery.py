"""One attempt to deliver an alert to a webhook: a POST, signed as Standard Webhooks (standardwebhooks.com) say.

The operator writes the address, so private ones are allowed.  TLS is verified, no redirect is followed, and the body of
the answer is not read.  No sentence has more of the URL than its host: it may hold a credential.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import ssl
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx2
from msgspec import Struct

from headgate import __version__
from headgate.control.objects.discovery.probe import proxy_for
from headgate.control.telemetry.book import NANO, RaisedAlert
from headgate.process import trust
from headgate.process.boot import WebhookSettings

DEADLINE_S = 10.0
GONE = 410
MOST = 300  # characters of a sentence


class HookAttempt(Struct, frozen=True):
    """How an attempt went.  ``gone``: the receiver wants no more of them."""

    ok: bool
    status: int | None
    latency_ms: float | None
    message: str
    gone: bool = False


def body(hook: WebhookSettings, alert: RaisedAlert) -> bytes:
    """What is sent."""
    if hook.format == "slack":
        return json.dumps({"text": alert.message}).encode()
    data = {"alert_id": alert.id, "subject": alert.subject, "message": alert.message, **alert.data}
    at = datetime.fromtimestamp(alert.at / NANO, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": alert.type, "timestamp": at, "data": data}).encode()


def headers(hook: WebhookSettings, alert: RaisedAlert, content: bytes, now: float) -> dict[str, str]:
    """The fields of the request.  Each attempt for an alert has the same ``webhook-id``."""
    ident, at = f"alert_{alert.id}", str(int(now))
    found = {
        "content-type": "application/json",
        "user-agent": f"headgate/{__version__}",
        "webhook-id": ident,
        "webhook-timestamp": at,
    }
    if hook.key:
        digest = hmac.digest(hook.key, f"{ident}.{at}.".encode() + content, "sha256")
        found["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return found


async def deliver(hook: WebhookSettings, alert: RaisedAlert) -> HookAttempt:
    """Send it once.  Never raises; takes DEADLINE_S at most."""
    content = body(hook, alert)
    began = time.perf_counter()
    try:
        if urlsplit(hook.url).scheme == "https":
            verify = await asyncio.to_thread(trust.context, None)  # reads a large file
        else:
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it trusts nobody, and is not used
        async with (
            asyncio.timeout(DEADLINE_S),
            httpx2.AsyncClient(
                verify=verify, trust_env=False, proxy=proxy_for(hook.url), timeout=DEADLINE_S, follow_redirects=False
            ) as client,
            client.stream(
                "POST", hook.url, content=content, headers=headers(hook, alert, content, time.time())
            ) as answer,
        ):
            status = answer.status_code
    except (TimeoutError, httpx2.TimeoutException):
        return HookAttempt(False, None, None, f"no answer within {DEADLINE_S:g} s")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        return HookAttempt(False, None, None, f"it cannot be reached: {_shown(error, hook)}")
    latency = round((time.perf_counter() - began) * 1000, 1)
    return HookAttempt(200 <= status < 300, status, latency, _sentence(status), status == GONE)


def _sentence(status: int) -> str:
    if 300 <= status < 400:
        return f"it answers {status}, a redirect, which is not followed: write the address that it leads to"
    if status == GONE:
        return f"it answers {status}: it wants no more alerts"
    return f"it answers {status}"


def _shown(error: Exception, hook: WebhookSettings) -> str:
    text = str(error) or type(error).__name__
    parts = urlsplit(hook.url)
    for hidden in (hook.url, f"{parts.path}?{parts.query}", parts.query, parts.path):
        if len(hidden) > 1:
            text = text.replace(hidden, "…")
    return text[:MOST]
