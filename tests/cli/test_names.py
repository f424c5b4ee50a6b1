"""Tokens and accounts by name, names that are taken or that nothing has, and calls that were refused."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until

if TYPE_CHECKING:
    from headgate.testing import Provider
    from tests.cli.conftest import Gateway

KEY = "sk-test-0123456789abcdef-good"


def test_a_token_by_its_name_from_creation_to_its_end(gateway: Gateway) -> None:
    first = gateway.good("token", "create", "tablet").strip()
    taken = gateway.run("token", "create", "tablet")
    assert (taken.returncode, taken.stdout) == (1, "") and "'tablet' already" in taken.stderr
    ident = gateway.told("token", "show", "tablet")["id"]
    second = gateway.good("token", "rotate", "tablet").strip()
    assert second != first and ident in second
    assert gateway.run("token", "edit", "tablet", "--name", "ci").returncode == 1  # the file's
    gateway.good("token", "edit", "tablet", "--name", "slate", "--models", "builtin/echo")
    assert gateway.run("token", "show", "tablet").returncode == 1
    assert gateway.good("chat", "-m", "builtin/echo", "x", "--token", second) == "x\n"
    rows = wait_until(lambda: gateway.told("requests", "--token", "slate"))
    assert {row["token"] for row in rows} == {ident}
    assert gateway.told("usage", "--token", "slate")[0]["requests"] >= 1
    assert gateway.good("token", "rm", "slate") == "revoked slate\n"
    assert gateway.told("token", "show", "slate")["revoked"] is not None  # a revoked one is still found by its name
    assert gateway.told("requests", "--token", "slate") == rows
    gateway.good("token", "create", "slate")  # and the name is free again
    near = gateway.run("token", "revoke", "slaet")
    assert near.returncode == 1 and "did you mean slate?" in near.stderr and "?." not in near.stderr
    gateway.good("token", "revoke", "slate")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--models", "headgate/cat", "did you mean headgate/chat?"),
        ("--models", "builtin/echo,nosuch/model", "'nosuch/model'"),
        ("--scopes", "gate:chat,gate:chatt", "gate:models"),
    ],
)
def test_what_a_token_may_use_must_exist(gateway: Gateway, option: str, value: str, words: str) -> None:
    refused = gateway.run("token", "create", "never", option, value)
    assert refused.returncode == 2 and words in refused.stderr and "Input should" not in refused.stderr
    assert "never" not in {row["name"] for row in gateway.told("token", "list")}


def test_lost_command_token_is_replaced(gateway: Gateway) -> None:
    assert gateway.good("chat", "-m", "builtin/echo", "x") == "x\n"
    (gateway.state / "cli.token").unlink()
    assert gateway.good("chat", "-m", "builtin/echo", "x") == "x\n"
    assert [row["name"] for row in gateway.told("token", "list")].count("headgate-cli") == 1


def test_an_account_by_its_provider(gateway: Gateway, upstream: Provider) -> None:
    gateway.good("providers", "add", "byname", "--base-url", upstream.url, "--model", "echo")
    gateway.good("vault", "add", "byname", "--label", "one", stdin=KEY)
    assert gateway.told("vault", "show", "byname")["id"] == "byname/one"
    gateway.good("vault", "add", "byname", "--label", "two", stdin=KEY)
    unclear = gateway.run("vault", "rm", "byname")
    assert unclear.returncode == 1 and "byname/one" in unclear.stderr and "byname/two" in unclear.stderr
    assert gateway.good("vault", "rm", "two") == "removed byname/two\n"
    assert gateway.good("vault", "rm", "byname") == "removed byname/one\n"
    gateway.good("providers", "rm", "byname")


@pytest.mark.parametrize(("name", "words"), [("grok", "did you mean groq?"), ("builtin", "needs no key")])
def test_a_key_is_not_asked_for_in_vain(gateway: Gateway, name: str, words: str) -> None:
    refused = gateway.run("vault", "add", name, stdin="")
    assert refused.returncode == 2 and words in refused.stderr and "no key was given" not in refused.stderr


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("aliases", "show", "headgate/cat"), "headgate/chat"),
        (("models", "show", "builtin/ech"), "builtin/echo"),
        (("providers", "show", "builtn"), "builtin"),
        (("models", "--capability", "toolz"), "tools"),
        (("aliases", "set", "my/x", "biultin/echo"), "builtin"),
    ],
)
def test_the_nearest_name_is_said(gateway: Gateway, words: tuple[str, ...], nearest: str) -> None:
    refused = gateway.run(*words)
    assert refused.returncode in (1, 2) and f"did you mean {nearest}?" in refused.stderr and "?." not in refused.stderr


def test_a_search_without_a_hit_is_not_an_empty_catalog(gateway: Gateway) -> None:
    assert "no model matches" in gateway.good("models", "--search", "nothing-is-called-so")


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "nosuch/{}"},
        {"model": "nosuch/{}", "messages": []},
        {"model": "nosuch/{}", "stream": "yes"},
        {"model": "headgate/{}", "headgate": {"nosuch": 1}},
    ],
)
def test_a_refused_call_keeps_the_name_that_was_asked_for(gateway: Gateway, fields: dict[str, Any]) -> None:
    name = str(fields["model"]).format(time.time_ns())
    body = {"messages": [{"role": "user", "content": "x"}], **fields, "model": name}
    request = urllib.request.Request(
        f"{gateway.data_url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": "Bearer hg_test_0123456789abcdef", "Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    (row,) = wait_until(lambda: gateway.told("requests", "--requested", name))
    assert (row["outcome"], row["requested_model"]) == ("refused", name)
    shown = gateway.good("requests", "show", row["id"])
    assert name in shown and "served by" not in shown and "no provider was asked" in shown


def test_a_failed_call_was_not_served(gateway: Gateway) -> None:
    gateway.run("chat", "-m", "builtin/fault/500", "x")
    (row,) = wait_until(lambda: gateway.told("requests", "--requested", "builtin/fault/500", "-n", "1"))
    shown = gateway.good("requests", "show", row["id"])
    assert "last asked" in shown and "served by" not in shown
