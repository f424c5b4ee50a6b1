"""The environment of the Python clients that are too heavy for the project's own: made once, when a test needs it.

``.venv/clients`` holds what ``requirements-clients.txt`` pins, every file checked against its hash.  ``python`` gives
its interpreter, or skips the test with the reason where it cannot be made.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.lock import locked
from tests.paths import ROOT

REQUIREMENTS = ROOT / "requirements-clients.txt"
FOLDER = ROOT / ".venv" / "clients"
WITHIN_S = 900


def python() -> str:
    """The interpreter that has the clients."""
    interpreter = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    with locked("clients"):
        _make_once(interpreter)
    return str(interpreter)


def _make_once(interpreter: Path) -> None:
    stamp = FOLDER / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    try:
        make(interpreter)
    except (OSError, subprocess.SubprocessError, SystemExit) as error:
        output = getattr(error, "stderr", None) or ""
        said = output.decode(errors="replace") if isinstance(output, bytes) else str(output)
        last = (said.strip().splitlines() or [str(error)])[-1]
        pytest.skip(f"the clients of {REQUIREMENTS.name} cannot be installed here: {last[:200]}")
    stamp.write_text(wanted)


def make(interpreter: Path) -> None:
    """A new environment.  uv takes half a minute for it where pip takes several."""
    uv = shutil.which("uv")
    shutil.rmtree(FOLDER, ignore_errors=True)
    venv.create(FOLDER, with_pip=uv is None, symlinks=os.name != "nt")
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    install = [uv, "pip", "install", "--quiet", "--python", str(interpreter)] if uv else pip
    subprocess.run(
        [*install, "--require-hashes", "-r", str(REQUIREMENTS)], check=True, timeout=WITHIN_S, capture_output=True
    )
