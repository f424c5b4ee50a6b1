"""What a command imports before it does anything, and what the shell completes.

Modules are counted, not seconds: what takes long is the import of libraries.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headgate.cli.commands import app
from headgate.cli.parsing import completion

if TYPE_CHECKING:
    from tests.cli.conftest import Gateway, Shell

HEAVY = {
    "pydantic", "pydantic_core", "rich", "httpx2", "asyncio", "sqlalchemy", "alembic", "fastapi", "uvicorn", "yaml",
    "msgspec", "structlog", "cryptography", "genai_prices", "http.client", "headgate.settings", "headgate.control",
    "headgate.serving", "headgate.catalog.presets",
}  # fmt: skip
MODULES = 210  # Typer's own are 130
PRINT_MODULES = (
    "import sys, atexit\n"
    "atexit.register(lambda: print('MODULES', *sorted(sys.modules), file=sys.stderr))\n"
    "sys.argv = ['headgate', *sys.argv[1:]]\n"
    "from headgate.cli import main\n"
    "main()\n"
)


def modules_of(shell: Shell, *arguments: str, environ: dict[str, str] | None = None) -> tuple[str, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PRINT_MODULES, *arguments], cwd=shell.home, env={**shell.environ, **(environ or {})},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout, set(done.stderr.partition("MODULES ")[2].split())


def completing(words: str) -> dict[str, str]:
    return {
        "_HEADGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        *[(noun, "--help") for noun in ("chat", "status", "models", "providers", "aliases", "token", "requests")],
        *[(noun, "--help") for noun in ("vault", "usage", "explain", "doctor", "config", "conform", "detect")],
        ("token", "create", "--help"),
    ],
)
def test_help_imports_no_library(shell: Shell, arguments: tuple[str, ...]) -> None:
    shown, modules = modules_of(shell, *arguments)
    assert "Usage: headgate" in shown
    assert not HEAVY & modules and len(modules) < MODULES, sorted(HEAVY & modules) or len(modules)


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_of_commands_imports_no_library(shell: Shell, shell_name: str) -> None:
    environ = {**completing("headgate tok"), "_HEADGATE_COMPLETE": f"complete_{shell_name}"}
    environ |= {"_TYPER_COMPLETE_ARGS": "headgate tok", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    shown, modules = modules_of(shell, environ=environ)
    assert "token" in shown
    assert not HEAVY & modules and len(modules) < MODULES, sorted(HEAVY & modules) or len(modules)


@pytest.mark.parametrize(
    "command",
    [
        ("status", "--json"),
        ("token", "list", "--json"),
        ("requests", "--json"),
        ("usage", "--json"),
        ("doctor", "--json"),
    ],
)
def test_commands_import_no_client_library(gateway: Gateway, command: tuple[str, ...]) -> None:
    shown, modules = modules_of(gateway, *command)
    assert json.loads(shown) is not None
    assert not (HEAVY - {"http.client"}) & modules


def completed(shell: Shell, words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "headgate"], cwd=shell.home, env={**shell.environ, **completing(words)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split("\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("headgate chat -m head", "headgate/chat"),
        ("headgate chat --model builtin/l", "builtin/lorem"),
        ("headgate aliases show headgate/c", "headgate/coding"),
        ("headgate alias set my/x builtin/e", "builtin/echo"),
        ("headgate aliases set my/x --strategy ch", "cheapest"),
        ("headgate token revoke c", "ci"),
        ("headgate token create x --scopes gate:chat,gate:m", "gate:chat,gate:models"),
        ("headgate providers show b", "builtin"),
        ("headgate vault add gro", "groq"),
        ("headgate requests --outcome f", "failed"),
        ("headgate serve --log-format j", "json"),
    ],
)
def test_names_of_the_running_gateway_are_completed(gateway: Gateway, words: str, found: str) -> None:
    assert found in completed(gateway, words)


@pytest.mark.parametrize("words", ["headgate chat -m head", "headgate token revoke c"])
def test_without_a_gateway_nothing_is_completed_and_nothing_said(shell: Shell, words: str) -> None:
    assert not any(completed(shell, words))
    assert not shell.state.exists()


def test_every_place_of_the_table_exists() -> None:
    from typer.main import get_command

    def parameters(command: Any, path: str) -> dict[str, set[str]]:
        found = {path: {one.name for one in command.params}}
        for name, below in getattr(command, "commands", {}).items():
            below = below.loaded() if hasattr(below, "loaded") else below
            found |= parameters(below, f"{path} {name}".strip())
        return found

    there = parameters(get_command(app), "")
    for path, sources in completion.WHERE.items():
        assert sources.keys() <= there[path], path
