"""Quirks: what each of them does to a request, and that they cost nothing where there are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.openai_chat import read
from headgate.dialects.openai_chat.quirks import QUIRKS
from tests.dialects.openai_chat.streams import rendered

USER = {"role": "user", "content": "Hi"}


def sent(*quirks: str, **members: Any) -> dict[str, Any]:
    body = json.dumps({"model": "m", "messages": [USER], **members}, ensure_ascii=False).encode()
    result: dict[str, Any] = json.loads(rendered(read(body), "theirs", ask_usage=True, quirks=quirks))
    return result


@pytest.mark.parametrize(
    ("quirk", "given", "expected"),
    [
        ("max_tokens", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("max_tokens", {"max_tokens": 5}, {"max_tokens": 5}),
        ("max_tokens", {"max_tokens": 3, "max_completion_tokens": 5}, {"max_tokens": 3}),
        ("max_completion_tokens", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("max_completion_tokens", {"max_completion_tokens": None}, {"max_completion_tokens": None}),
        # A null says nothing, whichever of the two names it stands under and whichever comes first.
        ("max_tokens", {"max_tokens": None, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ("max_tokens", {"max_completion_tokens": 5, "max_tokens": None}, {"max_tokens": 5}),
        ("max_tokens", {"max_completion_tokens": None, "max_tokens": 5}, {"max_tokens": 5}),
        ("max_completion_tokens", {"max_tokens": 5, "max_completion_tokens": None}, {"max_completion_tokens": 5}),
        ("max_completion_tokens", {"max_tokens": None, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("max_completion_tokens", {"max_tokens": -1}, {"max_completion_tokens": -1}),
        ("no_unlimited", {"max_tokens": -1}, {}),
        ("no_unlimited", {"max_tokens": -1.0, "max_completion_tokens": -1}, {}),
        ("no_unlimited", {"max_tokens": 1, "max_completion_tokens": 0}, {"max_tokens": 1, "max_completion_tokens": 0}),
        ("seed_as_random_seed", {"seed": 7}, {"random_seed": 7}),
        ("no_bookkeeping", {"user": "u", "store": True, "metadata": {"a": "b"}, "top_p": 1}, {"top_p": 1}),
        ("no_stream_options", {"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        (
            "developer_as_system",
            {"messages": [{"role": "developer", "content": "Be \"kind\" 🎈", "x": [1, {"y": None}]}, USER]},
            {"messages": [{"role": "system", "content": "Be \"kind\" 🎈", "x": [1, {"y": None}]}, USER]},
        ),
        (
            "no_message_names",
            {"messages": [{**USER, "name": "Ada"}, {"role": "tool", "name": "f", "content": "1"}]},
            {"messages": [USER, {"role": "tool", "name": "f", "content": "1"}]},
        ),
    ],
)  # fmt: skip
def test_each(quirk: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(quirk, **given) == {"model": "theirs", "messages": [USER], **expected}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_what_does_not_concern_it_stays_byte_for_byte(quirk: str) -> None:
    body = (
        b'{"messages":[ {"role":"user","content":"\\ud83c\\udf88 \xc3\xa9 developer",'
        b'"k":1.00000000000000000001}],"tools":[{"type":"function","function":{"name":"f"}}],'
        b'"temperature":1e0,"model":"m"}'
    )
    plain = rendered(read(body), "theirs", ask_usage=True)
    assert rendered(read(body), "theirs", ask_usage=True, quirks=(quirk,)) == plain


def test_only_the_upstreams_request_is_edited() -> None:
    call = read(json.dumps({"model": "m", "messages": [{**USER, "name": "Ada"}], "max_tokens": 5}).encode())
    before = dict(call.body)
    rendered(call, "theirs", ask_usage=True, quirks=tuple(QUIRKS))
    assert call.body == before


def test_broken_messages_are_left_to_the_upstream() -> None:
    assert sent("developer_as_system", messages=[{}, "developer"])["messages"] == [{}, "developer"]
    assert sent("no_message_names", messages=[{"role": 5, "name": "x"}])["messages"] == [{"role": 5}]


def test_all_of_them_together() -> None:
    members = {"messages": [{"role": "developer", "content": "x", "name": "n"}], "max_tokens": 1, "seed": 2}
    quirks = ("max_completion_tokens", "developer_as_system", "no_message_names", "seed_as_random_seed")
    assert sent(*quirks, **members) == {
        "model": "theirs", "messages": [{"role": "system", "content": "x"}], "max_completion_tokens": 1,
        "random_seed": 2,
    }  # fmt: skip


def test_they_say_what_they_drop() -> None:
    assert QUIRKS["no_bookkeeping"].drops and not QUIRKS["max_tokens"].drops
    for name, quirk in QUIRKS.items():
        assert quirk.what and (not name.startswith("no_") or quirk.drops), name
