"""The corpus, the upstream that replays it, and a data process in front of that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane import DataPlane, upstream

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "node")]

import recordings  # noqa: E402 - the line before makes it importable
from bench import Bench  # noqa: E402


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = recordings.unpack(tmp_path_factory.mktemp("recorded"))
    command = [sys.executable, str(HERE / "replay.py"), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as replay:
        assert replay.stdout is not None and replay.stdin is not None
        url = f"http://127.0.0.1:{int(replay.stdout.readline())}/v1"
        with DataPlane(tmp_path_factory.mktemp("gate") / "s", upstream(url)) as plane:
            yield Bench(folder, url, f"{plane.url}/v1", plane)
            assert plane.process.poll() is None, "the data process ended during the tests"
        replay.stdin.close()
