"""Tool calls of a stream: which delta belongs to which call, whatever indices and ids a server gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import answer
from tests.dialects.openai_chat.streams import bytewise, chunk, events, parse, run

ROLE = chunk({"role": "assistant", "content": ""})
DROPPED = object()
IDS: dict[str, dict[str, Any]] = {
    "empty": {"id": ""}, "missing": {}, "null": {"id": None}, "alike": {"id": "call_0"},
}  # fmt: skip


def call(name: str | None = None, arguments: Any = None, **members: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {**members, "function": {key: value for key, value in function.items() if value is not None}}


def calls(*deltas: Any, cut: bool = False) -> list[tuple[str, str]]:
    """(name, arguments) of each call, as a client adds them up.  Ids are told apart on the way."""
    chunks = [chunk({"tool_calls": delta if isinstance(delta, list) else [delta]}) for delta in deltas]
    data = events(ROLE, *chunks, chunk({}, "stop"), "[DONE]")
    out, stream = run(bytewise(data) if cut else [data])
    assert stream.error is None
    sums: dict[int, dict[str, str]] = {}
    finishes = []
    for one in parse(out):
        for choice in one["choices"]:
            finishes.append(choice["finish_reason"])
            for delta in choice["delta"].get("tool_calls") or ():
                total = sums.setdefault(delta["index"], {"id": "", "type": "", "name": "", "arguments": ""})
                for key, value in {**delta, **(delta.get("function") or {})}.items():
                    if key in total:
                        total[key] += value
    assert finishes[-1] == "tool_calls" and sorted(sums) == list(range(len(sums)))
    assert len({total["id"] for total in sums.values()}) == len(sums) and all(total["id"] for total in sums.values())
    assert {total["type"] for total in sums.values()} == {"function"}
    return [(sums[index]["name"], sums[index]["arguments"]) for index in sorted(sums)]


WEATHER, TIME = ("weather", '{"city":"Paris"}'), ("time", '{"zone":"UTC"}')
AGAIN = ("weather", '{"city":"Rome"}')


@pytest.mark.parametrize("ids", IDS.values(), ids=list(IDS))
@pytest.mark.parametrize("second", [TIME, AGAIN], ids=["another function", "the same function"])
@pytest.mark.parametrize(
    "index", [{"index": 0}, {"index": "0"}, {"index": None}, {}], ids=["0", "text", "null", "none"]
)
def test_calls_at_one_index_are_told_apart(ids: dict[str, Any], second: tuple[str, str], index: dict[str, Any]) -> None:
    expected = [WEATHER, second]
    one, two = ({**call(*each), **ids, **index} for each in expected)
    assert calls(one, two) == calls(one, two, cut=True) == expected
    assert calls([one, two]) == expected
    assert calls({**one, "type": "function"}, {**two, "type": "function"}) == expected
    pieces: list[dict[str, Any]] = []
    for name, arguments in expected:
        pieces += [
            {**call(name, ""), **ids, **index},
            {**call(None, arguments[:5]), **index},
            {**call(None, arguments[5:]), **index},
        ]
    assert calls(*pieces) == expected


@pytest.mark.parametrize("ids", [*IDS.values(), None], ids=[*IDS, "own"])
def test_calls_at_indices_of_their_own_may_be_interleaved(ids: dict[str, Any] | None) -> None:
    one, two = (ids, ids) if ids is not None else ({"id": "a"}, {"id": "b"})
    started = [call("weather", "", index=0, **one), call("weather", "", index=1, **two)]
    rest = [
        call(None, '{"a":', index=0),
        call(None, '{"b":', index=1),
        call(None, "1}", index=0),
        call(None, "2}", index=1),
    ]
    assert calls(*started, *rest) == [("weather", '{"a":1}'), ("weather", '{"b":2}')]
    assert calls(call(*WEATHER, index=1, **one), call(*TIME, index=3, **two)) == [WEATHER, TIME]


NEW_IDS = {
    "no name": [
        call("f", "", index=0, id="a"),
        call(None, '{"c":', index=0, id="b"),
        call(None, "1}", index=0, id="c"),
    ],
    "the name each time": [
        call("f", "", index=0, id="a"),
        call("f", '{"c":', index=0, id="b"),
        call("f", "1}", index=0, id="c"),
    ],
    "an empty name": [
        call("f", "", index=0, id="a"),
        call("", '{"c":', index=0, id="b"),
        call("", "1}", index=0, id="c"),
    ],
    "no index": [call("f", "", id="a"), call(None, '{"c":', id="b"), call(None, "1}", id="c")],
    "a new index, too": [
        call("f", "", index=0, id="a"),
        call(None, '{"c":', index=1, id="b"),
        call(None, "1}", index=2, id="c"),
    ],
    "only a new index": [call("f", "", index=0, id="a"), call(None, '{"c":', index=1), call(None, "1}", index=2)],
}


@pytest.mark.parametrize("deltas", NEW_IDS.values(), ids=list(NEW_IDS))
def test_a_new_id_with_each_delta_is_no_new_call(deltas: list[dict[str, Any]]) -> None:
    assert calls(*deltas) == [("f", '{"c":1}')]
    assert calls(*deltas, call("g", "", index=0, id="x"), call(None, "{}", index=0, id="y"))[0] == ("f", '{"c":1}')


REAL = [call(None, '{"a":', index=0), call(None, "1}", index=0)]
FORMS: dict[str, Any] = {
    "a name in pieces": (
        [call("get_", "", index=0, id="a"), call("time", index=0), call(None, "{}", index=0)],
        [("get_time", "{}")],
    ),
    "a name that grows": (
        [call("get_", "", index=0, id="a"), call("get_time", index=0), call(None, "{}", index=0)],
        [("get_time", "{}")],
    ),
    "all repeated": (
        [
            call("f", "", index=0, id="a", type="function"),
            call("f", '{"a"', index=0, id="a", type="function"),
            call("f", ":1}", index=0, id="a", type="function"),
        ],
        [("f", '{"a":1}')],
    ),
    "an object": ([call("f", {"a": 1}, index=0, id="a")], [("f", '{"a": 1}')]),
    "arguments that grow": (
        [call("f", '{"ci', index=0, id="a"), call(None, '{"city":', index=0), call(None, '{"city":"P"}', index=0)],
        [("f", '{"city":"P"}')],
    ),
    "the same inside": (
        [call("f", '{"a":', index=0, id="a"), call(None, '{"a":1}', index=0), call(None, "}", index=0)],
        [("f", '{"a":{"a":1}}')],
    ),
    "the whole call twice": (
        [call("f", '{"a":1}', index=0, id="a"), call("f", '{"a":1}', index=0, id="a")],
        [("f", '{"a":1}')],
    ),
    "without its object": ([{"index": 0, "id": "a", "name": "f", "arguments": "{}"}], [("f", "{}")]),
    "an empty type": ([call("f", "", index=0, id="a", type=""), call(None, "{}", index=0, type="")], [("f", "{}")]),
    "a type each time": (
        [call("f", "", index=0, id="a", type="function"), call(None, "{}", index=0, type="function")],
        [("f", "{}")],
    ),
    "nothing but spaces behind": ([call("f", "{}", index=0, id="a"), call(None, " \n", index=0)], [("f", "{} \n")]),
    "braces in a text": (
        [call("f", '{"a":"}{\\"', index=0, id="a"), call(None, '}"}', index=0), call("g", "{}", index=0)],
        [("f", '{"a":"}{\\"}"}'), ("g", "{}")],
    ),
    "no arguments at all": (
        [call("f", "", index=0, type="function", id=""), call("g", "", index=0, type="function", id="")],
        [("f", ""), ("g", "")],
    ),
    "a name in pieces, all repeated": (
        [
            call("get_", "", index=0, id="a", type="function"),
            call("time", "", index=0, id="a", type="function"),
            call(None, "{}", index=0),
        ],
        [("get_time", "{}")],
    ),
    "an empty object first": ([call("f", "{}", index=0, id="a"), *REAL], [("f", '{"a":1}')]),
    "an empty object first, as an object": ([call("f", {}, index=0, id="a"), *REAL], [("f", '{"a":1}')]),
    "an empty object first, and nothing": (
        [call("f", " {} ", index=0, id="a"), call(None, "", index=0), call(None, "{}", index=0), *REAL],
        [("f", '{"a":1}')],
    ),
    "an empty object first, all repeated": (
        [call("f", "{}", index=0, id="a"), call("f", '{"a":', index=0, id="a"), call("f", "1}", index=0, id="a")],
        [("f", '{"a":1}')],
    ),
    "an empty object first, then one that grows": (
        [call("f", "{}", index=0, id="a"), call(None, '{"a', index=0), call(None, '{"a":1}', index=0)],
        [("f", '{"a":1}')],
    ),
    "an empty object first in each of two": (
        [[call("f", "{}", index=0, id="a"), call("g", "{}", index=1, id="b")], *REAL, call(None, '{"b":2}', index=1)],
        [("f", '{"a":1}'), ("g", '{"b":2}')],
    ),
    "an empty object is all": (
        [call("f", "{}", index=0, id="a"), call("g", "{}", index=1, id="b"), call(None, '{"b":2}', index=1)],
        [("f", "{}"), ("g", '{"b":2}')],
    ),
    "the same function with nothing, twice": (
        [call("f", "{}", index=0, id="a"), call("f", "{}", index=0, id="b")],
        [("f", "{}"), ("f", "{}")],
    ),
    "an empty object last": (
        [call("f", "", index=0, id="a"), *REAL, call(None, "{}", index=0), call(None, "{}", index=0)],
        [("f", '{"a":1}')],
    ),
    "all of it again without a name": (
        [call("f", "", index=0, id="a"), *REAL, call(None, '{"a":1}', index=0, id="a", type="function")],
        [("f", '{"a":1}')],
    ),
    "all of it again in another spelling": (
        [call("f", "", index=0, id="a"), *REAL, call(None, {"a": 1}, index=0)],
        [("f", '{"a":1}')],
    ),
    "a call like the one before, at an index of its own": (
        [call("f", '{"a":1}', index=0, id="a"), call("f", '{"a":1}', index=1, id="a")],
        [("f", '{"a":1}'), ("f", '{"a":1}')],
    ),
    "half a character": (
        [call("f", '{"a":"\ud83d', index=0, id="a"), call(None, '\ude00"}', index=0)],
        [("f", '{"a":"😀"}')],
    ),
}


@pytest.mark.parametrize(("deltas", "expected"), FORMS.values(), ids=list(FORMS))
def test_calls_in_other_forms(deltas: list[Any], expected: list[tuple[str, str]]) -> None:
    assert calls(*deltas) == calls(*deltas, cut=True) == expected


def test_what_is_no_list_of_calls_is_read_as_one() -> None:
    one = call("f", "{}", index=0, id="a")
    for value in (one, [None, one]):
        out, _ = run([events(chunk({"tool_calls": value}), chunk({}, "stop"), "[DONE]")])
        assert b'"name": "f"' in out or b'"name":"f"' in out
        assert b'"tool_calls"' in out and b"null,{" not in out


def test_whole_calls_are_never_merged() -> None:
    alike = [
        call("f", "", id="a", type=""),
        call("f", "", id="a"),
        call("f", "{}", index=0),
        call("g", {"a": 1}, id=""),
    ]
    message = {"role": "assistant", "content": None, "tool_calls": alike}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    (choice,) = json.loads(answer(body, Reply(ident="x", created=1, model="m")).write(None, None))["choices"]
    got = choice["message"]["tool_calls"]
    assert [one["function"]["name"] for one in got] == ["f", "f", "f", "g"]
    assert len({one["id"] for one in got}) == 4 and {one["type"] for one in got} == {"function"}
    assert got[3]["function"]["arguments"] == '{"a": 1}' and choice["finish_reason"] == "tool_calls"


def test_two_values_in_one_calls_arguments_are_no_success() -> None:
    started = chunk({"tool_calls": [call("f", '{"a":1}', index=0, id="a")]})
    for more in ('{"b":2}', '{"b"', ' [{"a":1}]'):
        rest = chunk({"tool_calls": [call(None, more, index=0)]})
        for end in (["[DONE]"], []):
            out, stream = run([events(ROLE, started, rest, chunk({}, "tool_calls"), *end)])
            assert stream.error is not None and "tool call" in stream.error.message and b"[DONE]" not in out


@pytest.mark.parametrize("late", [{"content": "x"}, {}])
def test_an_empty_object_is_sent_before_the_end(late: dict[str, str]) -> None:
    started = chunk({"tool_calls": [call("f", "{}", index=0, id="a")]})
    out, stream = run([events(ROLE, started, chunk(late), chunk({}, "tool_calls"), "[DONE]")])
    assert stream.error is None
    pieces = [
        choice["delta"]["tool_calls"][0]["function"]["arguments"] if "tool_calls" in choice["delta"] else choice
        for one in parse(out)
        for choice in one["choices"]
    ]
    assert [piece for piece in pieces if isinstance(piece, str)] == ["", "{}"]
    assert pieces[-1]["finish_reason"] == "tool_calls"
