"""/admin/v1/providers and /admin/v1/presets: who is called, and what is known of services."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field

from headgate.catalog.names import ended, nearest
from headgate.catalog.offers import ready
from headgate.catalog.presets import Row
from headgate.control.api.access.callers import Caller
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.standings import RestView, Standings, rests, standings
from headgate.control.api.vault.accounts import AccountView, lived
from headgate.control.api.vault.accounts import views as account_views
from headgate.control.api.views import Changed, Origin, Page, View, created_of, view_of
from headgate.control.audit.chain import Change, record_alone
from headgate.control.identity.roles import Principal
from headgate.control.objects import changes
from headgate.control.objects.assemble import Sources, problem_of_provider
from headgate.control.objects.discovery.prefills import find_trims
from headgate.control.objects.discovery.probe import Result, check
from headgate.control.objects.registry import Objects, StoredProvider
from headgate.control.refusals import ACCOUNT_NOT_FOUND, FORBIDDEN, PROVIDER_NOT_FOUND
from headgate.control.snapshot.publication import Publication
from headgate.errors import GatewayError
from headgate.model import ConnectionLimits, Provider
from headgate.process.channel import Resume
from headgate.resources.fields import STORE, Label, ProviderName, Resource
from headgate.resources.provider import ProviderBody, ProviderEdit, ProviderWish

PathName = Annotated[ProviderName, Path(description="The provider's name.")]


class PoolView(view_of(ConnectionLimits)):  # type: ignore[misc]
    """Limits of the connections to the provider; seconds."""


class ProviderView(view_of(Provider, "price", "catalog", "carrier")):  # type: ignore[misc]
    """``models``: how many are declared, null where any id passes.  ``status``: `no_key` and `unusable` serve nothing.
    ``shadowed``: a stored one of a name that the file declares too, which wins.  ``headers``: their names.
    """

    object: Literal["headgate.provider"] = "headgate.provider"
    base_url: str | None
    pool: PoolView
    headers: list[str]
    origin: Origin
    managed_by_file: bool
    status: Literal["ready", "no_key", "unusable"]
    accounts: list[AccountView]
    rests: list[RestView] = Field(
        default_factory=list, description="Of one that needs no key: why it is not asked now."
    )
    models: int | None
    created: int | None
    shadowed: bool
    problem: str | None


class ChangedProvider(ProviderView, Changed):
    pass


class ResumeWish(Resource):
    """Without ``account``: all of them."""

    account: Label | None = Field(default=None, description="What follows the slash in the account's id.")


class ResumedView(View):
    """``accounts``: those that are used again; ``told``: how many data processes have been told so."""

    object: Literal["headgate.resumed"] = "headgate.resumed"
    provider: str
    accounts: list[str]
    told: int


class DeletedProvider(Changed):
    """``accounts``: whose keys were deleted with it."""

    object: Literal["headgate.provider.deleted"] = "headgate.provider.deleted"
    name: str
    accounts: list[str]


class CheckResult(view_of(Result)):  # type: ignore[misc]
    """``models``: how many the provider lists, null where it does not say.  ``account``: null where none is needed."""


class CheckView(View):
    object: Literal["headgate.check"] = "headgate.check"
    provider: str
    results: list[CheckResult]
    prefill_trims: dict[str, bool]


_OF_CATALOG = ("headers", "prices", "ids", "free_suffix", "engine", "tasks", "models", "retired")


class PresetView(view_of(Row, *_OF_CATALOG)):  # type: ignore[misc]
    """``base_url`` may hold {VARIABLE}s, which the environment or `base_url` fills.  ``key_env``: the first variable
    that is set holds the key.
    """

    object: Literal["headgate.preset"] = "headgate.preset"


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("providers")
    _add_reading(api, admin)
    _add_changes(api, admin)
    _add_calls(api, admin)
    return api


def _add_reading(api: APIRouter, admin: Admin) -> None:
    publication = admin.publication

    @api.get("/providers")
    async def list_providers() -> Page[ProviderView]:
        """Every provider, in the order in which they are asked."""
        found = await standings(admin.link)
        return Page(data=[_lived(view, found) for view in _all(publication)])

    @api.get("/providers/{name}", responses=documented(404))
    async def get_provider(name: PathName) -> ProviderView:
        """One provider."""
        return _lived(_one(publication, name), await standings(admin.link))

    @api.get("/presets")
    async def list_presets() -> Page[PresetView]:
        """The services that Headgate knows: a provider of one needs a key and nothing else."""
        return Page(data=[PresetView.of(row) for row in publication.sources.compiled.rows.values()])


def _add_changes(api: APIRouter, admin: Admin) -> None:
    publication = admin.publication

    @api.post("/providers", status_code=201, responses=documented(409))
    async def add_provider(wish: ProviderWish, caller: Caller) -> ChangedProvider:
        """Stores a provider.  Its keys are added with POST /accounts."""
        _, effective = await publication.change(lambda sources: (_added(caller, publication, sources, wish), None))
        return ChangedProvider.now(effective, _one(publication, wish.name))

    @api.patch("/providers/{name}", responses=documented(404, 409))
    async def edit_provider(name: PathName, wish: ProviderEdit, caller: Caller) -> ChangedProvider:
        """Changes a stored provider."""

        def edited(sources: Sources) -> tuple[Objects, None]:
            seal = partial(publication.keyring.seal_headers, name, compiled=sources.compiled)
            return changes.edit_provider(
                _at_home(caller, sources, name, wish), name, lambda one: seal(one.edited(wish))
            ), None

        _, effective = await publication.change(edited)
        return ChangedProvider.now(effective, _one(publication, name))

    @api.delete("/providers/{name}", responses=documented(404, 409))
    async def delete_provider(name: PathName, caller: Caller) -> DeletedProvider:
        """Deletes a stored provider and its keys, unless aliases lead to it.  One that has keys needs an admin."""

        def dropped(sources: Sources) -> tuple[Objects, list[str]]:
            after = changes.drop_provider(sources, name)
            accounts = [one.id for one in sources.objects.accounts.values() if one.provider == name]
            if accounts and caller.role != "admin":
                raise GatewayError(FORBIDDEN, f"Provider {name} has keys: to delete them needs an admin.")
            return after, accounts

        accounts, effective = await publication.change(dropped)
        return DeletedProvider.now(effective, name=name, accounts=accounts)


def _add_calls(api: APIRouter, admin: Admin) -> None:
    publication = admin.publication

    @api.post("/providers/{name}/check", responses=documented(404))
    async def check_provider(name: PathName) -> CheckView:
        """Calls the provider for its list of models, once with each key; takes 5 s at most.  A key that works is used
        again at once, whatever was held against it.  Costs nothing but two requests for one token for each model that
        declares a `prefill` and does not say whether it drops its trailing white space.
        """
        provider = publication.snapshot.providers.get(name)
        if provider is None:
            _one(publication, name)
            raise GatewayError(PROVIDER_NOT_FOUND, f"The provider {name!r} cannot be used; see its `problem`.")
        results = await check(provider, publication.secrets)
        good = tuple(one.account or name for one in results if one.ok)
        trims: dict[str, bool] = {}
        if good:
            first = next(one.account for one in results if one.ok)
            trims = await find_trims(provider, publication.secrets, first)
            await record_alone(admin.engine, Change("provider", name, "resumed", None, {"accounts": list(good)}))
            admin.link.tell(Resume(name, good, trims=trims))
        return CheckView(provider=name, results=[CheckResult.of(one) for one in results], prefill_trims=trims)

    @api.post("/providers/{name}/resume", responses=documented(404))
    async def resume_provider(name: PathName, wish: ResumeWish | None = None) -> ResumedView:
        """Uses a provider's accounts and models again at once, whatever was held against them: a rest after a limit, a
        refused key, failures.  One that has no key stays parked.
        """
        view = _one(publication, name)
        accounts = [one.id for one in view.accounts] or [name]
        if wish is not None and wish.account is not None:
            if f"{name}/{wish.account}" not in accounts:
                raise GatewayError(ACCOUNT_NOT_FOUND, f"There is no account {name}/{wish.account}.", param="account")
            accounts = [f"{name}/{wish.account}"]
        await record_alone(admin.engine, Change("provider", name, "resumed", None, {"accounts": accounts}))
        admin.link.tell(Resume(name, tuple(accounts), targets=wish is None or wish.account is None))
        return ResumedView(provider=name, accounts=accounts, told=len(admin.link.workers))


def _all(publication: Publication) -> list[ProviderView]:
    """Every provider, without what the data processes hold against it."""
    stored = publication.sources.objects.providers
    accounts: dict[str, list[AccountView]] = {}
    for account in account_views(publication):
        accounts.setdefault(account.provider, []).append(account)
    providers = publication.snapshot.providers
    views = [
        _view(provider, accounts.get(name, []), created_of(provider, stored.get(name)))
        for name, provider in providers.items()
    ]
    for name, kept in stored.items():
        provider = providers.get(name)
        if provider is not None and provider.origin == "file":
            views.append(_unusable(name, kept, "the configuration file declares it too", shadowed=True))
        elif provider is None or provider.origin != "store":
            problem = problem_of_provider(name, publication.sources) or "it is not served yet"
            views.append(_unusable(name, kept, problem))
    return views


def _one(publication: Publication, name: str) -> ProviderView:
    views = _all(publication)
    for view in views:
        if view.name == name:
            return view
    near = nearest(name, [view.name for view in views])
    raise GatewayError(PROVIDER_NOT_FOUND, ended(f"There is no provider {name!r}{near}"))


def _lived(view: ProviderView, found: Standings) -> ProviderView:
    own = rests(found, view.name) if view.auth == "none" else []
    lived_view: ProviderView = view.model_copy(
        update={"accounts": [lived(one, found) for one in view.accounts], "rests": own}
    )
    return lived_view


def _added(caller: Principal, publication: Publication, sources: Sources, wish: ProviderWish) -> Objects:
    body = publication.keyring.seal_headers(wish.name, ProviderBody.of(wish), sources.compiled)
    return changes.add_provider(_at_home(caller, sources, wish.name, wish), wish.name, body)


def _at_home(caller: Principal, sources: Sources, name: str, wish: ProviderEdit) -> Sources:
    """Return the sources.  Raises GatewayError (403) where a caller who may not touch keys would send one to another
    address.
    """
    if caller.role == "admin" or not wish.model_fields_set & {"base_url", "preset"}:
        return sources
    stored = sources.objects.providers.get(name)
    accounts = [*sources.objects.accounts, *sources.compiled.secrets]
    if (stored is not None and stored.body.sealed_headers) or any(one.startswith(f"{name}/") for one in accounts):
        raise GatewayError(FORBIDDEN, f"Provider {name} has keys: another address for them needs an admin.")
    return sources


def _view(provider: Provider, accounts: list[AccountView], created: int | None) -> ProviderView:
    view: ProviderView = ProviderView.of(
        provider,
        managed_by_file=provider.origin == "file",
        status="ready" if ready(provider) else "no_key",
        pool=PoolView.of(provider.pool),
        headers=list(provider.headers),
        accounts=accounts,
        models=None if provider.models is None else len(provider.models),
        created=created,
        shadowed=False,
        problem=None,
    )
    return view


def _unusable(name: str, stored: StoredProvider, problem: str, *, shadowed: bool = False) -> ProviderView:
    """A stored provider that is not in the World, as it was declared."""
    declared = Provider(**{"base_url": "", **stored.body.declared(), "name": name, "origin": STORE})
    found = {"base_url": stored.body.base_url, "status": "unusable", "shadowed": shadowed, "problem": problem}
    view: ProviderView = _view(declared, [], created_of(declared, stored)).model_copy(update=found)
    return view
