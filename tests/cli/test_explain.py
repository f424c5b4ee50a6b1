"""``headgate explain``, end to end: a request that might be made, one that was, and with nothing running."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from headgate.testing import Provider
    from tests.cli.conftest import Gateway, Shell

KEY = "sk-test-0123456789abcdef-good"
ASKED = {"model": "way/chat", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture(scope="module")
def way(gateway: Gateway, upstream: Provider) -> Iterator[Gateway]:
    """The gateway, with an alias over two providers, one of them with a wrong key."""
    for name, key in (("way-one", "sk-test-0123456789abcdef-bad!"), ("way-two", KEY)):
        gateway.good("providers", "add", name, "--base-url", upstream.url, "--model", "echo")
        gateway.good("vault", "add", name, "--label", "main", "--no-test", stdin=key)
    gateway.good("aliases", "set", "way/chat", "way-one/echo", "way-two/echo")
    yield gateway
    gateway.good("aliases", "unset", "way/chat")
    for name in ("way-one", "way-two"):
        gateway.good("providers", "remove", name)


def places(route: Any) -> dict[str, int | None]:
    return {one["provider"]: one["place"] for one in route["candidates"]}


def test_a_request_that_might_be_made(way: Gateway) -> None:
    (way.home / "request.json").write_text(json.dumps(ASKED))
    route = way.told("explain", "request.json")
    assert route["live"] is True and places(route) == {"way-one": 1, "way-two": 2}
    assert way.told("explain", "-", stdin=json.dumps(ASKED)) == route
    assert places(way.told("explain", "-m", "way-two/echo")) == {"way-two": 1}
    assert places(way.told("explain", "request.json", "-m", "way-two/echo")) == {"way-two": 1}
    picture = way.good("explain", "request.json")
    assert "way-one/echo" in picture and "way-two/main" in picture and "well" in picture and "unknown" not in picture
    way.good("chat", "-m", "way/chat", "x")  # the first key is refused now
    route = way.told("explain", "request.json")
    assert places(route)["way-two"] == 1
    assert "dead" in way.good("explain", "request.json")


def test_what_would_be_refused_is_told_with_every_reason(way: Gateway) -> None:
    body = json.dumps({**ASKED, "headgate": {"excluded_providers": ["way-one", "way-two"]}})
    refused = way.run("explain", "-", stdin=body)
    assert refused.returncode == 1 and "no_qualifying_model" in refused.stdout, refused
    assert "way-one is among excluded_providers" in refused.stdout
    assert "LEFT OUT" in refused.stdout
    as_json = way.run("explain", "-", "--json", stdin=body)
    assert as_json.returncode == 1 and json.loads(as_json.stdout)["code"] == "no_qualifying_model"


def test_as_the_holder_of_a_token(way: Gateway) -> None:
    way.good("token", "create", "way-two-only", "--models", "way-two/echo")
    ident = next(row["id"] for row in way.told("token", "list") if row["name"] == "way-two-only")
    route = way.told("explain", "-m", "way/chat", "--token", ident)
    assert places(route) == {"way-two": 1, "way-one": None}
    way.good("token", "revoke", ident)


def test_a_request_that_was_made(way: Gateway) -> None:
    way.good("chat", "-m", "way/chat", "one two")
    (row,) = way.told("requests", "--requested", "way/chat", "-n", "1")
    told = way.told("explain", row["id"])
    assert told == row and told["attempts"][-1]["account"] == "way-two/main"
    assert row["id"] in way.good("explain", row["id"])
    assert way.run("explain", "chatcmpl-nobody").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [((), None), (("-",), "not json"), (("-",), "[]"), (("gone.json",), None), (("id", "-m", "x"), None)],
)
def test_what_cannot_be_explained(shell: Shell, arguments: tuple[str, ...], stdin: str | None) -> None:
    done = shell.run("explain", *arguments, stdin=stdin)
    assert done.returncode == 2 and done.stderr.startswith("headgate: ") and "headgate explain" in done.stderr


def test_with_nothing_running_health_is_unknown(shell: Shell, upstream: Provider, tmp_path: Path) -> None:
    shell.good("providers", "add", "mock", "--base-url", upstream.url, "--model", "echo")
    shell.good("vault", "add", "mock", stdin=KEY)
    told = shell.run("explain", "-m", "mock/echo")
    assert told.returncode == 0 and "health" in told.stdout and "unknown" in told.stdout, told
    route = shell.told("explain", "-m", "mock/echo")
    assert route["live"] is False and places(route) == {"mock": 1}
