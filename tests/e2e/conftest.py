"""Gateways for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import Gateway, Make


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Make]:
    """Makes gateways that are not started yet; whatever still runs at the end of the test is ended."""
    made: list[Gateway] = []

    def make(extra: str = "", **options: Any) -> Gateway:
        made.append(Gateway(tmp_path / f"home{len(made)}", extra, **options))
        return made[-1]

    yield make
    for one in made:
        one.clear()
