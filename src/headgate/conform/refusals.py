"""Checks of errors: each mistake has its own status, and one shape holds for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headgate.conform.probe import REFUSALS, EndpointProbe
from headgate.conform.table import CheckVerdict, check, failed, judged, passed, skipped, warned
from headgate.conform.wire import Response

KEYS = {"message", "type", "param", "code"}


def error_of(response: Response) -> dict[str, Any]:
    body = response.json
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _status(name: str, *allowed: int) -> Callable[[EndpointProbe], CheckVerdict]:
    def judge(probe: EndpointProbe) -> CheckVerdict:
        response = probe.refused(name)
        code = error_of(response).get("code")
        return judged(None if response.status in allowed else response.summary, f"{response.status} {code}")

    return judge


def _open(probe: EndpointProbe) -> bool:
    """True if the endpoint requires no token."""
    return probe.refused("no token").status == 200 and probe.refused("wrong token").status == 200


def _authentication(name: str) -> Callable[[EndpointProbe], CheckVerdict]:
    def judge(probe: EndpointProbe) -> CheckVerdict:
        if _open(probe):
            return skipped("this endpoint asks for no token")
        return _status(name, 401)(probe)

    return judge


check("errors.no-token", "401 without a token", "403 or 500 makes clients retry, or blame the wrong thing")(
    _authentication("no token")
)
check("errors.wrong-token", "401 with a wrong token", "as above")(_authentication("wrong token"))


@check("errors.challenge", "a 401 has WWW-Authenticate", "RFC 9110 §15.5.2; proxies and browsers need it")
def challenge(probe: EndpointProbe) -> CheckVerdict:
    response = probe.refused("wrong token")
    if _open(probe):
        return skipped("this endpoint asks for no token")
    value = response.headers.get("www-authenticate")
    return judged(None if value else f"{response.summary} without it", str(value))


@check("errors.token-hidden", "an error does not repeat the token", "error texts end in logs and in bug reports")
def token_hidden(probe: EndpointProbe) -> CheckVerdict:
    quoted = b"hg_wrong_0123456789abcdefghijklmn" in probe.refused("wrong token").body
    return judged("the whole token stands in the error" if quoted else None, "it does not")


check("errors.unknown-model", "404 for a model that does not exist", "routers fall back on 404, not on 400 or 500")(
    _status("unknown model", 404)
)


@check(
    "errors.before-stream",
    "a stream that cannot begin is a status, not an event",
    "SDKs raise the right class only by status",
)
def before_stream(probe: EndpointProbe) -> CheckVerdict:
    response = probe.refused("unknown model, streamed")
    fault = response.summary if response.status == 200 or not error_of(response) else None
    return judged(fault, f"{response.status} {error_of(response).get('code')}")


check("errors.invalid-json", "400 for a body that is no JSON", "a 500 makes clients retry what can never succeed")(
    _status("invalid JSON", 400)
)
check("errors.deep-json", "400 for JSON nested too deep", "a recursive parser dies of it, with everybody's streams")(
    _status("JSON too deep", 400)
)


def _with_param(name: str, param: str) -> Callable[[EndpointProbe], CheckVerdict]:
    def judge(probe: EndpointProbe) -> CheckVerdict:
        response = probe.refused(name)
        named = error_of(response).get("param")
        if response.status not in (400, 422):
            return failed(response.summary)
        return judged(
            None if named == param else f"{response.status} with param {named!r}", f"{response.status}, param {named}"
        )

    return judge


check("errors.no-messages", "400 with param messages where they lack", "whoever debugs a client needs the name")(
    _with_param("no messages", "messages")
)
check("errors.bad-value", 'stream: "yes" is 400 with param stream', "guessing gives the client the other kind of body")(
    _with_param('stream: "yes"', "stream")
)


@check(
    "errors.oversize", "413 (or 400) as soon as a gigabyte is announced", "who reads on first can be filled with bytes"
)
def oversize(probe: EndpointProbe) -> CheckVerdict:
    response = probe.refused("oversize")
    if response.ended == "timeout" and not response.status:
        return warned("waits for the whole body before it says anything")
    return _status("oversize", 413, 400)(probe)


check("errors.method", "405 for GET where only POST is", "404 sends people looking for a typo")(_status("method", 405))
check("errors.unknown-path", "404 for a path that does not exist", "200 or 500 there breaks every probe")(
    _status("unknown path", 404)
)


@check(
    "errors.shape",
    "every error is JSON with message, type, param and code",
    "SDKs read all four, and fail on a page of HTML",
)
def shape(probe: EndpointProbe) -> CheckVerdict:
    wrong = []
    for name in REFUSALS:
        response = probe.refused(name)
        if not response.status or response.status == 200:
            continue  # another check judges it
        kind = response.headers.get("content-type", "").lower()
        if not error_of(response).keys() >= KEYS or not kind.startswith("application/json"):
            wrong.append(name)
    return failed(f"not so: {', '.join(wrong)}") if wrong else passed(f"{len(REFUSALS)} errors")
