"""What is held back until it is complete, and what a chunk that ends in failure has said."""

from __future__ import annotations

from typing import Any

import pytest
from chat_streams import bytewise, check_contract, chunk, events, run

from headgate.dialects.openai_chat import ChatStream

ROLE = chunk({"role": "assistant", "content": ""})
CALL = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def texts(out: bytes, stream: ChatStream) -> str:
    chunks = check_contract(out, stream, usage=True)
    return "".join(choice["delta"].get("content") or "" for one in chunks for choice in one["choices"])


def parts(*pieces: Any) -> list[bytes]:
    return [events(piece) for piece in pieces]


@pytest.mark.parametrize("cut", ["each event by itself", "bytewise", "in one piece"])
@pytest.mark.parametrize("hold", ["", "all", "tools"])
def test_text_that_is_held_comes_in_its_order(hold: str, cut: str) -> None:
    """Also what the template of the chunks before would pass on without looking."""
    pieces = parts(
        ROLE,
        *(chunk({"content": text}) for text in ('{"a":1,', '"b":2,', '"c":3', "}", " ")),
        chunk({}, "stop"),
        "[DONE]",
    )
    whole = b"".join(pieces)
    fed = {"each event by itself": pieces, "bytewise": bytewise(whole), "in one piece": [whole]}[cut]
    assert texts(*run(fed, hold=hold)) == '{"a":1,"b":2,"c":3} '


def test_text_behind_a_tool_call_that_is_held_stays_behind_it() -> None:
    pieces = parts(
        ROLE,
        *(chunk({"content": text}) for text in ("hi ", "there ")),
        chunk({"tool_calls": CALL}),
        *(chunk({"content": text}) for text in ("mid ", "end ", "of it")),
        chunk({}, "tool_calls"),
        "[DONE]",
    )
    out, stream = run(pieces, hold="tools", keep=True)
    assert texts(out, stream) == "hi there mid end of it"
    assert out.index(b"tool_calls") < out.index(b"mid ")


def test_what_is_held_is_not_what_another_attempt_goes_on_from() -> None:
    stream = ChatStream("chatcmpl-1", 1, "m", False, hold="tools", keep=True)
    sent = b"".join(
        stream.feed(piece)
        for piece in parts(
            ROLE,
            chunk({"content": "a "}),
            chunk({"content": "b "}),
            chunk({"tool_calls": CALL}),
            *(chunk({"content": f"TEXT{number} "}) for number in range(3)),
        )
    )
    assert b"TEXT" not in sent and b"c1" not in sent
    assert stream.delivered is not None and stream.delivered.text == "a b "


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource"])
@pytest.mark.parametrize("known", [0, 3], ids=["first", "behind others"])
def test_text_on_a_chunk_that_ends_in_failure_is_not_counted_as_said(finish: str, known: int) -> None:
    """It is not sent, so whoever goes on has to say it."""
    stream = ChatStream("chatcmpl-1", 1, "m", False, keep=True)
    said = [f"word{number} " for number in range(known + 1)]
    for piece in parts(ROLE, *(chunk({"content": text}) for text in said)):
        stream.feed(piece)
    assert stream.feed(events(chunk({"content": "lost "}, finish))) == b""
    assert stream.error is not None
    assert stream.delivered is not None and stream.delivered.text == "".join(said)
