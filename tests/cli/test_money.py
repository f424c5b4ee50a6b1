"""What ``headgate usage`` says of calls on a running gateway: reports, the ledger, corrections, a provider's export."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.cli.conftest import MODEL
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Gateway


@pytest.mark.parametrize("by", ["model", "provider", "token", "alias", "day", "outcome", "hour", "tenant"])
def test_usage(mock: Gateway, by: str) -> None:
    mock.good("chat", "-m", MODEL, "one two three")
    rows = wait_until(lambda: mock.told("usage", "--by", by, "--since", "7d"))
    assert sum(row["requests"] for row in rows) >= 1
    table = mock.good("usage", "--by", by)
    assert by.upper() in table and "█" in table
    never = mock.run("usage", "--until", "2020-01-01", "--since", "2019-01-01T12:00")
    assert never.stdout.startswith("no requests")
    assert never.stderr == "from 2019-01-01 to 2019-12-31, whole days (UTC)\n"


def test_usage_by_tag_session_and_user(mock: Gateway) -> None:
    """As the client named them; the CSV has the same figures as the JSON."""
    answer = httpx2.post(
        f"{mock.data_url}/v1/chat/completions",
        verify=False,
        headers={"authorization": "Bearer hg_test_0123456789abcdef", "x-session-id": "s-7"},
        json={
            "model": MODEL,
            "user": "ann",
            "messages": [{"role": "user", "content": "x"}],
            "headgate": {"metadata": {"team": "search"}},
        },
    )
    assert answer.status_code == 200, answer.text
    for by, group in (("tag", "team=search"), ("session", "s-7"), ("user", "ann")):
        found = mock.told("usage", "--by", by)
        assert [row["group"] for row in found if row["group"] == group], (found, mock.told("requests"))
        (row,) = [row for row in found if row["group"] == group]
        assert row["requests"] == 1 and row["operator_cost_usd"] == row["cost_usd"] > 0
    csv = mock.good("usage", "--tag", "team=search", "--by", "user", "--csv").splitlines()
    assert csv[0].startswith("group,requests,") and csv[1].startswith("ann,1,") and len(csv) == 2


def test_ledger_holds_and_corrected_price_is_posted_once(mock: Gateway, tmp_path: Path) -> None:
    mock.good("chat", "-m", MODEL, "one two three")
    assert mock.told("usage", "verify")["ok"]
    assert "nothing was changed" not in mock.run("usage", "reprice").stderr
    mock.good("models", "set", MODEL, "--input-price", "3", "--output-price", "6")
    try:
        (change,) = [one for one in mock.told("usage", "reprice")["data"] if one["model"] == "echo"]
        assert change["difference_usd"] == pytest.approx(change["charged_usd"] / 2, rel=0.01)
        assert "corrections were posted" in mock.run("usage", "reprice", "--apply").stderr
        assert mock.told("usage", "reprice")["data"] == []
        assert "NO" not in mock.good("usage", "verify")
    finally:
        mock.good("models", "set", MODEL, "--input-price", "2", "--output-price", "4")
    export = tmp_path / "costs.json"
    day = int(time.time()) // 86_400 * 86_400
    result = {"amount": {"value": 1.0, "currency": "usd"}}
    export.write_text(json.dumps({"data": [{"start_time": day, "end_time": day + 86_400, "results": [result]}]}))
    found = mock.told("usage", "reconcile", str(export), "--provider", "mock")
    assert 0 < found["total"]["capture_rate"] < 1
    assert "CAPTURED" in mock.good("usage", "reconcile", str(export), "--provider", "mock")
    export.write_text("a,b\n")
    assert mock.run("usage", "reconcile", str(export)).returncode == 2
    assert mock.run("usage", "reconcile", str(export), "--provider", "no name").returncode == 2


def test_unknown_cost_is_never_nothing(mock: Gateway) -> None:
    mock.good("chat", "-m", "mock/lorem", "x")  # no price is known for it
    (row,) = wait_until(lambda: mock.told("requests", "--requested", "mock/lorem", "-n", "1"))
    assert row["cost_usd"] is None
    assert "unknown" in mock.good("requests", "show", row["id"])
    used = wait_until(lambda: [one for one in mock.told("usage") if one["unpriced_requests"]])
    assert all(one["cost_usd"] is None or one["cost_usd"] > 0 for one in used)
    assert "unknown" in mock.good("usage")
