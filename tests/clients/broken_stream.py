"""What one Python client makes of streams, as a JSON line for each model.  Runs in the clients' own environment.

    python broken_stream.py CLIENT BASE_URL KEY MODEL…

Each line: {text, ended, error}.  ``ended``: the client took the stream for a whole answer; ``error``: what it raised.
Retries are off wherever a client has them: the gateway's own are under test.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable

PROMPT = "say something please"

Stream = Callable[[str, str, str], AsyncIterator[str]]


async def of_openai(url: str, key: str, model: str) -> AsyncIterator[str]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    messages = [{"role": "user", "content": PROMPT}]
    async for chunk in await client.chat.completions.create(model=model, messages=messages, stream=True):
        for choice in chunk.choices:
            yield choice.delta.content or ""


async def of_langchain(url: str, key: str, model: str) -> AsyncIterator[str]:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=url, api_key=key, model=model, max_retries=0, use_responses_api=False)
    async for piece in chat.astream(PROMPT):
        yield str(piece.content)


async def of_litellm(url: str, key: str, model: str) -> AsyncIterator[str]:
    import litellm

    messages = [{"role": "user", "content": PROMPT}]
    answer = await litellm.acompletion(
        model=f"openai/{model}", api_base=url, api_key=key, messages=messages, stream=True, max_retries=0
    )
    async for chunk in answer:
        yield chunk.choices[0].delta.content or ""


async def of_pydantic_ai(url: str, key: str, model: str) -> AsyncIterator[str]:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    agent = Agent(OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client)))
    async with agent.run_stream(PROMPT) as result:
        async for piece in result.stream_text(delta=True, debounce_by=None):
            yield piece


async def of_openai_agents(url: str, key: str, model: str) -> AsyncIterator[str]:
    from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    agent = Agent(name="a", model=OpenAIChatCompletionsModel(model=model, openai_client=client))
    async for event in Runner.run_streamed(agent, PROMPT).stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield event.data.delta


CLIENTS: dict[str, Stream] = {
    "openai": of_openai,
    "langchain": of_langchain,
    "litellm": of_litellm,
    "pydantic-ai": of_pydantic_ai,
    "openai-agents": of_openai_agents,
}


async def read(stream: Stream, url: str, key: str, model: str) -> dict[str, object]:
    text: list[str] = []
    try:
        async for piece in stream(url, key, model):
            text.append(piece)
    except Exception as error:
        return {"text": "".join(text), "ended": False, "error": f"{type(error).__name__}: {error}"}
    return {"text": "".join(text), "ended": True, "error": None}


async def read_all(stream: Stream, url: str, key: str, models: list[str]) -> None:
    for model in models:
        print(json.dumps(await read(stream, url, key, model)), flush=True)


def main() -> None:
    client, url, key, *models = sys.argv[1:]
    os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False", LANGSMITH_TRACING="false")
    asyncio.run(read_all(CLIENTS[client], url, key, models))


if __name__ == "__main__":
    main()
