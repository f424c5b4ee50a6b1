"""``make fuzz`` in its fast profile: some hundred streams, always the same ones; and that it can fail."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headgate.testing.faults.client import Heard
from headgate.testing.faults.fuzz import stream


def fuzz(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "headgate.testing.faults.fuzz", *arguments], capture_output=True, text=True, timeout=240
    )
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout


def test_no_stream_is_wrong() -> None:
    code, out = fuzz("--streams", "400", "--seed", "11")
    assert out.splitlines()[-1].endswith(" 0 wrong") and out.splitlines()[-1].startswith("400 of 400 streams")
    assert code == 0


def test_a_stream_depends_on_its_number_alone() -> None:
    assert stream(7, 41) == stream(7, 41) and stream(7, 41) != stream(7, 42) != stream(8, 42)


def test_what_is_not_the_answer_is_wrong() -> None:
    one = next(one for number in range(100) if len((one := stream(1, number)).text) > 20)
    usage = {"prompt_tokens": 20, "completion_tokens": 5}
    fine = {"status": 200, "ids": {"a"}, "models": {"m"}, "roles": 1, "finishes": [one.finish], "done": 1}
    assert one.judge(Heard(text=one.text, usage=usage, **fine)) == "exact"
    for text in (one.text[:-1], one.text + one.text, one.text[:5] + one.text[6:], ""):
        assert "not the answer" in one.judge(Heard(text=text, usage=usage, **fine))
    assert "finish" in one.judge(Heard(text=one.text, usage=usage, **{**fine, "done": 0}))
    error = {"message": "m", "not_continued": "why"}
    assert one.judge(Heard(text=one.text[:5], status=200, error=error)) == "truthful"
    assert one.judge(Heard(text="?", status=200, error=error)) != "truthful"
    assert one.judge(Heard(text=one.text[:5], status=200, error={"message": "m"})) != "truthful"
    assert one.judge(Heard(text=one.text[:5], status=200, error=error, done=1)) != "truthful"


@pytest.mark.parametrize("wrong", [["--streams", "many"], ["--only"], ["--fast", "1"]])
def test_a_wrong_command_line_plays_nothing(wrong: list[str]) -> None:
    assert fuzz(*wrong)[0] == 2
