"""What is odd about a user's arguments, files and standard output is a sentence, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headgate.cli.display.terminal import moment

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


def sentence(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "set", "builtin/lorem", "--input-price", "inf"),
        ("models", "unset", "a/../../tokens/x"),
        ("token", "create", "\udcff"),
        ("token", "show", "\udcff"),
        ("requests", "--label", "\udcff"),
    ],
)
def test_arguments_that_cannot_be_meant(shell: Shell, arguments: tuple[str, ...]) -> None:
    sentence(shell.run(*arguments), 2, "headgate: ")


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (("models", "show", "a/../b"), "headgate models"),
        (("token", "show", ".."), "headgate token"),
        (("vault", "remove", "groq/.."), "headgate vault"),
        (("providers", "show", ".."), "headgate providers"),
    ],
)
def test_the_next_step_is_a_command_that_there_is(shell: Shell, arguments: tuple[str, ...], step: str) -> None:
    assert shell.run(*arguments).stderr.endswith(f"is no name\n  → {step}\n")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("budget", "set", "ads", "--user", "ann", "--hard"), "--usd"),
        (("tenant", "set", "acme", "--hard"), "--budget"),
        (("vault", "add", "groq", "--on-spent", "warn"), "--spend-limit"),
        (("vault", "edit", "groq", "--on-spent", "warn"), "--spend-limit"),
        (("vault", "edit", "groq", "--spend-limit", "0", "--on-spent", "warn"), "--spend-limit"),
    ],
)
def test_an_option_without_the_one_that_it_belongs_to(shell: Shell, arguments: tuple[str, ...], option: str) -> None:
    sentence(shell.run(*arguments), 2, f"→ give {option}, like ")


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_a_message_that_is_no_text(shell: Shell, locale: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "chat", "-", "--url", "http://127.0.0.1:9", "--token", "x"],
        cwd=shell.home, env={**shell.environ, "LC_ALL": locale}, input=b"\xff", capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr
    assert b"headgate: " in done.stderr
    sentence(shell.run("chat", "x", "--url", "http://[::", "--token", "x"), 2, "cannot be sent")
    sentence(shell.run("chat", "x", "--url", "http://127.0.0.1:9", "--token", "é"), 2, "cannot be sent")


@pytest.mark.parametrize("name", ["instance.key", "vault.key"])
def test_a_damaged_key_file(shell: Shell, name: str) -> None:
    shell.run("token", "list")
    (shell.state / name).write_bytes(b"short")
    sentence(shell.run("token", "list"), 1, f"{name} is damaged")
    assert f"{name} is damaged" in shell.run("doctor").stdout


def test_standard_output_that_takes_nothing(shell: Shell) -> None:
    full = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m headgate aliases > /dev/full"],
        cwd=shell.home, env=shell.environ, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    sentence(full, 1, "No space left on device")
    closed = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m headgate aliases >&-"],
        cwd=shell.home, env=shell.environ, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    sentence(closed, 0, "")


def test_an_instant_that_no_calendar_has() -> None:
    assert moment(253_402_387_139.0) == moment(1e18) == "after the year 9999"


def test_a_state_directory_below_a_file(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    sentence(shell.run("token", "list", "--state-dir", str(file / "state")), 1, "Not a directory")
