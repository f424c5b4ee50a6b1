"""``headgate.prompt`` as clients send it, and a saved prompt's messages in the form of each client's API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.registry import BACKENDS, CLIENTS
from headgate.errors import GatewayError
from headgate.model import Call, PromptMessage, PromptReference, Provider, Target, Timeouts
from headgate.model.prices import Price

CHAT, MESSAGES, RESPONSES = (CLIENTS[name] for name in ("openai_chat", "anthropic_messages", "openai_responses"))
EACH = pytest.mark.parametrize("client", [CHAT, MESSAGES, RESPONSES], ids=lambda one: one.name)
HI = {"role": "user", "content": "Hi"}
SHOTS = [
    PromptMessage("system", "Be kind."),
    PromptMessage("developer", 'Say "yes".'),
    PromptMessage("user", "Q\n"),
    PromptMessage("assistant", "A"),
]


def read(client: Any, **members: Any) -> Call:
    """``messages`` under the name that they have in the client's API."""
    if client is RESPONSES and "messages" in members:
        members["input"] = members.pop("messages")
    body = {"model": "m", **({"max_tokens": 9} if client is MESSAGES else {}), **members}
    call: Call = client.read(json.dumps(body, indent=1).encode())
    return call


def of(client: Any, prompt: Any) -> PromptReference | None:
    return read(client, messages=[HI], headgate={"prompt": prompt}).saved_prompt


def plain(members: Any) -> dict[str, Any]:
    return {key: json.loads(bytes(value)) for key, value in members.items()}


# ------------------------------------------------------------------------------------- the reference


@EACH
def test_the_reference_is_read(client: Any) -> None:
    assert of(client, None) is None
    assert of(client, {"id": "p"}) == PromptReference("p")
    sent = {"id": "p", "version": 3, "variables": {"a": "x", "b": 1.50, "c": True, "_d": -2, "e": ""}}
    values = {"a": "x", "b": "1.5", "c": "true", "_d": "-2", "e": ""}
    assert of(client, sent) == PromptReference("p", "3", values)
    assert of(client, {"id": "p", "version": "production", "variables": None}) == PromptReference("p", "production")
    assert of(client, {"id": "p", "version": None}) == PromptReference("p")


def test_numbers_keep_their_json_text() -> None:
    body = b'{"messages":[{"role":"user","content":"x"}],"headgate":{"prompt":{"id":"p","variables":{"n":1.50e3}}}}'
    reference = CHAT.read(body).saved_prompt
    assert reference is not None and reference.variables == {"n": "1.50e3"}


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ("p", ""),
        ([], ""),
        ({}, ".id"),
        ({"id": ""}, ".id"),
        ({"id": 3}, ".id"),
        ({"id": "x" * 65}, ".id"),
        ({"id": "a\u202eb"}, ".id"),
        ({"id": "p", "name": "p"}, ".name"),
        ({"id": "p", "version": ""}, ".version"),
        ({"id": "p", "version": 1.5}, ".version"),
        ({"id": "p", "version": True}, ".version"),
        ({"id": "p", "version": "x" * 33}, ".version"),
        ({"id": "p", "variables": []}, ".variables"),
        ({"id": "p", "variables": {"a b": "x"}}, ".variables"),
        ({"id": "p", "variables": {"a" * 65: "x"}}, ".variables"),
        ({"id": "p", "variables": {f"v{i}": "x" for i in range(65)}}, ".variables"),
        ({"id": "p", "variables": {"a": None}}, ".variables.a"),
        ({"id": "p", "variables": {"a": {}}}, ".variables.a"),
        ({"id": "p", "variables": {"a": ["x"]}}, ".variables.a"),
        ({"id": "p", "variables": {"a": "x" * 65_537}}, ".variables.a"),
    ],
)
@EACH
def test_references_that_cannot_be_meant(client: Any, prompt: Any, param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        of(client, prompt)
    error = caught.value
    assert (error.kind.status, error.param) == (400, f"headgate.prompt{param}")
    assert f"'{error.param}'" in error.message


@pytest.mark.parametrize("messages", [..., None, []], ids=str)
@EACH
def test_messages_may_be_missing_beside_a_prompt_only(client: Any, messages: Any) -> None:
    own = {} if messages is ... else {"messages": messages}
    call = read(client, **own, headgate={"prompt": {"id": "p"}})
    found = client.with_prompt(call, [PromptMessage("user", "Q")])
    assert plain(found.body)["messages"] == [{"role": "user", "content": "Q"}]
    for options in ({}, {"headgate": None}, {"headgate": {"prompt": None}}, {"headgate": {"retries": 1}}):
        with pytest.raises(GatewayError) as caught:
            read(client, **own, **options)
        assert caught.value.param == ("input" if client is RESPONSES else "messages")
    for wrong in ({}, [1], 3):
        with pytest.raises(GatewayError):
            read(client, messages=wrong, headgate={"prompt": {"id": "p"}})


# ------------------------------------------------------------------------------------- its messages


def test_messages_go_before_those_of_a_chat_client() -> None:
    own = b'[ {"role": "system",  "content": "Mine."}, {"role":"user","content":"H\\u00e9"} ]'
    call = CHAT.read(b'{"model": "m", "seed": 7, "messages": %b}' % own)
    found = CHAT.with_prompt(call, SHOTS)
    assert plain(found.body)["messages"] == [
        *({"role": one.role, "content": one.text} for one in SHOTS),
        {"role": "system", "content": "Mine."},
        {"role": "user", "content": "Hé"},
    ]
    assert bytes(found.body["messages"]).endswith(own[2:])  # with their own bytes
    assert bytes(found.body["seed"]) == b"7" and found.prompt.size == len(found.body["messages"])
    assert found.prompt.tokens > call.prompt.tokens


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (..., 'Be kind.\n\nSay "yes".'),
        (None, 'Be kind.\n\nSay "yes".'),
        ("Mine.", 'Be kind.\n\nSay "yes".\n\nMine.'),
        (
            [{"type": "text", "text": "Mine.", "cache_control": {"type": "ephemeral"}}],
            [
                {"type": "text", "text": "Be kind."},
                {"type": "text", "text": 'Say "yes".'},
                {"type": "text", "text": "Mine.", "cache_control": {"type": "ephemeral"}},
            ],
        ),
    ],
)
def test_messages_go_before_those_of_a_messages_client(system: Any, expected: Any) -> None:
    """In its own form, which an upstream of this API gets, and in the canonical one."""
    thought = {"type": "thinking", "thinking": "Hm", "signature": "sig"}
    own = [HI, {"role": "assistant", "content": [thought, {"type": "text", "text": "Yo"}]}, HI]
    more = {} if system is ... else {"system": system}
    found = MESSAGES.with_prompt(read(MESSAGES, messages=own, top_k=4, **more), SHOTS)
    assert found.native is not None
    native = plain(found.native)
    assert native["system"] == expected and native["top_k"] == 4
    assert native["messages"] == [{"role": "user", "content": "Q\n"}, {"role": "assistant", "content": "A"}, *own]
    said = plain(found.body)["messages"]
    joined = expected if isinstance(expected, str) else "\n\n".join(block["text"] for block in expected)
    assert said[0] == {"role": "system", "content": joined}
    assert said[1:] == [
        {"role": "user", "content": "Q\n"}, {"role": "assistant", "content": "A"}, HI,
        {"role": "assistant", "content": "Yo"}, HI,
    ]  # fmt: skip


@pytest.mark.parametrize("own", ["Hi", [HI]], ids=["text", "items"])
def test_messages_go_before_the_input_of_a_responses_client(own: Any) -> None:
    call = read(RESPONSES, messages=own, instructions="Mine.", truncation="auto")
    found = RESPONSES.with_prompt(call, SHOTS)
    assert found.native is not None
    native = plain(found.native)
    assert native["instructions"] == 'Be kind.\n\nSay "yes".\n\nMine.' and native["truncation"] == "auto"
    turns = [{"role": "user", "content": "Q\n"}, {"role": "assistant", "content": "A"}, HI]
    assert native["input"] == turns
    assert plain(found.body)["messages"] == [{"role": "system", "content": native["instructions"]}, *turns]
    without = RESPONSES.with_prompt(read(RESPONSES, messages=own), SHOTS[2:])
    assert without.native is not None and "instructions" not in without.native


def test_the_responses_api_has_a_name_of_its_own() -> None:
    call = read(RESPONSES, prompt={"id": "p", "version": "2", "variables": {"a": "x"}})
    assert call.saved_prompt == PromptReference("p", "2", {"a": "x"}, "prompt")
    assert call.native is not None and "prompt" not in call.native
    assert read(RESPONSES, messages="x", prompt=None).saved_prompt is None
    image = {"id": "p", "variables": {"a": {"type": "input_text", "text": "x"}}}
    for wrong, param in (("p", "prompt"), ({"id": "p", "x": 1}, "prompt.x"), (image, "prompt.variables.a")):
        with pytest.raises(GatewayError) as caught:
            read(RESPONSES, prompt=wrong)
        assert caught.value.param == param


def test_instructions_alone_are_a_question_to_every_upstream() -> None:

    for client, member in ((MESSAGES, "messages"), (RESPONSES, "input")):
        call = read(client, messages=[], headgate={"prompt": {"id": "p"}})
        found = client.with_prompt(call, [PromptMessage("system", "Tell a joke.")])
        provider = Provider("p", "http://127.0.0.1:1", dialect=client.name)
        target = Target(provider, "m", "m-up", Price(), Timeouts())
        rendered = json.loads(BACKENDS[client.name].render(found, target, True).body)
        assert "Tell a joke." in json.dumps(rendered[member])
