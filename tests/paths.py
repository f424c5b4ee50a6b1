"""Where the checkout and the recordings that tests read lie."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("HEADGATE_SHARED") or ROOT.parent / "shared")
"""The corpus of recorded streams and other large inputs; tests that need them are skipped where they are missing."""
