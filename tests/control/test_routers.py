"""Routes are built when they are first called, and are then FastAPI's own."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from headgate.control.api.routers import LateRoute, open_router


def application(route_class: type[APIRoute]) -> FastAPI:
    router = open_router("things")
    router.route_class = route_class

    @router.get("/things/{name}")
    async def read(name: int, shown: bool = False) -> dict[str, object]:
        """One of them."""
        return {"name": name, "shown": shown}

    @router.put("/things/{name}", status_code=201)
    async def write(name: int, body: dict[str, int]) -> dict[str, int]:
        return body

    app = FastAPI(openapi_url=None)
    app.router.routes += router.routes
    return app


def answers(app: FastAPI, *calls: tuple[str, str]) -> list[tuple[int, object]]:
    async def ask() -> list[tuple[int, object]]:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
            found = [await client.request(method, f"/admin/v1{path}") for method, path in calls]
            return [(one.status_code, one.json()) for one in found]

    return asyncio.run(ask())


def built(app: FastAPI) -> list[str]:
    return [route.name for route in app.routes if isinstance(route, LateRoute) and "dependant" in vars(route)]


def test_a_route_is_built_by_its_first_call() -> None:
    app = application(LateRoute)
    assert answers(app, ("GET", "/nothing"), ("DELETE", "/things/1")) == [
        (404, {"detail": "Not Found"}),
        (405, {"detail": "Method Not Allowed"}),
    ]
    assert built(app) == []
    assert answers(app, ("GET", "/things/1?shown=true")) == [(200, {"name": 1, "shown": True})]
    assert built(app) == ["read"]


def test_it_answers_and_describes_as_any_route() -> None:
    calls = (("GET", "/things/1"), ("GET", "/things/x"), ("PUT", "/things/1"), ("DELETE", "/things/1"))
    late, usual = application(LateRoute), application(APIRoute)
    assert answers(late, *calls) == answers(usual, *calls)
    assert late.openapi() == usual.openapi()


def test_what_no_route_has_is_missing() -> None:
    (route, _other) = (one for one in application(LateRoute).routes if isinstance(one, LateRoute))
    with pytest.raises(AttributeError):
        _ = route.nothing
