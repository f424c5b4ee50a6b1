"""Usages as twenty providers report them, in kinds of which none is part of another, and what they cost.

The shapes are those of the providers' own documentation (the page is named with each); figures are changed where the
page's do not add up.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from headgate.dialects.usage import reading as usages
from headgate.model import DetailRates, Price, Usage
from headgate.policy.metering import TokensByKind, cost, tokens_by_kind


def kinds(**counts: int) -> TokensByKind:
    return TokensByKind(**{name: counts.get(name, 0) for name in TokensByKind._fields})


GOLDEN: list[tuple[str, dict[str, Any], TokensByKind]] = [
    (  # platform.openai.com/docs/guides/prompt-caching: the prompt includes what was cached
        "openai",
        {"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
         "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
         "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                       "rejected_prediction_tokens": 0}},
        kinds(fresh=86, cache_read=1920, output=300),
    ),
    (  # platform.openai.com/docs/guides/reasoning: output includes reasoning
        "openai responses",
        {"input_tokens": 75, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1186,
         "output_tokens_details": {"reasoning_tokens": 1024}, "total_tokens": 1261},
        kinds(fresh=75, output=162, reasoning=1024),
    ),
    (  # platform.openai.com/docs/guides/audio: both sides include their sounds
        "openai audio",
        {"prompt_tokens": 120, "completion_tokens": 90, "total_tokens": 210,
         "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 100},
         "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 70}},
        kinds(fresh=20, audio_input=100, output=20, audio_output=70),
    ),
    (  # platform.openai.com/docs/api-reference/images
        "openai images",
        {"input_tokens": 50, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}, "output_tokens": 50,
         "output_tokens_details": {"image_tokens": 50}, "total_tokens": 100},
        kinds(fresh=10, image_input=40, image_output=50),
    ),
    (  # docs.anthropic.com/en/docs/build-with-claude/prompt-caching: the input is what was neither read nor written
        "anthropic",
        {"input_tokens": 2048, "cache_read_input_tokens": 1800, "cache_creation_input_tokens": 248,
         "output_tokens": 503, "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100}},
        kinds(fresh=2048, cache_read=1800, cache_write_5m=148, cache_write_1h=100, output=503),
    ),
    (  # ai.google.dev/api/generate-content#UsageMetadata: thoughts stand beside the candidates
        "gemini",
        {"promptTokenCount": 1264, "cachedContentTokenCount": 1000, "candidatesTokenCount": 80,
         "thoughtsTokenCount": 100, "totalTokenCount": 1444,
         "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1006}, {"modality": "IMAGE", "tokenCount": 258}]},
        kinds(fresh=6, cache_read=1000, image_input=258, output=80, reasoning=100),
    ),
    (  # docs.cloud.google.com/vertex-ai: sounds that are cached count as read from the cache
        "vertex",
        {"promptTokenCount": 500, "cachedContentTokenCount": 200, "candidatesTokenCount": 40, "totalTokenCount": 540,
         "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}, {"modality": "AUDIO", "tokenCount": 400}],
         "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 200}]},
        kinds(fresh=100, cache_read=200, audio_input=200, output=40),
    ),
    (  # api-docs.deepseek.com/guides/kv_cache: hits and misses are the prompt
        "deepseek",
        {"prompt_tokens": 1100, "completion_tokens": 260, "total_tokens": 1360, "prompt_cache_hit_tokens": 1024,
         "prompt_cache_miss_tokens": 76, "completion_tokens_details": {"reasoning_tokens": 200}},
        kinds(fresh=76, cache_read=1024, output=60, reasoning=200),
    ),
    (  # docs.x.ai/docs/guides/reasoning: reasoning is no part of the completion; the total shows it
        "xai",
        {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
         "prompt_tokens_details": {"text_tokens": 32, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 6},
         "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                       "rejected_prediction_tokens": 0}, "num_sources_used": 0},
        kinds(fresh=26, cache_read=6, output=9, reasoning=94),
    ),
    (  # docs.mistral.ai/api
        "mistral",
        {"prompt_tokens": 16, "completion_tokens": 34, "total_tokens": 50}, kinds(fresh=16, output=34),
    ),
    (  # console.groq.com/docs/prompt-caching
        "groq",
        {"queue_time": 0.02, "prompt_tokens": 4641, "prompt_time": 0.009, "completion_tokens": 1817,
         "completion_time": 5.5, "total_tokens": 6458, "total_time": 5.6,
         "prompt_tokens_details": {"cached_tokens": 4608}},
        kinds(fresh=33, cache_read=4608, output=1817),
    ),
    (  # docs.cohere.com/reference/chat: what is billed, not what was counted
        "cohere",
        {"billed_units": {"input_tokens": 5, "output_tokens": 418},
         "tokens": {"input_tokens": 71, "output_tokens": 418}},
        kinds(fresh=5, output=418),
    ),
    (  # docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage: the total includes the cache
        "bedrock",
        {"inputTokens": 30, "outputTokens": 20, "totalTokens": 650, "cacheReadInputTokens": 500,
         "cacheWriteInputTokens": 100,
         "cacheDetails": [{"ttl": "1h", "inputTokens": 60}, {"ttl": "5m", "inputTokens": 40}]},
        kinds(fresh=30, cache_read=500, cache_write_5m=40, cache_write_1h=60, output=20),
    ),
    (  # openrouter.ai/docs/use-cases/usage-accounting
        "openrouter",
        {"prompt_tokens": 194, "completion_tokens": 2, "total_tokens": 196, "cost": 0.95, "is_byok": False,
         "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 50, "audio_tokens": 0},
         "completion_tokens_details": {"reasoning_tokens": 0}},
        kinds(fresh=44, cache_read=100, cache_write_5m=50, output=2),
    ),
    (  # platform.moonshot.ai/docs/api/chat
        "moonshot",
        {"prompt_tokens": 19, "completion_tokens": 21, "total_tokens": 40, "cached_tokens": 10},
        kinds(fresh=9, cache_read=10, output=21),
    ),
    (  # docs.z.ai/api-reference/llm/chat-completion
        "zai",
        {"prompt_tokens": 1200, "completion_tokens": 300, "total_tokens": 1500,
         "prompt_tokens_details": {"cached_tokens": 800}},
        kinds(fresh=400, cache_read=800, output=300),
    ),
    (  # alibabacloud.com/help/en/model-studio/context-cache: details are parts of the prompt, written ones too
        "qwen",
        {"prompt_tokens": 1605, "completion_tokens": 187, "total_tokens": 1792,
         "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 1584, "cache_type": "ephemeral",
                                   "cache_creation": {"ephemeral_5m_input_tokens": 1584}}},
        kinds(fresh=21, cache_write_5m=1584, output=187),
    ),
    (  # docs.fireworks.ai/guides/prompt-caching
        "fireworks",
        {"prompt_tokens": 600, "total_tokens": 650, "completion_tokens": 50,
         "prompt_tokens_details": {"cached_tokens": 512}},
        kinds(fresh=88, cache_read=512, output=50),
    ),
    (  # docs.together.ai/reference/chat-completions
        "together",
        {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100, "cached_tokens": 0},
        kinds(fresh=40, output=60),
    ),
    (  # docs.perplexity.ai/api-reference/chat-completions-post
        "perplexity",
        {"prompt_tokens": 14, "completion_tokens": 287, "total_tokens": 301, "search_context_size": "low",
         "cost": {"input_tokens_cost": 0.0, "output_tokens_cost": 0.0, "request_cost": 0.005, "total_cost": 0.005}},
        kinds(fresh=14, output=287),
    ),
    (  # inference-docs.cerebras.ai/capabilities/prompt-caching
        "cerebras",
        {"prompt_tokens": 3000, "completion_tokens": 150, "total_tokens": 3150,
         "prompt_tokens_details": {"cached_tokens": 2800},
         "completion_tokens_details": {"accepted_prediction_tokens": 0}},
        kinds(fresh=200, cache_read=2800, output=150),
    ),
    (  # docs.vllm.ai/en/latest/serving/openai_compatible_server.html
        "vllm",
        {"prompt_tokens": 40, "total_tokens": 52, "completion_tokens": 12, "prompt_tokens_details": None},
        kinds(fresh=40, output=12),
    ),
    (  # github.com/ollama/ollama/blob/main/docs/api.md
        "ollama",
        {"prompt_eval_count": 26, "eval_count": 298}, kinds(fresh=26, output=298),
    ),
]  # fmt: skip

# Each kind has a price of its own, so that a token of the wrong kind, or counted twice, shows in the sum
RATES = dict(zip(TokensByKind._fields, (3, 5, 7, 11, 13, 17, 19, 23, 29, 31), strict=True))
PRICE = Price(
    input=RATES["fresh"] * 10**6, output=RATES["output"] * 10**6, cached_input=RATES["cache_read"] * 10**6,
    cache_write=RATES["cache_write_5m"] * 10**6,
    details=DetailRates(**{name: RATES[name] * 10**6 for name in DetailRates.__struct_fields__}),
)  # fmt: skip


@pytest.mark.parametrize(("raw", "expected"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_usage_is_read_into_disjoint_kinds(raw: dict[str, Any], expected: TokensByKind) -> None:
    usage, _ = usages.read(Raw(json.dumps(raw).encode()), Usage())
    assert tokens_by_kind(usage) == expected
    assert usage.basis == "provider"
    assert sum(expected) == usage.prompt + usage.completion
    assert cost(usage, PRICE) == sum(RATES[name] * count for name, count in expected._asdict().items())


def test_there_are_twenty_providers() -> None:
    assert len(GOLDEN) >= 20
