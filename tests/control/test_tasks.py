"""Shipped aliases: what they bind to, why, and whom they make room for."""

from __future__ import annotations

from typing import Any

from headgate.catalog.presets import TASKS, parse
from headgate.catalog.shipped_aliases import USE_CASES, shipped
from headgate.model import Account, Alias, ModelRow, Price, Provider, TargetRef

HEAD = 'title = "T"\nbase_url = "https://t"\ndocs = "https://t"\n'
ROWS = {
    "fancy": parse("fancy", HEAD + '[tasks]\nchat = "big"\nfast = "small"\nextraction = "sorter"\nresearch = "deep"'),
    "plain": parse("plain", HEAD),
}
CHEAP, DEAR = Price(1, 1), Price(9, 9)


def provider(name: str, *models: ModelRow, **changes: Any) -> Provider:
    defaults: dict[str, Any] = {
        "base_url": "http://x",
        "accounts": (Account(f"{name}/K", label="A_KEY"),),
        "models": {model.id: model for model in models} or None,
    }
    return Provider(name=name, **{**defaults, **changes})


def bound(*providers: Provider, declared: dict[str, Alias] | None = None) -> dict[str, Alias]:
    return shipped({one.name: one for one in providers}, declared or {}, ROWS)


def targets(alias: Alias) -> list[str]:
    return [target.model for target in alias.targets]


def test_nothing_to_bind_to_names_the_next_step() -> None:
    builtin = provider("builtin", origin="builtin", auth="none")
    keyless = provider("groq", ModelRow("m"), accounts=())
    aliases = bound(builtin, keyless)
    assert set(aliases) == {"auto", *(f"headgate/{task}" for task in TASKS)}
    assert set(USE_CASES) == set(TASKS)
    for alias in aliases.values():
        assert alias.targets == () and alias.origin == "shipped"
        assert "set a provider's key in the environment" in (alias.why or "")


def test_a_row_recommends() -> None:
    fancy = provider("fancy", preset="fancy", origin="environment")
    aliases = bound(fancy)
    assert targets(aliases["headgate/chat"]) == ["fancy/big"]
    assert aliases["headgate/chat"].why == "fancy (key in A_KEY): big, recommended by its row"
    assert targets(aliases["headgate/fast"]) == ["fancy/small"]
    assert targets(aliases["headgate/coding"]) == ["fancy/big"]  # nothing of its own: what it is for in general
    assert targets(aliases["headgate/research-person"]) == ["fancy/deep"]
    assert aliases["headgate/vision"].targets == ()
    assert "none of fancy has a model that is known to see" in (aliases["headgate/vision"].why or "")
    assert aliases["headgate/chat"].use_case == "general conversation"


def test_only_what_is_offered_is_recommended() -> None:
    fenced = provider("fancy", ModelRow("mine", upstream_model="small"), ModelRow("other"), preset="fancy")
    aliases = bound(fenced)
    assert targets(aliases["headgate/fast"]) == ["fancy/mine"]
    assert targets(aliases["headgate/chat"]) == ["fancy/mine"]
    assert aliases["headgate/chat"].why == "fancy (configured in the file): mine, the first of its models"


def test_facts_choose() -> None:
    up = provider(
        "up",
        ModelRow("text-embedding", kind="embedding", price=Price(0, 0)),
        ModelRow("first", price=DEAR, context_window=10),
        ModelRow("seeing", price=DEAR, capabilities=("vision",), context_window=99),
        ModelRow("tool", price=CHEAP, capabilities=("tools", "reasoning", "json_schema")),
        ModelRow("gratis", price=Price(0, 0)),
    )
    aliases = bound(up)
    chosen = {task: targets(aliases[f"headgate/{task}"]) for task in TASKS}
    assert chosen["chat"] == ["up/first"]
    assert chosen["vision"] == ["up/seeing"]
    assert chosen["long-context"] == ["up/seeing"]
    assert chosen["tool-use"] == chosen["reasoning"] == chosen["extraction"] == ["up/tool"]
    assert chosen["fast"] == chosen["free"] == ["up/gratis"]
    assert aliases["headgate/fast"].why == "up (configured in the file): gratis, the cheapest of its models"


def test_free_by_the_key() -> None:
    account = Account("up/0", free=True)
    assert targets(bound(provider("up", ModelRow("m"), accounts=(account,)))["headgate/free"]) == ["up/m"]
    mixed = provider("up", ModelRow("m"), accounts=(account, Account("up/1")))
    assert bound(mixed)["headgate/free"].targets == ()


def test_personal_data_goes_only_where_nothing_is_trained() -> None:
    aliases = bound(provider("a", ModelRow("m")), provider("b", ModelRow("m"), training="never"))
    assert targets(aliases["headgate/lead-analysis"]) == ["b/m"]
    refused = bound(provider("a", ModelRow("m")))["headgate/lead-analysis"]
    assert refused.targets == () and "training: never" in (refused.why or "")


def test_the_order_of_origins() -> None:
    aliases = bound(
        provider("d", ModelRow("m"), origin="detected", auth="none", accounts=()),
        provider("e", ModelRow("m"), origin="environment"),
        provider("s", ModelRow("m"), origin="store"),
        provider("f", ModelRow("m")),
    )
    assert targets(aliases["headgate/chat"]) == ["f/m", "s/m", "e/m", "d/m"]
    assert (aliases["headgate/chat"].why or "").endswith("; then s/m, e/m and 1 more")


def test_an_open_provider_without_a_row_cannot_be_named() -> None:
    aliases = bound(provider("open"))
    assert aliases["headgate/chat"].targets == aliases["auto"].targets == ()
    assert "none of open has a chat model that is known here" in (aliases["auto"].why or "")
    known = provider("open", catalog={"old": ModelRow("old"), "priced": ModelRow("priced", price=CHEAP)})
    assert targets(bound(known)["auto"]) == ["open/priced"]


def test_auto_prefers_known_prices() -> None:
    unpriced, priced = provider("a", ModelRow("m")), provider("b", ModelRow("m", price=CHEAP))
    engine = provider("e", ModelRow("m", price=Price(0, 0)), origin="detected", auth="none", accounts=())
    assert targets(bound(unpriced, priced, engine)["auto"]) == ["b/m"]
    assert targets(bound(unpriced, engine)["auto"]) == ["a/m"]
    assert targets(bound(engine)["auto"]) == ["e/m"]
    assert bound(engine)["auto"].why == "e (found on this machine): m, the first of its models"


def test_auto_takes_recommended_models_of_open_catalogs() -> None:
    listed = provider(
        "fancy", ModelRow("dear", price=DEAR), ModelRow("dark"), ModelRow("ear", kind="transcription", price=CHEAP),
        ModelRow("big", price=Price(4, 4)), ModelRow("cheap", price=CHEAP), preset="fancy",
    )  # fmt: skip
    assert targets(bound(listed)["auto"]) == ["fancy/big", "fancy/dear", "fancy/cheap"]
    facts = {name: ModelRow(name, price=DEAR) for name in ("museum", "small", "deep", "big", "sorter")}
    catalog = provider("fancy", catalog=facts, preset="fancy", origin="environment")
    assert targets(bound(catalog)["auto"]) == ["fancy/big", "fancy/small"]
    del facts["big"]
    assert targets(bound(catalog)["auto"]) == ["fancy/small"], "what has no price there is not asked for"
    engine = provider("e", ModelRow("m", price=CHEAP), ModelRow("n", price=CHEAP), origin="detected", auth="none")
    assert targets(bound(listed, engine)["auto"]) == ["fancy/big", "fancy/dear", "fancy/cheap"]
    assert targets(bound(engine)["auto"]) == ["e/m"]


def test_auto_says_where_simple_and_hard_requests_begin() -> None:
    up = provider("up", ModelRow("m", price=Price(4, 4)), ModelRow("n", price=CHEAP))
    other = provider("other", ModelRow("o", price=DEAR), origin="environment")
    assert bound(up, other)["auto"].why == (
        "one of 3 models of up (configured in the file), other (key in A_KEY), in an order of each request's own: "
        "simple ones begin with up/n, hard ones with other/o"
    )
    mine = bound(up, other, declared={"auto": Alias("auto", strategy="cheapest")})["auto"]
    assert mine.strategy == "cheapest" and targets(mine) == ["up/m", "up/n", "other/o"]
    assert (mine.why or "").startswith("up (configured in the file): m, the first of its models; then up/n")


def test_names_that_are_taken() -> None:
    up = provider("up", ModelRow("m"), ModelRow("headgate/coding"))
    mine = Alias("headgate/chat", (TargetRef("up/m"),))
    empty = Alias("headgate/fast", ())
    auto = Alias("auto", (TargetRef("up/m"),))
    aliases = bound(up, declared={alias.name: alias for alias in (mine, empty, auto)})
    assert not {"headgate/chat", "headgate/fast", "headgate/coding", "auto"} & set(aliases)
    assert "headgate/research" in aliases


def test_an_engine_that_was_found_takes_no_name() -> None:
    found = provider("found", ModelRow("auto"), ModelRow("headgate/lead-analysis"), origin="detected", auth="none")
    aliases = bound(found, provider("chosen", ModelRow("m")))
    assert targets(aliases["auto"]) == ["chosen/m"] and not targets(aliases["headgate/lead-analysis"])
    assert "auto" not in bound(provider("chosen", ModelRow("auto")))


def test_binding_again_is_the_same() -> None:
    up = provider("up", ModelRow("m", price=CHEAP))
    declared = {"auto": Alias("auto", use_case="mine", timeouts={"total": 3})}
    once = bound(up, declared=declared)
    assert (once["auto"].use_case, once["auto"].timeouts, targets(once["auto"])) == ("mine", {"total": 3}, ["up/m"])
    assert bound(up, declared={**declared, **once}) == once
    assert once["auto"].origin == "file" and once["headgate/chat"].origin == "shipped"
    later = bound(provider("other", ModelRow("n", price=CHEAP)), declared={**declared, **once})
    assert targets(later["auto"]) == targets(later["headgate/chat"]) == ["other/n"]
