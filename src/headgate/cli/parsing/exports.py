"""Providers' exports of usage and cost, as they come: JSON pages of their admin APIs, and CSV files of their consoles.

- OpenAI: /v1/organization/costs and /v1/organization/usage/completions (buckets with ``results``), and the dashboard's
  cost CSV (``start_time_iso``, ``amount_value``).
- Anthropic: /v1/organizations/cost_report, whose amounts are *cents* as decimal strings, its usage_report/messages, and
  the console's CSVs (``usage_date_utc``).

Several pages may follow each other in one file.  Input tokens include what was read from and written to a cache.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

Row = dict[str, Any]  # day, and cost_usd, input_tokens or output_tokens
OPENAI, ANTHROPIC = "openai", "anthropic"


class NoExport(ValueError):
    """The file is no export that is known; the message is a sentence."""


def read(text: str) -> tuple[str, list[Row]]:
    """Return the provider whose export it is, and its rows.  Raises NoExport."""
    stripped = text.lstrip("\ufeff \r\n\t")
    try:
        rows = list(_json(stripped) if stripped[:1] in ("{", "[") else _csv(stripped))
    except (KeyError, TypeError, AttributeError, ValueError, InvalidOperation, OverflowError) as error:
        if isinstance(error, NoExport):
            raise
        raise NoExport(f"the export cannot be read: {type(error).__name__}: {error}") from error
    if not rows:
        raise NoExport("the export has no rows")
    return rows[0][0], [row for _provider, row in rows]


def _json(text: str) -> Iterator[tuple[str, Row]]:
    decoder, position = json.JSONDecoder(parse_float=Decimal), 0
    while position < len(text):
        page, position = decoder.raw_decode(text, position)
        position += len(text[position:]) - len(text[position:].lstrip())
        for one in page if isinstance(page, list) else [page]:
            for bucket in one["data"]:
                yield from _bucket(bucket)


def _bucket(bucket: Mapping[str, Any]) -> Iterator[tuple[str, Row]]:
    if "starting_at" in bucket:
        day = bucket["starting_at"][:10]
        for result in bucket["results"]:
            yield ANTHROPIC, {"day": day, **_anthropic(result)}
        return
    day = _day(bucket["start_time"])
    for result in bucket.get("results", bucket.get("result", [])):
        yield OPENAI, {"day": day, **_openai(result)}


def _anthropic(result: Mapping[str, Any]) -> Row:
    if "amount" in result:
        return {"cost_usd": _dollars(result["amount"], result.get("currency"), cents=True)}
    creation = result.get("cache_creation") or {}
    asked = (result["uncached_input_tokens"], result.get("cache_read_input_tokens"), *creation.values())
    return {"input_tokens": sum(int(count or 0) for count in asked), "output_tokens": int(result["output_tokens"])}


def _openai(result: Mapping[str, Any]) -> Row:
    if "amount" in result:
        amount = result["amount"]
        return {"cost_usd": _dollars(amount["value"], amount.get("currency"))}
    sounds = [int(result.get(name) or 0) for name in ("input_audio_tokens", "output_audio_tokens")]
    return {
        "input_tokens": int(result["input_tokens"]) + sounds[0],
        "output_tokens": int(result.get("output_tokens") or 0) + sounds[1],
    }


def _csv(text: str) -> Iterator[tuple[str, Row]]:
    reader = csv.DictReader(io.StringIO(text))
    columns = set(reader.fieldnames or ())
    if {"start_time_iso", "amount_value"} <= columns:
        for row in reader:
            if row["amount_value"]:
                cost = _dollars(row["amount_value"], row.get("amount_currency"))
                yield OPENAI, {"day": row["start_time_iso"][:10], "cost_usd": cost}
    elif {"usage_date_utc", "cost_usd"} <= columns:
        for row in reader:
            yield ANTHROPIC, {"day": row["usage_date_utc"][:10], "cost_usd": _dollars(row["cost_usd"], "usd")}
    elif {"usage_date_utc", "usage_output_tokens"} <= columns:
        inputs = [name for name in columns if name.startswith("usage_input_tokens")]
        for row in reader:
            asked = sum(int(row[name] or 0) for name in inputs)
            yield ANTHROPIC, {
                "day": row["usage_date_utc"][:10], "input_tokens": asked,
                "output_tokens": int(row["usage_output_tokens"] or 0),
            }  # fmt: skip
    else:
        raise NoExport("the file is no export of OpenAI's or Anthropic's usage or cost (JSON of their APIs, or CSV)")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).date().isoformat()


def _dollars(amount: Any, currency: Any, *, cents: bool = False) -> Decimal:
    """USD, in at most nine places."""
    if currency is not None and str(currency).lower() != "usd":
        raise NoExport(f"the export is in {currency}, not in USD")
    value = Decimal(str(amount)) / (100 if cents else 1)
    return value.quantize(Decimal("1e-9"))
