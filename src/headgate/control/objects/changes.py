"""What an operator may change in the store: (everything that is declared, a wish) → the next Objects, or a refusal.

Pure; nothing here writes.  Every refusal is a GatewayError with a sentence.  The file wins: what it declares is not
changed here.  Names are judged as the file's are (``policy.names``): what could never be reached, or would take away
what an alias leads to, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from headgate.catalog import names
from headgate.catalog.names import BUILTIN, Known
from headgate.catalog.presets import RESERVED
from headgate.control.identity.vault import hint
from headgate.control.objects import registry
from headgate.control.objects.assemble import (
    HERE,
    Sources,
    Unusable,
    all_providers,
    all_tenants,
    known,
    stored_provider,
)
from headgate.control.objects.registry import (
    Objects,
    StoredAccount,
    StoredAlias,
    StoredModel,
    StoredProvider,
)
from headgate.control.refusals import (
    ACCOUNT_NOT_FOUND,
    ALIAS_NOT_FOUND,
    ALREADY_EXISTS,
    IN_USE,
    MANAGED_BY_FILE,
    NAME_TAKEN,
    PROVIDER_NOT_FOUND,
    TOO_MANY,
)
from headgate.dialects.openai_chat.quirks import QUIRKS
from headgate.errors import INVALID_VALUE, MODEL_NOT_FOUND, GatewayError
from headgate.model import Alias, Provider
from headgate.resources.account import AccountWish
from headgate.resources.alias import AliasWish
from headgate.resources.fields import unfit_headers
from headgate.resources.model_row import FactsWish
from headgate.resources.provider import ProviderBody

MAX_PROVIDERS, MAX_ACCOUNTS, MAX_ALIASES, MAX_MODELS = 200, 1000, 2000, 5000
V = TypeVar("V")

Seal = Callable[[str, str], bytes]


def _room(kept: Mapping[str, object], limit: int, what: str) -> None:
    if len(kept) >= limit:
        raise GatewayError(TOO_MANY, f"There are {limit} {what} in the store, which is the limit; delete some first.")


def _with(kept: Mapping[str, V], name: str, value: V) -> dict[str, V]:
    return {**kept, name: value}


def _without(kept: Mapping[str, V], gone: Iterable[str]) -> dict[str, V]:
    left = set(gone)
    return {name: value for name, value in kept.items() if name not in left}


# ------------------------------------------------------------------------------------- providers


def add_provider(sources: Sources, name: str, body: ProviderBody) -> Objects:
    """A provider that is not there yet.  One of the environment or of detection may be replaced by it."""
    if sentence := names.unfit_provider(name):
        raise GatewayError(INVALID_VALUE, f"{sentence[0].upper()}{sentence[1:]}.", param="name")
    if name in RESERVED:
        raise GatewayError(INVALID_VALUE, f"The name {name} is reserved; choose another.", param="name")
    _not_of_file(sources.compiled.world.providers.get(name), f"Provider {name}")
    if name in sources.objects.providers:
        raise GatewayError(ALREADY_EXISTS, f"There is a provider {name} already; change or delete it.", param="name")
    _room(sources.objects.providers, MAX_PROVIDERS, "providers")
    return _judged(sources, name, StoredProvider(*registry.now(), body))


def edit_provider(sources: Sources, name: str, edit: Callable[[ProviderBody], ProviderBody]) -> Objects:
    """A stored provider with another body."""
    _not_of_file(sources.compiled.world.providers.get(name), f"Provider {name}")
    kept = _stored_provider(sources, name)
    return _judged(sources, name, StoredProvider(*registry.now(kept), edit(kept.body)))


def drop_provider(sources: Sources, name: str) -> Objects:
    """Without the provider and its accounts, unless stored aliases lead to it."""
    _stored_provider(sources, name)
    before = sources.objects
    accounts = [ident for ident, account in before.accounts.items() if account.provider == name]
    after = replace(before, providers=_without(before.providers, [name]), accounts=_without(before.accounts, accounts))
    left = all_providers(replace(sources, objects=after))
    if broken := _broken(sources, known(all_providers(sources)), known(left)):
        raise GatewayError(
            IN_USE, f"Aliases lead to provider {name}: {', '.join(broken)}. Change or delete them first."
        )
    return after


def _stored_provider(sources: Sources, name: str) -> StoredProvider:
    kept = sources.objects.providers.get(name)
    if kept is None:
        _not_of_file(sources.compiled.world.providers.get(name), f"Provider {name}")
        provider = all_providers(sources).get(name)
        if provider is None:
            near = names.nearest(name, all_providers(sources))
            raise GatewayError(PROVIDER_NOT_FOUND, names.ended(f"There is no provider {name!r}{near}"))
        raise GatewayError(MANAGED_BY_FILE, _elsewhere(provider))
    return kept


def _elsewhere(provider: Provider) -> str:
    match provider.origin:
        case "environment":
            return (
                f"Provider {provider.name} comes from a key in the environment: unset that variable, or store a "
                f"provider of this name, which then takes its place."
            )
        case "detected":
            return (
                f"Provider {provider.name} is an engine that was found on this machine: stop it, set "
                "detect.local_engines to false, or store a provider of this name, which then takes its place."
            )
        case _:
            return f"Provider {provider.name} is part of Headgate and cannot be changed."


def _not_of_file(declared: Provider | Alias | None, shown: str) -> None:
    if declared is not None and declared.origin == "file":
        raise GatewayError(
            MANAGED_BY_FILE, f"{shown} is declared in the configuration file: change it there and reload."
        )


def _judged(sources: Sources, name: str, kept: StoredProvider) -> Objects:
    for quirk in kept.body.quirks or ():
        if quirk not in QUIRKS:
            near = names.nearest(quirk, QUIRKS)
            raise GatewayError(INVALID_VALUE, names.ended(f"There is no quirk {quirk!r}{near}"), param="quirks")
    if sentence := unfit_headers(kept.body.headers or {}):
        raise GatewayError(INVALID_VALUE, names.ended(sentence), param="headers")
    try:
        provider = stored_provider(name, kept.body, sources.compiled.rows, sources.environ)
    except Unusable as error:
        raise GatewayError(INVALID_VALUE, names.ended(str(error)), param=error.param) from error
    if provider.auth == "none" and any(one.provider == name for one in sources.objects.accounts.values()):
        sentence = f"auth is none, so the keys of {name} would never be sent; delete its accounts first."
        raise GatewayError(INVALID_VALUE, sentence, param="auth")
    if kept.body.base_url is None:
        # What the environment filled in stays, wherever the next start comes from
        kept = replace(kept, body=_filled(kept.body, provider, sources))
    after = replace(sources.objects, providers=_with(sources.objects.providers, name, kept))
    was, will = known(all_providers(sources)), known(all_providers(replace(sources, objects=after)))
    if broken := _broken(sources, was, will):
        raise GatewayError(
            IN_USE, f"Aliases lead to models that provider {name} would no longer have: {', '.join(broken)}."
        )
    own = {name: provider.models}
    for alias in _declared(sources):
        if (clash := names.taken(alias, own)) and (name not in was or not names.taken(alias, {name: was[name]})):
            raise GatewayError(NAME_TAKEN, f"The alias {alias} {clash}.", param="models" if provider.models else "name")
    return after


def _filled(body: ProviderBody, provider: Provider, sources: Sources) -> ProviderBody:
    row = sources.compiled.rows.get(body.preset or "")
    if row is None or row.base_url == provider.base_url:
        return body
    return body.model_copy(update={"base_url": provider.base_url})


def _declared(sources: Sources) -> list[str]:
    of_file = [name for name, alias in sources.compiled.world.aliases.items() if alias.origin != "shipped"]
    return [*of_file, *sources.objects.aliases]


def _broken(sources: Sources, was: Known, will: Known) -> list[str]:
    """Stored aliases with a target that exists and would not any more."""
    return [
        name
        for name, kept in sources.objects.aliases.items()
        if any(
            names.unresolved(ref.model, was, HERE) is None and names.unresolved(ref.model, will, HERE) is not None
            for ref in kept.body.refs
        )
    ]


# ------------------------------------------------------------------------------------- accounts


def add_account(sources: Sources, seal: Seal, wish: AccountWish) -> tuple[Objects, StoredAccount]:
    """A key for a provider of the file or of the store; a preset's name makes the provider too.  ``seal``: see
    ``vault.Vault.seal``.
    """
    provider, label, key = wish.provider, wish.label, wish.key.get_secret_value()
    if provider not in all_providers(sources) and provider not in sources.compiled.rows:
        near = names.nearest(provider, [*all_providers(sources), *sources.compiled.rows])
        raise GatewayError(
            PROVIDER_NOT_FOUND, names.ended(f"There is no provider and no preset {provider!r}{near}"), param="provider"
        )
    sources = _housed(sources, provider)
    home = all_providers(sources).get(provider)
    if home is None or home.auth == "none":
        sentence = (
            f"Provider {provider} needs no key (auth is none)." if home else f"Provider {provider} cannot be used."
        )
        raise GatewayError(INVALID_VALUE, sentence, param="provider")
    taken = {account.id for account in home.accounts} | sources.objects.accounts.keys()
    if label is not None and f"{provider}/{label}" in taken:
        raise GatewayError(ALREADY_EXISTS, f"There is an account {provider}/{label} already.", param="label")
    _room(sources.objects.accounts, MAX_ACCOUNTS, "accounts")
    label = label or _free_label(provider, taken)
    ident = f"{provider}/{label}"
    account = StoredAccount(
        provider, label, seal(ident, key), hint(key), wish.priority, wish.free, registry.now()[0], wish.terms
    )
    return replace(sources.objects, accounts=_with(sources.objects.accounts, ident, account)), account


def _free_label(provider: str, taken: Collection[str]) -> str:
    numbered = (f"key-{number}" for number in range(1, len(taken) + 2))
    return next(label for label in numbered if f"{provider}/{label}" not in taken)


def _housed(sources: Sources, name: str) -> Sources:
    """With a stored provider of this name where neither file nor store has one: made from its preset."""
    home = all_providers(sources).get(name)
    if home is not None and home.origin not in ("environment", "detected"):
        return sources
    if name in sources.objects.providers:  # it is there, but cannot be used: say why
        return replace(sources, objects=_judged(sources, name, sources.objects.providers[name]))
    preset = home.preset if home is not None and home.preset else name
    if preset not in sources.compiled.rows:
        raise GatewayError(PROVIDER_NOT_FOUND, f"There is no preset {preset!r} to make provider {name} from.")
    return replace(sources, objects=add_provider(sources, name, ProviderBody(preset=preset)))


def edit_account(sources: Sources, ident: str, edit: Callable[[StoredAccount], StoredAccount]) -> Objects:
    """A stored account with another key, priority or price.  Its label is its identity and stays."""
    _not_account_of_file(sources, ident)
    account = _account(sources, ident)
    return replace(sources.objects, accounts=_with(sources.objects.accounts, ident, edit(account)))


def drop_account(sources: Sources, ident: str) -> Objects:
    _account(sources, ident)
    return replace(sources.objects, accounts=_without(sources.objects.accounts, [ident]))


def _account(sources: Sources, ident: str) -> StoredAccount:
    account = sources.objects.accounts.get(ident)
    if account is None:
        _not_account_of_file(sources, ident)
        raise GatewayError(ACCOUNT_NOT_FOUND, f"There is no account {ident!r}.")
    return account


def _not_account_of_file(sources: Sources, ident: str) -> None:
    for provider in sources.compiled.world.providers.values():
        if any(one.id == ident for one in provider.accounts):
            here = "the configuration file: change it there and reload"
            if provider.origin == "environment":
                here = "the environment that the gateway was started with: change it there and restart"
            raise GatewayError(MANAGED_BY_FILE, f"The account {ident} comes from {here}.")


# ------------------------------------------------------------------------------------- aliases


def put_alias(sources: Sources, name: str, body: AliasWish) -> Objects:
    """A new alias, a stored one anew, or one in the place of a shipped one."""
    _not_of_file(sources.compiled.world.aliases.get(name), f"The alias {name}")
    models = known(all_providers(sources))
    kept = sources.objects.aliases.get(name)
    if sentence := names.taken(name, models):
        raise GatewayError(NAME_TAKEN, f"The alias {name!r} {sentence}.", param="name")
    if sentence := names.without_targets(name, body.refs):
        raise GatewayError(INVALID_VALUE, f"The alias {name!r} {sentence}.", param="targets")
    if sentence := names.unfit_tenant_alias(name, body.refs, all_tenants(sources)):
        raise GatewayError(INVALID_VALUE, names.ended(f"The alias {name!r}: {sentence}"), param="name")
    for ref in body.refs:
        if sentence := names.unresolved(ref.model, models, HERE):
            raise GatewayError(INVALID_VALUE, names.ended(sentence), param="targets")
    if kept is None:
        _room(sources.objects.aliases, MAX_ALIASES, "aliases")
    stored = StoredAlias(*registry.now(kept), body)
    return replace(sources.objects, aliases=_with(sources.objects.aliases, name, stored))


def drop_alias(sources: Sources, name: str) -> Objects:
    """Without the alias; a shipped one of that name is there again."""
    if name not in sources.objects.aliases:
        _not_of_file(sources.compiled.world.aliases.get(name), f"The alias {name}")
        near = names.nearest(name, sources.objects.aliases)
        raise GatewayError(ALIAS_NOT_FOUND, names.ended(f"There is no stored alias {name!r}{near}"))
    return replace(sources.objects, aliases=_without(sources.objects.aliases, [name]))


# ------------------------------------------------------------------------------------- facts of models


def put_model(sources: Sources, ident: str, body: FactsWish) -> Objects:
    """What the operator knows better about ``provider/model``.  What the file says of it is not changed here."""
    provider, slash, model = ident.partition("/")
    home = all_providers(sources).get(provider)
    if not slash or not model or home is None or names.unresolved(ident, {provider: home.models}, HERE):
        near = names.nearest(ident, names.qualified(known(all_providers(sources))))
        sentence = f"{ident!r} is no model here{near or ': write provider/model, as in a list of models'}"
        raise GatewayError(MODEL_NOT_FOUND, names.ended(sentence))
    if provider == BUILTIN:
        raise GatewayError(MANAGED_BY_FILE, "The built-in provider's models are part of Headgate.")
    if home.origin == "file" and home.models is not None and (said := _said_by(body, home, model)):
        sentence = f"The configuration file says {', '.join(said)} of {ident}: change it there and reload."
        raise GatewayError(MANAGED_BY_FILE, sentence, param=said[0])
    kept = sources.objects.models.get(ident)
    if kept is None:
        _room(sources.objects.models, MAX_MODELS, "overrides")
    return replace(sources.objects, models=_with(sources.objects.models, ident, StoredModel(*registry.now(kept), body)))


def _said_by(body: FactsWish, home: Provider, model: str) -> list[str]:
    row = (home.models or {})[model]
    declared, merged = body.declared(), body.beneath(row)
    wanted = (name for name in ("title", "price", "context_window", "max_output", "capabilities") if name in declared)
    return [name for name in wanted if getattr(merged, name) == getattr(row, name) != declared[name]]


def drop_model(sources: Sources, ident: str) -> Objects:
    """Without what was said about ``provider/model``."""
    if ident not in sources.objects.models:
        raise GatewayError(MODEL_NOT_FOUND, f"Nothing is stored about {ident!r}.")
    return replace(sources.objects, models=_without(sources.objects.models, [ident]))
