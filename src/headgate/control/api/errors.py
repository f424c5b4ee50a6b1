"""How the admin API says no: one shape for every refusal, the same as on the data plane; and its place in OpenAPI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from headgate.control.api.views import View
from headgate.dialects.registry import DEFAULT
from headgate.errors import (
    CONTROL_AWAY,
    INTERNAL,
    INVALID_JSON,
    INVALID_VALUE,
    METHOD_NOT_ALLOWED,
    ROUTE_NOT_FOUND,
    GatewayError,
    Kind,
)
from headgate.process.statedir import StateError
from headgate.resources import wording

RETRY_AFTER_S = 1
STORE_AWAY = "The store cannot be used at the moment; try again."
log = structlog.get_logger("headgate.api")


class ErrorDetail(View):
    message: str = Field(description="What happened and what to do next.")
    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "not_found_error",
        "conflict_error",
        "request_too_large",
        "rate_limit_error",
        "service_unavailable_error",
        "api_error",
    ]
    param: str | None = Field(description="The field or query parameter at fault.")
    code: str


class Error(View):
    """Every refusal, whatever its status."""

    error: ErrorDetail


_WORDS = {
    400: "The request cannot be understood or cannot be meant; `param` names the field.",
    401: "The admin token or the session is missing, wrong or over.",
    403: "The caller's role may not do this, or the request may come from a foreign page.",
    404: "There is no such object.",
    405: "Not a method of this path.",
    409: "It clashes with what is there: `managed_by_file`, `already_exists`, `name_taken`, `ambiguous_name`, "
    "`in_use`, `too_many`, `invite_over`, `no_public_url`.",
    413: "The body is too large.",
    429: "Too many logins were tried; `Retry-After` says when the next one may be.",
    503: "The store cannot be used at the moment; try again.",
}


_REF = "#/components/schemas/{model}"


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's error answers, for OpenAPI.  They refer to ``schemas``: with ``model``, FastAPI would build a validator
    for each status of each route, half of what a route costs.
    """
    content = {"application/json": {"schema": {"$ref": _REF.format(model=Error.__name__)}}}
    return {status: {"description": _WORDS[status], "content": content} for status in statuses}


def schemas() -> dict[str, Any]:
    """The schemas that ``documented`` refers to, by name."""
    schema = Error.model_json_schema(mode="serialization", ref_template=_REF)
    return {**schema.pop("$defs"), Error.__name__: schema}


def rendered(kind: Kind, message: str, param: str | None = None) -> Response:
    """The answer for one row of the error table."""
    headers = {}
    if kind.status == 401:
        headers["www-authenticate"] = "Bearer"
    if kind.status == 503:
        headers["retry-after"] = str(RETRY_AFTER_S)
    body = DEFAULT.error_body(GatewayError(kind, message, param=param))
    return Response(body, kind.status, headers, "application/json")


def not_served(method: str, path: str, allowed: Sequence[str]) -> Response:
    """The answer where no route has this method and path.  ``allowed``: the methods that the path has."""
    if not allowed:
        return rendered(ROUTE_NOT_FOUND, f"There is no {path} here; see /docs.")
    answer = rendered(METHOD_NOT_ALLOWED, f"{method} is not a method of {path}; see /docs.")
    answer.headers["allow"] = ", ".join(allowed)
    return answer


def install(app: FastAPI) -> None:
    """Every exception becomes an answer of this shape; a defect's text goes to the log alone."""
    app.add_exception_handler(GatewayError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(SQLAlchemyError, _on_store)
    app.add_exception_handler(OSError, _on_store)
    app.add_exception_handler(StateError, _on_store)  # a first key cannot be written
    app.add_exception_handler(Exception, _on_defect)


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    answer = rendered(error.kind, error.message, error.param)
    if error.retry_after is not None:
        answer.headers["retry-after"] = str(math.ceil(error.retry_after))
    return answer


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return rendered(INVALID_JSON, f"The body is not valid JSON: {first['ctx']['error']}.")
    if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
        return rendered(INVALID_VALUE, "The body must be JSON, sent with Content-Type: application/json.")
    # "body", "scopes", 0 → scopes
    where = ".".join(str(step) for step in first["loc"][1:] if not isinstance(step, int)) or None
    # What was sent is not repeated: it may be a key
    return rendered(INVALID_VALUE, f"{where or 'The body'}: {wording.phrase(first)}", where)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        allowed = (error.headers or {}).get("allow", "")
        return not_served(request.method, request.url.path, tuple(filter(None, allowed.split(", "))))
    return rendered(Kind(error.status_code, "invalid_request_error", "invalid_value"), str(error.detail))


async def _on_store(_request: Request, error: Exception) -> Response:
    log.error("the store could not be used for a request", error=type(error).__name__)
    return rendered(CONTROL_AWAY, STORE_AWAY)


async def _on_defect(_request: Request, _error: Exception) -> Response:
    return rendered(INTERNAL, "This is a defect of the control process; its log says more.")
