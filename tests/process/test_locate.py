"""When a changed file may be read: pure, the clock is an argument."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.process.locate import QUIET_S, Stamp, stamp, unfinished

S = 1_000_000_000
READ: Stamp = (100 * S, 50, 7)


@pytest.mark.parametrize(
    ("now", "at", "expected"),
    [
        (READ, 100.5, False),  # nothing changed
        ((101 * S, 60, 7), 101.5, True),  # written in place, just now
        ((101 * S, 60, 7), 101 + QUIET_S, False),  # and nothing since
        ((101 * S, 60, 8), 101.1, False),  # another file in its place
        (None, 101.1, False),  # gone
        ((200 * S, 60, 7), 101.0, False),  # a clock that went back
        ((50 * S, 60, 7), 101.0, False),  # copied with its time
    ],
)
def test_a_file_that_is_being_written_is_left_alone(now: Stamp, at: float, expected: bool) -> None:
    assert unfinished(READ, now, at) is expected


def test_a_file_that_is_new_may_be_half_written() -> None:
    assert unfinished(None, READ, 100.5) and not unfinished(None, READ, 103)


def test_a_stamp_tells_a_rename_from_a_write(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a")
    other.write_text("a")
    before = stamp(one)
    assert before is not None and stamp(tmp_path / "nothing") is None and stamp(None) is None
    other.replace(one)
    after = stamp(one)
    assert after is not None and after[2] != before[2]
