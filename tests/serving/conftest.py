"""One provider and one data process for the tests that change neither; others start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headgate.testing import Provider, serve_in_thread
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import ProviderProcess


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    with serve_in_thread() as provider:
        yield provider


@pytest.fixture(scope="session")
def gate(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    """A data process in front of ``provider``, which is ``up/…``."""
    with DataPlane(tmp_path_factory.mktemp("gate") / "s", upstream(provider.url)) as plane:
        yield plane
        assert plane.process.poll() is None, "the data process ended during the tests"


@pytest.fixture(scope="session")
def provider_process() -> Iterator[ProviderProcess]:
    """The provider as a process of its own, for tests that move many bytes."""
    with ProviderProcess() as process:
        yield process
