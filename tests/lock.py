"""One process at a time: for what several test processes share, as an installation in the checkout."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from tests.paths import ROOT


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the checkout's lock of that name for this process alone.  Waits for as long as it takes."""
    folder = ROOT / ".pytest_cache"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
