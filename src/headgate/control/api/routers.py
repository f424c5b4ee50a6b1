"""How routes are made: locked in OpenAPI, deaf to no query parameter, and built when they are first called.

FastAPI makes validators of every parameter, body and answer of a route.  For all routes together that takes longer
than everything else in the start of control, or in a command on the store, and such a command calls one of them.  Each
router has its whole prefix, because ``include_router`` would build every route once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.routing import compile_path, get_name

from headgate.catalog.parameters import refuse_unknown
from headgate.control.api.access.needs import PREFIX
from headgate.control.api.errors import documented

_BEARER = HTTPBearer(
    auto_error=False,
    description="The admin token: `STATE/admin.token`, shown on the first start.  Users have a session's cookie.",
)


class LateRoute(APIRoute):
    """A route that FastAPI builds when something is read of it but its place: its first call, or the OpenAPI
    description.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._options = options
        self.path, self.endpoint = path, endpoint
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.methods = {method.upper() for method in options.get("methods") or ["GET"]}
        self.name = options.get("name") or get_name(endpoint)

    def __getattr__(self, name: str) -> Any:
        options = self.__dict__.pop("_options", None)
        if options is None:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        super().__init__(self.path, self.endpoint, **options)
        return getattr(self, name)


def name_of(route: APIRoute) -> str:
    """Return a route's id in OpenAPI."""
    return route.name


async def only_known_parameters(request: Request) -> None:
    """Raise GatewayError (400) for parameters that the route does not have."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = sorted(field.alias for field in route.dependant.query_params)
    refuse_unknown([name for name, _value in request.query_params.multi_items()], known)


def open_router(tag: str) -> APIRouter:
    """For routes that need no credential: ``access.needs`` says which those are."""
    return APIRouter(
        prefix=PREFIX,
        tags=[tag],
        dependencies=[Depends(only_known_parameters)],
        responses=documented(400, 403, 503),
        generate_unique_id_function=name_of,
        route_class=LateRoute,
    )


def router(tag: str) -> APIRouter:
    """For one noun.  The Security entry only draws the lock in /docs; the Door is what holds."""
    return APIRouter(
        prefix=PREFIX,
        tags=[tag],
        dependencies=[Security(_BEARER), Depends(only_known_parameters)],
        responses=documented(400, 401, 403, 503),
        generate_unique_id_function=name_of,
        route_class=LateRoute,
    )
