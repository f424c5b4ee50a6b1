"""The running gateway as the CLI finds it: its state directory, its addresses, its tokens.

Owns every request to the control API.  A token of this machine's gateway is never sent to another address.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from headgate import statedir
from headgate.settings import ConfigError, load

CLI_TOKEN = "cli.token"
START_IT = "start it with: headgate serve"


class Trouble(Exception):
    """The command cannot do its work: one sentence, the next step, an exit code."""

    def __init__(self, sentence: str, step: str = "", code: int = 1) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.step = step
        self.code = code


@dataclass(frozen=True)
class Running:
    """Where this machine's gateway is, or would be."""

    state_dir: Path
    data_url: str
    control_url: str

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request to ``/admin/v1``.  Returns the decoded answer; raises Trouble with the API's own sentence."""
        try:
            token = statedir.read_token(self.state_dir / statedir.ADMIN_TOKEN)
        except statedir.StateError as error:
            raise Trouble(str(error), "run the command as the user who runs the gateway") from error
        if token is None:
            raise Trouble(f"no gateway has been started with the state directory {self.state_dir}", START_IT)
        try:
            answer = httpx2.request(
                method,
                f"{self.control_url}/admin/v1{path}",
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                timeout=10,
                trust_env=False,  # a proxy has no business between the CLI and this machine's gateway
            )
        except httpx2.TransportError as error:
            raise Trouble(f"no gateway answers at {self.control_url}", START_IT) from error
        if answer.is_success:
            decoded: dict[str, Any] = answer.json() if answer.content else {}
            return decoded
        message, code = failure(answer.content)
        raise Trouble(
            message or f"the control API answered {answer.status_code}", code=2 if code == "managed_by_file" else 1
        )

    def cli_token(self, *, anew: bool = False) -> str:
        """The CLI's own agent token, made through the admin API on first use (or where the kept one was revoked)."""
        file = self.state_dir / CLI_TOKEN
        try:
            kept = None if anew else statedir.read_token(file)
            if kept:
                return kept
            token = str(self.call("POST", "/tokens", {"name": "cli"})["token"])
            statedir.write_private(file, token.encode() + b"\n")
        except statedir.StateError as error:
            raise Trouble(str(error), "run the command as the user who runs the gateway") from error
        return token


def find(config: str | None, state_dir: str | None) -> Running:
    """The gateway that the configuration describes; where one runs, the addresses that it wrote down.

    Raises Trouble (exit code 2) on a bad configuration.
    """
    try:
        settings = load(config, os.environ, {"state_dir": state_dir} if state_dir else {})
    except ConfigError as error:
        raise Trouble("; ".join(error.problems), "headgate config check", code=2) from error
    data, control = settings.data_url, settings.control_url
    try:
        noted = json.loads((settings.state_dir / statedir.ADDRESSES).read_bytes())
        data, control = str(noted["data"]), str(noted["control"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing runs, or an older release does: the configured addresses are the best guess
    return Running(settings.state_dir, data, control)


def failure(body: bytes) -> tuple[str, str]:
    """Message and code of an error body, empty where it is none."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"]), str(error["code"])
    except (ValueError, KeyError, TypeError):
        return "", ""
