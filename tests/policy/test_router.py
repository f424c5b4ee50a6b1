"""Which targets may serve a call, in which order, and what is said where none may."""

from __future__ import annotations

from typing import Any

import pytest

from headgate import errors
from headgate.errors import GatewayError, Kind
from headgate.model import Account, Alias, Grant, ModelRow, Plan, Price, TargetRef
from headgate.policy.health.targets import HealthState
from headgate.policy.routing.router import Router
from tests.policy.simulation import ANYONE, PRICED, call, chain, error, plan, provider, router


def names(one: Plan) -> list[str]:
    return list(dict.fromkeys(f"{a.target.provider.name}/{a.target.model}" for a in one.attempts))


def refused(gate: Router, grant: Grant = ANYONE, **members: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        gate.plan(call(**members), grant)
    return caught.value


# ---- names


def test_name_resolution_order() -> None:
    gate = router(provider("a", ModelRow("big"), ModelRow("x/y")), provider("open"), aliases=[chain("a/big", "open/z")])
    assert names(gate.plan(call("chat"), ANYONE)) == ["a/big", "open/z"]
    assert names(gate.plan(call("big"), ANYONE)) == ["a/big"]
    assert names(gate.plan(call("x/y"), ANYONE)) == ["a/x/y"]
    assert names(gate.plan(call("open/any/thing"), ANYONE)) == ["open/any/thing"]
    for unknown in ("nothing", "a/other", "b/big", "a/", "/big"):
        assert refused(gate, model=unknown).kind is errors.MODEL_NOT_FOUND


def test_a_bare_model_keeps_its_model() -> None:
    gate = router(
        provider("a", ModelRow("big", canonical="acme/big")),
        provider("b", ModelRow("big", canonical="other/big")),
        provider("c", ModelRow("big-2407", canonical="acme/big")),
        provider("d", ModelRow("plain")),
        provider("e", ModelRow("plain")),
        provider("f", ModelRow("big")),
    )
    assert names(gate.plan(call("big"), ANYONE)) == ["a/big", "c/big-2407"]
    assert names(gate.plan(call("plain"), ANYONE)) == ["d/plain", "e/plain"]
    assert names(gate.plan(call("b/big"), ANYONE)) == ["b/big"]


def test_a_plan_that_depends_on_its_name_alone_is_made_once() -> None:
    gate = router(provider("a", ModelRow("m", context_window=8000, capabilities=("tools", "vision"))))
    first = gate.plan(call("m"), ANYONE)
    assert gate.plan(call("m", tools=[{"type": "function"}], max_tokens=100), ANYONE) is first
    assert gate.plan(call("m", headgate={"retries": 0}), ANYONE) is not first


def test_a_client_cannot_fill_the_memory() -> None:
    gate = router(provider("open"))
    for index in range(5000):
        gate.plan(call(f"open/{index}"), ANYONE)
    assert len(gate._made) <= 4096


def test_a_target_that_is_named_twice_is_tried_once() -> None:
    gate = router(provider("a", ModelRow("m")), aliases=[chain("a/m", "a/m")])
    assert len(gate.plan(call(), ANYONE).attempts) == 1


# ---- options


def test_fallback_models_are_resolved_like_a_model_and_come_last() -> None:
    gate = router(
        provider("a", ModelRow("m")), provider("b", ModelRow("n")), provider("c", ModelRow("o")),
        aliases=[chain("c/o", "b/n", name="rest")],
    )  # fmt: skip
    options = {"fallback_models": ["rest", "m"], "preferred_providers": ["b"]}
    assert names(gate.plan(call("a/m", headgate=options), ANYONE)) == ["a/m", "c/o", "b/n"]
    error = refused(gate, model="m", headgate={"fallback_models": ["none"]})
    assert (error.kind, error.param) == (errors.MODEL_NOT_FOUND, "headgate.fallback_models")


def test_preferred_and_excluded_providers() -> None:
    gate = router(*(provider(name, ModelRow("m")) for name in "abc"))
    options = {"preferred_providers": ["c", "b"], "excluded_providers": ["b"]}
    one = gate.plan(call("m", headgate=options), ANYONE)
    assert names(one) == ["c/m", "a/m"]
    assert [c.reason for c in one.candidates if c.reason] == ["excluded: b is among excluded_providers"]
    assert gate.plan(call("m", headgate={"retries": 1}), ANYONE).retries == 1


def test_a_clients_own_alias_is_refused_rather_than_re_routed() -> None:
    gate = router(provider("a", ModelRow("m")), aliases=[chain("a/m", name="client:acme/chat")])
    acme = Grant("t", "ours", tenant="acme")
    assert refused(gate, model="client:acme/chat").kind is errors.MODEL_NOT_ALLOWED
    error = refused(gate, acme, model="client:acme/chat", headgate={"fallback_models": ["m"]})
    assert (error.kind, error.param) == (errors.INVALID_VALUE, "headgate.fallback_models")
    options = {"excluded_providers": ["a"]}
    assert refused(gate, acme, model="client:acme/chat", headgate=options).kind is errors.NO_QUALIFYING_MODEL


def test_token_may_reach_fallbacks_it_may_not_name() -> None:
    gate = router(provider("a", ModelRow("m")), provider("b", ModelRow("n")), aliases=[chain("a/m", "b/n")])
    lim = Grant("t", "lim", models=("chat",))
    assert refused(gate, lim, model="a/m").kind is errors.MODEL_NOT_ALLOWED
    options = {"fallback_models": ["chat"]}
    one = gate.plan(call("a/m", headgate=options), lim)
    assert names(one) == ["a/m", "b/n"] and len(one.candidates) == 2
    assert not any(candidate.reason for candidate in one.candidates)


def test_permitted_row_of_a_model_is_used() -> None:
    rows = ModelRow("dark", upstream_model="m"), ModelRow("priced", upstream_model="m", price=PRICED)
    gate = router(provider("a", *rows), aliases=[chain("a/dark", "a/priced")], unpriced="refuse")
    assert names(gate.plan(call(), ANYONE)) == ["a/priced"]


def test_fallback_models_do_not_cross_an_aliass_boundary() -> None:
    gate = router(
        provider("far", ModelRow("m"), ModelRow("n")),
        provider("found", ModelRow("m"), origin="detected"),
        aliases=[chain("found/m", name="mine", privacy="own"), chain("far/n", "found/m", name="rest")],
    )
    one = gate.plan(call("mine", headgate={"fallback_models": ["far/m", "rest"]}), ANYONE)
    assert names(one) == ["found/m"]
    assert [candidate.reason for candidate in one.candidates] == [
        "", *["privacy: far is not a machine of your own"] * 2
    ]  # fmt: skip
    assert names(gate.plan(call("rest", headgate={"fallback_models": ["mine", "far/m"]}), ANYONE)) == [
        "far/n", "found/m", "far/m"
    ]  # fmt: skip


# ---- deadlines


def deadlines(alias: dict[str, float], **row: float) -> tuple[float, float]:
    gate = router(provider("a", ModelRow("m", timeouts=row)), aliases=[chain("a/m", timeouts=alias)])
    timeouts = gate.plan(call(), ANYONE).attempts[0].target.timeouts
    return timeouts.headers, timeouts.first_token


def test_first_token_timeout_bounds_the_head() -> None:
    assert deadlines({}) == (60, 60)
    assert deadlines({"first_token": 2}) == (2, 2)
    assert deadlines({"first_token": 2}, first_token=8) == (8, 8)
    assert deadlines({"first_token": 2, "headers": 5}, first_token=8) == (5, 8)
    assert deadlines({"first_token": 2}, first_token=100) == (60, 100)
    assert deadlines({"first_token": 9}, first_token=3) == (9, 9), "a row never lowers"
    assert deadlines({"first_token": 2}, headers=100) == (100, 2), "it says that the head may take so long"


# ---- filters


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
SOUND = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
TOOL = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    ("members", "capability"),
    [
        ({"tools": TOOL}, "tools"),
        ({"functions": [{"name": "f"}]}, "tools"),
        ({"response_format": SCHEMA}, "json_schema"),
        ({"messages": IMAGE}, "vision"),
        ({"messages": SOUND}, "audio"),
        ({"audio": {"voice": "alloy"}}, "audio"),
    ],
)
def test_what_the_request_uses(members: dict[str, Any], capability: str) -> None:
    every = ("tools", "json_schema", "vision", "audio")
    lacks = tuple(name for name in every if name != capability)
    rows = [ModelRow("m", capabilities=lacks), ModelRow("m", capabilities=every), ModelRow("m")]
    gate = router(*(provider(f"p{index}", row) for index, row in enumerate(rows)))
    one = gate.plan(call("m", **members), ANYONE)
    assert names(one) == ["p1/m", "p2/m"], "what declares nothing is not known, and passes"
    assert one.candidates[0].reason == f"capability: it does not have {capability}"
    assert refused(gate, model="p0/m", **members).kind is errors.NO_QUALIFYING_MODEL
    assert names(gate.plan(call("m"), ANYONE)) == ["p0/m", "p1/m", "p2/m"]


@pytest.mark.parametrize(
    "members",
    [
        {"tools": []},
        {"tools": None, "audio": None},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": '{"image_url": "input_audio"}'}]},
    ],
)
def test_what_it_does_not_use(members: dict[str, Any]) -> None:
    gate = router(provider("a", ModelRow("m", capabilities=("reasoning",))))
    assert names(gate.plan(call("m", **members), ANYONE)) == ["a/m"]


def spoken(tokens: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "abc " * tokens}]


def test_the_context_window() -> None:
    gate = router(
        provider("s", ModelRow("m", context_window=1000)),
        provider("l", ModelRow("m", context_window=8000)),
    )
    assert names(gate.plan(call("m", messages=spoken(1150)), ANYONE)) == ["s/m", "l/m"], "within a fifth of the limit"
    assert names(gate.plan(call("m", messages=spoken(1300)), ANYONE)) == ["l/m"]
    assert names(gate.plan(call("m", messages=spoken(900), max_tokens=400), ANYONE)) == ["l/m"]
    error = refused(gate, model="m", messages=spoken(20_000))
    assert error.kind is errors.CONTEXT_LENGTH and "s/m" in error.message and "l/m" in error.message
    mixed = refused(gate, model="m", messages=spoken(20_000), headgate={"excluded_providers": ["s"]})
    assert mixed.kind is errors.NO_QUALIFYING_MODEL


def test_an_image_is_not_counted_as_words() -> None:
    gate = router(provider("a", ModelRow("m", context_window=8000)))
    url = "data:image/png;base64," + "A" * 400_000
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
    assert names(gate.plan(call("m", messages=[{"role": "user", "content": parts}]), ANYONE)) == ["a/m"]


def test_the_longest_output() -> None:
    gate = router(provider("a", ModelRow("m", max_output=4096)), provider("b", ModelRow("m")))
    assert names(gate.plan(call("m", max_tokens=4096), ANYONE)) == ["a/m", "b/m"]
    assert names(gate.plan(call("m", max_tokens=4097), ANYONE)) == ["b/m"]


def test_the_most_that_it_may_cost() -> None:
    cheap, dear = Price(100_000_000, 200_000_000), Price(30_000_000_000, 60_000_000_000)
    gate = router(
        provider("a", ModelRow("m", price=dear)),
        provider("b", ModelRow("m")),
        provider("c", ModelRow("m", price=cheap)),
    )
    one = gate.plan(call("m", max_tokens=1000, headgate={"max_cost_usd": 0.001}), ANYONE)
    assert names(one) == ["c/m"]
    assert [candidate.reason.partition(":")[0] for candidate in one.candidates] == ["max_cost", "price_unknown", ""]
    assert refused(gate, model="m", headgate={"max_cost_usd": 0}).kind is errors.NO_QUALIFYING_MODEL


def test_prices_that_must_be_known() -> None:
    gate = router(
        provider("a", ModelRow("m")), provider("b", ModelRow("m", price=PRICED)), provider("c"), unpriced="refuse"
    )
    assert names(gate.plan(call("m"), ANYONE)) == ["b/m"]
    error = refused(gate, model="c/x")
    assert error.kind is errors.NO_QUALIFYING_MODEL and "unpriced" in error.message


def test_facts_of_a_catalog_are_used_and_are_no_fence() -> None:
    facts = {"known": ModelRow("known", price=PRICED, context_window=1000)}
    gate = router(provider("open", catalog=facts), unpriced="refuse")
    assert gate.plan(call("open/known"), ANYONE).attempts[0].target.price is PRICED
    assert refused(gate, model="open/known", messages=spoken(2000)).kind is errors.CONTEXT_LENGTH


@pytest.mark.parametrize(
    ("privacy", "left"),
    [
        ("any", ["far/m", "never/m", "near/m", "lan/m", "found/m"]),
        ("no_train", ["never/m", "near/m", "lan/m", "found/m"]),
        ("trusted", ["never/m", "near/m", "lan/m", "found/m"]),
        ("own", ["near/m", "lan/m", "found/m"]),
    ],
)
def test_privacy(privacy: str, left: list[str]) -> None:
    def at(name: str, url: str, **more: Any) -> Any:
        return provider(name, ModelRow("m"), **more).__class__(
            name, url, models={"m": ModelRow("m")}, auth="none", **more
        )

    providers = [
        at("far", "https://api.example.com/v1", training="yes"),
        at("never", "https://api.example.org/v1", training="never"),
        at("near", "http://127.0.0.1:8080/v1"),
        at("lan", "http://10.1.2.3:8000/v1"),
        at("found", "http://engine.example/v1", origin="detected"),
    ]
    gate = router(*providers, aliases=[chain(*(f"{one.name}/m" for one in providers), privacy=privacy)])
    assert names(gate.plan(call("m", headgate={"privacy": privacy}), ANYONE)) == left
    assert names(gate.plan(call("chat"), ANYONE)) == left
    if privacy == "own":
        left_out = refused(router(*providers[:2]), model="m", headgate={"privacy": "own"})
        assert left_out.kind is errors.NO_QUALIFYING_MODEL


def test_a_token_may_use_what_it_names() -> None:
    gate = router(provider("a", ModelRow("m")), provider("b", ModelRow("n")), aliases=[chain("a/m", "b/n")])

    def grant(*models: str) -> Grant:
        return Grant("t", "mine", models=models)

    assert names(gate.plan(call("chat"), grant("chat"))) == ["a/m", "b/n"]
    assert names(gate.plan(call("chat"), grant("b/n"))) == ["b/n"]
    assert names(gate.plan(call("b/n"), grant("n"))) == ["b/n"]
    assert refused(gate, grant("other"), model="chat").kind is errors.MODEL_NOT_ALLOWED
    fallback = {"fallback_models": ["b/n"]}
    assert names(gate.plan(call("a/m", headgate=fallback), grant("a/m"))) == ["a/m"]


def test_without_a_key() -> None:
    def keyless(name: str) -> Any:
        return provider(name, ModelRow("m"), keys=(), auth="bearer")

    gate = router(keyless("a"), provider("b", ModelRow("m")))
    assert names(gate.plan(call("m"), ANYONE)) == ["b/m"]
    assert refused(gate, model="a/m").kind is errors.NO_PROVIDER_KEY
    empty = router(aliases=[Alias("auto", why="add a key.")])
    error = refused(empty, model=None)
    assert error.kind is errors.NO_PROVIDER_KEY and "add a key" in error.message


def test_an_error_names_every_candidate_but_not_without_end() -> None:
    gate = router(*(provider(f"p{index}", ModelRow("m", max_output=10)) for index in range(30)))
    error = refused(gate, model="m", max_tokens=11)
    assert error.kind is errors.NO_QUALIFYING_MODEL
    assert "p0/m: 11 tokens are asked for, it gives 10; p1/m" in error.message and "18 more" in error.message


# ---- strategies that need no chance, accounts, affinity


def test_cheapest_depends_on_the_call() -> None:
    reading, writing = Price(1_000_000_000, 9_000_000_000), Price(3_000_000_000, 4_000_000_000)
    gate = router(
        provider("u", ModelRow("m")), provider("w", ModelRow("m", price=writing)),
        provider("r", ModelRow("m", price=reading)),
        aliases=[chain("u/m", "w/m", "r/m", strategy="cheapest")],
    )  # fmt: skip
    assert names(gate.plan(call(messages=spoken(3000), max_tokens=10), ANYONE)) == ["r/m", "w/m", "u/m"]
    assert names(gate.plan(call(max_tokens=1000), ANYONE)) == ["w/m", "r/m", "u/m"]


def test_accounts_stand_by_priority_free_ones_first() -> None:
    accounts = [Account("a/0"), Account("a/1", free=True), Account("a/2", priority=5)]
    one = router(provider("a", ModelRow("m"), keys=accounts)).plan(call("m"), ANYONE)
    assert [attempt.account.id for attempt in one.attempts if attempt.account] == ["a/2", "a/1", "a/0"]
    assert not one.ordered and len({id(attempt.target) for attempt in one.attempts}) == 1


def affinity(*, mode: str = "prompt_cache", headers: dict[bytes, bytes] | None = None, **members: Any) -> bytes:
    gate = router(provider("a", ModelRow("m"), keys=2), aliases=[chain("a/m", affinity=mode)])
    return gate.plan(call(**members), ANYONE, headers).affinity


def test_whose_prompt_cache_it_is() -> None:
    system = {"role": "system", "content": "Be brief."}
    hello, answer = {"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}
    more = {"role": "user", "content": "And?"}
    begun = affinity(messages=[system, hello])
    assert begun and affinity(messages=[system, hello, answer, more]) == begun != affinity(messages=[system, more])
    assert affinity(user="u", messages=[hello]) == affinity(user="u", messages=[more]) != affinity(user="v")
    assert affinity(prompt_cache_key="k", user="u") == affinity(prompt_cache_key="k", user="v")
    session = {b"x-session-id": b"7"}
    assert affinity(headers=session) == affinity(headers=session, user="u", messages=[more])
    assert affinity(headers={b"x-claude-code-session-id": b"7"}, messages=[more]) == affinity(headers=session)
    assert affinity(mode="none", user="u") == b"" == affinity(mode="session")
    assert affinity(mode="session", user="u")


# ---- explain


def test_explain_says_why_and_in_which_order() -> None:
    gate = router(
        provider("a", ModelRow("m", max_output=10)), provider("b", ModelRow("m", prefill="prefix"), keys=2),
        provider("c", ModelRow("m", price=PRICED)), aliases=[chain("a/m", "b/m", "c/m")],
    )  # fmt: skip
    health = HealthState()
    attempts = {attempt.target.provider.name: attempt for attempt in gate.plan(call(), ANYONE).attempts}
    for _ in range(3):
        health.failed(attempts["c"], error(errors.UPSTREAM_CUT), 100.0)
    health.failed(attempts["b"], error(errors.RATE_LIMITED, 429, 30.0), 100.0)
    found = gate.explain(call(max_tokens=100, headgate={"max_cost_usd": 1}), ANYONE, health, 101.0)
    assert found.code == "no_qualifying_model" or found.code == ""
    found = gate.explain(call(max_tokens=100), ANYONE, health, 101.0)
    assert [(one.provider, one.place) for one in found.candidates] == [("b", 1), ("c", 2), ("a", None)]
    b, c, a = found.candidates
    assert a.reason.startswith("max_output") and c.state == "ejected" and c.wait_s == 4.0
    assert (b.state, b.prefill) == ("well", "prefix")
    assert sorted((account.state, account.wait_s) for account in b.accounts) == [("active", 0.0), ("cooling", 29.0)]


@pytest.mark.parametrize(
    ("members", "kind"), [({"model": "x"}, errors.MODEL_NOT_FOUND), ({"max_tokens": 11}, errors.NO_QUALIFYING_MODEL)]
)
def test_explain_never_raises(members: dict[str, Any], kind: Kind) -> None:
    gate = router(provider("a", ModelRow("m", max_output=10)), aliases=[Alias("chat", (TargetRef("a/m"),))])
    found = gate.explain(call(**members), ANYONE, None, 0.0)
    assert (found.code, bool(found.message)) == (kind.code, True)
    assert len(found.candidates) == (1 if "max_tokens" in members else 0)
    assert plan().alias.name == "chat"


def test_prefill_of_the_row_else_of_the_provider() -> None:
    rows = (ModelRow("said", prefill="trailing"), ModelRow("never", prefill="none"), ModelRow("silent"))
    fenced = router(provider("p", *rows, prefill="prefix"))
    assert {row.id: fenced.plan(call(f"p/{row.id}"), ANYONE).attempts[0].target.prefill for row in rows} == {
        "said": "trailing", "never": "none", "silent": "prefix",
    }  # fmt: skip
    open_ended = router(provider("p", prefill="prefix"), provider("q"))
    assert open_ended.plan(call("p/any"), ANYONE).attempts[0].target.prefill == "prefix"
    assert open_ended.plan(call("q/any"), ANYONE).attempts[0].target.prefill == "none"
