"""Help and misuse of every command: one style, nothing cut, no library's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from headgate.cli import main
from headgate.cli.commands import app
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


def every(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command and each noun, with the words that lead to it."""
    command = command.loaded() if hasattr(command, "loaded") else command
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from every(below, (*path, name))


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["headgate", *words])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_every_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    seen = 0
    for path, _ in every(get_command(app)):
        code, out, err = shown(capsys, monkeypatch, *path, flag)
        assert (code, err) == (0, "") and out.startswith("Usage: headgate"), path
        assert not re.search(r"<(bool|str|int|float|list)", out), path
        assert not re.search(r"^  .*\w\.\.\.$", out, re.M), (path, out)
        assert all(len(line) <= 80 for line in out.splitlines()), path
        assert "-h, --help" in out, path
        seen += 1
    assert seen > 40


@pytest.mark.parametrize(
    ("words", "sentence", "step"),
    [
        (("modles",), "no such command 'modles'; did you mean 'models'?", "headgate --help"),
        (("token", "create"), "missing argument", "headgate token create --help"),
        (("token", "create", "a", "b"), "unexpected: b", "headgate token create --help"),
        (("models", "--sort", "foo"), "'foo' is not one of usage, name", "headgate models list --help"),
        (("models", "-n", "x"), "'x' is not a whole number", "headgate models list --help"),
        (("models", "-n", "0"), "out of range", "headgate models list --help"),
        (
            ("requests", "--followw"),
            "no such option: --followw; did you mean --follow?",
            "headgate requests list --help",
        ),
        (("usage", "--by", "x"), "'x' is not one of model, provider", "headgate usage list --help"),
        (("serve", "--prot", "1"), "--prot", "headgate serve --help"),
        (("serve", "--port", "x"), "--port", "headgate serve --help"),
    ],
)
def test_misuse_is_a_sentence_and_a_step(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    sentence: str,
    step: str,
) -> None:
    code, out, err = shown(capsys, monkeypatch, *words)
    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert first.startswith("headgate: ") and sentence in first and not first.endswith((".", "?."))
    assert second == f"  → {step}"
    assert "Value error" not in err and "Input should" not in err


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        (("token", "rm"), "revoke"), (("token", "delete"), "revoke"), (("token", "ls"), "list"),
        (("vault", "rm"), "remove"), (("keys", "ls"), "list"), (("aliases", "rm"), "unset"), (("alias", "add"), "set"),
        (("models", "rm"), "unset"), (("providers", "delete"), "remove"), (("requests", "get"), "show"),
        (("stop",), "drain"), (("start",), "serve"),
    ],
)  # fmt: skip
def test_words_of_other_tools(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: tuple[str, ...], meant: str
) -> None:
    theirs = shown(capsys, monkeypatch, *word, "-h")
    ours = shown(capsys, monkeypatch, *word[:-1], meant, "-h")
    assert theirs[0] == ours[0] == 0
    assert theirs[1].splitlines()[1:] == ours[1].splitlines()[1:]


def test_version_has_two_spellings(shell: Shell) -> None:
    assert shell.good("version") == shell.good("--version")


def test_make_help_lists_every_target(shell: Shell) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", makefile, re.M)
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert phony and set(phony[1].split()) == set(targets)
