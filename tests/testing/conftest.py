"""The provider as users start it: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def provider_port() -> Iterator[int]:
    """The port of a running ``python -m headgate.testing``."""
    command = [sys.executable, "-m", "headgate.testing", "--port", "0", "--keep", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rsplit(":", 1)[1].removesuffix("/v1\n"))
        process.terminate()
        assert process.wait(60) == 0
