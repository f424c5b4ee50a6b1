"""Recorded answers and error bodies through the gateway, as the official Python client reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.conformance import reading, recordings
from tests.conformance.bench import Bench
from tests.dataplane import TOKEN

pytestmark = recordings.ABSENT
ANSWERS = [entry["file"] for entry in recordings.index("nonstream.json")]
ERRORS = [(entry["file"], int(entry["status"])) for entry in recordings.index("errors.json")]
OURS = ("id", "created", "object", "model", "choices", "usage", "headgate")
# What each upstream status becomes: its 401 is the gateway's trouble, never the client's.
CLASSES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.InternalServerError,
    404: openai.NotFoundError,
}
# Upstreams that answer 400 to a model that they do not have; a router goes on to the next one only at 404.
NO_SUCH_MODEL = {
    "errors/bedrock/004_400.json",
    "errors/bedrock/009_400.json",
    "errors/openai/029_400.json",
    "errors/openai/039_400.json",
}


@pytest.fixture(scope="module")
def client(bench: Bench) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=bench.gateway, api_key=TOKEN, max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, model: str, *, stream: bool = False) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], stream=stream)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_is_the_recorded_one(bench: Bench, client: openai.OpenAI, name: str) -> None:
    theirs = json.loads((bench.folder / name).read_bytes())
    ours = create(client, f"up/body:200:{name}").to_dict(mode="json", warnings=False)
    assert re.fullmatch("chatcmpl-[0-9a-f]{24}", ours["id"]) and ours["object"] == "chat.completion"
    assert ours["model"] == (theirs["model"] or f"body:200:{name}")
    assert ours["headgate"]["provider"] == "up" and ours["headgate"]["attempts"] == 1
    assert reading.extras_of("", theirs, OURS) <= reading.extras_of("", ours, OURS)
    if theirs.get("usage"):
        reading.compare_usage(theirs["usage"], ours["usage"])
    else:
        assert ours["usage"]["completion_tokens"] > 0
    for mine, recorded in zip(ours["choices"], theirs["choices"], strict=True):
        compare_choice(recorded, mine)


def compare_choice(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    message = theirs["message"]
    assert ours["message"]["role"] == "assistant"
    for key, text in reading.texts_of(message):
        assert (ours["message"].get(key) or "") == text
    known = ("role", "tool_calls", *reading.TEXTS)
    assert reading.extras_of("", message, known) == reading.extras_of("", ours["message"], known)
    calls = ours["message"].get("tool_calls") or []
    for mine, recorded in zip(calls, message.get("tool_calls") or [], strict=True):
        assert mine["type"] == "function" and mine["id"] and mine["id"] == (recorded.get("id") or mine["id"])
        assert mine["function"]["name"] == recorded["function"]["name"]
        assert mine["function"]["arguments"] == (recorded["function"].get("arguments") or "")
    reason = theirs.get("finish_reason") or "stop"  # one provider leaves it empty
    assert ours["finish_reason"] == ("tool_calls" if calls and reason == "stop" else reason)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "status"), ERRORS)
def test_a_recorded_error_is_the_right_class(
    bench: Bench, client: openai.OpenAI, name: str, status: int, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        create(client, f"up/body:{status}:{name}", stream=stream)
    error = caught.value
    assert type(error) is CLASSES[404 if name in NO_SUCH_MODEL else status]
    body = error.response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and body["error"]["type"] and body["error"]["code"]
    assert error.response.headers["x-request-id"] and "server-timing" in error.response.headers
    recorded = (bench.folder / name).read_text()
    for key in re.findall(r"\b(?:sk|gsk|hf|xai)[-_][A-Za-z0-9*_-]{8,}", recorded):
        assert key not in error.response.text
