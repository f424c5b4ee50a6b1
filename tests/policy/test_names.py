"""How clients spell a model, what each spelling leads to, and what a name that leads nowhere is answered."""

from __future__ import annotations

from typing import Any

import pytest

from headgate import errors
from headgate.errors import GatewayError
from headgate.model import ModelRow, Price, Provider
from headgate.policy.routing.router import Router
from tests.policy.simulation import ANYONE, call, chain, provider, router

COSTS = Price(150_000_000, 600_000_000)
PRESETS = {"openai": ("gpt-4o-mini", "gpt-5"), "groq": ("fast-8b",), "openrouter": ()}


def takes_any(name: str, *ids: str, **more: Any) -> Provider:
    """A provider without a list, of whose models some are known."""
    return provider(name, catalog={one: ModelRow(one, price=COSTS) for one in ids}, **more)


def leads_to(gate: Router, name: str) -> list[str]:
    plan = gate.plan(call(name), ANYONE)
    return list(dict.fromkeys(f"{one.target.provider.name}/{one.target.upstream_model}" for one in plan.attempts))


def refused(gate: Router, name: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        gate.plan(call(name), ANYONE)
    return caught.value


@pytest.fixture(scope="module")
def gate() -> Router:
    return router(
        takes_any("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "gpt-5", "o3"),
        takes_any("openrouter", "openai/gpt-4o-mini", "deepseek/deepseek-r1", "deepseek/deepseek-r1:free", "x/twin",
                  "y/twin"),
        takes_any("gemini", "gemini-2.5-flash"),
        takes_any("anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5-20251101"),
        provider("ollama", ModelRow("llama3.2:latest"), ModelRow("qwen3:0.6b"), ModelRow("Mistral-Nemo"), keys=0),
        aliases=[chain("openai/gpt-5", name="headgate/chat"), chain("openai/o3", name="gpt-5")],
        presets=PRESETS,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("gpt-4o-mini", ["openai/gpt-4o-mini", "openrouter/openai/gpt-4o-mini"]),
        ("GPT-4o-Mini", ["openai/gpt-4o-mini", "openrouter/openai/gpt-4o-mini"]),
        (" gpt-4o-mini ", ["openai/gpt-4o-mini", "openrouter/openai/gpt-4o-mini"]),
        ("openai/gpt-4o-mini", ["openai/gpt-4o-mini"]),
        ("openai/GPT-4o-mini", ["openai/gpt-4o-mini"]),
        ("openai:gpt-4o-mini", ["openai/gpt-4o-mini"]),
        ("@openai/gpt-4o-mini", ["openai/gpt-4o-mini"]),
        ("gpt-4o-mini@openai", ["openai/gpt-4o-mini"]),
        # a date that is known, one that is not, other ways to write one
        ("gpt-4o-mini-2024-07-18", ["openai/gpt-4o-mini-2024-07-18"]),
        ("gpt-4o-mini-2031-01-01", ["openai/gpt-4o-mini-2031-01-01"]),
        ("claude-haiku-4-5-20251001", ["anthropic/claude-haiku-4-5-20251001"]),
        ("claude-haiku-4-5@20251001", ["anthropic/claude-haiku-4-5-20251001"]),
        ("claude-haiku-4-5", ["anthropic/claude-haiku-4-5-20251101"]),
        ("claude-haiku-4-5-latest", ["anthropic/claude-haiku-4-5-20251101"]),
        # as Gemini's own lists write it
        ("models/gemini-2.5-flash", ["gemini/gemini-2.5-flash"]),
        ("gemini/models/gemini-2.5-flash", ["gemini/gemini-2.5-flash"]),
        # ids with slashes and tags at an aggregator
        ("deepseek/deepseek-r1", ["openrouter/deepseek/deepseek-r1"]),
        ("deepseek-r1", ["openrouter/deepseek/deepseek-r1"]),
        ("deepseek/deepseek-r1:free", ["openrouter/deepseek/deepseek-r1:free"]),
        ("deepseek/deepseek-r1:nitro", ["openrouter/deepseek/deepseek-r1:nitro"]),
        ("openrouter/any/thing:new", ["openrouter/any/thing:new"]),
        # an engine's tags
        ("llama3.2", ["ollama/llama3.2:latest"]),
        ("ollama/llama3.2", ["ollama/llama3.2:latest"]),
        ("mistral-nemo", ["ollama/Mistral-Nemo"]),
        ("ollama/mistral-nemo", ["ollama/Mistral-Nemo"]),
        # an alias comes before a model of its name, and knows no case
        ("gpt-5", ["openai/o3"]),
        ("Headgate/Chat", ["openai/gpt-5"]),
    ],
)
def test_spellings_of_a_known_model(gate: Router, name: str, targets: list[str]) -> None:
    assert leads_to(gate, name) == targets


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpt-4o-mni", "did you mean gpt-4o-mini?"),
        ("opnai/gpt-4o-mini", "did you mean openai/gpt-4o-mini?"),
        ("opnai/brand-new", "did you mean openai/brand-new?"),
        ("ollma/llama3.2", "did you mean ollama/llama3.2:latest?"),
        ("ollama/llama3", "did you mean ollama/llama3.2:latest?"),
        ("headgate/caht", "did you mean headgate/chat?"),
        ("twin", "/twin?"),  # two makers have one: which is open
        ("llama3.2-2024-01-01", "did you mean llama3.2"),  # another model than the one that is there
        ("qwen3:free", "did you mean qwen3:0.6b?"),
        ("zzz", "name a configured one"),
        ("x" * 256, "name a configured one"),
        ("openai/", "here"),
        ("/", "here"),
        (":", "here"),
        ("@", "here"),
    ],
)
def test_unknown_names_get_the_nearest(gate: Router, name: str, hint: str) -> None:
    error = refused(gate, name)
    assert error.kind is errors.MODEL_NOT_FOUND and hint in error.message and len(error.message) < 400


@pytest.mark.parametrize(
    ("name", "provider_name"),
    [("openai/gpt-4o-mini", "openai"), ("OpenAI/whatever", "openai"), ("gpt-4o-mini", "openai"), ("fast-8b", "groq")],
)
def test_a_service_without_a_key_names_the_command(name: str, provider_name: str) -> None:
    error = refused(router(presets=PRESETS), name)
    assert error.kind is errors.NO_PROVIDER_KEY and f"headgate vault add {provider_name}" in error.message


def test_a_configured_service_without_a_key_names_the_command() -> None:
    gate = router(takes_any("openai", "gpt-4o-mini", keys=0, auth="bearer"))
    for name in ("gpt-4o-mini", "openai/gpt-4o-mini", "openai/brand-new"):
        error = refused(gate, name)
        assert error.kind is errors.NO_PROVIDER_KEY and "headgate vault add openai" in error.message


def test_one_model_at_two_providers_is_a_pool_in_their_order() -> None:
    gate = router(takes_any("azure", "gpt-5"), takes_any("openai", "gpt-5"), takes_any("router", "openai/gpt-5"))
    assert leads_to(gate, "gpt-5") == ["azure/gpt-5", "openai/gpt-5", "router/openai/gpt-5"]


def test_models_that_only_share_their_id_are_no_pool() -> None:
    one, other = ModelRow("m", canonical="acme/m"), ModelRow("m", canonical="other/m")
    gate = router(provider("a", catalog={"m": one}), provider("b", catalog={"m": other}))
    assert leads_to(gate, "m") == ["a/m"]


def test_a_declared_model_stays_with_those_that_declare_it() -> None:
    """An engine's model must not go to a paid service of the same id when the engine fails."""
    gate = router(provider("engine", ModelRow("m"), keys=0), takes_any("paid", "m"))
    assert leads_to(gate, "m") == ["engine/m"]


def test_dated_name_has_its_models_price(gate: Router) -> None:
    def price(name: str) -> Price:
        return gate.plan(call(name), ANYONE).attempts[0].target.price

    assert price("gpt-4o-mini-2031-01-01") == COSTS and price("openai/gpt-4o-mini-2031-01-01") == COSTS
    assert price("deepseek/deepseek-r1:nitro") == Price() == price("openrouter/deepseek/deepseek-r1:nitro")


def test_names_are_compared_with_few_of_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    from headgate.catalog import spellings

    compared: list[int] = []
    real = spellings.nearest

    def counted(name: str, known: Any) -> str:
        names = list(known)
        compared.append(len(names))
        return real(name, names)

    monkeypatch.setattr(spellings, "nearest", counted)
    gate = router(takes_any("many", *(f"model-{number}-chat" for number in range(5000))))
    assert "did you mean" in refused(gate, "model-77-chta").message
    assert max(compared) <= spellings.MOST_COMPARED
