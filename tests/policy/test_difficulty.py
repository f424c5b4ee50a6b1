"""``auto``: which requests are hard, and in which order its models are tried then."""

from __future__ import annotations

import json
from time import thread_time
from typing import Any

import pytest

from headgate.model import Alias, Call, ModelRow, Plan, Price
from headgate.policy.health.targets import HealthState
from headgate.policy.routing import filters
from headgate.policy.routing.difficulty import is_hard
from headgate.policy.routing.explain import Explanation
from headgate.policy.routing.router import Router
from tests.policy.simulation import ANYONE, call, chain, provider, router

TOOL = [{"type": "function", "function": {"name": "f"}}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]}


def hard(one: Call) -> bool:
    return is_hard(one, filters.needs(one))


@pytest.mark.parametrize(
    "members",
    [
        {"tools": TOOL},
        {"functions": [{"name": "f"}]},
        {"response_format": SCHEMA},
        {"messages": IMAGE},
        {"max_tokens": 4097},
        {"max_completion_tokens": 8000},
        {"reasoning_effort": "medium"},
        {"reasoning_effort": "high"},
        said("prove the theorem " * 1000),
        said("What is wrong here?\n```\nx = 1\n```"),
        said("What is wrong here?\ndef f(x):\n    return x"),
        said("class Foo:\n    pass"),
        said("Why?\n\t\tconst x = 1"),
        said("#include <stdio.h>"),
        said("It says:\nTraceback (most recent call last):"),
        said("import os\nos.getcwd()"),
        said("pub fn main() {}"),
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "async function go() {}"}]}]},
    ],
)
def test_hard(members: dict[str, Any]) -> None:
    assert hard(call(**members))


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"max_tokens": 4096},
        {"tools": []},
        {"response_format": {"type": "json_object"}},
        {"reasoning_effort": "low"},
        {"reasoning_effort": None},
        {"reasoning_effort": 7},
        said("prove the theorem " * 800),
        said("class starts at nine.\nimport duties are due; const is a word, and so is def (short for definition)"),
        said("Function follows form.\nfrom here on, imports rise"),
    ],
)
def test_simple(members: dict[str, Any]) -> None:
    assert not hard(call(**members))


def test_the_newest_messages_decide_at_a_bounded_cost() -> None:
    old = {"role": "user", "content": "A" * 20_000}  # counts as an attachment: no words
    code = {"role": "user", "content": "```x```"}
    assert hard(call(messages=[old, code])) and not hard(call(messages=[code, old]))


def test_ten_times_as_much_text_costs_as_much() -> None:
    def cost(lines: int) -> float:
        spaces = call(messages=[{"role": "user", "content": ("\n" + " " * 63 + "def ") * lines}])
        wanted = filters.needs(spaces)
        taken = []
        for _ in range(5):
            began = thread_time()
            is_hard(spaces, wanted)
            taken.append(thread_time() - began)
        return min(taken)

    assert cost(2200) < 4 * cost(220)


# ---- the order


def price(usd: float) -> Price:
    return Price(int(usd * 1e9), int(usd * 2e9), source="file")


def row(usd: float | None = None, **more: Any) -> ModelRow:
    return ModelRow("m", price=Price() if usd is None else price(usd), **more)


MIXED = {"mid": row(1), "dark": row(), "dear": row(30, context_window=200_000), "cheap": row(0.1)}


def auto(rows: dict[str, ModelRow], near: tuple[str, ...] = (), **more: Any) -> Router:
    providers = [provider(name, one, origin="detected" if name in near else "file") for name, one in rows.items()]
    return router(*providers, aliases=[chain(*(f"{name}/m" for name in rows), name="auto", **{"why": "so", **more})])


def order(one: Plan) -> list[str]:
    return list(dict.fromkeys(attempt.target.provider.name for attempt in one.attempts))


def test_difficulty_chooses_cheapest_or_strongest() -> None:
    gate = auto(MIXED)
    assert order(gate.plan(call("auto"), ANYONE)) == ["cheap", "mid", "dear", "dark"]
    assert order(gate.plan(call(None), ANYONE)) == ["cheap", "mid", "dear", "dark"], "it is the default"
    assert order(gate.plan(call("auto", tools=TOOL), ANYONE)) == ["dear", "mid", "cheap", "dark"]
    assert order(gate.plan(call("auto"), ANYONE)) == ["cheap", "mid", "dear", "dark"]


def test_of_equals_what_is_near_then_as_they_stand() -> None:
    gate = auto({"a": row(1), "b": row(1), "near": row(1), "free": row(0)}, near=("near",))
    assert order(gate.plan(call("auto"), ANYONE)) == ["free", "near", "a", "b"]
    assert order(gate.plan(call("auto", tools=TOOL), ANYONE)) == ["near", "a", "b", "free"]


def test_what_it_costs_is_of_this_very_call() -> None:
    reading, writing = Price(1_000_000_000, 9_000_000_000), Price(3_000_000_000, 4_000_000_000)
    gate = auto({"w": ModelRow("m", price=writing), "r": ModelRow("m", price=reading)})
    assert order(gate.plan(call("auto", **said("abc " * 3000), max_tokens=10), ANYONE)) == ["r", "w"]
    assert order(gate.plan(call("auto", max_tokens=1000), ANYONE)) == ["w", "r"]


def test_the_callers_own_limits_hold() -> None:
    gate = auto(MIXED)
    limited = {"tools": TOOL, "headgate": {"max_cost_usd": 0.005, "preferred_providers": ["cheap"]}}
    assert order(gate.plan(call("auto", **limited), ANYONE)) == ["cheap", "mid"]
    private = auto({"far": row(30), "near": row(0)}, near=("near",))
    assert order(private.plan(call("auto", tools=TOOL, headgate={"privacy": "own"}), ANYONE)) == ["near"]
    behind = {"fallback_models": ["dark/m", "cheap/m"], "excluded_providers": ["dear"]}
    assert order(gate.plan(call("auto", headgate=behind), ANYONE)) == ["cheap", "mid", "dark"]


def test_an_order_of_ones_own_is_kept() -> None:
    hardest = call("auto", tools=TOOL)
    declared = auto(MIXED, why=None)
    assert order(declared.plan(hardest, ANYONE)) == list(MIXED)
    cheapest = auto(MIXED, strategy="cheapest")
    assert order(cheapest.plan(hardest, ANYONE)) == ["cheap", "mid", "dear", "dark"]
    shipped = router(*(provider(name, one) for name, one in MIXED.items()), aliases=[
        Alias("headgate/chat", chain(*(f"{name}/m" for name in MIXED)).targets, why="so")
    ])  # fmt: skip
    assert order(shipped.plan(call("headgate/chat", tools=TOOL), ANYONE)) == list(MIXED)


def test_without_prices_nothing_is_computed() -> None:
    gate = auto({"a": row(), "b": row()}, near=("b",))
    one = gate.plan(call("auto"), ANYONE)
    assert order(one) == ["a", "b"] and gate.plan(call("auto", tools=TOOL), ANYONE) is one
    single = auto({"a": row(1)})
    assert single.plan(call("auto"), ANYONE) is single.plan(call("auto", tools=TOOL), ANYONE)


@pytest.mark.parametrize("members", [{}, {"tools": TOOL}])
def test_explain_shows_the_order_that_happens(members: dict[str, Any]) -> None:
    gate = auto(MIXED)
    found: Explanation = gate.explain(call("auto", **members), ANYONE, HealthState(), 0.0)
    assert [one.provider for one in found.candidates] == order(gate.plan(call("auto", **members), ANYONE))
    assert [one.place for one in found.candidates] == [1, 2, 3, 4]
    assert found.strategy == ("auto (hard)" if members else "auto (simple)")
    assert json.dumps([one.cost_usd for one in found.candidates]).count("null") == 1
