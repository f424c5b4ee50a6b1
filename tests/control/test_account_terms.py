"""Accounts' terms and the vault over the admin API: a real control process, a real data process, a real upstream."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headgate.control.ingest.recorder import Recorder
from headgate.control.objects import registry
from headgate.control.objects.registry import Objects
from headgate.control.reports.account_spend import AccountSpend, period
from headgate.control.snapshot.spend_limits import SpendLimits
from headgate.model import AttemptRecord
from headgate.model.receipt_ids import first_of
from headgate.resources.account import AccountTerms, SpendLimit
from tests.control.child import Child
from tests.control.journal_writer import Writer, closed, opened, run
from tests.control.test_api import KEY, WRONG, _Upstream, chat, ok, refused
from tests.control.test_vault import begun, stored
from tests.control.test_vault import opened as opened_store
from tests.dataplane import DataPlane
from tests.waiting import wait_until

PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.fixture
def child(upstream: str, tmp_path: Path) -> Iterator[Child]:
    with Child(tmp_path) as running:
        models = {"m1": {"price": {"input": 1, "output": "2.5"}}}
        ok(running, "POST", "/providers", {"name": "mine", "base_url": upstream, "models": models})
        yield running


def account(child: Child, ident: str) -> dict[str, Any]:
    return dict(next(one for one in ok(child, "GET", "/accounts")["data"] if one["id"] == ident))


# ------------------------------------------------------------------------------------------- tried before it is stored


def test_a_key_is_tried_before_it_is_stored(child: Child) -> None:
    status, code, message = refused(child, "POST", "/accounts", {"provider": "mine", "key": WRONG})
    assert (status, code) == (400, "key_refused") and "refuses this key: bad key" in message and WRONG not in message
    assert ok(child, "GET", "/accounts?provider=mine")["data"] == []
    made = ok(child, "POST", "/accounts", {"provider": "mine", "key": WRONG, "force": True})
    assert made["tested"]["ok"] is False and WRONG not in made["tested"]["message"]
    assert ok(child, "POST", "/accounts", {"provider": "mine", "key": WRONG, "test": False})["tested"] is None
    good = ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY})
    assert good["tested"] == {"ok": True, "status": 200, "message": "it lists 2 models"}
    assert refused(child, "PATCH", "/accounts/mine/key-3", {"key": WRONG})[1] == "key_refused"
    assert ok(child, "PATCH", "/accounts/mine/key-1", {"key": KEY})["tested"]["ok"] is True
    ok(child, "POST", "/providers", {"name": "off", "base_url": "http://127.0.0.1:1/v1"})
    unasked = ok(child, "POST", "/accounts", {"provider": "off", "key": KEY})
    assert unasked["tested"]["ok"] is False and "cannot be reached" in unasked["tested"]["message"]


# --------------------------------------------------------------------------------------------------------------- terms


def test_terms_come_back_as_they_were_given(child: Child) -> None:
    spend = {"usd": 2.5, "period": "day", "action": "warn"}
    terms = {"owner": "acme", "share": True, "minute_limit": 3, "daily_limit": 9, "spend_limit": spend}
    made = ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, "expires": "2099-01-31", **terms})
    assert {name: made[name] for name in terms} == terms and made["expires"] == 4073500800
    changed = ok(child, "PATCH", "/accounts/mine/key-1", {"owner": None, "spend_limit": None, "daily_limit": 4})
    assert (changed["owner"], changed["spend_limit"], changed["daily_limit"]) == (None, None, 4)
    assert (changed["share"], changed["minute_limit"]) == (True, 3)
    assert refused(child, "PATCH", "/accounts/mine/key-1", {"share": None})[2].startswith("`share` cannot be null")
    for wrong in ({"minute_limit": 0}, {"owner": "a b"}, {"spend_limit": {"usd": 0}}, {"spend_limit": {"usd": -1}}):
        assert refused(child, "POST", "/accounts", {"provider": "mine", "key": KEY, **wrong})[0] == 400
    assert child.end() == 0
    with Child(child.state) as again:
        assert account(again, "mine/key-1")["daily_limit"] == 4


def test_a_key_at_its_limit_is_passed_over_and_the_trace_says_so(child: Child) -> None:
    with DataPlane(child.state) as plane:
        wait_until(lambda: child.call("GET", "/readyz", None).status_code == 200)
        wish = {"provider": "mine", "key": KEY, "label": "few", "priority": 5, "daily_limit": 1}
        ok(child, "POST", "/accounts", wish)
        ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": "many"})
        ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": "private", "owner": "acme"})
        old = {"label": "old", "priority": 9, "expires": time.time() - 1}
        assert ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, **old})["state"] == "expired"
        token = ok(child, "POST", "/tokens", {"name": "agent"})["token"]
        for used, passed in (("few", ["mine/old"]), ("many", ["mine/few", "mine/old"])):
            answer = chat(plane, token, "mine/m1", query="?include_route_trace=true").json()
            assert sorted(_find(answer, "passed_over")) == passed, answer
            wait_until(lambda used=used: _last_account(child) == f"mine/{used}")
        assert account(child, "mine/few")["state"] == "limited" and account(child, "mine/few")["wait_s"] > 0
        ok(child, "PATCH", "/accounts/mine/few", {"daily_limit": None})
        assert list(_find(chat(plane, token, "mine/m1", query="?include_route_trace=true").json(), "passed_over")) == [
            "mine/old"
        ]


def _find(tree: Any, name: str) -> Any:
    """The first member of this name, wherever it is."""
    if isinstance(tree, dict):
        if name in tree:
            return tree[name]
        tree = list(tree.values())
    for one in tree if isinstance(tree, list) else ():
        if (found := _find(one, name)) is not None:
            return found
    return None


def _last_account(child: Child) -> str:
    with closing(sqlite3.connect(child.state / "headgate.db")) as store:
        row = store.execute("SELECT attempts ->> '$[0][2]' FROM requests ORDER BY id DESC LIMIT 1").fetchone()
    return str(row[0]) if row else ""


# --------------------------------------------------------------------------------------------------------- spend limit


def test_the_days_and_months_of_utc() -> None:
    at = 1_767_225_599.0  # 2025-12-31 23:59:59
    assert period("day", at) == (1_767_139_200.0, 1_767_225_600.0)
    assert period("month", at) == (1_764_547_200.0, 1_767_225_600.0)
    assert period("month", at + 1)[0] == 1_767_225_600.0


def test_a_key_that_has_spent_its_limit_is_out_until_the_period_ends(database: str, tmp_path: Path) -> None:
    now = time.time_ns()

    def spent(number: int, cost: int) -> tuple[Any, Any]:
        ident = first_of(now) + f"{number:013x}"
        used = (AttemptRecord("up", "m", "up/0", cost=cost), AttemptRecord("up", "m", "up/1", cost=-1))
        return opened(1, id=ident, at=now), closed(1, id=ident, at=now, attempts=used)

    async def main() -> None:
        async with opened_store(database) as engine:
            publication = await begun(engine, tmp_path)
            objects = stored(publication.keyring.vault, 3)
            limit = AccountTerms(spend_limit=SpendLimit(usd="0.003", period="day"))  # type: ignore[arg-type]
            warn = AccountTerms(spend_limit=SpendLimit(usd="0.001", action="warn"))  # type: ignore[arg-type]
            accounts = dict(objects.accounts)
            accounts |= {"up/0": replace(accounts["up/0"], terms=limit), "up/1": replace(accounts["up/1"], terms=warn)}
            await registry.save(engine, Objects(), replace(objects, accounts=accounts))
            publication = await begun(engine, tmp_path)
            writer = Writer(tmp_path / "journal")
            recorder = Recorder(engine, tmp_path / "journal", 0.02)
            limits = SpendLimits(publication, AccountSpend(engine))
            recorder.feed.listen("spend limits", limits.take)
            await recorder.start()

            def paused() -> dict[str, float]:
                return {one.id: one.paused_until for one in publication.snapshot.providers["up"].accounts}

            writer.write(*spent(1, 1_000_000))
            await recorder.catch_up()
            await limits.apply()  # reads the store
            assert paused() == {"up/0": 0.0, "up/1": 0.0, "up/2": 0.0}
            generation = publication.snapshot.generation
            writer.write(*spent(2, 1_000_000))
            await recorder.catch_up()
            await recorder.feed.close()
            assert publication.snapshot.generation == generation, "nobody is told of what changes nothing"
            writer.write(*spent(3, 1_000_000))
            await recorder.catch_up()
            await recorder.feed.close()
            end = period("day", now / 1e9)[1]
            assert paused() == {"up/0": end, "up/1": 0.0, "up/2": 0.0}
            again = SpendLimits(publication, AccountSpend(engine))  # of the next life
            publication.sources = replace(publication.sources, overspent={})
            await again.apply()
            assert paused()["up/0"] == end
            raised = AccountTerms(spend_limit=SpendLimit(usd=1))  # type: ignore[arg-type]
            accounts["up/0"] = replace(accounts["up/0"], terms=raised)
            publication.sources = replace(publication.sources, objects=replace(objects, accounts=accounts))
            await again.apply()
            assert paused()["up/0"] == 0.0
            await recorder.stop()

    run(main())


# ------------------------------------------------------------------------------------------------- the vault as a whole


def test_rotation_while_calls_are_served(child: Child) -> None:
    with DataPlane(child.state) as plane:
        wait_until(lambda: child.call("GET", "/readyz", None).status_code == 200)
        for number in range(12):
            ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": f"k{number}", "test": False})
        token = ok(child, "POST", "/tokens", {"name": "agent"})["token"]
        before = ok(child, "GET", "/vault")
        (first,) = before["data_keys"]
        assert before["ok"] and first["secrets"] == 12 and before["master_key"] not in (first["id"], KEY)
        answer = ok(child, "POST", "/vault/rotate", {"batch": 5})
        assert (answer["resealed"], answer["left"], answer["damaged"]) == (5, 7, 0)
        assert [one["secrets"] for one in ok(child, "GET", "/vault")["data_keys"]] == [7, 5]
        assert chat(plane, token, "mine/m1").status_code == 200
        ok(child, "PATCH", "/accounts/mine/k11", {"key": KEY})  # sealed with the new key
        answer = ok(child, "POST", "/vault/rotate", {"batch": 5, "continue": True})
        answer = ok(child, "POST", "/vault/rotate", {"batch": 5, "continue": True})
        assert answer["left"] == 0 and ok(child, "GET", "/vault")["data_keys"] == [{"id": answer["key"], "secrets": 12}]
        assert chat(plane, token, "mine/m1").status_code == 200
    child.process.kill()
    child.process.wait()
    with Child(child.state) as again:
        vault = ok(again, "GET", "/vault")
        assert {one["mark"] for one in vault["findings"]} == {"warning"} and "the same key" in vault["findings"][0][
            "sentence"
        ]
        assert ok(again, "POST", "/providers/mine/check")["results"][3]["ok"]


def test_export_and_import(child: Child, upstream: str, tmp_path: Path) -> None:
    ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": "one", "daily_limit": 7, "owner": "acme"})
    ok(child, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": "two"})
    assert refused(child, "POST", "/vault/export", {"passphrase": "short"})[0] == 400
    made = ok(child, "POST", "/vault/export", {"passphrase": PASSPHRASE})
    assert made["accounts"] == 2
    with Child(tmp_path / "other") as other:
        ok(other, "POST", "/providers", {"name": "mine", "base_url": upstream})
        ok(other, "POST", "/accounts", {"provider": "mine", "key": KEY, "label": "two"})
        wish = {"passphrase": PASSPHRASE, "data": made["data"]}
        broken = made["data"][:-8] + "AAAA" + made["data"][-4:]
        for wrong in ({"passphrase": "not that one at all"}, {"data": broken}, {"data": "AAAA"}, {"data": "?"}):
            assert refused(other, "POST", "/vault/import", {**wish, **wrong})[0] == 400
        done = ok(other, "POST", "/vault/import", wish)
        assert (done["stored"], done["there"], done["refused"]) == (["mine/one"], ["mine/two"], {})
        there = account(other, "mine/one")
        assert (there["daily_limit"], there["owner"], there["hint"]) == (7, "acme", "sk-…abcd")
        assert all(one["ok"] for one in ok(other, "POST", "/providers/mine/check")["results"])
    with Child(tmp_path / "third") as third:
        done = ok(third, "POST", "/vault/import", wish)
        assert done["stored"] == [] and "no provider" in done["refused"]["mine/one"]


def test_the_doctor_finds_what_is_wrong(child: Child) -> None:
    for label, more in (("a", {}), ("b", {"expires": 1}), ("c", {})):
        ok(
            child,
            "POST",
            "/accounts",
            {"provider": "mine", "key": f"{KEY}{label}", "label": label, "test": False, **more},
        )
    ok(child, "POST", "/accounts", {"provider": "up-a", "key": f"{KEY}c", "test": False})
    assert child.end() == 0
    with closing(sqlite3.connect(child.state / "headgate.db", isolation_level=None)) as store:
        store.execute("UPDATE accounts SET sealed = (SELECT sealed FROM accounts WHERE label = 'c') WHERE label = 'a'")
        store.execute("UPDATE accounts SET provider = 'gone', id = 'gone/c' WHERE label = 'c'")
    (child.state / "instance.key").chmod(0o644)
    with Child(child.state) as again:
        vault = ok(again, "GET", "/vault")
        found = {one["subject"].rpartition("/")[2]: one for one in vault["findings"] if one["subject"][0] != "g"}
        assert vault["ok"] is False
        assert found["a"]["mark"] == "bad" and "does not open" in found["a"]["sentence"]
        assert found["b"]["mark"] == "warning" and "expired" in found["b"]["sentence"]
        assert found["instance.key"]["mark"] == "bad" and "644" in found["instance.key"]["sentence"]
        assert any(one["subject"] == "gone/c" and "does not open" in one["sentence"] for one in vault["findings"])
        assert KEY not in str(vault)
