"""How routes are made: locked in OpenAPI, and deaf to no query parameter."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from headgate.catalog.parameters import refuse_unknown
from headgate.control.api.errors import documented

_BEARER = HTTPBearer(
    auto_error=False,
    description="The admin token: `STATE/admin.token`, shown on the first start.  Users have a session's cookie.",
)


async def only_known_parameters(request: Request) -> None:
    """Raise GatewayError (400) for parameters that the route does not have."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = sorted(field.alias for field in route.dependant.query_params)
    refuse_unknown([name for name, _value in request.query_params.multi_items()], known)


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
