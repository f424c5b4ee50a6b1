"""What a client may ask, what it is told when it may not, and what goes upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from headgate import errors
from headgate.dialects.openai_chat import read, request
from headgate.errors import GatewayError
from headgate.model import NO_OPTIONS, ModelRow, Options, Price, Provider, Target, Timeouts
from tests.dialects.openai_chat.streams import rendered

MESSAGES = [{"role": "user", "content": "Hi"}]


def body(**members: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **members}).encode()


def sent(call_body: bytes, **options: Any) -> dict[str, Any]:
    options = {"ask_usage": True, **options}
    result: dict[str, Any] = json.loads(rendered(read(call_body), "theirs", **options))
    return result


@pytest.mark.parametrize(
    ("members", "kind", "param"),
    [
        ({"messages": None}, errors.INVALID_VALUE, "messages"),
        ({"messages": []}, errors.INVALID_VALUE, "messages"),
        ({"messages": {}}, errors.INVALID_VALUE, "messages"),
        *(
            ({"messages": messages}, errors.INVALID_VALUE, "messages")
            for messages in ("x", ["hi"], [None], [1], [[]], [[{"role": "user"}]], ["", {"role": "user"}])
        ),
        ({"model": 5}, errors.INVALID_VALUE, "model"),
        ({"model": ""}, errors.INVALID_VALUE, "model"),
        *(
            ({"model": f"up/{bad}m"}, errors.INVALID_VALUE, "model")
            for bad in ("\x00", "\n", "\x1b[31m", "\x7f", "\x9b32m", "\u202e", "\u200b", "\u2028")
        ),
        ({"headgate": {"fallback_models": ["a\x1bb"]}}, errors.INVALID_VALUE, "headgate.fallback_models"),
        ({"headgate": {"metadata": {"a\x1b": "b"}}}, errors.INVALID_VALUE, "headgate.metadata"),
        ({"headgate": {"metadata": {"a": "b\x00"}}}, errors.INVALID_VALUE, "headgate.metadata"),
        ({"stream": "yes"}, errors.INVALID_VALUE, "stream"),
        ({"stream": 1}, errors.INVALID_VALUE, "stream"),
        ({"stream_options": 1, "stream": True}, errors.INVALID_VALUE, "stream_options"),
        (
            {"stream_options": {"include_usage": "x"}, "stream": True},
            errors.INVALID_VALUE,
            "stream_options.include_usage",
        ),
        ({"n": 0}, errors.INVALID_VALUE, "n"),
        ({"n": "2"}, errors.INVALID_VALUE, "n"),
        ({"max_tokens": 1.5}, errors.INVALID_VALUE, "max_tokens"),
        ({"max_completion_tokens": -2}, errors.INVALID_VALUE, "max_completion_tokens"),
        ({"include_route_trace": "x"}, errors.INVALID_VALUE, "include_route_trace"),
        ({"headgate": []}, errors.INVALID_VALUE, "headgate"),
        ({"headgate": {"nonsense": 1}}, errors.INVALID_VALUE, "headgate.nonsense"),
        ({"headgate": {"timeout_ms": 0}}, errors.INVALID_VALUE, "headgate.timeout_ms"),
        ({"headgate": {"timeout_ms": "1"}}, errors.INVALID_VALUE, "headgate.timeout_ms"),
        ({"headgate": {"metadata": {"a": 1}}}, errors.INVALID_VALUE, "headgate.metadata"),
        ({"headgate": {"metadata": {"a": "x" * 513}}}, errors.INVALID_VALUE, "headgate.metadata"),
        ({"headgate": {"metadata": {str(i): "" for i in range(17)}}}, errors.INVALID_VALUE, "headgate.metadata"),
        *(
            ({"headgate": {option: None}}, errors.NOT_YET_SUPPORTED, f"headgate.{option}")
            for option in ("max_latency_ms", "allow_hosters", "deny_hosters")
        ),
        *(
            ({"headgate": {option: value}}, errors.INVALID_VALUE, f"headgate.{option}")
            for option, value in (
                ("max_cost_usd", -0.1),
                ("tier", "fastest"),
                ("tier", 1),
                ("max_cost_usd", "1"),
                ("max_cost_usd", True),
                ("max_cost_usd", 1e300),
                ("fallback_models", "m"),
                ("fallback_models", [""]),
                ("fallback_models", [1]),
                ("fallback_models", ["x" * 257]),
                ("fallback_models", [f"m{i}" for i in range(9)]),
                ("preferred_providers", ["x" * 65]),
                ("excluded_providers", [f"p{i}" for i in range(33)]),
                ("excluded_providers", {"p": 1}),
                ("retries", 3),
                ("retries", -1),
                ("retries", 1.5),
                ("privacy", "none"),
                ("privacy", 1),
                ("on_disconnect", "stop"),
                ("resumable_s", -1),
                ("resumable_s", 3601),
                ("resumable_s", "60"),
                ("on_midstream_failure", "abort"),
            )
        ),
    ],
)
def test_refused(members: dict[str, Any], kind: errors.Kind, param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(body(**members))
    assert (caught.value.kind, caught.value.param) == (kind, param)
    assert param in caught.value.message


@pytest.mark.parametrize("messages", [b"[ ]", b"[\n\t ]", b"[" + b" " * 300 + b"]"])
def test_an_empty_array_with_spaces_is_empty(messages: bytes) -> None:
    with pytest.raises(GatewayError, match="messages"):
        read(b'{"messages":' + messages + b"}")


def test_what_is_read() -> None:
    call = read(
        body(
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=5,
            max_completion_tokens=7,
            n=2,
            headgate={"timeout_ms": 1500, "metadata": {"team": "a"}},
            include_route_trace=False,
        )
    )
    assert not call.trace and call.options is NO_OPTIONS
    assert (call.model, call.stream, call.include_usage, call.max_tokens) == ("m", True, True, 7)
    assert (call.timeout_ms, call.metadata) == (1500, {"team": "a"})
    assert call.prompt.size == len(json.dumps(MESSAGES))
    assert "headgate" not in call.body
    assert "include_route_trace" not in call.body


def test_options_say_how_a_call_is_conducted() -> None:
    options = {
        "max_cost_usd": 0.005,
        "fallback_models": ["a", "b/c", "a"],
        "preferred_providers": ["p"],
        "excluded_providers": ["q", "r"],
        "retries": 0,
        "privacy": "no_train",
        "on_disconnect": "drain",
        "resumable_s": 30,
        "on_midstream_failure": "error",
    }
    call = read(body(headgate=options, include_route_trace=True))
    assert call.options == Options(5_000_000, ("a", "b/c"), ("p",), ("q", "r"), 0, "no_train", "drain", 30.0, "error")
    assert call.trace
    assert read(body(headgate=dict.fromkeys(options))).options is NO_OPTIONS


def test_nulls_and_absent_members_are_nothing_asked() -> None:
    asked = dict.fromkeys(("model", "stream", "stream_options", "n", "max_tokens", "headgate"))
    call = read(body(**asked))
    assert (call.model, call.stream, call.include_usage, call.max_tokens) == (None, False, False, None)
    assert read(b'{"messages":[{}]}').model is None


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [b"-1", b"-1.0"])
def test_a_limit_of_minus_one_is_no_limit_and_passes_as_it_came(key: str, value: bytes) -> None:
    call = read(b'{"messages":[{}],"%b":%b}' % (key.encode(), value))
    assert call.max_tokens is None
    assert b'"%b":%b' % (key.encode(), value) in rendered(call, "theirs", ask_usage=True)


@pytest.mark.parametrize("more", [{}, {"stream": False}, {"stream": None}])
@pytest.mark.parametrize("given", [{"include_usage": True}, {"include_usage": "x"}, {}, None, 1])
def test_stream_options_without_a_stream_are_dropped(more: dict[str, Any], given: Any) -> None:
    call = read(body(stream_options=given, **more))
    assert not call.include_usage
    assert "stream_options" not in json.loads(rendered(call, "theirs", ask_usage=True))


OTHER_NAME = {"param_map": {"max_tokens": "max_completion_tokens"}}
WITH_DEFAULT = {"param_defaults": {"max_tokens": b"512"}}


@pytest.mark.parametrize(
    ("row", "given", "expected"),
    [
        (OTHER_NAME, {"max_tokens": 9, "max_completion_tokens": None}, {"max_completion_tokens": 9}),
        (OTHER_NAME, {"max_completion_tokens": None, "max_tokens": 9}, {"max_completion_tokens": 9}),
        (OTHER_NAME, {"max_completion_tokens": 9, "max_tokens": None}, {"max_completion_tokens": 9}),
        (OTHER_NAME, {"max_tokens": None, "max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (OTHER_NAME, {"max_tokens": 5, "max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (OTHER_NAME, {"max_tokens": None}, {"max_completion_tokens": None}),
        (OTHER_NAME, {"max_tokens": -1}, {"max_completion_tokens": -1}),
        (WITH_DEFAULT, {}, {"max_tokens": 512}),
        (WITH_DEFAULT, {"max_tokens": None}, {"max_tokens": 512}),
        (WITH_DEFAULT, {"max_tokens": -1}, {"max_tokens": -1}),
        (WITH_DEFAULT, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (WITH_DEFAULT, {"max_completion_tokens": None}, {"max_completion_tokens": None, "max_tokens": 512}),
    ],
)
def test_a_null_beside_a_limit_never_replaces_it(
    row: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    asked = json.loads(rendered(read(body(**given)), "theirs", ask_usage=True, row=ModelRow("m", **row)))
    limits = {key: asked[key] for key in ("max_tokens", "max_completion_tokens") if key in asked}
    assert limits == expected


def test_of_doubled_keys_the_last_counts_everywhere() -> None:
    call = read(b'{"model":"cheap","messages":[{}],"model":"dear","stream":true,"stream":false}')
    assert (call.model, call.stream) == ("dear", False)
    assert rendered(call, "theirs", ask_usage=True) == b'{"model":"theirs","messages":[{}],"stream":false}'


def test_everything_unknown_goes_upstream_as_it_came() -> None:
    unknown = b'"seed": 12345678901234567890123, "x":{"a" : [1e400]}, "tier":"fast", "spidergate_options":{}'
    call = read(b'{"messages": [ {"role":"user"} ], ' + unknown + b"}")
    assert rendered(call, 'a"b', ask_usage=True) == (
        b'{"messages":[ {"role":"user"} ],"seed":12345678901234567890123,"x":{"a" : [1e400]},"tier":"fast",'
        b'"spidergate_options":{},"model":"a\\"b"}'
    )


def test_usage_is_asked_of_every_stream_and_of_nothing_else() -> None:
    assert "stream_options" not in sent(body())
    assert sent(body(stream=True))["stream_options"] == {"include_usage": True}
    kept = sent(body(stream=True, stream_options={"include_usage": False, "include_obfuscation": False}))
    assert kept["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in sent(body(stream=True), ask_usage=False)
    asked = body(stream=True, stream_options={"include_usage": True})
    assert "stream_options" not in sent(asked, ask_usage=False)


def test_rendering_leaves_the_call_as_it_was() -> None:
    call = read(body(stream=True))
    before = dict(call.body)
    rendered(call, "a", ask_usage=True)
    assert call.body == before
    assert json.loads(rendered(call, "b", ask_usage=False))["model"] == "b"


def test_dropped_members_are_named() -> None:
    call = read(body(seed=1, user="u"))
    quirky = Provider("up", "http://up", quirks=("no_bookkeeping", "no_stream_options"))
    target = Target(quirky, "m", "m", Price(), Timeouts(), ModelRow("m", param_drop=("seed", "top_k")))
    assert request.render(call, target, ask_usage=False).dropped == ("seed", "user")


def test_a_model_row_sets_drops_and_renames() -> None:
    row = ModelRow(
        "m",
        param_defaults={"temperature": Raw(b"0.2"), "top_p": Raw(b"1")},
        param_drop=("seed",),
        param_map={"max_tokens": "max_completion_tokens"},
    )
    result = sent(body(seed=1, max_tokens=5, temperature=0.9), row=row)
    assert result == {
        "model": "theirs",
        "messages": MESSAGES,
        "temperature": 0.9,
        "top_p": 1,
        "max_completion_tokens": 5,
    }
