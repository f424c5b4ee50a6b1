"""What the serve terminal shows of calls: a line each, failures explained once, few of a flood."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from headgate.control.ingest.call_log import COLUMNS, MOST, QUIET_S, CallLog, Names
from headgate.control.ingest.receipts import Batch
from headgate.model import AttemptRecord
from headgate.process.log import LineForm

PLAIN, JSON = LineForm(False, False, False), LineForm(True, False, False)
NAMES = Names({"tok1": "laptop"}, {"openai": "https://api.openai.com/v1", "local": "http://127.0.0.1:8080/v1"})
BASE: dict[str, Any] = {
    "id": "chatcmpl-1", "created_at": 1_700_000_000_000_000_000, "closed_at": 1_700_000_001_500_000_000,
    "grant_id": "tok1", "requested": "headgate/chat", "provider": "openai", "model": "gpt-5-mini",
    "prompt_tokens": 12, "completion_tokens": 345, "basis": "provider", "outcome": "delivered", "status": 200,
    "code": "", "cost": 1_234_000, "duration_us": 1_500_000, "ttft_us": 210_000, "attempts": "[]",
}  # fmt: skip


def row(**changes: Any) -> tuple[Any, ...]:
    return tuple({**BASE, **changes}.get(name) for name in COLUMNS)


def failed(code: str, *, provider: str = "openai", account: str = "openai/0", status: int = 401) -> str:
    attempt = AttemptRecord(provider, "gpt-5-mini", account, status, code, 0, 900_000)
    return msgspec.json.encode((attempt,)).decode()


class Terminal:
    def __init__(self, form: LineForm = PLAIN) -> None:
        self.writes: list[str] = []
        self.now = 0.0
        self.log = CallLog(self.writes.append, form, lambda: NAMES, lambda: self.now)

    def shown(self, *rows: tuple[Any, ...], refused: list[Any] | None = None) -> list[str]:
        self.writes.clear()
        self.log(Batch(closed=list(rows), refused=refused or []))
        assert len(self.writes) <= 1  # one write a reading, however many calls
        return self.writes[0].splitlines() if self.writes else []


def test_a_call_is_a_line() -> None:
    (line,) = Terminal().shown(row())
    assert line == (
        "2023-11-14T22:13:21Z info    call     headgate/chat → openai/gpt-5-mini  delivered  12+345 tokens  $0.001234  "
        "1.50 s  laptop  chatcmpl-1"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cost": None}, "cost unknown"),
        ({"cost": 0}, "$0  "),
        ({"basis": "estimated"}, "~12+345 tokens"),
        ({"duration_us": 42_000}, "42 ms"),
        ({"requested": "openai/gpt-5-mini"}, "call     openai/gpt-5-mini  delivered"),
        ({"outcome": "failed", "code": "upstream_timeout"}, "warning call     headgate/chat"),
        ({"outcome": "failed", "code": "upstream_timeout"}, "failed upstream_timeout"),
        ({"outcome": "cancelled"}, "info    call"),
        ({"provider": "", "model": ""}, "headgate/chat  delivered"),
        ({"requested": "a\x1b[31m\nb"}, r"a\x1b[31m\x0ab"),
        ({"grant_id": "gone"}, "gone"),
    ],
)
def test_what_a_line_says(changes: dict[str, Any], words: str) -> None:
    (line,) = Terminal().shown(row(**changes))
    assert words in line


def test_json_has_the_same_as_members() -> None:
    (line,) = Terminal(JSON).shown(row(cost=None))
    told = json.loads(line)
    assert (told["target"], told["token"], told["cost_usd"]) == ("openai/gpt-5-mini", "laptop", None)
    assert (told["prompt_tokens"], told["duration_ms"], told["ttft_ms"]) == (12, 1500, 210)


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("upstream_auth_failed", "headgate vault add openai"),
        ("upstream_unreachable", "headgate providers check openai"),
        ("rate_limit_exceeded", "second key"),
        ("upstream_hollow_answer", "headgate explain chatcmpl-1"),
    ],
)
def test_upstream_failure_names_the_next_step(code: str, step: str) -> None:
    failure, call = Terminal().shown(row(attempts=failed(code)))
    assert "warning upstream" in failure and "provider=openai  address=https://api.openai.com/v1" in failure
    assert f"code={code}" in failure and step in failure and "delivered" in call


def test_one_failure_is_explained_once_in_a_while() -> None:
    terminal = Terminal()
    flaw = row(attempts=failed("upstream_auth_failed"))
    assert len(terminal.shown(flaw, flaw, flaw)) == 1 + 3
    assert len(terminal.shown(flaw)) == 1
    assert len(terminal.shown(row(attempts=failed("upstream_auth_failed", account="openai/1")))) == 2
    terminal.now = QUIET_S + 1
    assert len(terminal.shown(flaw)) == 2


def test_of_a_flood_failures_are_shown_and_the_rest_is_counted() -> None:
    bad = row(id="chatcmpl-bad", outcome="failed", code="upstream_timeout")
    lines = Terminal().shown(*[row() for _ in range(5000)], bad)
    assert len(lines) == MOST + 1 and any("chatcmpl-bad" in line for line in lines)
    assert f"{5001 - MOST} more calls" in lines[-1] and "delivered=5000" in lines[-1]


def test_only_failures_where_only_warnings_are_wanted() -> None:
    terminal = Terminal()
    asyncio.run(terminal.log.listener(everything=False)(Batch(closed=[row(), row(outcome="failed", id="chatcmpl-2")])))
    assert "chatcmpl-2" in terminal.writes[0] and "chatcmpl-1" not in terminal.writes[0]


def test_refusals_without_a_token_are_counted_by_code() -> None:
    (line,) = Terminal().shown(refused=[(1_700_000_000, "invalid_api_key", 3)])
    assert "invalid_api_key" in line and "count=3" in line


def test_a_row_that_cannot_be_shown_costs_its_line_only() -> None:
    assert Terminal().shown(row(attempts="no JSON")) == []
