"""The key of the response cache: what may change an answer changes it, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from headgate.dialects import canonical
from headgate.dialects.registry import CLIENTS
from headgate.model import Alias, Attempt, Call, Grant, ModelRow, Plan, Price, Provider, Target, Timeouts
from headgate.policy import caching
from headgate.wire import codec

CHAT, MESSAGES = CLIENTS["openai_chat"], CLIENTS["anthropic_messages"]
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {"messages": st.just([{"role": "user", "content": "Hi"}])},
    optional={"temperature": st.floats(0, 2), "seed": st.integers(0, 2**62), "tools": st.lists(VALUES, max_size=2)},
)


def shuffled(value: Any, draw: Any) -> Any:
    if isinstance(value, list):
        return [shuffled(one, draw) for one in value]
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {name: shuffled(value[name], draw) for name in names}
    return value


def fingerprint(request: dict[str, Any], indent: int | None = None, escaped: bool = True) -> bytes:
    return canonical.fingerprint(CHAT.read(json.dumps(request, indent=indent, ensure_ascii=escaped).encode()), {})


@given(VALUES, st.data())
def test_order_and_white_space_do_not_change_a_value(value: Any, data: st.DataObject) -> None:
    other = json.dumps(shuffled(value, data.draw), indent=data.draw(st.sampled_from([None, 0, 3])))
    assert codec.canonical(json.dumps(value).encode()) == codec.canonical(other.encode())


@given(VALUES, VALUES)
def test_other_values_are_other_texts(one: Any, other: Any) -> None:
    first, second = (json.dumps(value, sort_keys=True) for value in (one, other))
    assert (codec.canonical(first.encode()) == codec.canonical(second.encode())) == (first == second)


@given(REQUESTS, st.data())
def test_order_and_white_space_do_not_change_a_fingerprint(request: dict[str, Any], data: st.DataObject) -> None:
    other = shuffled(request, data.draw)
    assert fingerprint(request) == fingerprint(other, indent=2, escaped=False)


@given(REQUESTS, REQUESTS)
def test_every_other_member_changes_a_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same


@pytest.mark.parametrize(
    "member",
    [
        {"stream": True}, {"stream_options": {"include_usage": True}, "stream": True}, {"user": "u"},
        {"metadata": {"run": "1"}}, {"model": "other"}, {"headgate": {"timeout_ms": 5, "metadata": {"a": "b"}}},
        {"prompt_cache_key": "k"}, {"safety_identifier": "s"}, {"include_route_trace": True},
    ],
)  # fmt: skip
def test_members_that_change_no_answer_are_left_out(member: dict[str, Any]) -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert fingerprint(request) == fingerprint({**request, **member})


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0"), ("1.0", "1.00"), ("0.1", "0.10000000000000001"), ("1e400", "1e401"), ("0", "-0.0"),
     ("123456789012345678901", "123456789012345678902"), ('"1"', "1"), ("null", "[]"), ("[1,2]", "[2,1]")],
)  # fmt: skip
def test_numbers_are_exact(one: str, other: str) -> None:
    assert codec.canonical(one.encode()) != codec.canonical(other.encode())


@pytest.mark.parametrize("text", ["1e99999999999999999999999", "[" * 2000 + "]" * 2000, '"\\ud800"', "tru"])
def test_a_value_that_cannot_be_read_stays_as_it_is(text: str) -> None:
    assert codec.canonical(text.encode()) == text.encode()


def test_the_api_of_the_client_is_part_of_the_fingerprint() -> None:
    request = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()
    assert canonical.fingerprint(CHAT.read(request), {}) != canonical.fingerprint(MESSAGES.read(request), {})


def test_header_fields_that_belong_to_the_body_are_part_of_the_fingerprint() -> None:
    call = MESSAGES.read(json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode())
    found = {
        canonical.fingerprint(call, fields)
        for fields in ({}, {b"anthropic-beta": b"a"}, {b"anthropic-beta": b"b"}, {b"anthropic-version": b"a"})
    }
    assert len(found) == 4
    assert canonical.fingerprint(call, {b"user-agent": b"x"}) == canonical.fingerprint(call, {})


# ------------------------------------------------------------------------------------- the plan

ROW = ModelRow("m", param_defaults={"temperature": b"0"})
PROVIDER = Provider("up", "http://one/v1", forward_headers=("OpenAI-Organization",))
TARGET = Target(PROVIDER, "m", "m", Price(), Timeouts(), ROW)
PLAN = Plan("name", (Attempt(TARGET, None),))
GRANT = Grant("t0", "one")


def key(plan: Plan = PLAN, grant: Grant = GRANT, **headers: bytes) -> bytes:
    return caching.key(b"f", plan, grant, {name.replace("_", "-").encode(): value for name, value in headers.items()})


def targets(*found: Target) -> Plan:
    return replace(PLAN, attempts=tuple(Attempt(one, None) for one in found))


def test_the_key_depends_on_who_asks_and_on_who_would_be_asked() -> None:
    second = replace(TARGET, upstream_model="n", model="n")
    others = [
        key(),
        key(grant=Grant("t1", "two")),
        key(grant=Grant("t0", "one", tenant="t0")),
        key(replace(PLAN, requested="other")),
        key(targets(second)),
        key(targets(TARGET, second)),
        key(targets(second, TARGET)),
        key(targets(replace(TARGET, provider=replace(PROVIDER, base_url="http://two/v1")))),
        key(targets(replace(TARGET, provider=replace(PROVIDER, quirks=("no_n",))))),
        key(targets(replace(TARGET, provider=replace(PROVIDER, headers={"anthropic-beta": "x"})))),
        key(targets(replace(TARGET, row=replace(ROW, param_defaults={"temperature": b"1"})))),
        key(targets(replace(TARGET, row=replace(ROW, param_drop=("seed",))))),
        key(openai_organization=b"org"),
        caching.key(b"g", PLAN, GRANT, {}),
    ]
    assert len(set(others)) == len(others)
    same = [
        key(grant=Grant("t0", "renamed", models=("name",))),
        key(targets(replace(TARGET, price=Price(1, 2), timeouts=Timeouts(stall=1)))),
        key(replace(PLAN, alias=Alias("name", cache_enabled=True, cache_ttl_s=60))),
        key(user_agent=b"x"),
    ]
    assert set(same) == {key()}
    tenant = [key(grant=Grant(ident, ident, tenant="acme")) for ident in ("t0", "t1")]
    assert tenant[0] == tenant[1] != key()


def call(**headgate: Any) -> Call:
    return CHAT.read(json.dumps({"messages": [{"role": "user", "content": "Hi"}], "headgate": headgate}).encode())


@pytest.mark.parametrize(
    ("wish", "alias", "found"),
    [
        (None, {}, None),
        (None, {"cache_enabled": True}, (3600, False)),
        (None, {"cache_enabled": True, "cache_ttl_s": 90.0, "cache_pace": "recorded"}, (90, True)),
        ({}, {}, (3600, False)),
        ({"ttl_s": None}, {"cache_ttl_s": 70.0}, (70, False)),
        ({"ttl_s": 60, "pace": "recorded"}, {}, (60, True)),
        ({"pace": "at_once"}, {"cache_enabled": True, "cache_pace": "recorded"}, (3600, False)),
        ({"enabled": False}, {"cache_enabled": True}, None),
        ({"enabled": False, "ttl_s": 60}, {}, None),
        ({"enabled": True}, {"cache_enabled": False}, (3600, False)),
    ],
)
def test_a_request_overrides_its_alias(wish: Any, alias: dict[str, Any], found: tuple[float, bool] | None) -> None:
    options = call(**({} if wish is None else {"cache": wish})).options
    assert caching.decide(options, Alias("a", **alias)) == found


def test_only_sound_answers_are_stored() -> None:
    assert caching.is_sound("stop", 0, 5, None) and caching.is_sound("tool_calls", 0, 5, None)
    for finish, skipped, size in (("content_filter", 0, 5), ("", 0, 5), ("stop", 1, 5), ("stop", 0, 0)):
        assert not caching.is_sound(finish, skipped, size, None)
