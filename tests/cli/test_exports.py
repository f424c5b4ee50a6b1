"""Providers' exports as they come: the shapes of their API references and of their consoles' CSV files."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from headgate.cli.parsing.exports import NoExport, read


def page(*buckets: Any) -> str:
    return json.dumps({"object": "page", "data": list(buckets), "has_more": False, "next_page": None})


# developers.openai.com/api/reference: costs, usage/completions
COSTS = {
    "object": "bucket", "start_time": 1730419200, "end_time": 1730505600,
    "results": [{"object": "organization.costs.result", "amount": {"value": 0.06, "currency": "usd"},
                 "line_item": None, "project_id": None, "api_key_id": None, "quantity": None}],
}  # fmt: skip
COMPLETIONS = {
    "object": "bucket", "start_time": 1730419200, "end_time": 1730505600,
    "results": [{"object": "organization.usage.completions.result", "input_tokens": 1000, "output_tokens": 500,
                 "input_cached_tokens": 800, "num_model_requests": 5, "model": None}],
}  # fmt: skip
# platform.claude.com/docs/en/api/admin-api/usage-cost: amounts are cents
COST_REPORT = {
    "starting_at": "2025-08-01T00:00:00Z", "ending_at": "2025-08-02T00:00:00Z",
    "results": [{"currency": "USD", "amount": "123.78912", "workspace_id": None, "description": None,
                 "cost_type": "tokens", "model": "claude-sonnet-4-20250514", "token_type": "uncached_input_tokens"}],
}  # fmt: skip
USAGE_REPORT = {
    "starting_at": "2025-08-01T00:00:00Z", "ending_at": "2025-08-02T00:00:00Z",
    "results": [{"uncached_input_tokens": 1500, "cache_read_input_tokens": 200, "output_tokens": 500,
                 "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
                 "model": "claude-sonnet-4-20250514", "service_tier": "standard"}],
}  # fmt: skip
OPENAI_CSV = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,line_item,project_id\n"
    '1790467200,1790553600,2026-09-27T00:00:00+00:00,2026-09-28T00:00:00+00:00,1.25,usd,,"gpt-5, input",proj_1\n'
    "1790553600,1790640000,2026-09-28T00:00:00+00:00,2026-09-29T00:00:00+00:00,,,,,\n"
)
ANTHROPIC_CSV = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
    "usage_output_tokens,web_search_count\n"
    "2026-03-22,claude-sonnet-4-20250514,key,Default,standard,≤ 200k,100000,10,20,30,5000,10\n"
)


@pytest.mark.parametrize(
    ("text", "whose", "rows"),
    [
        (page(COSTS), "openai", [{"day": "2024-11-01", "cost_usd": Decimal("0.06")}]),
        (page(COSTS) + "\n" + page(COSTS), "openai", [{"day": "2024-11-01", "cost_usd": Decimal("0.06")}] * 2),
        (f"[{page(COMPLETIONS)}]", "openai", [{"day": "2024-11-01", "input_tokens": 1000, "output_tokens": 500}]),
        (page(COST_REPORT), "anthropic", [{"day": "2025-08-01", "cost_usd": Decimal("1.237891200")}]),
        (page(USAGE_REPORT), "anthropic", [{"day": "2025-08-01", "input_tokens": 3200, "output_tokens": 500}]),
        (OPENAI_CSV, "openai", [{"day": "2026-09-27", "cost_usd": Decimal("1.25")}]),
        ("\ufeff" + ANTHROPIC_CSV, "anthropic",
         [{"day": "2026-03-22", "input_tokens": 100_060, "output_tokens": 5000}]),
    ],
)  # fmt: skip
def test_exports_are_read_as_they_come(text: str, whose: str, rows: list[dict[str, Any]]) -> None:
    assert read(text) == (whose, rows)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "a,b\n1,2\n", '{"data": []}', page({"start_time": "x", "results": [{}]}),
     page(COST_REPORT).replace("USD", "EUR"), '{"data": [', page(COSTS).replace("1730419200", "1e400")],
)  # fmt: skip
def test_other_files_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(NoExport, match="export"):
        read(text)
