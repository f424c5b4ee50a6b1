"""The response cache of a running gateway: what is shown of it, what receipts and usage say, and how it is emptied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.cli.conftest import MODEL

if TYPE_CHECKING:
    from tests.cli.conftest import Gateway, Shell

TOKEN = "hg_test_0123456789abcdef"


@pytest.fixture
def alias(mock: Gateway, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")
    mock.good("aliases", "set", name, MODEL, "--cache", "120", "--cache-pace", "recorded")
    yield name
    mock.good("aliases", "unset", name)


def ask(mock: Gateway, model: str, words: str) -> tuple[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": words}]}
    answer = httpx2.post(
        f"{mock.data_url}/v1/chat/completions", headers={"authorization": f"Bearer {TOKEN}"}, json=body
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-headgate-cache"], answer.json()


def test_an_alias_that_uses_the_cache(mock: Gateway, alias: str) -> None:
    assert mock.told("aliases", "show", alias)["cache"] == {"enabled": True, "ttl_s": 120, "pace": "recorded"}
    assert "cache 120 s, recorded" in mock.good("aliases", "show", alias)
    wrong = mock.run("aliases", "set", "wrong", MODEL, "--cache", "59")
    assert wrong.returncode == 2 and "cache.ttl_s" in wrong.stderr


def test_figures_of_the_cache(mock: Gateway, alias: str) -> None:
    before = mock.told("cache")
    statuses = [ask(mock, alias, "figures")[0] for _ in range(3)]
    assert statuses == ["miss", "hit", "hit"]
    after = mock.told("cache", "show")
    assert {name: after[name] - before[name] for name in ("entries", "hits", "misses", "stored", "evicted")} == {
        "entries": 1, "hits": 2, "misses": 1, "stored": 1, "evicted": 0,
    }  # fmt: skip
    assert after["bytes"] > before["bytes"] and after["max_bytes"] == 256 << 20 and after["processes"] == 1
    picture = mock.good("cache")
    assert "of 256 MB" in picture and "hits" in picture


def test_receipts_and_usage_of_hits(mock: Gateway, alias: str) -> None:
    (_, miss), (_, hit) = ask(mock, alias, "receipts"), ask(mock, alias, "receipts")
    assert (hit["headgate"]["cost_usd"], hit["headgate"]["cache_hit"]) == (0, True)
    stored, given = (mock.told("requests", "show", one["id"]) for one in (miss, hit))
    assert (stored["cache"], stored["saved_usd"], len(stored["attempts"])) == ("miss", None, 1)
    assert (given["cache"], given["saved_usd"], given["attempts"]) == ("hit", stored["cost_usd"], [])
    assert (given["cost_usd"], given["outcome"], given["provider"]) == (0, "delivered", "")
    assert given["usage"]["completion_tokens"] == stored["usage"]["completion_tokens"] > 0
    assert "the stored answer" in mock.good("requests", "show", hit["id"])
    assert f"{alias} → cache" in mock.good("requests", "-n", "5")
    own = httpx2.get(f"{mock.data_url}/v1/requests/{hit['id']}", headers={"authorization": f"Bearer {TOKEN}"}).json()
    assert (own["cache"], own["saved_usd"]) == ("hit", given["saved_usd"])
    shown = mock.run("usage", "--by", "alias")
    assert "calls that use the cache were hits" in shown.stderr
    by_user = mock.run("usage", "--by", "user")
    assert "calls that use the cache were hits" in by_user.stderr
    assert mock.told("usage", "verify")["ok"]
    assert all(one["provider"] for one in mock.told("usage", "reprice")["data"])


def test_clearing_is_in_the_audit_log(mock: Gateway, alias: str) -> None:
    ask(mock, alias, "cleared")
    other = mock.told("cache")["entries"]
    assert mock.told("cache", "clear", "--alias", alias)["cleared"] == 1
    assert mock.told("cache")["entries"] == other - 1
    assert ask(mock, alias, "cleared")[0] == "miss"
    assert mock.good("cache", "clear").startswith("dropped ")
    assert mock.told("cache")["entries"] == 0
    rows = mock.told("audit", "--noun", "cache", "-n", "2")
    assert [(row["action"], row["id"]) for row in rows] == [("cleared", ""), ("cleared", alias)]
    assert rows[1]["after"] == {"answers": 1} and json.dumps(rows).count("receipts") == 0


def test_without_a_gateway_there_is_no_cache(shell: Shell) -> None:
    for arguments in (("cache",), ("cache", "clear")):
        refused = shell.run(*arguments)
        assert refused.returncode == 1 and "no cache; start the gateway" in refused.stderr.replace("\n", " ")
