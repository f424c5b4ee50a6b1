"""A real llama.cpp server through the gateway: the same text, and its slot is free as soon as the client has left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from headgate.model import Closed
from tests.dataplane import TOKEN, DataPlane, post, upstream
from tests.engine.server import Engine

PROMPT = [{"role": "user", "content": "say anything"}]
LONG = {"max_tokens": 3900, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def gate(engine: Engine, tmp_path: Path) -> Iterator[DataPlane]:
    with DataPlane(tmp_path / "s", upstream(engine.url, name="llama")) as plane:
        yield plane


def client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=20)


def said(client: openai.OpenAI, model: str, stream: bool) -> str:
    fields = {"model": model, "messages": PROMPT, "seed": 7, "max_tokens": 60, "extra_body": {"ignore_eos": True}}
    if not stream:
        return client.chat.completions.create(**fields).choices[0].message.content
    return "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(stream=True, **fields))


def test_the_same_text_as_from_the_engine_itself(engine: Engine, gate: DataPlane) -> None:
    direct = said(client(engine.url, "none"), "tiny", True)
    through = client(f"{gate.url}/v1", TOKEN)
    assert direct and said(through, "llama/tiny", True) == direct == said(through, "llama/tiny", False)
    records = gate.wait_for(Closed, 2)
    assert [(r.outcome, r.completion_tokens, r.basis) for r in records] == [("delivered", 60, "provider")] * 2  # type: ignore[union-attr]


@pytest.mark.parametrize("after", ["one token", "the head"])
def test_a_slot_is_free_as_soon_as_the_client_has_left(engine: Engine, gate: DataPlane, after: str) -> None:
    engine.until_busy(0)
    through = client(f"{gate.url}/v1", TOKEN)
    stream = through.chat.completions.create(model="llama/tiny", messages=PROMPT, stream=True, **LONG)
    if after == "one token":
        next(iter(stream))
    engine.until_busy(1)
    stream.close()
    assert engine.until_busy(0) < engine.at_once()
    record = gate.wait_for(Closed)[0]
    assert isinstance(record, Closed) and (record.outcome, record.basis) == ("cancelled", "estimated")


def test_a_call_for_a_whole_answer_ends_with_its_client(engine: Engine, gate: DataPlane) -> None:
    engine.until_busy(0)
    body = json.dumps({"model": "llama/tiny", "messages": PROMPT, "max_tokens": 3900, "ignore_eos": True}).encode()
    with gate.connect() as sock:
        sock.sendall(post("/v1/chat/completions", body))
        engine.until_busy(1)
    record = gate.wait_for(Closed, seconds=0.5)[0]  # llama.cpp itself goes on: it looks at a connection when it writes
    assert isinstance(record, Closed) and (record.outcome, record.code) == ("cancelled", "client_closed_request")
    engine.until_busy(0, within=120)
