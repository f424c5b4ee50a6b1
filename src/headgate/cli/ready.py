"""``python -m headgate.cli.ready``: 0 where the gateway of HEADGATE_STATE_DIR takes calls, 1 where it does not.

For health checks of containers, which ask every few seconds: standard library only, and no token is needed.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from headgate.process.statedir import ADDRESSES

TIMEOUT_S = 3.0


def main() -> int:
    try:
        address = json.loads((Path(os.environ["HEADGATE_STATE_DIR"]) / ADDRESSES).read_bytes())["data"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business here
        with opener.open(f"{address}/readyz", timeout=TIMEOUT_S):
            return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"not ready: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
