"""A chat completion request as policy reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects import openai_chat
from headgate.model import FEATURES, Prompt

USER = {"role": "user", "content": "Tell me."}


def prompt(**members: Any) -> Prompt:
    return openai_chat.read(json.dumps({"model": "m", "messages": [USER], "stream": True} | members).encode()).prompt


def test_size_and_tokens() -> None:
    short = prompt()
    assert short.size == len(json.dumps([USER])) and short.tokens == short.text_tokens == (short.size + 3) // 4
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:," + "A" * 20_000}}]}]
    attached = prompt(messages=image)
    assert 1600 < attached.tokens < 1640 and attached.text_tokens < 40


def test_tools_and_schemas_count_and_no_text_passes_for_an_attachment() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 4000}}]
    assert prompt(tools=tools).tokens > 1000 + prompt().tokens
    assert prompt(response_format={"type": "json_schema", "json_schema": {"x": "y" * 4000}}).tokens > 1000
    for text in ("A" * 20_000, '"url": "' + "A" * 20_000 + '"'):
        assert prompt(messages=[{"role": "user", "content": text}]).tokens > 5000


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}


@pytest.mark.parametrize(
    ("members", "used"),
    [
        ({}, ()),
        ({"tools": [], "functions": None, "audio": None, "response_format": {"type": "json_object"}}, ()),
        ({"functions": [{"name": "f"}]}, ("tools",)),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, ("json_schema",)),
        (
            {"messages": [{"role": "user", "content": [IMAGE, AUDIO]}]},
            ("vision", "audio"),
        ),
        ({"messages": [{"role": "user", "content": [{**IMAGE, "image_url": "https://x.example/a.png"}]}]}, ("vision",)),
        # every member of a part, most of them null; a text that is such a name
        ({"messages": [{"content": [{"text": "image_url", "image_url": None, "input_audio": None}]}]}, ()),
        ({"audio": {"voice": "v"}, "tools": [{"type": "function"}]}, ("tools", "audio")),
    ],
)
def test_features_that_are_used(members: dict[str, Any], used: tuple[str, ...]) -> None:
    assert prompt(**members).uses(FEATURES) == used
    assert prompt(**members).uses(()) == ()


def test_keys_of_a_prompt_cache() -> None:
    assert prompt(prompt_cache_key="k", user="u").cache_key == b'"k"' and prompt(user="u").user == b'"u"'
    nothing = prompt(prompt_cache_key="", user=None)
    assert nothing.cache_key == nothing.user == b""


def test_beginning_ends_with_the_first_user() -> None:
    system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Yes."}
    begun = prompt(messages=[system, USER]).beginning
    assert begun == prompt(messages=[system, USER, answer, USER]).beginning and b"Tell me." in begun
    assert len(prompt(messages=[{"role": "system", "content": "x" * 10_000}, USER]).beginning) == 4096


def test_effort_and_choices() -> None:
    assert (prompt(reasoning_effort="high").effort, prompt().effort, prompt(reasoning_effort=3).effort) == (
        "high", None, None,
    )  # fmt: skip
    assert (prompt().choices, prompt(n=None).choices, prompt(n=3).choices) == (1, 1, 3)


@pytest.mark.parametrize(
    ("members", "obstacle"),
    [
        ({}, None),
        ({"n": 1, "presence_penalty": 0, "logprobs": False, "response_format": {"type": "text"}}, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, None),
        ({"repetition_penalty": 1}, None),
        ({"n": 2}, "sampled"),
        ({"logprobs": True}, "sampled"),
        ({"frequency_penalty": 0.1}, "sampled"),
        ({"repetition_penalty": 1.1}, "sampled"),
        ({"modalities": ["text", "audio"]}, "sampled"),
        ({"tools": [{"type": "web_search"}]}, "sampled"),
        ({"previous_response_id": "r"}, "sampled"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}, "structured"),
        ({"guided_regex": "a+"}, "structured"),
    ],
)
def test_obstacle_of_a_continuation(members: dict[str, Any], obstacle: str | None) -> None:
    assert prompt(**members).obstacle == obstacle


def test_stops_in_both_forms() -> None:
    assert prompt(stop="x").stops == ("x",) and prompt(stop=["x", "", "y"]).stops == ("x", "y")
    assert prompt().stops == prompt(stop=None).stops == ()
