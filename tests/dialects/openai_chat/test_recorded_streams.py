"""Every recorded OpenAI-chat stream: however cut it gives the same; the official client reads what it would have."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.dialects.openai_chat.streams import bytewise, check_contract, run, split
from tests.paths import SHARED

ARCHIVE = SHARED / "streams" / "corpus.tar.gz"
INDEX = SHARED / "streams" / "index.json"
SCHEMAS = SHARED / "openai_chat_schemas.json"


def names() -> list[Any]:
    if not INDEX.is_file() or not ARCHIVE.is_file():
        return [pytest.param("", marks=pytest.mark.skip(reason="this file of ../shared is absent: streams/"))]
    return [entry["file"] for entry in json.loads(INDEX.read_text()) if entry["dialect"] == "openai-chat"]


NAMES = names()
# The one recording whose error the official client cannot see: it stands in a field named `error`.
UNSEEN_ERRORS = ("gpustack/",)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(ARCHIVE) as archive:
        wanted = set(NAMES)
        members = [member for member in archive if member.name.removeprefix("./") in wanted]
        archive.extractall(folder, members=members, filter="data")
    return folder


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url="http://localhost") as client:
        yield client


@pytest.fixture(scope="session")
def relaxed() -> jsonschema.Draft202012Validator:
    """The schema as relayed chunks satisfy it: null where servers send null, reasons and roles as they come."""
    schema = json.loads(SCHEMAS.read_text())
    defs = schema["$defs"]
    for name, keys in (
        ("CreateChatCompletionStreamResponse", ("system_fingerprint", "service_tier")),
        ("ChatCompletionMessageToolCallChunk", ("id", "type")),
    ):
        for key in keys:
            defs[name]["properties"][key] = {}
    schema["$ref"] = "#/$defs/CreateChatCompletionStreamResponse"
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", NAMES)
def test_cut_anywhere(corpus: Path, name: str) -> None:
    body = (corpus / name).read_bytes()
    for usage in (True, False):
        expected, stream = run([body], usage=usage)
        check_contract(expected, stream, usage=usage)
        seeds = range(5) if len(body) < 400_000 else range(2)
        for seed in seeds:
            assert run(split(body, seed), usage=usage)[0] == expected
    assert stream.skipped == 0


@pytest.mark.parametrize("name", NAMES[::5])
def test_byte_by_byte(corpus: Path, name: str) -> None:
    body = (corpus / name).read_bytes()[:60_000]
    assert run(bytewise(body))[0] == run([body])[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_official_client_reads_the_same(
    corpus: Path, name: str, relaxed: jsonschema.Draft202012Validator, client: openai.OpenAI
) -> None:
    body = (corpus / name).read_bytes()
    out, _ = run([body])
    ours, our_error = read(client, out)
    theirs, their_error = read(client, body)
    if not name.startswith(UNSEEN_ERRORS):
        assert our_error == their_error
    got, expected = normalise(ours), normalise(theirs)
    if our_error:  # a finish reason before it was none
        for choice in (*got["choices"].values(), *expected["choices"].values()):
            choice.pop("finish", None)
    if expected["usage"] is None:  # ours is then an estimate
        got["usage"] = None
    assert got == expected
    for one in ours[:: max(1, len(ours) // 20)]:
        relaxed.validate(one)


def read(client: openai.OpenAI, body: bytes) -> tuple[list[dict[str, Any]], bool]:
    """What openai-python yields, and whether it raised."""
    chunks: list[dict[str, Any]] = []
    response = httpx2.Response(200, content=body, request=httpx2.Request("POST", "http://localhost"))
    stream = openai.Stream(cast_to=ChatCompletionChunk, response=response, client=client)
    try:
        chunks += (one.to_dict(mode="json", warnings=False) for one in stream)
    except openai.APIError:
        return chunks, True
    return chunks, False


# --- the contract's normalisation: what may differ between a recording and what we make of it, and nothing else

TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
REASONS = ("stop", "length", "tool_calls", "content_filter")


def normalise(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"choices": {}, "extras": {}, "usage": None}
    for one in chunks:
        usage = one.get("usage") or (one.get("x_groq") or {}).get("usage")
        if usage:
            total["usage"] = counts(usage)
        if one.get("model"):
            total.setdefault("model", one["model"])
        for key, value in one.items():
            if (
                key not in ("id", "object", "created", "model", "choices", "usage", "obfuscation", "p")
                and value is not None
            ):
                total["extras"].setdefault(key, []).append(json.dumps(value, sort_keys=True))
        for position, choice in enumerate(one.get("choices") or []):
            add_choice(total["choices"].setdefault(choice.get("index", position), new_choice()), choice)
    for choice in total["choices"].values():
        if choice["calls"] and choice["finish"] in (None, "stop"):
            choice["finish"] = "tool_calls"
        choice["finish"] = choice["finish"] or "stop"
        del choice["at"]
    total["extras"] = {key: (values[0], values[-1]) for key, values in total["extras"].items()}
    return total


def new_choice() -> dict[str, Any]:
    return {"texts": dict.fromkeys(TEXTS, ""), "details": [], "calls": [], "finish": None, "logprobs": 0, "at": {}}


def counts(usage: dict[str, Any]) -> tuple[int, int]:
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    if reasoning and usage["total_tokens"] == prompt + completion + reasoning:
        completion += reasoning  # xAI counts reasoning beside the completion
    return prompt, completion


def add_choice(total: dict[str, Any], choice: dict[str, Any]) -> None:
    delta = choice.get("delta") or choice.get("message") or {}
    for key in TEXTS:
        value = delta.get(key)
        if isinstance(value, list):  # Mistral's parts
            for part in value:
                if part["type"] == "text":
                    total["texts"]["content"] += part["text"]
                elif part["type"] == "thinking":
                    total["texts"]["reasoning_content"] += "".join(piece["text"] for piece in part["thinking"])
        else:
            total["texts"][key] += value or ""
    total["details"] += delta.get("reasoning_details") or []
    for position, call in enumerate(delta.get("tool_calls") or []):
        add_call(total, call, position)
    total["logprobs"] += len((choice.get("logprobs") or {}).get("content") or [])
    reason = choice.get("finish_reason")
    if reason in REASONS and total["finish"] is None:
        total["finish"] = reason


def add_call(total: dict[str, Any], call: dict[str, Any], position: int) -> None:
    calls, at = total["calls"], total["at"]
    function = call.get("function") or {}
    index = call.get("index", position)
    known = at.get(index)
    another = known is None or (call.get("id") and function.get("name") and calls[known]["id"] != call["id"])
    if another:
        at[index] = known = len(calls)
        calls.append({"id": call.get("id"), "name": function.get("name"), "arguments": ""})
    calls[known]["arguments"] += function.get("arguments") or ""
