"""What the official Python client makes of the provider directly: the baseline for the same through the gateway.

For Node see tests/node.
"""

from __future__ import annotations

import openai
import pytest

from headgate.testing.provider import lorem
from headgate.testing.provider.tools import CALLS
from tests.testing.raw import PROMPT


@pytest.fixture
def client(provider_port: int) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{provider_port}/v1", api_key="sk-any", max_retries=0, timeout=10)


def test_openai_python_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="lorem?tokens=30&rate=0&ttft=0", messages=PROMPT, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == lorem.text(30)
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 33
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


def test_openai_python_accumulates_three_tool_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="fault/parallel-tools", messages=PROMPT) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.role == "assistant"
    calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
    assert calls == list(CALLS)


def test_openai_python_reads_answers_models_and_errors(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=PROMPT)
    assert answer.choices[0].message.content == "say something please"
    assert client.models.retrieve("echo").id == "echo" and len(list(client.models.list())) > 60
    for model, error in [
        ("fault/429-always", openai.RateLimitError),
        ("fault/401", openai.AuthenticationError),
        ("fault/503-always", openai.InternalServerError),
        ("fault/reset-once?key=python", openai.APIConnectionError),
        ("nothing", openai.NotFoundError),
    ]:
        with pytest.raises(error):
            client.chat.completions.create(model=model, messages=PROMPT)


def test_openai_python_retries_what_comes_right(client: openai.OpenAI) -> None:
    patient = client.with_options(max_retries=2)
    answer = patient.chat.completions.create(model="fault/429-once?key=sdk&retry_after=0.1", messages=PROMPT)
    assert answer.choices[0].message.content == lorem.text(60)


def test_openai_python_sees_an_error_event_but_not_a_quiet_end(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="fault/error-in-200", messages=PROMPT, stream=True))
    quiet = list(client.chat.completions.create(model="fault/close-without-finish", messages=PROMPT, stream=True))
    assert quiet[-1].choices[0].finish_reason is None  # why the gateway has to notice
