"""The official clients through the gateway: what they yield, which exceptions they raise, that leaving gets through."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from headgate.model import Closed, Grant
from headgate.testing import Provider
from headgate.testing.provider import lorem
from headgate.testing.provider.tools import CALLS
from tests.dataplane import TOKEN, DataPlane, upstream
from tests.node.clients import install, run
from tests.serving.calls import MESSAGES, closed_by_id, timeouts
from tests.waiting import wait_until

LOREM = "up/lorem?rate=0&ttft=0&tokens=30"


@pytest.fixture
def client(gate: DataPlane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=TOKEN, max_retries=0, timeout=20) as client:
        yield client


# ------------------------------------------------------------------------------- openai, Python


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=LOREM, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == lorem.text(30)
    assert "".join(c.choices[0].delta.role or "" for c in chunks if c.choices) == "assistant"
    assert (
        chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 30 and len({c.id for c in chunks}) == 1
    )


def test_the_accumulating_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=LOREM, messages=MESSAGES) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == lorem.text(30) and final.choices[0].message.role == "assistant"
    assert final.choices[0].finish_reason == "stop"


def test_a_whole_answer_and_its_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=LOREM, messages=MESSAGES)
    answer = raw.parse()
    assert answer.choices[0].message.content == lorem.text(30) and answer.usage is not None
    assert raw.headers["x-request-id"] == answer.id == raw.request_id


def test_tool_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="up/fault/parallel-tools", messages=MESSAGES) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()] == list(CALLS)


def test_async_streams_side_by_side(gate: DataPlane) -> None:
    async def one(client: openai.AsyncOpenAI, tokens: int) -> bool:
        stream = await client.chat.completions.create(
            model=f"up/lorem?rate=0&ttft=0.01&tokens={tokens}", messages=MESSAGES, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        return text == lorem.text(tokens)

    async def all_of_them() -> list[bool]:
        async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=TOKEN, max_retries=0) as client:
            whole = await client.chat.completions.create(model=LOREM, messages=MESSAGES)
            assert whole.choices[0].message.content == lorem.text(30)
            return await asyncio.gather(*(one(client, n) for n in range(1, 41)))

    assert all(asyncio.run(all_of_them()))


ERRORS: list[tuple[str, type[openai.APIStatusError], int, str]] = [
    ("nobody/nothing", openai.NotFoundError, 404, "model_not_found"),
    ("up/fault/context-length", openai.BadRequestError, 400, "context_length_exceeded"),
    ("up/fault/429-always", openai.RateLimitError, 429, "rate_limit_exceeded"),
    ("up/fault/401", openai.InternalServerError, 502, "upstream_auth_failed"),
    ("up/fault/503-always", openai.InternalServerError, 503, "upstream_overloaded"),
    ("up/fault/error-before-first-token", openai.InternalServerError, 502, "upstream_error"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("model", "kind", "status", "code"), ERRORS)
def test_errors_before_the_first_byte(
    client: openai.OpenAI, model: str, kind: type[openai.APIStatusError], status: int, code: str, stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
    assert type(caught.value) is kind and (caught.value.status_code, caught.value.code) == (status, code)


def test_a_wrong_token(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="hg_wrong").chat.completions.create(model=LOREM, messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"


def test_a_timeout_is_a_504(provider: Provider, tmp_path: Path) -> None:
    state = tmp_path / "s"
    state.mkdir()
    (state / "instance.key").write_bytes(b"k" * 32)
    world = timeouts(b"k" * 32, {"up": upstream(provider.url)}, Grant("t0", "test"), headers=0.3)
    with DataPlane(state, snapshot=world) as plane:
        client = openai.OpenAI(base_url=f"{plane.url}/v1", api_key=TOKEN, max_retries=0)
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="up/fault/accept-silence", messages=MESSAGES, stream=True)
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


@pytest.mark.parametrize("fault", ["cut", "close-without-finish", "error-in-200", "error-field"])
def test_a_stream_that_fails_is_an_exception_not_a_short_answer(client: openai.OpenAI, fault: str) -> None:
    said = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model=f"up/fault/{fault}", messages=MESSAGES, stream=True):
            said += chunk.choices[0].delta.content or ""
    assert said and lorem.text(60).startswith(said) and caught.value.message


@pytest.mark.parametrize("end", ["close", "break"])
def test_leaving_a_stream_stops_the_provider(
    gate: DataPlane, provider: Provider, client: openai.OpenAI, end: str
) -> None:
    stream = client.chat.completions.create(
        model="up/lorem?rate=100&ttft=0&tokens=90000", messages=MESSAGES, stream=True
    )
    ident = next(iter(stream)).id
    seen = provider.requests[-1]
    before = seen.tokens
    if end == "close":
        stream.close()
    else:
        for _ in stream:
            break
        stream.response.close()
    wait_until(lambda: seen.how)
    assert seen.how == "client_closed" and seen.tokens <= before + 200  # two seconds' worth of fifteen minutes
    assert closed_by_id(gate, ident).outcome == "cancelled"


# ------------------------------------------------------------------------------- Node, and curl


@pytest.fixture(scope="module")
def node() -> None:
    install()


@pytest.mark.usefixtures("node")
def test_openai_for_node(gate: DataPlane) -> None:
    url = f"{gate.url}/v1"
    body = {"model": LOREM, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    seen = run("chat.mjs", url, TOKEN, json.dumps(body))
    assert (seen["text"], seen["finish"], seen["role"]) == (lorem.text(30), "stop", "assistant")
    assert seen["usage"]["total_tokens"] == 33 and len(seen["ids"]) == 1 and "error" not in seen
    whole = run("chat.mjs", url, TOKEN, json.dumps({"model": LOREM, "messages": MESSAGES}))
    assert (whole["text"], whole["finish"]) == (lorem.text(30), "stop")
    tools = run("chat.mjs", url, TOKEN, json.dumps({**body, "model": "up/fault/parallel-tools"}))
    assert [(c["id"], c["name"], c["arguments"]) for c in tools["tool_calls"]] == list(CALLS)


@pytest.mark.usefixtures("node")
def test_openai_for_node_sees_errors_and_can_leave(gate: DataPlane) -> None:
    url = f"{gate.url}/v1"
    cut = run("chat.mjs", url, TOKEN, json.dumps({"model": "up/fault/cut", "messages": MESSAGES, "stream": True}))
    assert cut["error"]["name"] == "APIError" and cut["text"] == lorem.text(40)
    wrong = run("chat.mjs", url, "hg_wrong", json.dumps({"model": LOREM, "messages": MESSAGES}))
    assert (wrong["error"]["name"], wrong["error"]["code"]) == ("AuthenticationError", "invalid_api_key")
    before = len([r for r in gate.records() if isinstance(r, Closed)])
    endless = {"model": "up/lorem?rate=200&ttft=0&tokens=90000", "messages": MESSAGES, "stream": True}
    left = run("chat.mjs", url, TOKEN, json.dumps(endless), '{"abort_after": 3}')
    assert left["text"] == lorem.text(3)
    record = gate.wait_for(Closed, before + 1)[-1]
    assert isinstance(record, Closed) and record.outcome == "cancelled"


@pytest.mark.usefixtures("node")
def test_the_vercel_ai_sdk(gate: DataPlane) -> None:
    url = f"{gate.url}/v1"
    said = run("aisdk.mjs", url, TOKEN, "up/echo", "hello big   world")
    assert (said["text"], said["finish"], said["errors"]) == ("hello big   world", "stop", [])
    assert said["usage"]["totalTokens"] == 6
    called = run("aisdk.mjs", url, TOKEN, "up/fault/parallel-tools", "x", '{"tools": true}')
    assert [(c["id"], c["name"], c["input"]) for c in called["tool_calls"]] == [
        (ident, name, json.loads(arguments)) for ident, name, arguments in CALLS
    ]
    cut = run("aisdk.mjs", url, TOKEN, "up/fault/cut", "x")
    assert cut["text"] == lorem.text(40) and cut["errors"], "a truncated answer must not look like a whole one"


def test_curl(gate: DataPlane, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is not installed"
    body = json.dumps({"model": LOREM, "messages": MESSAGES, "stream": True})
    command = [curl, "-sSN", f"{gate.url}/v1/chat/completions", "-H", f"Authorization: Bearer {TOKEN}"]
    done = subprocess.run([*command, "-d", body], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.endswith("data: [DONE]\n\n") and done.stdout.count("data: ") == 33
    large = tmp_path / "body.json"  # over 1 KiB curl asks with Expect: 100-continue on HTTP/1.1
    large.write_text(json.dumps({"model": "up/echo", "messages": [{"role": "user", "content": "big " * 300_000}]}))
    done = subprocess.run(
        [*command, "-H", "Expect: 100-continue", "-d", f"@{large}"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "big " * 300_000
