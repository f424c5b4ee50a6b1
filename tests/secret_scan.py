"""With SECRET_SCAN=1, every state directory that a test leaves is searched for the secrets that the tests use.

Searched are databases, journals, snapshots, logs and core files.  Configuration files hold secrets by their nature.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

WANTED = os.environ.get("SECRET_SCAN") == "1"
# Beginnings of tokens, provider keys, header secrets and passwords
SECRETS = (
    b"hg_test_0123456789abcdef", b"hg_pat_0123", b"sk-test-0123456789abcdef", b"sk-canary", b"sk-row-0123456789",
    b"sk-rest-0123456789", b"Canary/", b"hdr-canary-112233",
)  # fmt: skip


def findings(root: Path) -> list[str]:
    """Return the files below ``root`` that hold a secret, with it."""
    return [f"{path}: {secret.decode()}" for path in _files(root) for secret in _held(path)]


def _files(root: Path) -> Iterator[Path]:
    for folder, _folders, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            is_state = name.startswith(("headgate.db", "snapshot", "core")) or path.parent.name == "journal"
            if (is_state or path.suffix == ".log") and path.is_file() and path.stat().st_size:
                yield path


def _held(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for secret in SECRETS:
            if data.find(secret) >= 0:
                yield secret
