"""What ``headgate explain`` says is what happens, and saying it changes nothing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from headgate.errors import GatewayError
from headgate.model import Alias, ModelRow, Price, TargetRef
from headgate.policy.health.targets import Health
from headgate.policy.routing.explain import Explanation
from headgate.policy.routing.router import Router
from tests.policy.worlds import ANYONE, World, always, call, chain, fine, provider, router, status


def places(found: Explanation) -> list[tuple[str, int | None]]:
    return [(one.provider, one.place) for one in found.candidates]


def told(health: Health) -> dict[str, Any]:
    """All that is known there."""
    parts: list[Any] = [health, health.accounts, health.accounts.limits, health.affinity]
    return {
        f"{type(part).__name__}.{name}": deepcopy(getattr(part, name))
        for part in parts
        for name in type(part).__slots__
        if name not in ("accounts", "affinity", "limits")
    }


def explained(gate: Router, world: World, **members: Any) -> Explanation:
    before = told(world.health)
    found = gate.explain(call(**members), ANYONE, world.health, world.now)
    assert told(world.health) == before
    return found


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (status(401), "upstream_auth_failed", "out: a/0 is dead for"),
        (status(429, 900.0), "rate_limit_exceeded", "out: a/0 is exhausted for 900 s"),
    ],
)
def test_a_call_that_would_not_be_sent_is_said_to_be_refused(failure: GatewayError, code: str, reason: str) -> None:
    gate = router(provider("a", ModelRow("m")), provider("b", ModelRow("n")), aliases=[chain("a/m", "b/n")])
    world = World({"a": always(failure), "b": fine})
    one = gate.plan(call("a/m"), ANYONE)
    world.play(one)
    refused = world.play(one)
    assert refused.error is not None and refused.tries == []
    found = explained(gate, world, model="a/m")
    assert (found.code, found.message) == (refused.error.kind.code, refused.error.message)
    assert found.code == code and places(found) == [("a", None)]
    assert found.candidates[0].reason.startswith(reason)
    other = explained(gate, world)
    assert (other.code, places(other)) == ("", [("b", 1), ("a", 2)])


def test_awaited_target_is_not_refused() -> None:
    gate = router(provider("a", ModelRow("m")))
    world = World({"a": always(status(429, 20.0))})
    world.play(gate.plan(call("m", headgate={"retries": 0}), ANYONE))
    assert explained(gate, world, model="m").code == ""
    short = {"timeout_ms": 1500}
    found = explained(gate, world, model="m", headgate=short)
    assert (found.code, places(found)) == ("rate_limit_exceeded", [("a", None)])
    played = world.play(gate.plan(call("m", headgate=short), ANYONE), timeout=1.5)
    assert played.error is not None and played.error.kind.code == found.code and not played.tries


def test_target_of_last_resort_is_first() -> None:
    """Our own guesses keep two targets away; the least bad of them serves."""
    gate = router(*(provider(name, ModelRow("m")) for name in "ab"), aliases=[chain("a/m", "b/m")])
    world = World({"a": always(status(429)), "b": always(status(429))})
    one = gate.plan(call(headgate={"retries": 0}), ANYONE)
    world.play(one)
    world.health.accounts.claim("a/0", "m", world.now)
    world.health.failed(one.attempts[0], status(429), world.now)
    found = explained(gate, world)
    assert found.code == "" and places(found) == [("b", 1), ("a", 2)]
    assert world.play(one).providers[0] == "b"


def test_a_probe_that_is_only_looked_at_is_not_under_way() -> None:
    gate = router(*(provider(name, ModelRow("m")) for name in "ab"), aliases=[chain("a/m", "b/m")])
    world = World({"a": always(status(503)), "b": fine})
    for _ in range(3):
        world.play(gate.plan(call(), ANYONE))
    world.now += 6
    assert {explained(gate, world).candidates[0].state for _ in range(3)} == {"probe"}
    assert world.play(gate.plan(call(), ANYONE)).whys[0] == "probe"
    assert world.health.traffic == {"a": 4}


def test_where_chance_decides_the_likeliest_order_is_shown() -> None:
    gate = router(*(provider(name, ModelRow("m", price=Price(1, 1))) for name in "abc"), aliases=[
        Alias("w", (TargetRef("a/m", 3), TargetRef("b/m", 2), TargetRef("c/m", 4)), strategy="weighted"),
        chain("a/m", "b/m", "c/m", name="b", strategy="balanced"),
    ])  # fmt: skip
    world = World({})
    assert places(explained(gate, world, model="w")) == [("c", 1), ("a", 2), ("b", 3)]
    for attempt, first in zip(gate.plan(call("b"), ANYONE).attempts, (0.3, 0.35, 0.29), strict=True):
        world.health.learn_latency(attempt.target, first, 0.0)
    assert places(explained(gate, world, model="b")) == [("c", 1), ("a", 2), ("b", 3)]
