"""How a call is drawn whose data process ended."""

from __future__ import annotations

from typing import Any

from headgate.cli.display.layout import lines_of
from headgate.cli.display.timeline import timeline
from headgate.cli.nouns.requests import _outcome


def drawn(row: dict[str, Any]) -> str:
    return "".join(line.plain for line in lines_of(timeline(row), None))


def test_a_lost_call_is_not_said_to_have_asked_nobody() -> None:
    row: dict[str, Any] = {"outcome": "lost", "code": "lost", "attempts": []}
    assert _outcome(row) == "lost"
    assert "how far it got is not known" in drawn(row)
    assert "no provider was asked" in drawn({**row, "outcome": "refused"})
