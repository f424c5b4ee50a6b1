"""Members of odd types in a chat upstream's answer, for clients of other APIs: absent, and no bug of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.base import Reply, TextDelta, ToolDelta, ToolStart
from headgate.dialects.openai_chat.source import ChatSource

CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "odd",
    [
        {"refusal": False},
        {"refusal": []},
        {"reasoning": {"text": "x"}},
        {"reasoning_content": ["a"]},
        {"reasoning_content": 5},
    ],
)
def test_text_beside_odd_members_is_read(odd: dict[str, Any]) -> None:
    source = ChatSource(Reply("chatcmpl-1", 1, "m", provider="up"))
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi", "tool_calls": [CALL], **odd}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    data = "".join(f"data: {json.dumps(one)}\n\n" for one in (chunk, end))
    deltas = [*source.feed(data.encode() + b"data: [DONE]\n\n"), *source.close()]
    assert source.error is None and source.done
    assert [one for one in deltas if isinstance(one, TextDelta | ToolStart | ToolDelta)] == [
        TextDelta("Hi"), ToolStart(0, "c", "f"), ToolDelta(0, "{}"),
    ]  # fmt: skip
