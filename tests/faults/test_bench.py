"""``make faults`` in its fast profile, and that it can fail."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEEDS_NO_FALLBACK = {1, 3, 5, 10, 11, 13}


def bench(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "headgate.testing.faults.bench", *arguments], capture_output=True, text=True, timeout=110
    )
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout


def test_sixteen_of_sixteen() -> None:
    code, out = bench()
    assert out.splitlines()[-1] == "16 of 16"
    assert code == 0


def test_without_its_fallback_the_gateway_fails() -> None:
    code, out = bench("--no-fallback")
    rows = {int(line.split()[0]): line for line in out.splitlines() if line[0].isdigit() and " of 16" not in line}
    assert {number for number, line in rows.items() if "FAIL" not in line} <= NEEDS_NO_FALLBACK
    assert len(rows) == 16
    assert code == 1


@pytest.mark.parametrize("wrong", [["--profile", "slow"], ["--only", "99"], ["--only"], ["--fast"]])
def test_a_wrong_command_line_checks_nothing(wrong: list[str]) -> None:
    assert bench(*wrong)[0] == 2
