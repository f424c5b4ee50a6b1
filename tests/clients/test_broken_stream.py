"""A stream that breaks after text, read by real clients through a running gateway: none may take it for whole."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.testing import serve_in_thread
from headgate.testing.provider import lorem
from tests.clients import environment as client_environment
from tests.dataplane import TOKEN, DataPlane, post, read_response, upstream
from tests.node import clients as node_clients

SCRIPT = Path(__file__).with_name("broken_stream.py")
WHOLE = "up/lorem?tokens=5&rate=0"
FAULTS = (
    "error-in-200?after=5",
    "cut?after=5",
    "cut?after=5&reset=1",
    "secret-in-event?after=5",
)
BROKEN = tuple(f"up/fault/{fault}" for fault in FAULTS)
PROMPT = [{"role": "user", "content": "say something please"}]
PYTHON_CLIENTS = ("openai", "langchain", "litellm", "pydantic-ai", "openai-agents")
NODE_CLIENTS = ("openai", "ai-sdk-openai", "ai-sdk-openai-compatible")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_in_thread() as provider, DataPlane(tmp_path_factory.mktemp("gate"), upstream(provider.url)) as plane:
        yield f"http://127.0.0.1:{plane.port}/v1"


@pytest.mark.timeout(client_environment.WITHIN_S + 120)
@pytest.mark.parametrize("client", PYTHON_CLIENTS)
def test_python_clients_raise(url: str, client: str) -> None:
    command = [client_environment.python(), str(SCRIPT), client, url, TOKEN, WHOLE, *BROKEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, *broken = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert whole == {"text": lorem.text(5), "ended": True, "error": None}
    assert len(broken) == len(BROKEN)
    for model, seen in zip(BROKEN, broken, strict=True):
        assert not seen["ended"] and seen["error"], (model, seen)
        assert seen["text"] == lorem.text(5), (model, seen)
        assert "provider" in seen["error"] or "quota" in seen["error"], seen  # the gateway's own words


def of_node(client: str, url: str, model: str) -> dict[str, Any]:
    if client == "openai":
        body = json.dumps({"model": model, "messages": PROMPT, "stream": True})
        seen: dict[str, Any] = node_clients.run("chat.mjs", url, TOKEN, body)
        return {"text": seen["text"], "errors": [seen["error"]["message"]] if "error" in seen else []}
    through = json.dumps({"through": client.removeprefix("ai-sdk-")})
    seen = node_clients.run("aisdk.mjs", url, TOKEN, model, PROMPT[0]["content"], through)
    return {"text": seen["text"], "errors": seen["errors"]}


@pytest.mark.parametrize("client", NODE_CLIENTS)
def test_node_clients_show_an_error(url: str, client: str) -> None:
    node_clients.install()
    assert of_node(client, url, WHOLE) == {"text": lorem.text(5), "errors": []}
    for model in BROKEN[:2]:
        seen = of_node(client, url, model)
        assert seen["text"] == lorem.text(5)
        assert len(seen["errors"]) == 1 and "provider" in seen["errors"][0], (model, seen)


@pytest.mark.parametrize("model", BROKEN)
def test_line_readers_that_look_for_an_error_prefix_find_it(url: str, model: str) -> None:
    """go-openai reads a stream line by line and takes one for an error only if its data begins with ``{"error":``."""
    raw = asked(url, model)
    lines = [line for line in raw.split(b"\n") if line.strip()]
    errors = [line for line in lines if re.match(rb'data:\s*\{"error":', line)]
    assert errors == lines[-1:] and b"[DONE]" not in raw
    assert set(json.loads(errors[0][6:])) == {"error"}  # Open WebUI looks at errors only where there are no choices


def asked(url: str, model: str) -> bytes:
    port = int(url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(
            post("/v1/chat/completions", json.dumps({"model": model, "messages": PROMPT, "stream": True}).encode())
        )
        status, _, body, _ = read_response(sock)
    assert status == 200
    return body
