"""The corpus, the upstream that replays it, and a data process in front of that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from headgate.model import Provider
from tests.conformance import recordings
from tests.conformance.bench import Bench
from tests.dataplane import DataPlane, upstream
from tests.paths import ROOT


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = recordings.unpack(tmp_path_factory.mktemp("recorded"))
    command = [sys.executable, "-m", "tests.conformance.replay", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as replay:
        assert replay.stdout is not None and replay.stdin is not None
        url = f"http://127.0.0.1:{int(replay.stdout.readline())}/v1"
        claude = Provider("claude", url, dialect="anthropic_messages", auth="none", preset="anthropic")
        with DataPlane(tmp_path_factory.mktemp("gate") / "s", upstream(url), claude) as plane:
            yield Bench(folder, url, f"{plane.url}/v1", plane)
            assert plane.process.poll() is None, "the data process ended during the tests"
        replay.stdin.close()
