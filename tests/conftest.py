"""What all tests share: the figures that they measure, shown at the end of the run, and no provider's key: whatever
stands in the environment of who runs them, no test may call a provider that costs money.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headgate.catalog.presets import rows
from tests import secret_scan

for name in {name for row in rows().values() for name in row.key_env} & os.environ.keys():
    del os.environ[name]

FIGURE = "figure"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m alone``, leave out files without such a test: collecting them takes longer than half of the tests."""
    if config.option.markexpr != "alone" or not collection_path.name.startswith("test_"):
        return None
    named = any(collection_path == Path(one.partition("::")[0]).resolve() for one in config.args)
    return None if named or "mark.alone" in collection_path.read_text() else True


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """pytest's own, searched for secrets when the test's gateways have ended (see ``secret_scan``)."""
    yield tmp_path
    assert not (secret_scan.WANTED and (found := secret_scan.findings(tmp_path))), found


@pytest.fixture(scope="session", autouse=True)
def shared_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The directories that several tests share, searched at the end of the run."""
    yield
    assert not (secret_scan.WANTED and (found := secret_scan.findings(tmp_path_factory.getbasetemp()))), found


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Keep a line for the end of the run.  A property of the test, because it may run in another process (xdist)."""
    return lambda line: record_property(FIGURE, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.getreports(outcome)]
    figures = [value for one in reports if one.when == "call" for key, value in one.user_properties if key == FIGURE]
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.write_line(str(figure))
