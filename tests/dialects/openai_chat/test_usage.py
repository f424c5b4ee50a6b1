"""Token counts of every spelling: one reader for streams and for whole answers, and what the client reads of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import whole_answer
from headgate.dialects.usage.counts import MOST_TOKENS
from headgate.model import Price, Usage
from headgate.policy import metering
from tests.dialects.openai_chat.streams import CREATED, IDENT, MODEL, chunk, events, parse, run

ESTIMATED_PROMPT = 7
TEXT = "twelve bytes"
ESTIMATED_COMPLETION = 3  # of TEXT, in a whole answer

OPENAI = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
INPUT = {"input_tokens": 100, "output_tokens": 10}
SPLIT = {**INPUT, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 50}


def whole(**members: Any) -> tuple[Usage, dict[str, Any]]:
    message = {"role": "assistant", "content": TEXT}
    document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **members}
    result = whole_answer(json.dumps(document).encode(), Reply(IDENT, CREATED, MODEL, prompt_tokens=ESTIMATED_PROMPT))
    assert result.error is None
    shown = json.loads(result.write(None, None))["usage"]
    return result.used.delivered, shown


def streamed(**members: Any) -> tuple[Usage, dict[str, Any]]:
    last = {**chunk({}), "choices": [], **members}
    out, stream = run([events(chunk({"content": TEXT})), events(chunk({}, "stop"), last, "[DONE]")])
    return stream.used.billed, parse(out)[-1]["usage"]


def in_choice(usage: dict[str, Any]) -> tuple[Usage, dict[str, Any]]:
    """Kimi's place: the choice that finishes."""
    end = chunk({}, "stop")
    end["choices"][0]["usage"] = usage
    out, stream = run([events(chunk({"content": TEXT}), end, "[DONE]")])
    return stream.used.billed, parse(out)[-1]["usage"]


# what the provider reports → (prompt, completion, cached, cache_write, reasoning)
CASES: list[tuple[dict[str, Any], tuple[int, int, int, int, int]]] = [
    (OPENAI, (10, 5, 0, 0, 0)),
    ({"prompt_tokens": "10", "completion_tokens": "5", "total_tokens": "15"}, (10, 5, 0, 0, 0)),
    ({"prompt_tokens": 10.0, "completion_tokens": 5.0, "total_tokens": 15.0}, (10, 5, 0, 0, 0)),
    ({"prompt_tokens": " 10", "completion_tokens": "5.0"}, (10, 5, 0, 0, 0)),
    (INPUT, (100, 10, 0, 0, 0)),
    ({"inputTokens": 100, "outputTokens": 10, "totalTokens": 110}, (100, 10, 0, 0, 0)),
    ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 100, "output_tokens": 10}, (100, 10, 0, 0, 0)),
    # A total above both is output that is billed and not shown.
    ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, (20, 603, 0, 0, 0)),
    ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 530}, (10, 520, 0, 0, 0)),
    ({**OPENAI, "total_tokens": 35, "completion_tokens_details": {"reasoning_tokens": 20}}, (10, 25, 0, 0, 20)),
    ({**OPENAI, "total_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 20}}, (10, 30, 0, 0, 20)),
    ({**OPENAI, "completion_tokens_details": {"reasoning_tokens": 3}}, (10, 5, 0, 0, 3)),
    ({**OPENAI, "completion_tokens_details": {"reasoning_tokens": 9}}, (10, 5, 0, 0, 5)),
    ({"prompt_tokens": 10, "completion_tokens": 5, "reasoning_tokens": 20}, (10, 25, 0, 0, 20)),
    ({**OPENAI, "total_tokens": 12}, (10, 5, 0, 0, 0)),
    # A total of what one count leaves open
    ({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 15}, (10, 5, 0, 0, 0)),
    ({"prompt_tokens": None, "completion_tokens": 5, "total_tokens": 15}, (10, 5, 0, 0, 0)),
    # The cache: a part of OpenAI's prompt, whatever its name
    ({**OPENAI, "prompt_tokens_details": {"cached_tokens": 8}}, (10, 5, 8, 0, 0)),
    ({**OPENAI, "cached_tokens": 8}, (10, 5, 8, 0, 0)),
    ({**OPENAI, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 8}, (10, 5, 8, 0, 0)),
    ({**OPENAI, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2}, (10, 5, 8, 0, 0)),
    ({"completion_tokens": 5, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2}, (10, 5, 8, 0, 0)),
    ({**OPENAI, "cache_read_input_tokens": 8}, (10, 5, 8, 0, 0)),
    ({"prompt_tokens": 10, "completion_tokens": 5, "cache_read_input_tokens": 8}, (10, 5, 8, 0, 0)),
    ({**OPENAI, "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 5}}, (10, 5, 4, 5, 0)),
    ({**OPENAI, "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 9}}, (10, 5, 0, 9, 0)),
    ({**OPENAI, "prompt_tokens_details": {"cached_tokens": "4"}, "cache_creation_input_tokens": "5"}, (10, 5, 4, 5, 0)),
    ({**INPUT, "input_tokens_details": {"cached_tokens": 90}}, (100, 10, 90, 0, 0)),
    # Mistral rounds up to blocks: the total shows that nothing was left out
    ({**OPENAI, "prompt_tokens_details": {"cached_tokens": 64}}, (10, 5, 10, 0, 0)),
    # Beside Anthropic's input
    (SPLIT, (1050, 10, 900, 50, 0)),
    ({**INPUT, "total_tokens": 1060, **SPLIT}, (1050, 10, 900, 50, 0)),
    (
        {**INPUT, "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 10}},
        (150, 10, 0, 50, 0),
    ),
    (
        {"inputTokens": 100, "outputTokens": 10, "cacheReadInputTokens": 900, "cacheWriteInputTokens": 50},
        (1050, 10, 900, 50, 0),
    ),
    ({"prompt_tokens": 100, "completion_tokens": 10, "cache_read_input_tokens": 900}, (1000, 10, 900, 0, 0)),
    (
        {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 140, "cache_read_input_tokens": 30},
        (130, 10, 30, 0, 0),
    ),
    # Counted once where two places tell it
    (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 10,
            "total_tokens": 1010,
            "input_tokens": 100,
            "cache_read_input_tokens": 900,
        },
        (1000, 10, 900, 0, 0),
    ),
    (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 900},
            "cache_read_input_tokens": 900,
        },
        (1000, 10, 900, 0, 0),
    ),
    # Cohere, Gemini
    (
        {"billed_units": {"input_tokens": 10, "output_tokens": 5}, "tokens": {"input_tokens": 80, "output_tokens": 9}},
        (10, 5, 0, 0, 0),
    ),
    (
        {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 20, "totalTokenCount": 35},
        (10, 25, 0, 0, 20),
    ),
    ({"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 3}, (10, 8, 0, 0, 3)),
    (
        {
            "prompt_token_count": 10,
            "candidates_token_count": 5,
            "cached_content_token_count": 4,
            "tool_use_prompt_token_count": 6,
            "total_token_count": 21,
        },
        (16, 5, 4, 0, 0),
    ),
]


@pytest.mark.parametrize("way", [whole, streamed])
@pytest.mark.parametrize(("usage", "expected"), CASES)
def test_every_spelling_reads_alike_in_streams_and_whole_answers(
    way: Any, usage: dict[str, Any], expected: tuple[int, ...]
) -> None:
    for found, shown in (way(usage=usage), in_choice(usage)):
        assert (found.prompt, found.completion, found.cached, found.cache_write, found.reasoning) == expected
        assert found.basis == "provider"
        counts = (shown["prompt_tokens"], shown["completion_tokens"], shown["total_tokens"])
        assert counts == (expected[0], expected[1], expected[0] + expected[1])
        assert all(type(count) is int for count in counts)
        for details, name, count in (
            ("prompt_tokens_details", "cached_tokens", expected[2]),
            ("completion_tokens_details", "reasoning_tokens", expected[4]),
        ):
            # The client reads what the server says of a part, though it be more than the whole; only bills are bounded.
            whole_of_it = expected[0] if details.startswith("prompt") else expected[1]
            assert min(shown.get(details, {}).get(name, 0), whole_of_it) == count


@pytest.mark.parametrize("way", [whole, streamed])
@pytest.mark.parametrize(
    "odd",
    [None, 0, -5, True, "", "many", "1e999", [], {}, {"count": 5}, float(MOST_TOKENS) * 2],
)
def test_a_count_that_is_none_is_unknown_and_not_zero(way: Any, odd: Any) -> None:
    found, shown = way(usage={"prompt_tokens": 10, "completion_tokens": odd})
    assert (found.prompt, found.basis) == (10, "estimated") and 0 < found.completion <= ESTIMATED_COMPLETION
    assert shown["completion_tokens"] == found.completion
    found, _ = way(usage={"prompt_tokens": odd, "completion_tokens": 5})
    assert (found.prompt, found.completion, found.basis) == (ESTIMATED_PROMPT, 5, "estimated")
    found, shown = way(usage=dict.fromkeys(OPENAI, odd))
    assert (found.prompt, found.basis) == (ESTIMATED_PROMPT, "estimated") and found.completion > 0
    assert shown["total_tokens"] == found.prompt + found.completion


@pytest.mark.parametrize("way", [whole, streamed])
def test_a_total_alone_is_kept_though_its_parts_are_estimated(way: Any) -> None:
    found, shown = way(usage={"total_tokens": 40})
    assert (found.prompt + found.completion, found.basis) == (40, "estimated")
    assert shown["total_tokens"] == 40


@pytest.mark.parametrize("way", [whole, streamed])
@pytest.mark.parametrize(
    "members",
    [
        {"x_groq": {"id": "r", "usage": OPENAI}},
        {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}},
        {"usage": None, "amazon-bedrock-invocationMetrics": {"inputTokenCount": 10, "outputTokenCount": 5}},
        {"usage": {}, "meta": {"tokens": {"input_tokens": 10, "output_tokens": 5}}},
        {"prompt_eval_count": 10, "eval_count": 5, "done": True},
        {"timings": {"prompt_n": 4, "cache_n": 6, "predicted_n": 5, "predicted_ms": 12.5}},
        {"usage": OPENAI, "timings": {"prompt_n": 999, "predicted_n": 999}},
    ],
)
def test_usage_is_found_wherever_it_stands(way: Any, members: dict[str, Any]) -> None:
    found, shown = way(**members)
    assert (found.prompt, found.completion, found.basis) == (10, 5, "provider")
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == (10, 5)


def test_client_usage_keeps_extras_and_drops_nulls() -> None:
    reported = {
        **OPENAI,
        "prompt_tokens_details": None,
        "completion_tokens_details": {"reasoning_tokens": "2", "audio_tokens": None, "image_tokens": 1},
        "cost": 0.5,
    }
    for _, shown in (whole(usage=reported), streamed(usage=reported)):
        details = {"reasoning_tokens": 2, "image_tokens": 1}
        assert shown == {**OPENAI, "completion_tokens_details": details, "cost": 0.5}


@pytest.mark.parametrize("way", [whole, streamed])
@pytest.mark.parametrize(
    ("usage", "nano_usd"),
    [
        ({"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 900}}, 1_325_000),
        ({"prompt_tokens": 1000, "cache_read_input_tokens": 900}, 290_000),
        (
            {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 400, "cache_creation_tokens": 500}},
            865_000,
        ),
    ],
)
def test_cache_reads_and_writes_cost_the_same_streamed_and_whole(
    way: Any, usage: dict[str, Any], nano_usd: int
) -> None:
    found, _ = way(usage={**usage, "completion_tokens": 10, "total_tokens": 1010})
    million = 1_000_000_000  # nano-USD per million tokens: one dollar
    price = Price(million, 10 * million, million // 10, million * 5 // 4)
    assert metering.cost(found, price) == nano_usd


def test_counts_that_come_in_two_reports_are_one() -> None:
    """As Anthropic's API does it: the prompt with the first event, the completion with the last."""
    first = chunk({"content": TEXT}, usage={"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 900})
    last = {**chunk({}), "choices": [], "usage": {"output_tokens": 10}}
    _, stream = run([events(first, chunk({}, "stop"), last, "[DONE]")])
    assert (stream.used.billed.prompt, stream.used.billed.completion, stream.used.billed.cached) == (1000, 10, 900)
