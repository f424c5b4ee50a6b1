"""Hooks as installed distributions, and a data process that finds them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from headgate import data
from tests.dataplane import DataPlane

VARIABLE = "TEST_HOOKS_FOLDER"


def install(folder: Path, source: str, **entries: str) -> Path:
    """Install a distribution with one module, ``installed_hooks``; ``entries``: name → attribute."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "installed_hooks.py").write_text(source)
    info = folder / "example_hooks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-hooks\nVersion: 1.0\n")
    lines = [f"{name} = installed_hooks:{attribute}" for name, attribute in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[headgate.hooks]", *lines, ""]))
    return folder


class HookedPlane(DataPlane):
    """A data process whose packages lie in the folder of the variable, too."""

    entry = "tests.hooks.installed:main"


def main() -> int:
    if VARIABLE in os.environ:
        sys.path.insert(0, os.environ[VARIABLE])
    return data.main()
