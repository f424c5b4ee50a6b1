"""Whose answer it is, and whose it should have been: the headers and the figures that tell a fallback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headgate.model import TargetRef
from tests.dataplane import DataPlane
from tests.serving.calls import Answer, Script, whole_stream
from tests.serving.test_failed_attempts import FINE, ask, chain, refused

BUSY = refused(b"503 Service Unavailable")
WELL: Script = [("expect_request",), ("send", whole_stream(FINE, b"connection: close")), ("close",)]


def told(plane: DataPlane, stream: bool, **more: Any) -> tuple[str | None, str | None, bool, int]:
    """(attempts, fallback-from, the body's fallback_used, its attempts)."""
    if stream:
        more["stream_options"] = {"include_usage": True}
    answer: Answer = ask(plane, stream, **more)
    assert answer.status == 200, answer.raw
    ours = (answer.chunks[-1] if stream else answer.json)["headgate"]
    headers = answer.headers
    return (
        headers.get("x-headgate-attempts"), headers.get("x-headgate-fallback-from"), ours["fallback_used"],
        ours["attempts"],
    )  # fmt: skip


def test_ejected_first_choice_counts_as_fallback(tmp_path: Path) -> None:
    """Also where nobody asked it any more."""
    with chain(tmp_path / "s", [BUSY], [WELL]) as (plane, (p0, _)):
        assert told(plane, True) == ("2", "p0/m", True, 2)
        asked = 0
        while asked < len(p0.requests):
            asked = len(p0.requests)
            found = told(plane, True)
        assert found == ("1", "p0/m", True, 1)
        assert told(plane, False)[:3] == ("1", "p0/m", True)


def test_who_was_drawn_first_was_the_first_choice(tmp_path: Path) -> None:
    drawn = (TargetRef("p0/m", weight=1), TargetRef("p1/m", weight=1_000_000))
    with chain(tmp_path / "s", [WELL], [WELL, BUSY], targets=drawn, strategy="weighted") as (plane, _):
        assert told(plane, True) == ("1", None, False, 1)
        assert told(plane, True) == ("2", "p1/m", True, 2)
