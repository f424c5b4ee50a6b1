"""The measurement of bench/ten_million.py, with fewer rows: it runs, and asks everything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests import proofs
from tests.paths import ROOT

BENCH = ROOT / "bench" / "ten_million.py"
ROWS = proofs.of(20_000, 100_000)


@pytest.mark.timeout(300)
def test_lists_filters_and_usage_of_many_rows(report: Callable[[str], None]) -> None:
    done = subprocess.run(
        [sys.executable, BENCH, "--rows", str(ROWS), "--json"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout)
    whole = found["warm"]["all of them"]
    report(f"{ROWS:,} rows, {whole['n']} questions: p95 {whole['p95_ms']} ms, at most {whole['max_ms']} ms")
    assert found["recorded_meanwhile"] > 0
    for kind in ("list", "one filter", "two filters", "deep cursor", "usage report"):
        assert found["warm"][kind]["n"] > 0, kind
