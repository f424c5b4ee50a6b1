"""The happy path stays as short as it is.  Bytecodes do not depend on the machine, so a creeping cost fails here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.paths import ROOT

BENCH = ROOT / "bench" / "happy_path.py"


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="bytecodes are counted on 3.11: other versions compile differently"
)
def test_the_happy_path_executes_no_more_than_it_did() -> None:
    ran = subprocess.run([sys.executable, BENCH, "--json"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    # Step 4a added 90: the caller is known before its body, trailers are no headers, bodies are read by what they are.
    # Step 5 added 100: limits that are not there, tools that are counted, sessions and prices of the record, hooks.
    # Step 6 added 53: headers that pass in both directions, names of what a target is not sent, saved prompts.
    assert 1000 < found["call_bytecodes"] <= 4160  # 4,145, and noise of ten
    assert 100 < found["event_bytecodes"] <= 530  # 524
    assert 100 < found["messages_event_bytecodes"] <= found["event_bytecodes"]  # 504
    # A token with requests and tokens per minute, parallel slots and a budget.
    assert found["limited_call_bytecodes"] <= 1.15 * found["priced_call_bytecodes"]  # 4,818 and 4,200: 1.147
    assert found["limited_event_bytecodes"] <= found["event_bytecodes"] + 1
