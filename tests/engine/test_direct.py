"""The engine itself, without a gateway: what the tests through the gateway are compared with."""

from __future__ import annotations

import openai
import pytest

from tests.engine.server import Engine

PROMPT = [{"role": "user", "content": "say anything"}]


@pytest.fixture
def client(engine: Engine) -> openai.OpenAI:
    return openai.OpenAI(base_url=engine.url, api_key="none", max_retries=0, timeout=20)


def _text(client: openai.OpenAI, seed: int) -> str:
    stream = client.chat.completions.create(
        model="tiny", messages=PROMPT, stream=True, seed=seed, max_tokens=60, extra_body={"ignore_eos": True}
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    assert _text(client, 7) == _text(client, 7) != _text(client, 8)


def test_a_client_that_leaves_frees_its_slot(client: openai.OpenAI, engine: Engine) -> None:
    engine.until_busy(0)
    stream = client.chat.completions.create(
        model="tiny", messages=PROMPT, stream=True, max_tokens=3900, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    engine.until_busy(1)
    stream.close()
    assert engine.until_busy(0) < engine.at_once()
