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
from headgate.errors import PAYLOAD_TOO_LARGE, GatewayError

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
        if refusal is None:
            await self._app(scope, _bounded(receive), send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        refusal = None if scope["type"] == "http" and scope["path"] in OPEN_PATHS else self._stranger(headers)
        if refusal is not None:
            return refusal
        length = headers.get(b"content-length", b"0")
        return None if length.isdigit() and int(length) <= MAX_BODY else rendered(PAYLOAD_TOO_LARGE, _TOO_LARGE)

    def _stranger(self, headers: Mapping[bytes, bytes]) -> JSONResponse | None:
        given = headers.get(b"authorization")
        if given is None:
            sentence = "Send the admin token: Authorization: Bearer <STATE/admin.token>."
            return rendered(MISSING_ADMIN_TOKEN, sentence)
        kind, _, value = given.partition(b" ")
        # an empty configured token must open nothing
        if kind.lower() == b"bearer" and self._token and hmac.compare_digest(value.strip(), self._token):
            return None
        return rendered(INVALID_ADMIN_TOKEN, "This is not the admin token of this gateway (STATE/admin.token).")


_TOO_LARGE = f"The body may have {MAX_BODY >> 20} MiB at most."


def _bounded(receive: Receive) -> Receive:
    """A body without a length is counted as it comes."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY:
            raise GatewayError(PAYLOAD_TOO_LARGE, _TOO_LARGE)
        return message

    return counted
