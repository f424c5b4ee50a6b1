"""What the tests of this folder share: the recordings, and the gateway in front of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.dataplane import DataPlane


class Bench(NamedTuple):
    """Base URLs of the recordings themselves and of the gateway in front of them; ``folder`` holds the files."""

    folder: Path
    direct: str
    gateway: str
    plane: DataPlane
