"""The agents are a gigabyte of packages: `make test-agents` runs them, `make test` does not."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("AGENTS") else ["test_*.py"]
