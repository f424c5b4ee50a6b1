"""The same for the official Node client and the Vercel AI SDK: all recordings in one process each.

The Node client's chunks are held to the same rules as the Python client's.  The AI SDK interprets what it reads; where
its interpretation must differ from that of the recording itself, the contract says why, and how often is counted here.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance import reading, recordings
from tests.conformance.bench import Bench
from tests.dataplane import TOKEN
from tests.node import clients as node_clients

pytestmark = [recordings.ABSENT, pytest.mark.timeout(240)]
NAMES = recordings.chats()

# Why the AI SDK's reading may differ, and in how many recordings it does.
STOP_AFTER_TOOLS = "the recording says stop after a tool call; the contract says tool_calls"
ERROR_FIELD = "the recording's error stands in a field that clients do not read"
NO_REASON = "[DONE] without a finish reason, which the SDK takes for an error, is finished"
ESTIMATED = "the recording reports no usage; ours is then an estimate"
IN_X_GROQ = "the recording's usage stands in x_groq, where the SDK does not look"
REASONING_BESIDE = "the recording counts reasoning beside the completion; OpenAI counts it within"
DIFFERENT = {STOP_AFTER_TOOLS: 3, ERROR_FIELD: 1, NO_REASON: 2, ESTIMATED: 67, IN_X_GROQ: 4, REASONING_BESIDE: 9}


def readings(bench: Bench, client: str) -> Iterator[tuple[str, Any, list[tuple[bool, Any]]]]:
    """(recording, what the client made of it directly, for each cutting (usage asked for, what it made of ours))."""
    jobs: list[dict[str, Any]] = []
    for position, name in enumerate(NAMES):
        direct = {"client": client, "baseURL": bench.direct, "apiKey": "none", "usage": True}
        jobs.append({**direct, "model": f"stream:whole:{name}"})
        for cutting, usage in recordings.readings_of(position):
            ours = {"client": client, "baseURL": bench.gateway, "apiKey": TOKEN, "usage": usage}
            jobs.append({**ours, "model": f"up/stream:{cutting}:{name}"})
    node_clients.install()
    command = [node_clients.program("node"), str(node_clients.HERE / "replay.mjs")]
    given = "\n".join(json.dumps(job) for job in jobs)
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(jobs)
    found = map(json.loads, lines)
    for position, name in enumerate(NAMES):
        direct = next(found)
        yield name, direct, [(usage, next(found)) for _cutting, usage in recordings.readings_of(position)]


def test_the_official_node_client_yields_the_same(bench: Bench) -> None:
    for name, direct, ours in readings(bench, "openai"):
        body = (bench.folder / name).read_bytes()
        promise = reading.promised(direct["chunks"], direct["error"] is not None, body)
        for usage, one in ours:
            reading.compare(promise, reading.found(one["chunks"], one["error"] is not None, usage=usage))


def test_the_ai_sdk_yields_the_same(bench: Bench) -> None:
    different: Counter[str] = Counter()
    for name, direct, ours in readings(bench, "aisdk"):
        reasons: set[str] = set()
        for usage, one in ours:
            assert one["parts"] == direct["parts"], name
            reasons |= judge(name, direct, one)
            if usage and not one["errors"]:
                reasons |= judge_usage(direct["usage"], one["usage"], (bench.folder / name).read_bytes())
        different.update(reasons)
    assert different == DIFFERENT


def judge(name: str, direct: Any, ours: Any) -> set[str]:
    """The reason for which errors and finish differ, if they do; fails where there is none."""
    theirs, here = (direct["finish"], direct["errors"]), (ours["finish"], ours["errors"])
    if here == theirs:
        return set()
    called = any(part[0] == "call" for part in direct["parts"])
    finish = "tool-calls" if called else "stop"
    if here == (finish, []) and theirs == ("stop", []):
        return {STOP_AFTER_TOOLS}
    assert theirs == ("error", ["Response stream ended without a finish reason."]), name
    if ours["errors"]:
        assert name.startswith("gpustack/") and ours["finish"] == "error"
        return {ERROR_FIELD}
    assert here == (finish, []), name
    return {NO_REASON}


def judge_usage(theirs: Any, ours: Any, body: bytes) -> set[str]:
    def counts(usage: Any) -> tuple[Any, ...]:
        return tuple(usage.get(key) for key in ("inputTokens", "outputTokens", "totalTokens"))

    if counts(theirs) == counts(ours):
        return set()
    prompt, completion, total = counts(ours)
    assert total == prompt + completion and completion > 0
    if counts(theirs) == (None, None, None):
        groq = re.search(rb'"x_groq":\{[^}]*"usage":\{', body)
        return {IN_X_GROQ if groq else ESTIMATED}
    assert counts(theirs)[:2] == (prompt, completion - theirs["reasoningTokens"])
    return {REASONING_BESIDE}
