"""Where a broken stream may not go on, the client is told so; and what else must hold at a seam."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.continuation.broken_streams import Stream, asked, pair, plane, row, rows, run
from tests.dataplane import DataPlane

KINDS = (
    "trailing", "trailing+trims", "continue_final_message", "continue_final_message+trims", "prefix", "prefix+trims",
    "none", "refuse",
)  # fmt: skip
HOWS = ("close", "reset", "half", "end", "error")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}

# name: (how one target spells a prefill and what its engine does, the same of the other, the alias)
PAIRS: dict[str, tuple[tuple[str, str], tuple[str, str], dict[str, Any]]] = {
    "plain": (("trailing", ""), ("trailing", ""), {}),
    **{
        f"another-seed-{at}": (("none", "prefill=turn"), ("none", "prefill=turn&seed=99"), {}) for at in (1, 5, 20, 30)
    },  # one each, so that none is known to be unwell
    "another-end": (("none", "prefill=turn"), ("none", "prefill=turn&diverge=20"), {}),
    "echo": (("prefix", "prefill=ignore"), ("prefix", "prefill=ignore"), {}),
    "error": (("trailing", ""), ("trailing", ""), {"on_midstream_failure": "error"}),
    "hold": (("none", "prefill=turn"), ("none", "prefill=turn"), {"tool_calls": "hold"}),
    "impatient": (("trailing", ""), ("trailing", ""), {"timeouts": {"stall": 0.4}}),
}


@pytest.fixture(scope="module")
def gateway(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    made = [
        pair(engine, name, row("m", *a), row("m", *b), **alias)
        for name, (a, b, alias) in PAIRS.items()
    ]  # fmt: skip
    models = rows(KINDS)
    made += [
        pair(engine, f"mixed-{i}-{j}", models[a], models[b])
        for i, a in enumerate(KINDS)
        for j, b in enumerate(KINDS)
    ]  # fmt: skip
    with plane(
        tmp_path_factory.mktemp("limits"), [one for both, _ in made for one in both], [alias for _, alias in made]
    ) as running:
        yield running


def one(gateway: DataPlane, pair: str, engine: dict[str, Any], **more: Any) -> Stream:
    return run(gateway, [asked(f"cut/{pair}", engine, **more)])[0]


# ------------------------------------------------------------------------------------- it may not go on


def test_an_answer_that_diverges_is_never_spliced(gateway: DataPlane) -> None:
    """The second attempt says something else; the third, the first target again, breaks once more."""
    texts = [one(gateway, "plain", {"tokens": 30, "seed": seed}).text for seed in (0, 99)]
    for at in (1, 5, 20):
        stream = one(gateway, f"another-seed-{at}", {"tokens": 30, "kill": [at, -1, at]})
        stream.assert_broken()
        assert stream.text and any(text.startswith(stream.text) for text in texts)


def test_repeated_prefill_is_continued_exactly(gateway: DataPlane) -> None:
    """Mistral's way: the answer to a prefill has the prefill in it."""
    whole = one(gateway, "echo", {"tokens": 30})
    for kills in ([1], [7], [29], [3, 12]):
        stream = one(gateway, "echo", {"tokens": 30, "kill": kills})
        stream.assert_sound()
        assert stream.text == whole.text


def test_a_third_attempt_may_agree_again(gateway: DataPlane) -> None:
    texts = [one(gateway, "plain", {"tokens": 30, "seed": seed}).text for seed in (0, 99)]
    stream = one(gateway, "another-seed-30", {"tokens": 30, "kill": [5]})
    stream.assert_sound()
    assert stream.text in texts


def test_a_restart_that_agrees_so_far_may_end_otherwise(gateway: DataPlane) -> None:
    whole = one(gateway, "another-end", {"tokens": 40})
    other = one(gateway, "another-end", {"tokens": 40, "diverge": 20})
    assert whole.text[:20] == other.text[:20] and whole.text != other.text
    stream = one(gateway, "another-end", {"tokens": 40, "kill": [10]})
    stream.assert_sound()
    assert stream.text == other.text
    one(gateway, "another-end", {"tokens": 40, "kill": [35, -1, 35]}).assert_broken()


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": SCHEMA},
        {"n": 2},
        {"logprobs": True},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -1},
        {"headgate": {"on_midstream_failure": "error"}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_is_more_than_its_text_is_an_error(gateway: DataPlane, more: dict[str, Any]) -> None:
    one(gateway, "plain", {"tokens": 20}, **more).assert_sound(more.get("n", 1))
    for how in ("close", "error", "end"):
        stream = one(gateway, "plain", {"tokens": 20, "kill": [8], "how": how, "late": 3}, **more)
        stream.assert_broken()
        assert stream.text


def test_the_alias_may_forbid_it(gateway: DataPlane) -> None:
    one(gateway, "error", {"kill": [8]}).assert_broken()
    one(gateway, "error", {"kill": [8]}, headgate={"on_midstream_failure": "continue"}).assert_sound()


def test_part_of_a_tool_call_is_an_error(gateway: DataPlane) -> None:
    for engine in ({"tool": "only", "kill": [3]}, {"tool": "after", "tokens": 10, "kill": [19]}):
        stream = one(gateway, "plain", engine, tools=[WEATHER])
        stream.assert_broken()
        assert stream.arguments


def test_a_tool_call_that_is_held_comes_whole(gateway: DataPlane) -> None:
    whole = one(gateway, "hold", {"tool": "after", "tokens": 10}, tools=[WEATHER])
    whole.assert_sound()
    for at in range(1, whole.events + 9):
        stream = one(gateway, "hold", {"tool": "after", "tokens": 10, "kill": [at]}, tools=[WEATHER])
        stream.assert_sound()
        assert (stream.text, stream.arguments, stream.finishes) == (whole.text, whole.arguments, ["tool_calls"])


def test_two_continuations_and_no_third(gateway: DataPlane) -> None:
    one(gateway, "plain", {"kill": [5, 5]}).assert_sound()
    one(gateway, "plain", {"kill": [5, 5, 5]}).assert_broken()


# ------------------------------------------------------------------------------------- what else holds at a seam


def test_reasoning_is_never_spliced(gateway: DataPlane) -> None:
    engine = {"reasoning": 12, "tokens": 20}
    whole = one(gateway, "plain", engine)
    for stream in run(gateway, [asked("cut/plain", {**engine, "kill": [at]}) for at in range(1, 30)]):
        stream.assert_sound()
        assert stream.text == whole.text, stream.asked
        assert stream.reasoning and whole.reasoning.startswith(stream.reasoning), stream.asked


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("chunk", [1, 3])
def test_a_stop_string_across_the_seam(gateway: DataPlane, hold: bool, chunk: int) -> None:
    engine = {"tokens": 40, "chunk": chunk, "hold": hold, "seed": 2}
    plain = one(gateway, "plain", engine)
    for begin, length in ((60, 9), (81, 14), (40, 2)):
        stop = ["\n\n\n", plain.text[begin : begin + length]]
        whole = one(gateway, "plain", engine, stop=stop)
        assert len(whole.text) < len(plain.text) and whole.finishes == ["stop"]
        kills = range(1, whole.events + 1)
        for stream in run(gateway, [asked("cut/plain", {**engine, "kill": [at]}, stop=stop) for at in kills]):
            stream.assert_sound()
            assert stream.finishes == ["stop"]
            leak = "" if hold else whole.text[len(stream.text) :]  # less of the stop string than its engine leaks
            assert stream.text + leak == whole.text and stop[1].find(leak) >= 0, (stream.asked, stop)


@pytest.mark.parametrize("param", ["max_tokens", "max_completion_tokens"])
def test_no_more_tokens_than_asked_for(gateway: DataPlane, param: str) -> None:
    engine = {"tokens": 40, "chunk": 1}
    whole = one(gateway, "plain", engine, **{param: 15})
    assert whole.finishes == ["length"]
    kills = [[at] for at in range(1, 16)] + [[at, 3] for at in range(1, 12)]
    for stream in run(gateway, [asked("cut/plain", {**engine, "kill": kill}, **{param: 15}) for kill in kills]):
        stream.assert_sound()
        assert (stream.text, stream.finishes) == (whole.text, ["length"]), stream.asked


def test_a_beginning_that_the_client_gave_is_kept(gateway: DataPlane) -> None:
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "Once upon a time, "}]
    whole = one(gateway, "plain", {"tokens": 30}, messages=messages)
    whole.assert_sound()
    for at in range(1, whole.events + 1, 2):
        stream = one(gateway, "plain", {"tokens": 30, "kill": [at]}, messages=messages)
        stream.assert_sound()
        assert stream.text == whole.text, at


def test_silence_is_a_break_and_what_comes_late_is_not_seen(gateway: DataPlane) -> None:
    whole = one(gateway, "impatient", {"tokens": 20})
    bodies = [
        asked("cut/impatient", {"tokens": 20, "how": "stall", "stall": stall, "kill": [at]})
        for at in (1, 7, 15)
        for stall in (380, 400, 420, 900)
    ]
    for stream in run(gateway, bodies):
        stream.assert_sound()
        assert stream.text == whole.text, stream.asked


def test_any_pair_of_targets(gateway: DataPlane) -> None:
    """Seeded chance over spellings, modes, chunkings, white space, ways to break and places to break."""
    chance = random.Random(4)
    engines = [
        {"mode": mode, "chunk": chunk, "space": space, "tokens": 24, "seed": seed}
        for mode in ("prose", "code", "multibyte")
        for chunk in (1, 3, 0)
        for space in ("lead", "tail")
        for seed in (1, 2)
    ]
    bodies, wanted = [], []
    wholes = run(gateway, [asked("cut/mixed-0-0", engine) for engine in engines])
    for i in range(len(KINDS)):
        for j in range(len(KINDS)):
            for _ in range(8):
                at = chance.randrange(len(engines))
                first = chance.randrange(1, wholes[at].events + 1)
                kill = [first, chance.randrange(0, wholes[at].events - first + 1)][: chance.choice((1, 2))]
                how = chance.choice(HOWS)
                broken = {"kill": kill, "how": how, "late": chance.randrange(3), "burst": chance.random() < 0.5}
                bodies.append(asked(f"cut/mixed-{i}-{j}", {**engines[at], **broken}))
                wanted.append(wholes[at])
    for stream, whole in zip(run(gateway, bodies), wanted, strict=True):
        stream.assert_sound()
        assert (stream.text, stream.finishes) == (whole.text, whole.finishes), stream.asked
