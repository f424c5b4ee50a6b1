"""The admin API's door: who may come in, and how much they may bring.

ASGI middleware outside of the routes, so that no route can be left open by mistake: nothing but OPEN_PATHS answers
without the admin token, whatever routes exist.  Whoever comes in is the operator; roles would be told apart here.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.control.api.errors import rendered
from headgate.control.kinds import INVALID_ADMIN_TOKEN, MISSING_ADMIN_TOKEN
from headgate.errors import PAYLOAD_TOO_LARGE

OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
MAX_BODY = 1 << 20


class Door:
    """The admin token or nothing, and no body above MAX_BODY."""

    def __init__(self, app: ASGIApp, admin_token: str) -> None:
        self._app = app
        self._token = admin_token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        whole = await _whole(receive) if refusal is None and scope["type"] == "http" else receive
        if whole is None:
            refusal = rendered(PAYLOAD_TOO_LARGE, _TOO_LARGE)
        await (refusal or self._app)(scope, whole or receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        refusal = None if scope["type"] == "http" and scope["path"] in OPEN_PATHS else self._stranger(headers)
        if refusal is not None:
            return refusal
        length = headers.get(b"content-length", b"0")
        return None if length.isdigit() and int(length) <= MAX_BODY else rendered(PAYLOAD_TOO_LARGE, _TOO_LARGE)

    def _stranger(self, headers: Mapping[bytes, bytes]) -> JSONResponse | None:
        given = headers.get(b"authorization")
        if given is None and b"x-api-key" in headers:
            given = b"Bearer " + headers[b"x-api-key"]
        if given is None:
            sentence = "Send the admin token: Authorization: Bearer <STATE/admin.token>."
            return rendered(MISSING_ADMIN_TOKEN, sentence)
        kind, _, value = given.partition(b" ")
        # an empty configured token must open nothing
        if kind.lower() == b"bearer" and self._token and hmac.compare_digest(value.strip(), self._token):
            return None
        return rendered(INVALID_ADMIN_TOKEN, "This is not the admin token of this gateway (STATE/admin.token).")


_TOO_LARGE = f"The body may have {MAX_BODY >> 20} MiB at most."


async def _whole(receive: Receive) -> Receive | None:
    """Gives the body in one piece; None where it is too large.  A body without a length is counted here, before any
    route: what is raised while one reads it, FastAPI takes for a body that cannot be parsed.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            message = {"type": "http.request", "body": bytes(body)}
            break
    read: list[Message] = [message]

    async def first_that() -> Message:
        return read.pop() if read else await receive()

    return first_that
