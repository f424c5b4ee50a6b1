"""The fixture engine: that it is honest, and that it fails as it is told to."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.testing.engine.bpe import vocabulary
from headgate.testing.engine.corpus import UNITS
from headgate.testing.engine.walk import Walk, count, rest
from tests.testing.raw import Answer, ask, chat, run

MODES = ("prose", "code", "multibyte", "json")
ASK = [{"role": "user", "content": "go on"}]
PROMPT = "<|user|>go on\n"


def said(mode: str, seed: int = 1, tokens: int = 60, given: str = "", **more: Any) -> str:
    return b"".join(rest(Walk(seed, mode, PROMPT, tokens, **more), given)[0]).decode()


def prefilled(text: str, **message: Any) -> list[dict[str, Any]]:
    return [*ASK, {"role": "assistant", "content": text, **message}]


def engine(port: int, messages: list[dict[str, Any]] = ASK, model: str = "engine", **engine: Any) -> Answer:
    return run(ask(port, chat(model, messages=messages, engine=engine)))


# ------------------------------------------------------------------------------------- what is said


def test_the_vocabulary_is_always_the_same_and_is_bytes() -> None:
    pieces = vocabulary().pieces
    assert len(pieces) == 512
    assert hashlib.sha256(b"\n".join(pieces[256:])).hexdigest()[:12] == "b66b284cd420"
    spaces = [piece for piece in pieces[256:] if not piece.strip()]
    assert spaces and any(b"\n" in piece for piece in spaces)
    with pytest.raises(UnicodeDecodeError):
        b"|".join(pieces[256:]).decode()  # some tokens are parts of characters


@given(st.text(max_size=60))
def test_encoding_loses_nothing(text: str) -> None:
    bpe = vocabulary()
    assert b"".join(bpe.pieces[id] for id in bpe.encode(text)).decode() == text


@pytest.mark.parametrize("mode", MODES)
def test_every_prefix_is_continued_with_exactly_the_rest(mode: str) -> None:
    whole = said(mode)
    tokens = len(rest(Walk(1, mode, PROMPT, 60), "")[0])
    for at in range(len(whole) + 1):
        left, used = rest(Walk(1, mode, PROMPT, 60), whole[:at])
        assert b"".join(left).decode() == whole[at:]
        assert used + len(left) in (tokens, tokens + 1)  # a token that is cut in two counts twice


@given(st.sampled_from(MODES), st.integers(0, 9), st.data())
@settings(deadline=None, max_examples=60)
def test_one_character_that_differs_changes_the_rest(mode: str, seed: int, data: st.DataObject) -> None:
    whole = said(mode, seed, 150)
    at = data.draw(st.integers(0, len(whole) // 2))
    for wrong in (whole[:at] + "~", whole[:at] + whole[at + 1 : at + 3], whole[: at + 1] + whole[at : at + 2]):
        if not whole.startswith(wrong):
            rest_of_it = said(mode, seed, 150, wrong)
            assert rest_of_it and not whole.endswith(rest_of_it)


def test_seed_prompt_and_mode_change_the_text() -> None:
    texts = {said(mode, seed) for mode in MODES for seed in range(5)}
    texts.add(b"".join(rest(Walk(1, "prose", "another prompt", 60), "")[0]).decode())
    assert len(texts) == 21


def test_it_can_go_another_way_later() -> None:
    one, other = said("prose"), said("prose", diverge=30)
    assert one != other
    assert one[:40] == other[:40]


def test_the_texts_are_what_they_are_for() -> None:
    assert "\n\n" in "".join(UNITS["prose"]) and "\n        " in "".join(UNITS["code"])
    assert {"\u200d", "\u0301", "𠮷"} <= set("".join(UNITS["multibyte"]))


# ------------------------------------------------------------------------------------- how it is said


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize(("chunk", "space"), [(1, "lead"), (3, "lead"), (0, "lead"), (1, "tail"), (0, "tail")])
def test_chunking_changes_the_events_and_not_the_text(provider_port: int, mode: str, chunk: int, space: str) -> None:
    answer = engine(provider_port, mode=mode, chunk=chunk, space=space, seed=1)
    assert answer.text == said(mode)
    texts = [text for text in (piece["choices"][0]["delta"].get("content") for piece in answer.chunks) if text]
    assert len(texts) > 10
    if space == "tail":
        assert all(text == text.lstrip(" \n\t") for text in texts[1:])
        assert any(text != text.rstrip() for text in texts)


def test_every_spelling_of_a_prefill(provider_port: int) -> None:
    whole = said("code")
    cut = whole.index("\n    ") + 3
    last = prefilled(whole[:cut])
    marked = prefilled(whole[:cut], prefix=True)
    flags = {"add_generation_prompt": False, "continue_final_message": True}

    def text(messages: list[dict[str, Any]], prefill: str, **more: Any) -> str:
        body = chat("engine", messages=messages, engine={"mode": "code", "seed": 1, "prefill": prefill}, **more)
        return run(ask(provider_port, body)).text

    assert text(last, "trailing") == whole[cut:]
    assert text(last, "continue_final_message", **flags) == whole[cut:]
    assert text(marked, "prefix") == whole[cut:]
    assert text(last, "ignore") == whole
    new_turn = text(last, "turn")
    assert new_turn and new_turn not in whole
    assert text(last, "prefix") == new_turn


def test_a_prefill_may_be_refused_and_trimmed(provider_port: int) -> None:
    whole = said("code")
    last = prefilled(whole[: whole.index("\n    ") + 3])
    refused = engine(provider_port, last, model="engine?prefill=refuse&mode=code&seed=1")
    assert (refused.status, refused.json["error"]["param"]) == (400, "messages")
    assert run(ask(provider_port, chat("engine?prefill=continue_final_message", messages=last))).status == 400
    trimmed = engine(provider_port, last, model="engine?trims=1&mode=code&seed=1")
    assert trimmed.text.startswith("\n    ")
    assert whole.endswith(trimmed.text)


def test_stop_strings_are_held_back_or_leak(provider_port: int) -> None:
    whole = said("prose")
    stop = whole[50:62]

    def text(hold: bool) -> Answer:
        settings = {"seed": 1, "hold": hold}
        return run(ask(provider_port, chat("engine", messages=ASK, stop=[stop, "~"], engine=settings)))

    assert (text(True).text, text(True).finishes) == (whole[:50], ["stop"])
    leaked = text(False).text
    assert leaked.startswith(whole[:50]) and leaked != whole[:50] and stop not in leaked


def test_the_sum_of_tokens_stays_whatever_is_prefilled(provider_port: int) -> None:
    def usage(text: str, **more: Any) -> dict[str, int]:
        messages = prefilled(text) if text else ASK
        options = {"include_usage": True}
        body = chat("engine", messages=messages, stream_options=options, engine={"seed": 1, "mode": "prose"}, **more)
        figures: dict[str, int] = run(ask(provider_port, body)).chunks[-1]["usage"]
        return figures

    tokens = rest(Walk(1, "prose", PROMPT, 60), "")[0]
    assert usage("") == {
        "prompt_tokens": count(PROMPT), "completion_tokens": len(tokens), "total_tokens": count(PROMPT) + len(tokens)
    }  # fmt: skip
    for at in range(1, len(tokens)):
        text = b"".join(tokens[:at]).decode()
        assert usage(text)["prompt_tokens"] == count(PROMPT) + at
        assert usage(text)["total_tokens"] == count(PROMPT) + len(tokens)
    assert usage("", max_tokens=9)["completion_tokens"] == 9


def test_a_cap_ends_with_length(provider_port: int) -> None:
    tokens = rest(Walk(0, "prose", PROMPT, 60), "")[0]
    answer = run(ask(provider_port, chat("engine", messages=ASK, max_tokens=9)))
    assert (answer.text.encode(), answer.finishes) == (b"".join(tokens[:9]), ["length"])
    exact = run(ask(provider_port, chat("engine", messages=ASK, max_tokens=len(tokens))))
    assert exact.finishes == ["length"]  # the end itself would be one more token


def test_reasoning_tools_schemas_and_choices(provider_port: int) -> None:
    thought = engine(provider_port, reasoning=8, seed=1)
    assert any(chunk["choices"][0]["delta"].get("reasoning_content") for chunk in thought.chunks[:3])
    assert thought.text == said("prose")
    call = engine(provider_port, tool="after", tokens=5)
    assert call.finishes == ["tool_calls"] and call.text
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    answer = run(ask(provider_port, chat("engine", messages=ASK, response_format=schema, engine={"seed": 1})))
    assert answer.text == said("json") and answer.text.startswith('{"text":"') and answer.text.endswith('"}')
    two = run(ask(provider_port, chat("engine", messages=ASK, n=2, logprobs=True)))
    assert {chunk["choices"][0]["index"] for chunk in two.chunks} == {0, 1}
    assert len(two.finishes) == 2


def test_not_streamed_is_the_same_text(provider_port: int) -> None:
    answer = run(ask(provider_port, chat("engine", messages=ASK, stream=False, engine={"seed": 1})))
    assert answer.json["choices"][0]["message"]["content"] == said("prose")
    assert answer.json["usage"]["prompt_tokens"] == count(PROMPT)


# ------------------------------------------------------------------------------------- how it fails


@pytest.mark.parametrize(
    ("how", "ended"),
    [("close", "eof"), ("reset", "reset"), ("half", "eof"), ("end", "complete"), ("error", "complete"),
     ("done", "complete")],
)  # fmt: skip
@pytest.mark.parametrize("burst", [False, True])
def test_it_breaks_where_it_is_told_to(provider_port: int, how: str, ended: str, burst: bool) -> None:
    answer = engine(provider_port, kill=[7], how=how, burst=burst, seed=1)
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in answer.chunks if "choices" in chunk]
    whole = rest(Walk(1, "prose", PROMPT, 60), "")[0]
    assert answer.ended == ended
    assert [text for text in texts if text] == [token.decode() for token in whole[:7]]
    assert not answer.finishes
    assert answer.body.endswith(b"[DONE]\n\n") == (how == "done")


def test_between_the_last_token_and_the_finish_and_behind_it(provider_port: int) -> None:
    events = len(rest(Walk(1, "prose", PROMPT, 60), "")[0])
    before, behind = (engine(provider_port, kill=[events + at], seed=1) for at in (0, 1))
    assert (before.text, before.finishes) == (said("prose"), [])
    assert (behind.text, behind.finishes, behind.ended) == (said("prose"), ["stop"], "eof")


def test_late_and_repeated_events(provider_port: int) -> None:
    answer = engine(provider_port, kill=[4], how="error", late=2, seed=1)
    tokens = [token.decode() for token in rest(Walk(1, "prose", PROMPT, 60), "")[0]]
    kinds = ["error" if "error" in chunk else chunk["choices"][0]["delta"].get("content") for chunk in answer.chunks]
    assert kinds == ["", *tokens[:4], "error", tokens[3], *tokens[4:6]]


def test_a_key_counts_its_requests(provider_port: int) -> None:
    settings = {"seed": 1, "kill": [3, -1, 5], "key": "three"}
    ends = [engine(provider_port, **settings).ended for _ in range(4)]
    assert ends == ["eof", "complete", "eof", "complete"]
    assert [engine(provider_port, kill=[2], seed=1).ended for _ in range(2)] == ["eof", "eof"]


def test_a_stall_goes_on_afterwards(provider_port: int) -> None:
    answer = engine(provider_port, kill=[5], how="stall", stall=300, seed=1)
    assert answer.duration_s > 0.29
    assert (answer.text, answer.finishes) == (said("prose"), ["stop"])


@pytest.mark.parametrize("wrong", [{"tokens": -1}, {"mode": "verse"}, {"kil": [1]}, {"chunk": "x"}])
def test_wrong_settings_are_refused(provider_port: int, wrong: dict[str, Any]) -> None:
    assert engine(provider_port, **wrong).status == 400


def test_the_vocabulary_is_not_made_at_import() -> None:
    code = "import headgate.testing, headgate.testing.engine.bpe as b; assert b.vocabulary.cache_info().currsize == 0"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0
