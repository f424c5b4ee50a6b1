"""One World out of everything that declares something: the file, the environment, the store, what was found, what is
known.

Pure but for the price list, which is imported once (``facts``).  Precedence on equal names: file, store, environment,
detected; the built-in provider is last in every order.  What a stored object says and cannot be kept (its preset is
gone, its model no longer exists) is left out of the World, and said where it is listed (``problem_of_…``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from headgate.catalog import names
from headgate.catalog.names import BUILTIN, Known
from headgate.catalog.presets import Row, Unfilled, base_url, catalog, fields
from headgate.catalog.shipped_aliases import shipped
from headgate.control.objects.registry import Objects, StoredAccount
from headgate.model import Alias, CallGroup, ModelRow, Provider, SavedPrompt, Tenant
from headgate.process.channel import World
from headgate.resources.compiled import Compiled
from headgate.resources.fields import STORE
from headgate.resources.header_secrets import without_secrets
from headgate.resources.model_row import FactsWish
from headgate.resources.provider import ProviderBody

Enrich = Callable[[Mapping[str, Provider], Mapping[str, Row]], Mapping[str, Provider]]
HERE = "here"
BEFORE_STORE = "file"  # the origin that wins over the store


class Unusable(ValueError):
    """A stored provider cannot be made into one.  The message is a sentence, ``param`` the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class Sources:
    """Everything that a World is made of.  ``enrich`` is None until the price list is there.  ``overspent``: accounts
    that have reached their spend limit, and until when they are out (Unix seconds).
    """

    compiled: Compiled
    objects: Objects = field(default_factory=Objects)
    detected: Mapping[str, Provider] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    enrich: Enrich | None = None
    overspent: Mapping[str, float] = field(default_factory=dict)


def assemble(sources: Sources) -> World:
    """The World that the data processes are to serve."""
    world = sources.compiled.world
    providers: Mapping[str, Provider] = {
        name: without_secrets(_paused(_overridden(provider, sources.objects), sources), sources.compiled.rows)
        for name, provider in all_providers(sources).items()
    }
    if sources.enrich is not None:
        providers = sources.enrich(providers, sources.compiled.rows)
    declared = declared_aliases(sources, known(providers))
    return replace(
        world,
        providers=providers,
        aliases={**declared, **shipped(providers, declared, sources.compiled.rows)},
        tenants=all_tenants(sources),
        groups=all_groups(sources),
        prompts=all_prompts(sources),
    )


def known(providers: Mapping[str, Provider]) -> Known:
    """The providers' model ids, as ``policy.names`` takes them."""
    return {name: provider.models for name, provider in providers.items()}


# ------------------------------------------------------------------------------------- providers


def all_providers(sources: Sources) -> dict[str, Provider]:
    """Every provider by name, in order, with its accounts, before overrides and facts."""
    declared = sources.compiled.world.providers
    found = {name: provider for name, provider in declared.items() if provider.origin == BEFORE_STORE}
    for name, stored in sources.objects.providers.items():
        if name not in found:
            try:
                found[name] = stored_provider(name, stored.body, sources.compiled.rows, sources.environ)
            except Unusable:
                continue
    for others in (declared, sources.detected):
        found.update((name, provider) for name, provider in others.items() if name not in found and name != BUILTIN)
    found = {name: _with_accounts(provider, sources.objects) for name, provider in found.items()}
    return found | {name: provider for name, provider in declared.items() if name == BUILTIN}


def stored_provider(name: str, body: ProviderBody, rows: Mapping[str, Row], environ: Mapping[str, str]) -> Provider:
    """The Provider that a stored body describes, without accounts.  Raises Unusable."""
    declared, row = body.declared(), None
    if body.preset is not None:
        row = rows.get(body.preset)
        if row is None:
            near = names.nearest(body.preset, rows)
            raise Unusable(f"there is no preset {body.preset!r}{near}; GET /admin/v1/presets lists them", "preset")
        declared = {**fields(row), "title": row.title, **declared}
        if "base_url" not in declared:
            try:
                declared["base_url"] = base_url(row, environ)
            except Unfilled as error:
                raise Unusable(str(error), "base_url") from error
    if "base_url" not in declared:
        raise Unusable("base_url is needed where no preset has it", "base_url")
    known_models = catalog(row) if row is not None and body.models is None else {}
    return Provider(**{**declared, "name": name, "origin": STORE, "catalog": known_models})


def _with_accounts(provider: Provider, objects: Objects) -> Provider:
    if provider.auth == "none" or provider.origin not in (BEFORE_STORE, "store"):
        return provider
    own = {account.id for account in provider.accounts}
    added = tuple(
        one.terms.account(one.id, one.label, one.priority, one.free)
        for one in objects.accounts.values()
        if one.provider == provider.name and one.id not in own
    )
    return replace(provider, accounts=(*provider.accounts, *added)) if added else provider


def _paused(provider: Provider, sources: Sources) -> Provider:
    """Its accounts that have reached their spend limit say until when they are out."""
    out = sources.overspent
    if not out or all(account.id not in out for account in provider.accounts):
        return provider
    accounts = (replace(account, paused_until=out.get(account.id, 0.0)) for account in provider.accounts)
    return replace(provider, accounts=tuple(accounts))


def _overridden(provider: Provider, objects: Objects) -> Provider:
    models = None if provider.models is None else dict(provider.models)
    facts = dict(provider.catalog)
    touched = False
    for model, body in _overrides(provider.name, objects):
        if models is not None:
            if row := models.get(model):
                models[model] = body.beneath(row) if provider.origin == BEFORE_STORE else body.over(row)
                touched = True
        else:
            facts[model] = body.over(facts.get(model) or ModelRow(model))
            touched = True
    return replace(provider, models=models, catalog=facts) if touched else provider


def _overrides(provider: str, objects: Objects) -> Iterator[tuple[str, FactsWish]]:
    for ident, stored in objects.models.items():
        name, _, model = ident.partition("/")
        if name == provider:
            yield model, stored.body


# ------------------------------------------------------------------------------------- aliases


def declared_aliases(sources: Sources, models: Known) -> dict[str, Alias]:
    """The file's aliases, then the store's that the file does not name, with the targets that exist."""
    found = {name: alias for name, alias in sources.compiled.world.aliases.items() if alias.origin != "shipped"}
    for name, stored in sources.objects.aliases.items():
        if name not in found:
            refs = stored.body.refs
            found[name] = stored.body.alias(name, (r for r in refs if names.unresolved(r.model, models, HERE) is None))
    return found


# ------------------------------------------------------------------------------------- tenants and groups of calls


def all_tenants(sources: Sources) -> dict[str, Tenant]:
    """The file's, then the store's that the file does not name."""
    declared = sources.compiled.world.tenants
    stored = sources.objects.tenants.items()
    return {**declared, **{name: kept.body.tenant(name, STORE) for name, kept in stored if name not in declared}}


def all_groups(sources: Sources) -> tuple[CallGroup, ...]:
    """The same of groups of calls."""
    declared = sources.compiled.world.groups
    known = {group.id for group in declared}
    stored = sources.objects.groups.items()
    return (*declared, *(kept.body.group(name, STORE) for name, kept in stored if name not in known))


def all_prompts(sources: Sources) -> dict[str, SavedPrompt]:
    """The same of saved prompts."""
    declared = sources.compiled.world.prompts
    stored = sources.objects.prompts.items()
    return {**declared, **{key: kept.body.stored_prompt() for key, kept in stored if key not in declared}}


# ------------------------------------------------------------------------------------- what cannot be kept


def problem_of_provider(name: str, sources: Sources) -> str | None:
    """Why a stored provider is not in the World, or None."""
    stored = sources.objects.providers[name]
    try:
        stored_provider(name, stored.body, sources.compiled.rows, sources.environ)
    except Unusable as error:
        return str(error)
    return None


def problem_of_account(account: StoredAccount, providers: Mapping[str, Provider]) -> str | None:
    """Why a stored account is not used, or None."""
    provider = providers.get(account.provider)
    if provider is None:
        return f"provider {account.provider} is not configured"
    if provider.auth == "none":
        return f"provider {account.provider} needs no key (auth is none)"
    return None
