"""How routes are made: locked in OpenAPI, and deaf to no query parameter."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from headgate.catalog.names import ended, nearest
from headgate.control.api.errors import documented
from headgate.errors import INVALID_VALUE, GatewayError

_BEARER = HTTPBearer(
    auto_error=False,
    description="The admin token: `STATE/admin.token`, shown on the first start.  Users have a session's cookie.",
)


async def only_known_parameters(request: Request) -> None:
    """Raises GatewayError (400): a misspelt filter must not look like an answer."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = {field.alias for field in route.dependant.query_params}
    given = [name for name, _value in request.query_params.multi_items()]
    for name in given:
        shown = name[:50]
        if name not in known:
            listed = f"known are {', '.join(sorted(known))}" if known else "there are none"
            sentence = ended(f"The query parameter {shown!r} is not known here; {listed}{nearest(shown, known)}")
            raise GatewayError(INVALID_VALUE, sentence, param=shown)
        if given.count(name) > 1:
            raise GatewayError(INVALID_VALUE, f"The query parameter {shown!r} appears twice.", param=shown)


def open_router(tag: str) -> APIRouter:
    """For routes that need no credential: ``access.needs`` says which those are."""
    return APIRouter(tags=[tag], dependencies=[Depends(only_known_parameters)], responses=documented(400, 403, 503))


def router(tag: str) -> APIRouter:
    """For one noun.  The Security entry only draws the lock in /docs; the Door is what holds."""
    return APIRouter(
        tags=[tag],
        dependencies=[Security(_BEARER), Depends(only_known_parameters)],
        responses=documented(400, 401, 403, 503),
    )
