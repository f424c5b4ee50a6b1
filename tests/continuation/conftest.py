"""The fixture engine that all tests of this folder break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.continuation.broken_streams import engine_process


@pytest.fixture(scope="package")
def engine() -> Iterator[str]:
    with engine_process() as url:
        yield url
