"""The route of a stream that broke and was gone on with: what its last chunk says is what is written down."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.gateway import FILE_TOKEN, Gateway, Make

ROW = "upstream_model: 'engine?prefill=trailing', prefill: true, price: {input: 1, output: 2}, params: {drop: [user]}"
MODEL = f"{{m: {{{ROW}}}}}"
PROVIDERS = f"""
detect: {{local_engines: false}}
providers:
  a: {{base_url: URL, auth: none, models: {MODEL}}}
  b: {{base_url: URL, keys: [{{key: sk-b, label: team}}], models: {MODEL}}}
aliases: {{chat: {{targets: [a/m, b/m]}}}}
"""


@pytest.fixture
def engine() -> Iterator[str]:
    argv = [sys.executable, "-m", "headgate.testing", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


def streamed(gate: Gateway, **more: Any) -> tuple[Any, list[Any]]:
    """The headers and the chunks of one stream that ends well."""
    messages = [{"role": "user", "content": "Tell me what the river did."}]
    body = {"model": "chat", "stream": True, "include_route_trace": True, "messages": messages, **more}
    request = urllib.request.Request(
        f"{gate.url}/v1/chat/completions", json.dumps(body).encode(), {"Authorization": f"Bearer {FILE_TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = [line[6:].strip() for line in answer if line.startswith(b"data: ")]
        assert lines.pop() == b"[DONE]"
        return answer.headers, [json.loads(line) for line in lines]


def test_the_trace_is_what_is_written_down(gateway: Make, engine: str) -> None:
    gate = gateway(PROVIDERS.replace("URL", engine)).start()
    _, chunks = streamed(gate, stream_options={"include_usage": True}, engine={"tokens": 30, "kill": [8], "key": "k"})
    trace, ident = chunks[-1]["route_trace"], chunks[-1]["id"]
    assert [(one["provider"], one["why"], one["code"]) for one in trace["attempts"]] == [
        ("a", "first", "upstream_cut"), ("b", "continue", None),
    ]  # fmt: skip
    assert trace["parameters"] == {"default": [], "drop": ["user"], "map": {}}
    status, kept = gate.get(f"/v1/requests/{ident}")
    assert status == 200
    assert kept["attempts"] == trace["attempts"]
    assert (kept["requested_model"], kept["provider"], kept["model"]) == (
        trace["requested_model"], trace["provider"], trace["model"],
    )  # fmt: skip
    first, second = kept["attempts"]
    assert first["completion_tokens"] > 0 and second["completion_tokens"] > 0
    assert first["cost_usd"] > 0 and second["prompt_tokens"] > first["prompt_tokens"]  # the text it was given is in it
    assert first["started_ms"] < first["ended_ms"] <= second["started_ms"] < second["ended_ms"]
    usage = chunks[-1]["usage"]
    assert (kept["usage"]["prompt_tokens"], kept["usage"]["completion_tokens"]) == (
        usage["prompt_tokens"], usage["completion_tokens"],
    )  # fmt: skip
    assert "account" not in first
    _, seen = gate.admin("GET", f"/requests/{ident}")
    assert [one.pop("account") for one in seen["attempts"]] == [None, "b/team"]
    assert seen["attempts"] == kept["attempts"]


def test_of_a_plain_call_too_traced_or_not(gateway: Make, engine: str) -> None:
    gate = gateway(PROVIDERS.replace("URL", engine)).start()
    _, chunks = streamed(gate, engine={"tokens": 12})
    status, kept = gate.get(f"/v1/requests/{chunks[-1]['id']}")
    assert status == 200 and kept["attempts"] == chunks[-1]["route_trace"]["attempts"]
    _, plain = streamed(gate, engine={"tokens": 12}, include_route_trace=False)
    _, untraced = gate.get(f"/v1/requests/{plain[-1]['id']}")
    (one,) = untraced["attempts"]
    assert one["why"] == "first" and one["cost_usd"] == untraced["cost_usd"] == kept["attempts"][0]["cost_usd"]
    assert one["completion_tokens"] == untraced["usage"]["completion_tokens"] > 0


def test_of_a_whole_answer(gateway: Make, engine: str) -> None:
    gate = gateway(PROVIDERS.replace("URL", engine)).start()
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "engine": {"tokens": 9}}
    request = urllib.request.Request(
        f"{gate.url}/v1/chat/completions?include_route_trace=true", json.dumps(body).encode(),
        {"Authorization": f"Bearer {FILE_TOKEN}"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["x-headgate-attempts"] == "1"
        whole = json.loads(answer.read())
    (one,) = whole["route_trace"]["attempts"]
    assert one["completion_tokens"] == whole["usage"]["completion_tokens"] > 0 and one["cost_usd"] > 0
    assert whole["headgate"]["attempts"] == 1
    assert gate.get(f"/v1/requests/{whole['id']}")[1]["attempts"] == [one]
