"""Prices and facts: exactly those of the list, those of nobody else overwritten, and unknown where they are."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as ListedUsage
from genai_prices import calc_price
from genai_prices.data import providers as lists
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.catalog import prices
from headgate.catalog.presets import parse, rows
from headgate.catalog.prices import LOCAL, enrich, kind_of, price_list
from headgate.model import FREE, Account, ModelRow, Price, PriceTier, Provider, Usage
from headgate.policy.metering import cost, price_at
from headgate.testing.opcodes import opcodes

TODAY = date(2026, 9, 1)
ROWS = rows()


def provider(preset: str | None, **changes: Any) -> Provider:
    defaults: dict[str, Any] = {"name": preset or "up", "base_url": "http://x", "preset": preset}
    return Provider(**{**defaults, **changes})


def enriched(one: Provider, today: date = TODAY, known: Any = ROWS) -> Provider:
    return enrich({one.name: one}, known, today)[one.name]


def test_an_open_provider_gets_a_catalog() -> None:
    openai = enriched(provider("openai", accounts=(Account("openai/0"),)))
    assert openai.models is None
    known = openai.catalog["gpt-4o-mini"]
    assert known.price == Price(150_000_000, 600_000_000, 75_000_000, source=price_list())
    assert (known.context_window, known.max_output, known.capabilities) == (
        128_000, 16_384, ("tools", "json_schema", "vision"),
    )  # fmt: skip
    assert openai.catalog["gpt-4o-2024-08-06"].price.input == 2_500_000_000  # a dated name of the same model
    assert openai.catalog["text-embedding-3-small"].kind == "embedding"
    assert price_list().startswith("genai-prices 0.")


def test_what_somebody_said_stays() -> None:
    said = Price(1, 2, source="file")
    models = {
        "gpt-4o": ModelRow("gpt-4o", context_window=5, price=said, title="Mine"),
        "small": ModelRow("small", upstream_model="gpt-4o-mini", capabilities=("tools",)),
        "half": ModelRow("half", upstream_model="gpt-4o", price=Price(input=7, source="file")),
        "own-tune": ModelRow("own-tune"),
    }
    one = enriched(provider("openai", models=models)).models
    assert one is not None and list(one) == list(models)
    assert (one["gpt-4o"].price, one["gpt-4o"].context_window, one["gpt-4o"].title) == (said, 5, "Mine")
    assert (one["small"].price.input, one["small"].capabilities) == (150_000_000, ("tools",))
    assert one["small"].upstream_model == "gpt-4o-mini"
    assert one["half"].price == Price(input=7, source="file")  # a price is said whole, or not
    assert one["own-tune"].price == Price()
    stored = provider("openai", catalog={"gpt-4o": ModelRow("gpt-4o", price=Price(3, 4, source="store"))})
    assert enriched(stored).catalog["gpt-4o"].price.source == "store"
    assert enriched(stored).catalog["gpt-4o"].context_window == 128_000


def test_who_is_known_by_what() -> None:
    by_url = provider(None, base_url="https://api.openai.com/v1", models={"gpt-4o": ModelRow("gpt-4o")})
    assert enriched(by_url).models["gpt-4o"].price.source == price_list()  # type: ignore[index]
    nobody = provider(None, models={"gpt-4o": ModelRow("gpt-4o")})
    assert enriched(nobody) is nobody
    # something else than the engine may be behind its port: only who says that it is one costs nothing
    proxy = provider(None, base_url="http://127.0.0.1:8080/v1", models={"m": ModelRow("m")})
    assert enriched(proxy) is proxy
    local = enriched(provider("llama-cpp", models={"m": ModelRow("m"), "p": ModelRow("p", price=Price(1, 1))}))
    assert local.models is not None
    assert (local.models["m"].price, local.models["p"].price) == (LOCAL, Price(1, 1))
    assert enriched(provider("vllm")).price == LOCAL
    builtin = provider("openai", origin="builtin", price=FREE)
    assert enriched(builtin) is builtin
    azure = enriched(provider("azure", models={"d": ModelRow("d", upstream_model="gpt-4o")}))
    assert azure.models is not None and azure.models["d"].price.input == 2_500_000_000
    assert enriched(provider("azure")).catalog == {}  # its ids are its user's deployments


def test_the_order_stays() -> None:
    names = ["zai", "openai", "groq"]
    assert list(enrich({name: provider(name) for name in names}, ROWS, TODAY)) == names


def test_tiers() -> None:
    pro = enriched(provider("gemini")).catalog["gemini-2.5-pro"].price
    assert (pro.input, pro.output) == (1_250_000_000, 10_000_000_000)
    assert pro.tiers == (
        PriceTier(200_000, 2_500_000_000, 15_000_000_000, pro.tiers[0].cached_input, pro.tiers[0].cache_write),
    )


def test_prices_by_the_time_of_day_have_hours() -> None:
    deepseek = enriched(provider("deepseek")).catalog
    for model in ("deepseek-chat", "deepseek-v4-flash"):
        price = deepseek[model].price
        assert price.hours and price.source == price_list()
        for hours in price.hours:
            dearer = price_at(price, hours.start * 60)
            assert (dearer.input, dearer.output) == (hours.input, hours.output) != (price.input, price.output)
            cheaper = price_at(price, hours.end * 60)
            assert (cheaper.input, cheaper.hours) == (price.input, ())


def test_kinds_that_are_priced_apart_have_their_rates() -> None:
    claude = enriched(provider("anthropic")).catalog["claude-sonnet-4-5"].price
    assert claude.details is not None and claude.input is not None
    assert claude.details.cache_write_1h == 2 * claude.input


def test_prices_that_cannot_be_said_are_unknown() -> None:
    deepseek = enriched(provider("deepseek")).catalog
    assert deepseek["deepseek-v3.2"].price.source == price_list()
    assert deepseek["deepseek-chat"].context_window
    sonar = enriched(provider("perplexity")).catalog["sonar"]
    assert sonar.price == Price()  # a fee per request


def test_the_day_decides() -> None:
    dated = next(
        (name, model, conditional.constraint.start_date)
        for name, row in ROWS.items()
        for listed in lists
        if listed.id == row.prices and row.ids is None
        for model in listed.models
        if isinstance(model.prices, list) and len(model.prices) == 2 and model.is_match(model.id)
        for conditional in model.prices[1:]
        if hasattr(conditional.constraint, "start_date") and conditional.prices != model.prices[0].prices
    )
    name, model, start = dated
    before = enriched(provider(name), start.replace(year=start.year - 1)).catalog[model.id].price
    assert before != enriched(provider(name), start).catalog[model.id].price


def test_a_row_of_ones_own_with_prices() -> None:
    row = parse(
        "mine",
        'title = "M"\nbase_url = "https://m"\ndocs = "https://m"\nfree_suffix = ":free"\nprices = "openrouter"\n'
        "[models.a]\nprice = {input = 1, output = 2}",
    )
    mine = enriched(provider("mine"), known={"mine": row}).catalog
    assert mine["a"].price == Price(10**9, 2 * 10**9, source="providers/mine.toml")
    assert mine["openai/gpt-oss-20b:free"].price == Price(0, 0, 0, 0, source="providers/mine.toml")
    assert mine["openai/gpt-oss-20b"].price.source == price_list()


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.prices])
def test_every_price_is_the_lists_own(name: str) -> None:
    """A call costs what genai-prices says it does, for every model whose price we know, to the nano-dollar."""
    row = ROWS[name]
    usage = Usage(prompt=1_000_000, completion=1_000_000, cached=300_000)
    asked = ListedUsage(input_tokens=1_000_000, output_tokens=1_000_000, cache_read_tokens=300_000)
    at = datetime(2026, 9, 1, 12, tzinfo=UTC)
    compared = 0
    for model, known in enriched(provider(name)).catalog.items():
        nano = cost(usage, price_at(known.price, at.timestamp()))
        if nano is None or known.price.source != price_list() or known.kind != "chat":
            continue
        listed = calc_price(asked, model, provider_id=row.prices, genai_request_timestamp=at)
        assert nano == listed.total_price * Decimal(10**9), model
        compared += 1
    assert compared or name == "azure" or row.prices == "perplexity", name


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.prices])
def test_the_quick_search_finds_what_the_slow_one_does(name: str) -> None:
    enriched(provider(name))
    quick = prices._lists[ROWS[name].prices or ""]
    ids = list(quick.ids())
    for model in [*ids, *(f"{model}-preview" for model in ids), "nonsense"]:
        assert quick.find(model) is quick.provider.find_model(model, all_providers=lists), model


def test_what_is_known_is_not_looked_up_again() -> None:
    everything = {name: provider(name) for name in ROWS}
    for name in ("openai", "openrouter"):
        models = list(enriched(provider(name)).catalog)[:200]
        everything[f"{name}-fenced"] = provider(
            name, name=f"{name}-fenced", models={model: ModelRow(model) for model in models}
        )
    enrich(everything, ROWS, TODAY)
    named = sum(1 + len(each.models or ()) for each in everything.values())
    assert opcodes(lambda: enrich(everything, ROWS, TODAY)) < 300 * named  # and not for each model of their catalogs


def test_nothing_loads_the_list_before_it_is_asked_for() -> None:
    code = "import sys, headgate.catalog.prices, headgate.settings; print('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("gpt-4o", "chat"), ("o3", "chat"), ("claude-sonnet-4-6", "chat"), ("llama3:latest", "chat"),
        ("openai/gpt-oss-20b:free", "chat"), ("deepseek-v4-flash", "chat"), ("qwen2.5-vl-72b-instruct", "chat"),
        ("text-embedding-3-large", "embedding"), ("nomic-embed-text:v1.5", "embedding"), ("BAAI/bge-m3", "embedding"),
        ("whisper-large-v3", "transcription"), ("gpt-4o-transcribe", "transcription"), ("tts-1-hd", "speech"),
        ("gpt-4o-mini-tts", "speech"), ("gpt-image-1", "image"), ("dall-e-3", "image"),
        ("gpt-4o-realtime-preview", "other"), ("llama-guard-3-8b", "other"), ("davinci-002", "other"),
    ],
)  # fmt: skip
def test_kinds(model: str, kind: str) -> None:
    assert kind_of(model) == kind


COUNT = st.integers(0, 10**7)
PRICE = st.none() | st.integers(0, 10**12)


@settings(max_examples=300)
@given(prompt=COUNT, completion=COUNT, tiers=st.lists(st.tuples(COUNT, PRICE, PRICE), max_size=3))
def test_the_last_tier_below_the_prompt_holds(prompt: int, completion: int, tiers: list[Any]) -> None:
    tiers = sorted(tiers, key=lambda tier: tier[0])
    price = Price(5, 7, tiers=tuple(PriceTier(*tier) for tier in tiers))
    below = [tier for tier in tiers if prompt > tier[0]]
    _above, into, out = below[-1] if below else (0, None, None)
    plain = Price(5 if into is None else into, 7 if out is None else out)
    assert cost(Usage(prompt, completion), price) == cost(Usage(prompt, completion), plain)


def test_a_tier_holds_for_all_of_a_call() -> None:
    price = Price(10**9, 2 * 10**9, tiers=(PriceTier(200_000, 2 * 10**9, 3 * 10**9),))
    assert cost(Usage(200_000, 0), price) == 200_000_000
    assert cost(Usage(200_001, 0), price) == 400_002_000
    assert cost(Usage(200_001, 1_000_000), price) == 400_002_000 + 3 * 10**9
    assert cost(Usage(1, 1), Price(tiers=(PriceTier(10, 1, 1),))) is None
