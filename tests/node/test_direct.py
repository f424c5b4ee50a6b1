"""What the official Node clients make of the provider directly: the baseline for the same through the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from headgate.testing import serve_in_thread
from headgate.testing.provider import lorem
from headgate.testing.provider.tools import CALLS
from tests.node.clients import install, run

PROMPT = [{"role": "user", "content": "say something please"}]


@pytest.fixture(scope="module")
def provider_url() -> Iterator[str]:
    install()
    with serve_in_thread() as provider:
        yield provider.url


def test_openai_node_streams(provider_url: str) -> None:
    body = {"model": "lorem?tokens=30&rate=0&ttft=0", "messages": PROMPT, "stream": True}
    seen = run("chat.mjs", provider_url, "sk-any", json.dumps({**body, "stream_options": {"include_usage": True}}))
    assert (seen["text"], seen["finish"], seen["role"], seen["chunks"]) == (lorem.text(30), "stop", "assistant", 33)
    assert seen["usage"]["total_tokens"] == 33 and len(seen["ids"]) == 1 and "error" not in seen


def test_openai_node_reads_tools_errors_and_leaves(provider_url: str) -> None:
    body = {"model": "fault/parallel-tools", "messages": PROMPT, "stream": True}
    tools = run("chat.mjs", provider_url, "sk-any", json.dumps(body))
    assert [(c["id"], c["name"], c["arguments"]) for c in tools["tool_calls"]] == list(CALLS)
    refused = run("chat.mjs", provider_url, "sk-any", json.dumps({"model": "fault/429-always", "messages": PROMPT}))
    assert (refused["error"]["name"], refused["error"]["status"]) == ("RateLimitError", 429)
    endless = {"model": "lorem?tokens=100000", "messages": PROMPT, "stream": True}
    left = run("chat.mjs", provider_url, "sk-any", json.dumps(endless), '{"abort_after": 3}')
    assert left["text"] == lorem.text(3)


def test_the_ai_sdk_streams_calls_tools_and_sees_a_quiet_end(provider_url: str) -> None:
    said = run("aisdk.mjs", provider_url, "sk-any", "echo", "hello big   world")
    assert (said["text"], said["finish"], said["errors"]) == ("hello big   world", "stop", [])
    assert said["usage"]["totalTokens"] == 6
    called = run("aisdk.mjs", provider_url, "sk-any", "fault/parallel-tools", "x", '{"tools": true}')
    assert [(c["id"], c["name"], c["input"]) for c in called["tool_calls"]] == [
        (i, n, json.loads(a)) for i, n, a in CALLS
    ]
    cut = run("aisdk.mjs", provider_url, "sk-any", "fault/close-without-finish", "x")
    assert cut["finish"] == "error" and cut["text"] == lorem.text(60)
