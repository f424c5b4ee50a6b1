"""Every recorded chat stream over sockets, at four cuttings or one of them (``proofs``): what the official Python
client yields through the gateway is what it yields from the recording directly, by the contract's rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import openai
import pytest

from tests.conformance import reading, recordings
from tests.conformance.bench import Bench
from tests.dataplane import TOKEN

pytestmark = recordings.ABSENT
NAMES = recordings.chats()
MESSAGES: Any = [{"role": "user", "content": "as recorded"}]


class Clients(NamedTuple):
    direct: openai.OpenAI
    gateway: openai.OpenAI


@pytest.fixture(scope="module")
def clients(bench: Bench) -> Iterator[Clients]:
    with (
        openai.OpenAI(base_url=bench.direct, api_key="none", max_retries=0) as direct,
        openai.OpenAI(base_url=bench.gateway, api_key=TOKEN, max_retries=0) as gateway,
    ):
        yield Clients(direct, gateway)


def read(
    client: openai.OpenAI, model: str, *, usage: bool = False
) -> tuple[list[dict[str, Any]], openai.APIError | None]:
    """The chunks that the client yields, and what it raised at their end."""
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    chunks: list[dict[str, Any]] = []
    try:
        with client.chat.completions.create(model=model, messages=MESSAGES, stream=True, **options) as stream:
            chunks += (chunk.to_dict(mode="json", warnings=False) for chunk in stream)
    except openai.APIError as error:
        return chunks, error
    return chunks, None


# Errors that the official client cannot see in the recording itself, and must see in what we make of it.
UNSEEN = {
    "gpustack/ruby_llm__vcr_cassettes__chat_with_extended_thinking_gpustack_qwen3_streams_thinking_content_when_available"
    ".sse": "failed to decode"  # in a field named `error`
}


@pytest.mark.parametrize("name", NAMES)
def test_the_official_client_yields_the_same(bench: Bench, clients: Clients, name: str) -> None:
    theirs, their_error = read(clients.direct, f"stream:whole:{name}")
    promise = reading.promised(theirs, their_error is not None, (bench.folder / name).read_bytes())
    for cutting, usage in recordings.readings_of(NAMES.index(name)):
        ours, our_error = read(clients.gateway, f"up/stream:{cutting}:{name}", usage=usage)
        reading.compare(promise, reading.found(ours, our_error is not None, usage=usage))
        said = their_error.message if their_error is not None else UNSEEN.get(name)
        assert (our_error is None) == (said is None)
        assert our_error is None or (said or "") in our_error.message


def test_what_is_listed_is_there() -> None:
    assert set(UNSEEN) <= set(NAMES) and len(NAMES) == 354
