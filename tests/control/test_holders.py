"""The admin API's tenants and budgets: while data has not been told of a change of the store, and very many."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.control.child import Child
from tests.dataplane import DataPlane
from tests.waiting import wait_until

BASE = "/admin/v1"
LIMITS = {"limits": {"rpm": 5}}


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("holders")) as running:
        yield running


def test_an_object_that_has_left_the_store_is_shown_until_data_is_told(child: Child) -> None:
    paths = {"/tenants/acme": LIMITS, "/budgets/ads": {"match": {"user": "ann"}, **LIMITS}}
    for path, body in paths.items():
        assert child.call("PUT", BASE + path, json=body).json()["created"] is not None
    for name in ("home", "priced"):
        provider = {"name": name, "base_url": "http://127.0.0.1:1/v1", "models": {"m": {}}}
        assert child.call("POST", f"{BASE}/providers", json=provider).is_success
    with sqlite3.connect(child.state / "headgate.db") as store:  # what is not told is stored: prices come between
        store.execute("CREATE TRIGGER no_prices BEFORE INSERT ON prices BEGIN SELECT RAISE(ABORT, 'full'); END")
    priced = {"models": {"m": {"price": {"input": 1, "output": 1}}}}
    assert child.call("PATCH", f"{BASE}/providers/priced", json=priced).status_code == 503
    for path in (*paths, "/providers/home"):
        assert child.call("DELETE", BASE + path).status_code in (200, 503)
        shown = child.call("GET", BASE + path)
        assert shown.is_success and shown.json()["created"] is None, shown.text
        assert child.call("GET", f"{BASE}/{path.split('/')[1]}").is_success
    with sqlite3.connect(child.state / "headgate.db") as store:
        store.execute("DROP TRIGGER no_prices")
    assert child.call("PATCH", f"{BASE}/providers/priced", json=priced).is_success
    assert all(child.call("GET", BASE + path).status_code == 404 for path in paths)


def test_standings_of_many_tenants_are_all_shown(child: Child) -> None:
    names = [f"t{number:04}" for number in range(501)]
    child.configure(tenants=tuple(names))
    with DataPlane(child.state):
        wait_until(lambda: child.call("GET", "/readyz", None).status_code == 200)
        wait_until(lambda: len(_shown(child)) == len(names))
        wait_until(lambda: all(row["standing"] for row in _shown(child)))


def _shown(child: Child) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = child.call("GET", f"{BASE}/tenants").json()["data"]
    return rows
