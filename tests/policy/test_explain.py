"""What ``headgate explain`` says is what happens, and saying it changes nothing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from headgate.errors import GatewayError
from headgate.model import Alias, ModelRow, Price, TargetRef
from headgate.policy.health.targets import HealthState
from headgate.policy.routing.explain import Explanation
from headgate.policy.routing.router import Router
from tests.policy.simulation import ANYONE, Simulation, always, call, chain, fine, provider, router, status


def places(found: Explanation) -> list[tuple[str, int | None]]:
    return [(one.provider, one.place) for one in found.candidates]


def told(health: HealthState) -> dict[str, Any]:
    """All that is known there."""
    parts: list[Any] = [health, health.accounts, health.accounts.limits, health.affinity]
    return {
        f"{type(part).__name__}.{name}": deepcopy(getattr(part, name))
        for part in parts
        for name in type(part).__slots__
        if name not in ("accounts", "affinity", "limits")
    }


def explained(gate: Router, simulation: Simulation, **members: Any) -> Explanation:
    before = told(simulation.health)
    found = gate.explain(call(**members), ANYONE, simulation.health, simulation.now)
    assert told(simulation.health) == before
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
    simulation = Simulation({"a": always(failure), "b": fine})
    one = gate.plan(call("a/m"), ANYONE)
    simulation.play(one)
    refused = simulation.play(one)
    assert refused.error is not None and refused.tries == []
    found = explained(gate, simulation, model="a/m")
    assert (found.code, found.message) == (refused.error.kind.code, refused.error.message)
    assert found.code == code and places(found) == [("a", None)]
    assert found.candidates[0].reason.startswith(reason)
    other = explained(gate, simulation)
    assert (other.code, places(other)) == ("", [("b", 1), ("a", 2)])


def test_awaited_target_is_not_refused() -> None:
    gate = router(provider("a", ModelRow("m")))
    simulation = Simulation({"a": always(status(429, 20.0))})
    simulation.play(gate.plan(call("m", headgate={"retries": 0}), ANYONE))
    assert explained(gate, simulation, model="m").code == ""
    short = {"timeout_ms": 1500}
    found = explained(gate, simulation, model="m", headgate=short)
    assert (found.code, places(found)) == ("rate_limit_exceeded", [("a", None)])
    trace = simulation.play(gate.plan(call("m", headgate=short), ANYONE), timeout=1.5)
    assert trace.error is not None and trace.error.kind.code == found.code and not trace.tries


def test_target_of_last_resort_is_first() -> None:
    """Our own guesses keep two targets away; the least bad of them serves."""
    gate = router(*(provider(name, ModelRow("m")) for name in "ab"), aliases=[chain("a/m", "b/m")])
    simulation = Simulation({"a": always(status(429)), "b": always(status(429))})
    one = gate.plan(call(headgate={"retries": 0}), ANYONE)
    simulation.play(one)
    simulation.health.accounts.claim("a/0", "m", simulation.now)
    simulation.health.failed(one.attempts[0], status(429), simulation.now)
    found = explained(gate, simulation)
    assert found.code == "" and places(found) == [("b", 1), ("a", 2)]
    assert simulation.play(one).providers[0] == "b"


def test_a_probe_that_is_only_looked_at_is_not_under_way() -> None:
    gate = router(*(provider(name, ModelRow("m")) for name in "ab"), aliases=[chain("a/m", "b/m")])
    simulation = Simulation({"a": always(status(503)), "b": fine})
    for _ in range(3):
        simulation.play(gate.plan(call(), ANYONE))
    simulation.now += 6
    assert {explained(gate, simulation).candidates[0].state for _ in range(3)} == {"probe"}
    assert simulation.play(gate.plan(call(), ANYONE)).whys[0] == "probe"
    assert simulation.health.traffic == {"a": 4}


def test_where_chance_decides_the_likeliest_order_is_shown() -> None:
    gate = router(*(provider(name, ModelRow("m", price=Price(1, 1))) for name in "abc"), aliases=[
        Alias("w", (TargetRef("a/m", 3), TargetRef("b/m", 2), TargetRef("c/m", 4)), strategy="weighted"),
        chain("a/m", "b/m", "c/m", name="b", strategy="balanced"),
    ])  # fmt: skip
    simulation = Simulation({})
    assert places(explained(gate, simulation, model="w")) == [("c", 1), ("a", 2), ("b", 3)]
    for attempt, first in zip(gate.plan(call("b"), ANYONE).attempts, (0.3, 0.35, 0.29), strict=True):
        simulation.health.learn_latency(attempt.target, first, 0.0)
    assert places(explained(gate, simulation, model="b")) == [("c", 1), ("a", 2), ("b", 3)]
