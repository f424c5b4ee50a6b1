"""The coding agents: how each is started headless against a gateway, and what it calls its tools.

Adding an agent is one row in ``AGENTS`` and its package in ``package.json``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.agents.turns import ToolUse, Turn
from tests.lock import locked
from tests.node.clients import program

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
ALIAS = "claude-chain"  # some agents take only models that are named like their maker's
BEFORE, AFTER = "the quick brown fox\n", "the quick red fox\n"


class Agent(NamedTuple):
    """``command`` gets the prompt.  ``environment`` gets the gateway's URL, a token and an empty home, where it writes
    the agent's settings.  ``turns`` is its part of the script: read the file, edit it, and say so.  ``tool_calls`` is
    that of its alias.
    """

    name: str
    command: Callable[[str], list[str]]
    environment: Callable[[str, str, Path], dict[str, str]]
    turns: Callable[[Path], tuple[Turn, ...]]
    tool_calls: str = "stream"


# ------------------------------------------------------------------------------------- Claude Code


def _claude_command(prompt: str) -> list[str]:
    binary = MODULES / "@anthropic-ai" / f"claude-code-{_platform()}" / "claude"
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
    return _script(ToolUse("Read", {"file_path": str(file)}), ToolUse("Edit", edit))


# ------------------------------------------------------------------------------------- Codex

_CODEX_SETTINGS = """\
model = "{model}"
model_provider = "headgate"
check_for_update_on_startup = false
analytics.enabled = false
features.plugins = false

[model_providers.headgate]
name = "Headgate"
base_url = "{url}/v1"
env_key = "HEADGATE_TOKEN"
wire_api = "responses"
"""


def _codex_command(prompt: str) -> list[str]:
    (binary,) = (MODULES / "@openai" / f"codex-{_platform()}" / "vendor").glob("*/bin/codex")
    return [str(binary), "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", prompt]


def _codex_environment(url: str, token: str, home: Path) -> dict[str, str]:
    _write(home / ".codex" / "config.toml", _CODEX_SETTINGS.format(model=ALIAS, url=url))
    return {"HEADGATE_TOKEN": token}


def _codex_turns(file: Path) -> tuple[Turn, ...]:
    commands = (f"cat {file}", f"sed -i s/brown/red/ {file}")
    read, edit = (ToolUse("exec_command", {"cmd": command}) for command in commands)
    return _script(read, edit)


# ------------------------------------------------------------------------------------- Gemini CLI


def _gemini_command(prompt: str) -> list[str]:
    script = MODULES / "@google" / "gemini-cli" / "bundle" / "gemini.js"
    return [program("node"), str(script), "-p", prompt, "--model", ALIAS, "--yolo", "--skip-trust"]


def _gemini_environment(url: str, token: str, home: Path) -> dict[str, str]:
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "telemetry": {"enabled": False},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    }
    _write(home / ".gemini" / "settings.json", json.dumps(settings))
    return {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": token, "GEMINI_CLI_NO_RELAUNCH": "true"}


def _gemini_turns(file: Path) -> tuple[Turn, ...]:
    where = {"file_path": str(file)}
    edit = {**where, "instruction": "Make the fox red.", "old_string": "brown", "new_string": "red"}
    return _script(ToolUse("read_file", where), ToolUse("replace", edit))


# ------------------------------------------------------------------------------------- opencode


def _opencode_command(prompt: str) -> list[str]:
    return [str(MODULES / f"opencode-{_platform()}" / "bin" / "opencode"), "run", prompt]


def _opencode_environment(url: str, token: str, home: Path) -> dict[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{url}/v1", "apiKey": token},
        "models": {ALIAS: {"name": ALIAS, "limit": {"context": 200_000, "output": 8_000}}},
    }
    settings = {
        "autoupdate": False, "share": "disabled", "model": f"headgate/{ALIAS}", "provider": {"headgate": provider},
    }  # fmt: skip
    quiet = ("AUTOUPDATE", "MODELS_FETCH", "DEFAULT_PLUGINS", "LSP_DOWNLOAD")
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(settings), **{f"OPENCODE_DISABLE_{name}": "1" for name in quiet}}


def _opencode_turns(file: Path) -> tuple[Turn, ...]:
    where = {"filePath": str(file)}
    return _script(ToolUse("read", where), ToolUse("edit", {**where, "oldString": "brown", "newString": "red"}))


# ------------------------------------------------------------------------------------- all


def _platform() -> str:
    """Return the machine as the packages name it."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{platform.system().lower()}-{machine}"


def _script(read: ToolUse, edit: ToolUse) -> tuple[Turn, ...]:
    return (
        Turn("I read the file first.", (read,), "The file comes first."),
        Turn("Now I edit it.", (edit,)),
        Turn("The fox is red now, as you wished."),
    )


def _write(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)


AGENTS = (
    Agent("claude-code", _claude_command, _claude_environment, _claude_turns),
    Agent("codex", _codex_command, _codex_environment, _codex_turns),
    Agent("gemini-cli", _gemini_command, _gemini_environment, _gemini_turns),
    # It asks no second time when a stream breaks off, so it must not have a part of a call by then
    Agent("opencode", _opencode_command, _opencode_environment, _opencode_turns, tool_calls="hold"),
)


# ------------------------------------------------------------------------------------- running one

# Calls beyond the machine end at a closed port; what npm would fetch is not asked for.
_NOWHERE = "http://127.0.0.1:9"
_ISOLATED = {
    "HTTP_PROXY": _NOWHERE, "HTTPS_PROXY": _NOWHERE, "NO_PROXY": "127.0.0.1,localhost", "NPM_CONFIG_OFFLINE": "true",
}  # fmt: skip


def install() -> None:
    """Install what package-lock.json names, where that has not been done (or the lock file is newer)."""
    done, lock = MODULES / ".package-lock.json", HERE / "package-lock.json"
    with locked("agents"):
        if not (done.exists() and done.stat().st_mtime >= lock.stat().st_mtime):
            command = [program("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(
                command, cwd=HERE, check=True, timeout=900, capture_output=True, env={**os.environ, "PATH": _path()}
            )


def _path() -> str:
    return os.pathsep.join([str(Path(program("node")).parent), os.environ.get("PATH", os.defpath)])


def run(agent: Agent, prompt: str, folder: Path, url: str, token: str) -> subprocess.CompletedProcess[str]:
    """Run the agent in ``folder / "work"``, with an empty home beside it."""
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    environment = {**kept, "PATH": _path(), "HOME": str(home), **_ISOLATED}
    environment |= agent.environment(url, token, home)
    return subprocess.run(
        agent.command(prompt), cwd=folder / "work", env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
