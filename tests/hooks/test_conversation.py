"""A request as hooks see it: its texts, and what becomes of the members that they change."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.registry import CLIENTS
from headgate.errors import GatewayError
from headgate.hooks.conversation import RewritableRequest

IMAGE = "data:image/png;base64,SECRET"
CALL = {"id": "SECRET", "type": "function", "function": {"name": "SECRET", "arguments": '{"a": "SECRET"}'}}
PARTS = [{"type": "text", "text": "SECRET"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
BODY: dict[str, Any] = {
    "model": "SECRET",
    "messages": [
        {"role": "user", "content": PARTS},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "SECRET", "content": "SECRET"},
    ],
    "user": "SECRET",
    "tools": [{"type": "function", "function": {"name": "SECRET", "description": "SECRET"}}],
    "headgate": {"timeout_ms": 500},
    "max_tokens": 7,
    "seed": 18446744073709551617,
}


def request(**members: Any) -> RewritableRequest:
    return RewritableRequest(CLIENTS["openai_chat"].read(json.dumps({**BODY, **members}).encode()))


def test_texts_are_rewritten_and_nothing_else() -> None:
    one = request()
    assert one.texts() == ["SECRET", '{"a": "SECRET"}', "SECRET", "SECRET", "SECRET"]
    one.rewrite(lambda text: text.replace("SECRET", "x"))
    assert one.settle()
    found = {name: json.loads(bytes(raw)) for name, raw in one.call.body.items()}
    assert found["messages"][0]["content"] == [{"type": "text", "text": "x"}, PARTS[1]]
    call = {**CALL, "function": {"name": "SECRET", "arguments": '{"a": "x"}'}}
    assert found["messages"][1]["tool_calls"] == [call]
    assert found["messages"][2] == {"role": "tool", "tool_call_id": "SECRET", "content": "x"}
    assert (found["user"], found["model"], found["seed"]) == ("x", "SECRET", BODY["seed"])
    assert (one.call.max_tokens, one.call.timeout_ms) == (7, 500)


def test_members_are_put_and_taken_out() -> None:
    one = request()
    one.put("max_tokens", 3)
    one.put("tools", None)
    assert one.settle() and one.call.max_tokens == 3 and "tools" not in one.call.body
    assert not one.settle()
    one.note()
    assert one.settle()
    one.put("messages", "none")
    with pytest.raises(GatewayError):
        one.settle()
