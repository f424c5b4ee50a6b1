"""Resources as the store has them: rows that an earlier release wrote are read, and written again as they were."""

from __future__ import annotations

import inspect
import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from headgate.cli.nouns import aliases
from headgate.cli.parsing.completion import WHERE
from headgate.model import Alias, ModelRow, Price, TargetRef
from headgate.resources import wording
from headgate.resources.alias import AliasSettings, AliasWish, CacheTable, Drain, Queue
from headgate.resources.fields import Resource
from headgate.resources.model_row import FactsWish, ModelTable
from headgate.resources.provider import ProviderBody, ProviderEdit

CONDUCT = {
    "strategy": "weighted", "retries": 0, "on_midstream_failure": "continue", "on_disconnect": "cancel",
    "resumable_s": 3.0, "early_commit_s": None, "tool_calls": "stream", "structured": "error",
    "affinity": "prompt_cache", "privacy": "own", "hold_tokens": 512, "unpriced": "refuse", "drain_s": 9.0,
    "drain_tokens": 8192, "queue_size": 20, "queue_wait_s": 3.0, "cache_enabled": True, "cache_ttl_s": 90.0,
    "cache_pace": "recorded",
}  # fmt: skip
UNCOMPLETED = ("affinity", "cache", "drain", "resumable_s", "hold_tokens", "queue")
ROWS: list[tuple[type[Resource], dict[str, Any]]] = [
    (FactsWish, {"title": "T", "context_window": 7, "capabilities": ["tools"]}),
    (FactsWish, {"price": {"input": 100_000_000, "output": 2_000_000_001, "cached_input": 0, "source": "store"}}),
    (FactsWish, {"price": {"source": "store"}}),
    (
        AliasWish,
        {"targets": [{"model": "a/b", "weight": 4}], "use_case": "u", "timeouts": {"stall": 2.0}, "conduct": CONDUCT},
    ),
    (
        ProviderBody,
        {
            "base_url": "http://127.0.0.1:8/v1",
            "headers": {"X-Team": ""},
            "quirks": [],
            "models": {"a": {"upstream_model": "A", "price": {"input": 1, "source": "store"}}, "b": {}},
            "pool": {"max_age_s": 7.0},
            "sealed_headers": {"X-Team": "+/8="},
        },
    ),
]


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=lambda value: getattr(value, "__name__", ""))
def test_stored_rows_are_read_and_written_alike(kind: type[Resource], row: dict[str, Any]) -> None:
    assert json.loads(kind.from_store(json.dumps(row)).to_store()) == row


def test_fields_of_a_newer_release_are_skipped() -> None:
    found = ProviderBody.from_store('{"preset": "groq", "color": 1, "models": {"m": {"color": 2}}}')
    assert json.loads(found.to_store()) == {"preset": "groq", "models": {"m": {}}}


def test_rows_that_hold_no_resource_are_refused_without_their_values() -> None:
    with pytest.raises(ValidationError) as refused:
        FactsWish.from_store('{"context_window": "sk-secret"}')
    assert wording.sentence(refused.value) == "context_window: must be a whole number"


def test_a_stored_alias_is_told_as_before() -> None:
    row = next(row for kind, row in ROWS if kind is AliasWish)
    expected = Alias("x", (TargetRef("a/b", 4),), "u", {"stall": 2.0}, origin="store", **CONDUCT)
    assert AliasWish.from_store(json.dumps(row)).alias("x") == expected


def test_an_alias_of_an_earlier_release_has_the_defaults() -> None:
    row = {"targets": [{"model": "a/b"}], "conduct": {"drain_s": 9.0}}
    assert AliasWish.from_store(json.dumps(row)).alias("x") == Alias(
        "x", (TargetRef("a/b"),), origin="store", drain_s=9.0
    )


def test_an_empty_price_is_unknown_in_the_store_and_unsaid_in_the_file() -> None:
    assert FactsWish.model_validate({"price": {}}).row("m").price == Price(source="store")
    assert ModelTable.model_validate({"price": {}}).row("m").price == Price()


def test_facts_lie_over_or_beneath_a_row() -> None:
    row = ModelRow("m", title="theirs", price=Price(1, 2, source="file"))
    facts = FactsWish.model_validate({"title": "ours", "max_output": 5, "price": {"input": 3}})
    assert (facts.over(row).title, facts.over(row).price.input) == ("ours", 3_000_000_000)
    assert (facts.beneath(row).title, facts.beneath(row).price.input, facts.beneath(row).max_output) == ("theirs", 1, 5)


def test_an_edit_changes_what_was_sent() -> None:
    body = ProviderBody(preset="groq", title="T", headers={"X-Team": ""}, sealed_headers={"X-Team": b"sealed"})
    edited = body.edited(ProviderEdit.model_validate({"title": None, "headers": {"X-Team": "new"}}))
    assert (edited.preset, edited.title, edited.headers, edited.sealed_headers) == ("groq", None, {"X-Team": "new"}, {})


def test_the_command_line_knows_an_alias_as_its_resource_does() -> None:
    fields = {name: field.default for name, field in AliasSettings.model_fields.items()}
    tables = {"drain": Drain(), "queue": Queue(), "cache": CacheTable()}
    assert {**aliases.USUAL, "strategy": "priority", **tables} == fields
    options = set(inspect.signature(aliases.put).parameters)
    assert fields.keys() - options == {"drain", "early_commit_s", "affinity", "queue"}  # of the file and the API alone
    assert {f"queue_{name}" for name in Queue.model_fields} <= options


@pytest.mark.parametrize(("path", "parameter"), [("aliases set", name) for name in AliasSettings.model_fields])
def test_choices_of_an_alias_are_completed(path: str, parameter: str) -> None:
    words = get_args(AliasSettings.model_fields[parameter].annotation)
    source = WHERE[path].get(parameter)
    assert source is None or tuple(source("")) == words
    assert (source is None) == (not all(isinstance(word, str) for word in words) or parameter in UNCOMPLETED)
