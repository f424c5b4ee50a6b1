"""Asking for the rest of an answer: the request that does it, in every spelling, and the requests that allow none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects import canonical, openai_chat
from headgate.wire import codec

USER = {"role": "user", "content": "Tell me."}


def read(**members: Any) -> Any:
    return openai_chat.read(json.dumps({"model": "m", "messages": [USER], "stream": True} | members).encode())


def rest(said: str = " a b\n", tokens: int = 3, spelling: str = "trailing", **members: Any) -> dict[str, Any]:
    asked = openai_chat.continued(read(**members), said, tokens, spelling)
    return json.loads(codec.encode(asked.body))


@pytest.mark.parametrize(
    ("spelling", "message", "beside"),
    [
        ("trailing", {}, {}),
        ("prefix", {"prefix": True}, {}),
        ("continue_final_message", {}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_the_text_goes_along_exactly_in_each_spelling(
    spelling: str, message: dict[str, Any], beside: dict[str, Any]
) -> None:
    body = rest(spelling=spelling)
    assert body["messages"] == [USER, {"role": "assistant", "content": " a b\n"} | message]
    assert {name: body.get(name) for name in beside} == beside
    assert body.keys() - beside.keys() == {"model", "messages", "stream"}


@pytest.mark.parametrize("content", ["Once", [{"type": "text", "text": "On"}, {"type": "text", "text": "ce"}]])
def test_a_beginning_that_the_client_gave_stays_in_front(content: Any) -> None:
    body = rest(" upon", messages=[USER, {"role": "assistant", "content": content, "name": "teller"}])
    assert body["messages"] == [USER, {"role": "assistant", "content": "Once upon", "name": "teller"}]


def test_what_was_said_is_taken_from_what_may_be_said() -> None:
    assert rest(max_tokens=10)["max_tokens"] == 7
    assert rest(max_completion_tokens=10, tokens=10)["max_completion_tokens"] == 1
    assert openai_chat.exhausted(read(max_tokens=10), 10) and not openai_chat.exhausted(read(max_tokens=10), 9)
    assert not openai_chat.exhausted(read(), 10_000)


@pytest.mark.parametrize(
    ("members", "sent"),
    [
        ({}, {"max_tokens": 7}),
        ({"max_tokens": 90}, {"max_tokens": 7}),
        ({"max_completion_tokens": 90}, {"max_completion_tokens": 7}),
        ({"max_tokens": 90, "max_completion_tokens": 90}, {"max_tokens": 7, "max_completion_tokens": 7}),
    ],
)
def test_a_capped_request_names_its_limit_as_the_client_does(members: dict[str, Any], sent: dict[str, int]) -> None:
    call = canonical.capped(read(**members), 7)
    found = {name: json.loads(bytes(value)) for name, value in call.body.items() if name.startswith("max_")}
    assert (found, call.max_tokens) == (sent, 7)
