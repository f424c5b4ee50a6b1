"""A real engine: llama.cpp's own server with a tiny model that is made on the spot, from ``../shared/engine``.

``engine`` is a fixture; ``engine.slots()`` says which of its slots are at work, which is how a test sees that a cancel
got through.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.paths import SHARED

SLOTS = 2


@dataclass(frozen=True)
class Engine:
    """A running llama.cpp server.  ``url`` is its OpenAI base URL."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    def slots(self) -> list[dict[str, Any]]:
        """GET /slots: one object per slot, with ``is_processing``."""
        with urllib.request.urlopen(f"http://{self.host}:{self.port}/slots", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def busy(self) -> int:
        """How many slots are generating."""
        return sum(slot["is_processing"] for slot in self.slots())

    def at_once(self) -> float:
        """How long may be called at once, in seconds: fifty questions take longer, on this machine and now."""
        begun = time.monotonic()
        for _ in range(50):
            self.slots()
        return max(0.1, time.monotonic() - begun)

    def until_busy(self, count: int, within: float = 120) -> float:
        """Waits until exactly ``count`` slots are at work; returns the seconds that took.  Raises TimeoutError."""
        begun = time.monotonic()
        while self.busy() != count:
            if time.monotonic() - begun > within:
                raise TimeoutError(f"{self.busy()} slots are busy after {within} s, not {count}")
            time.sleep(0.002)
        return time.monotonic() - begun


def _wait_for_line(process: subprocess.Popen[str], says: Callable[[str], bool]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if says(line):
            return line
    raise RuntimeError(f"the engine ended with code {process.wait()} before it listened")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    scripts = SHARED / "engine"
    if not (scripts / "serve.py").exists():
        pytest.skip("../shared/engine is not here: no scripts to make and serve the tiny model with")
    missing = [name for name in ("xllamacpp", "gguf", "tokenizers", "numpy") if not importlib.util.find_spec(name)]
    assert not missing, f"the dependency group 'engine' is not installed: {', '.join(missing)}"
    model = tmp_path_factory.mktemp("engine") / "tiny.gguf"
    subprocess.run(
        [sys.executable, str(scripts / "mkmodel.py"), str(model)], check=True, capture_output=True, timeout=60
    )
    command = [sys.executable, str(scripts / "serve.py"), str(model), "0", str(SLOTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            line = _wait_for_line(process, lambda line: line.startswith("listening"))
            host, port = line.split()[1].removeprefix("http://").rsplit(":", 1)
            yield Engine(host, int(port))
        finally:
            process.terminate()
            process.wait(10)
