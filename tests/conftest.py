"""What all tests share: the data plane on its own, and the path to the design folder where it is present."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
