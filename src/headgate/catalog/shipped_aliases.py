"""Shipped aliases: names of jobs (``headgate/chat``, ``headgate/fast``, …, ``auto``) with targets from the configured
providers.

Pure.  The providers that can serve decide the targets.  Their order is file, store, environment, detected; the
built-in one is never used.  ``why`` of each alias names the choice and its reason, or the next step without a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from headgate.catalog.presets import TASKS, Row
from headgate.model import AUTO, Alias, ModelRow, Provider, TargetRef

PREFIX = "headgate/"
_ORDER = ("file", "store", "environment", "detected")
_LIKE = {"lead-analysis": "extraction", "research-person": "research"}  # other tasks whose recommendation also counts
_NEEDS = {"vision": "vision", "tool-use": "tools", "extraction": "json_schema", "reasoning": "reasoning"}
_ONLY = frozenset(("vision", "free"))  # capabilities without which a model cannot do the job
_PRIVATE = frozenset(("lead-analysis",))  # personal data: only at providers that do not train on it
_CHEAP = frozenset(("fast", "classification"))
_RECOMMENDED = ("chat", "fast", "reasoning", "planning", "coding")  # simple and hard work, on any subject
USE_CASES: Mapping[str, str] = {
    "chat": "general conversation",
    "fast": "short answers, quickly",
    "coding": "writing, debugging and refactoring code",
    "extraction": "structured data out of text, as JSON",
    "creative": "texts with style",
    "research": "reading much and answering from it",
    "planning": "steps towards a goal",
    "tool-use": "function calling",
    "classification": "one label out of a few",
    "summarization": "the same in fewer words",
    "translation": "the same in another language",
    "vision": "questions about images",
    "reasoning": "problems that need thought first",
    "long-context": "very long prompts",
    "free": "models that cost nothing",
    "lead-analysis": "scoring business leads, with providers that do not train on what they are sent",
    "research-person": "reports about a person",
}
_NEXT_STEP = (
    "no provider can serve: set a provider's key in the environment (OPENAI_API_KEY, GROQ_API_KEY, …), add one under "
    "providers: in the configuration, or start a local engine such as Ollama"
)


class _AutoChoice(NamedTuple):
    provider: Provider
    model: str
    reason: str


def shipped(
    providers: Mapping[str, Provider], declared: Mapping[str, Alias], rows: Mapping[str, Row]
) -> dict[str, Alias]:
    """Return the shipped aliases whose names are free; merge as ``{**declared, **shipped(…)}``.

    ``providers`` is the final set, with catalogs and prices.  ``declared`` are the aliases of file and store; those
    with a ``why`` come from an earlier choice, and are chosen again.  A name of a declared alias or a model is left
    out.  ``auto`` without targets keeps its declared use case, deadlines and origin.
    """
    taken = {name for name, alias in declared.items() if alias.why is None and (alias.targets or name != AUTO)}
    listed = [
        row.models or () for row in providers.values() if row.origin != "detected"
    ]  # without detected engines: their names were not chosen
    taken.update(model for models in listed for model in models)
    serving = sorted(
        (row for row in providers.values() if row.origin in _ORDER and (row.accounts or row.auth == "none")),
        key=lambda row: _ORDER.index(row.origin),
    )
    bound = {}
    for task in TASKS:
        name = PREFIX + task
        if name not in taken:
            choices = [choice for row in serving if (choice := _chosen(row, rows.get(row.preset or ""), task))]
            bound[name] = _alias(name, choices, USE_CASES[task], _nothing(task, serving))
    if AUTO not in taken:
        old = declared.get(AUTO) or Alias(AUTO, use_case="whatever is configured", origin="shipped")
        targets, why = _auto(serving, rows, computed=old.strategy == "priority")
        bound[AUTO] = replace(old, targets=targets, why=why)
    return bound


def _alias(name: str, choices: list[_AutoChoice], use_case: str | None, nothing: str) -> Alias:
    return Alias(name, _refs(choices), use_case, origin="shipped", why=_why(choices) if choices else nothing)


def _refs(choices: list[_AutoChoice]) -> tuple[TargetRef, ...]:
    return tuple(TargetRef(_named(choice)) for choice in choices)


def _why(choices: list[_AutoChoice]) -> str:
    first = choices[0]
    then = ", ".join(_named(choice) for choice in choices[1:3])
    more = f" and {len(choices) - 3} more" if len(choices) > 3 else ""
    behind = f"; then {then}{more}" if then else ""
    return f"{first.provider.name} ({_origin(first.provider)}): {first.model}, {first.reason}{behind}"


def _origin(provider: Provider) -> str:
    if provider.origin == "environment":
        return f"key in {provider.accounts[0].label}"
    return {"file": "configured in the file", "store": "added here", "detected": "found on this machine"}[
        provider.origin
    ]


def _nothing(task: str, serving: list[Provider]) -> str:
    if not serving:
        return _NEXT_STEP
    names = ", ".join(row.name for row in serving[:3])
    if task in _PRIVATE:
        return f"none of {names} is known not to train on what it is sent; say so with training: never where it is true"
    what = {"vision": "has a model that is known to see", "free": "has a model or a key that is known to be free"}
    return (
        f"none of {names} {what.get(task, 'has a chat model that is known here')}; declare one under models:, or an "
        f"alias {PREFIX}{task} of your own"
    )


# ------------------------------------------------------------------------------------- one provider's model


def _chosen(provider: Provider, row: Row | None, task: str) -> _AutoChoice | None:
    if task in _PRIVATE and provider.training != "never":
        return None
    recommended = _recommended(provider, row, task) or _recommended(provider, row, _LIKE.get(task, ""))
    if recommended:
        return _AutoChoice(provider, recommended, "recommended by its row")
    by_facts = _by_facts(provider, task)
    if by_facts or task in _ONLY:
        return by_facts
    return _general(provider, row)


def _recommended(provider: Provider, row: Row | None, task: str) -> str | None:
    """Return the row's model for the task, by its name here; None if this provider does not offer it."""
    wanted = row.tasks.get(task) if row else None
    if wanted is None or provider.models is None or wanted in provider.models:
        return wanted
    return next((model for model, row in provider.models.items() if row.upstream_model == wanted), None)


def _general(provider: Provider, row: Row | None) -> _AutoChoice | None:
    recommended = _recommended(provider, row, "chat")
    if recommended:
        return _AutoChoice(provider, recommended, "recommended by its row")
    models = _chat(provider)
    if provider.models is None:  # some of a catalog's models may be retired; those with a price probably exist
        models = [model for model in models if _sum(model) is not None]
    return _AutoChoice(provider, models[0].id, "the first of its models") if models else None


def _by_facts(provider: Provider, task: str) -> _AutoChoice | None:
    models = _chat(provider)
    if task == "free":
        return _free(provider, models)
    if need := _NEEDS.get(task):
        able = next((model for model in models if need in model.capabilities), None)
        return _AutoChoice(provider, able.id, f"the first of its models with {need}") if able else None
    if provider.models is None:  # the cheapest model of an open catalog is usually obsolete
        return None
    if task in _CHEAP:
        return _best(provider, models, lambda model: _negative(_sum(model)), "the cheapest of its models")
    if task == "long-context":
        return _best(provider, models, lambda model: model.context_window, "the longest context of its models")
    return None


def _free(provider: Provider, models: list[ModelRow]) -> _AutoChoice | None:
    gratis = next((model for model in models if _sum(model) == 0), None)
    if gratis:
        return _AutoChoice(provider, gratis.id, "costs nothing")
    if models and provider.accounts and all(account.free for account in provider.accounts):
        return _AutoChoice(provider, models[0].id, "its key is marked free")
    return None


def _best(
    provider: Provider, models: Iterable[ModelRow], rank: Callable[[ModelRow], int | None], reason: str
) -> _AutoChoice | None:
    ranked = [(value, model) for model in models if (value := rank(model)) is not None]
    return _AutoChoice(provider, max(ranked, key=lambda pair: pair[0])[1].id, reason) if ranked else None


def _chat(provider: Provider) -> list[ModelRow]:
    known = provider.catalog if provider.models is None else provider.models
    return [model for model in known.values() if model.kind == "chat"]


def _sum(model: ModelRow) -> int | None:
    price = model.price
    return None if price.input is None or price.output is None else price.input + price.output


def _negative(value: int | None) -> int | None:
    return None if value is None else -value


# ------------------------------------------------------------------------------------- auto


def _auto(serving: list[Provider], rows: Mapping[str, Row], *, computed: bool) -> tuple[tuple[TargetRef, ...], str]:
    """Return the targets of ``auto``, and the reason.  They are the chat models of configured providers with known
    prices; else one model of each configured provider; else one of each detected engine.  ``computed``: each request
    gets its own order of them (``policy.routing.difficulty``).
    """
    choices = [choice for row in serving if (choice := _general(row, rows.get(row.preset or "")))]
    configured = [choice for choice in choices if choice.provider.origin != "detected"]
    priced = [
        choice
        for provider in serving
        if provider.origin != "detected"
        for choice in _eligible(provider, rows.get(provider.preset or ""))
        if _price(choice) is not None
    ]
    found = priced or configured or choices
    if not found:
        return (), _nothing("chat", serving)
    return _refs(found), _why_computed(priced) if computed and len(priced) > 1 else _why(found)


def _eligible(provider: Provider, row: Row | None) -> list[_AutoChoice]:
    """Of declared models return all, the row's recommended ones first.  Of an open catalog return only those: its
    cheapest and its dearest models are usually obsolete.
    """
    general = _general(provider, row)
    if provider.models is None:
        recommended = [model for task in _RECOMMENDED if (model := _recommended(provider, row, task))]
        others = [_AutoChoice(provider, model, "recommended by its row") for model in recommended]
    else:
        others = [_AutoChoice(provider, model.id, "one of its models") for model in _chat(provider)]
    found: dict[str, _AutoChoice] = {}
    for choice in [general, *others] if general else others:
        found.setdefault(choice.model, choice)
    return list(found.values())


def _price(choice: _AutoChoice) -> int | None:
    known = choice.provider.catalog if choice.provider.models is None else choice.provider.models
    model = known.get(choice.model)
    return _sum(model) if model is not None else None


def _why_computed(priced: list[_AutoChoice]) -> str:
    cheap, strong = min(priced, key=_sort_key), max(priced, key=_sort_key)
    names = list(dict.fromkeys(f"{one.provider.name} ({_origin(one.provider)})" for one in priced))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"one of {len(priced)} models of {', '.join(names[:3])}{more}, in an order of each request's own: simple ones "
        f"begin with {_named(cheap)}, hard ones with {_named(strong)}"
    )


def _named(choice: _AutoChoice) -> str:
    return f"{choice.provider.name}/{choice.model}"


def _sort_key(choice: _AutoChoice) -> int:
    return _price(choice) or 0
