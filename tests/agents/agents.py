"""The coding agents: how each is started headless against a gateway, and what it calls its tools.

Adding an agent is one row in ``AGENTS`` and its package in ``package.json``.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.agents.turns import ToolUse, Turn
from tests.lock import locked
from tests.node.clients import program

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
ALIAS = "claude-chain"  # some agents take only models that are named like their maker's
BEFORE, AFTER = "the quick brown fox\n", "the quick red fox\n"


class Agent(NamedTuple):
    """``command`` gets the prompt, ``environment`` the gateway's URL, a token and an empty home.  ``turns`` is its part
    of the script: read the file, edit it, and say so.
    """

    name: str
    command: Callable[[str], list[str]]
    environment: Callable[[str, str, Path], dict[str, str]]
    turns: Callable[[Path], tuple[Turn, ...]]


# ------------------------------------------------------------------------------------- Claude Code


def _claude_command(prompt: str) -> list[str]:
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    binary = MODULES / "@anthropic-ai" / f"claude-code-{platform.system().lower()}-{machine}" / "claude"
    return [
        str(binary), "-p", prompt, "--output-format", "json", "--model", ALIAS, "--allowedTools", "Read", "Edit",
    ]  # fmt: skip


def _claude_environment(url: str, token: str, home: Path) -> dict[str, str]:
    models = {f"ANTHROPIC_DEFAULT_{name}_MODEL": ALIAS for name in ("OPUS", "SONNET", "HAIKU")}
    quiet = ("DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER", "DISABLE_ERROR_REPORTING", "DISABLE_BUG_COMMAND")
    return {
        "ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": token, "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", **dict.fromkeys(quiet, "1"), **models,
    }  # fmt: skip


def _claude_turns(file: Path) -> tuple[Turn, ...]:
    edit = {"file_path": str(file), "old_string": "brown", "new_string": "red"}
    return (
        Turn("I read the file first.", (ToolUse("Read", {"file_path": str(file)}),), "The file comes first."),
        Turn("Now I edit it.", (ToolUse("Edit", edit),)),
        Turn("The fox is red now, as you wished."),
    )


AGENTS = (Agent("claude-code", _claude_command, _claude_environment, _claude_turns),)


# ------------------------------------------------------------------------------------- running one


def install() -> None:
    """Install what package-lock.json names, where that has not been done (or the lock file is newer)."""
    done, lock = MODULES / ".package-lock.json", HERE / "package-lock.json"
    with locked("agents"):
        if not (done.exists() and done.stat().st_mtime >= lock.stat().st_mtime):
            path = os.pathsep.join([str(Path(program("node")).parent), os.environ.get("PATH", os.defpath)])
            command = [program("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(
                command, cwd=HERE, check=True, timeout=900, capture_output=True, env={**os.environ, "PATH": path}
            )


def _path() -> str:
    return os.pathsep.join([str(Path(program("node")).parent), os.environ.get("PATH", os.defpath)])


def run(agent: Agent, prompt: str, folder: Path, url: str, token: str) -> subprocess.CompletedProcess[str]:
    """Run the agent in ``folder / "work"``, with an empty home beside it."""
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    environment: dict[str, Any] = {**kept, "PATH": _path(), "HOME": str(home), **agent.environment(url, token, home)}
    return subprocess.run(
        agent.command(prompt), cwd=folder / "work", env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
