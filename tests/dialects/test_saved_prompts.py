"""``headgate.prompt`` as clients send it, and a saved prompt's messages in the form of each client's API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.registry import CLIENTS
from headgate.errors import GatewayError
from headgate.model import Call, PromptMessage, PromptReference, Provider, Target, Timeouts
from headgate.model.prices import Price

CHAT, MESSAGES = CLIENTS["openai_chat"], CLIENTS["anthropic_messages"]
BODIES: dict[str, dict[str, Any]] = {CHAT.name: {"model": "m"}, MESSAGES.name: {"model": "m", "max_tokens": 9}}
HI = {"role": "user", "content": "Hi"}
SHOTS = [
    PromptMessage("system", "Be kind."),
    PromptMessage("developer", 'Say "yes".'),
    PromptMessage("user", "Q\n"),
    PromptMessage("assistant", "A"),
]


def read(client: Any, **members: Any) -> Call:
    call: Call = client.read(json.dumps({**BODIES[client.name], **members}, indent=1).encode())
    return call


def of(client: Any, prompt: Any) -> PromptReference | None:
    return read(client, messages=[HI], headgate={"prompt": prompt}).saved_prompt


def plain(members: Any) -> dict[str, Any]:
    return {key: json.loads(bytes(value)) for key, value in members.items()}


# ------------------------------------------------------------------------------------- the reference


@pytest.mark.parametrize("client", [CHAT, MESSAGES], ids=lambda one: one.name)
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
@pytest.mark.parametrize("client", [CHAT, MESSAGES], ids=lambda one: one.name)
def test_references_that_cannot_be_meant(client: Any, prompt: Any, param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        of(client, prompt)
    error = caught.value
    assert (error.kind.status, error.param) == (400, f"headgate.prompt{param}")
    assert f"'{error.param}'" in error.message


@pytest.mark.parametrize("messages", [..., None, []], ids=str)
@pytest.mark.parametrize("client", [CHAT, MESSAGES], ids=lambda one: one.name)
def test_messages_may_be_missing_beside_a_prompt_only(client: Any, messages: Any) -> None:
    own = {} if messages is ... else {"messages": messages}
    call = read(client, **own, headgate={"prompt": {"id": "p"}})
    found = client.with_prompt(call, [PromptMessage("user", "Q")])
    assert plain(found.body)["messages"] == [{"role": "user", "content": "Q"}]
    for options in ({}, {"headgate": None}, {"headgate": {"prompt": None}}, {"headgate": {"retries": 1}}):
        with pytest.raises(GatewayError) as caught:
            read(client, **own, **options)
        assert caught.value.param == "messages"
    for wrong in ("x", {}, [1], 3):
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


def test_instructions_alone_are_a_question_to_every_upstream() -> None:
    from headgate.dialects.registry import BACKENDS

    call = read(MESSAGES, messages=[], headgate={"prompt": {"id": "p"}})
    found = MESSAGES.with_prompt(call, [PromptMessage("system", "Tell a joke.")])
    provider = Provider("p", "http://127.0.0.1:1", dialect=MESSAGES.name)
    target = Target(provider, "m", "m-up", Price(), Timeouts())
    rendered = json.loads(BACKENDS[MESSAGES.name].render(found, target, True).body)
    assert rendered["messages"] == [{"role": "user", "content": "Tell a joke."}] and "system" not in rendered
