"""/admin/v1/accounts: providers' keys.  They go in and never come out: a hint is all that is shown.

A key is tried before it is stored, at its provider's own address.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, Field

from headgate.catalog.money import NANO
from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.standings import RestView, Standings, State, rests, standings, whole
from headgate.control.api.views import Changed, Page, View, seconds
from headgate.control.identity.vault import hint
from headgate.control.objects import changes, named
from headgate.control.objects.assemble import Sources, all_providers, problem_of_account
from headgate.control.objects.discovery.probe import Result, try_key
from headgate.control.objects.registry import Objects, StoredAccount
from headgate.control.refusals import KEY_REFUSED
from headgate.control.snapshot.publication import Publication
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.model import Account, Provider
from headgate.resources.account import AccountEdit, AccountWish
from headgate.resources.fields import ProviderName, printable

Wanted = Annotated[
    str,
    Path(
        min_length=1,
        max_length=129,
        description="The account's id; or its provider or its label alone, where only one account has it.",
        examples=["groq/key-1"],
    ),
    AfterValidator(printable),
]


class SpendLimitView(View):
    """``action``: what follows when so much is spent within the UTC ``period``."""

    usd: float
    period: Literal["day", "month"]
    action: Literal["warn", "park"]


class AccountView(View):
    """``state``: `unused` and `damaged` say in ``problem`` what to do; `shadowed`: the file has one of this id;
    `expired` and `overspent` are its own terms; the others are the running gateway's.  ``rests``: all that it holds
    against the account, single models included.
    """

    object: Literal["headgate.account"] = "headgate.account"
    id: str
    provider: str
    label: str
    hint: str = Field(description="First three and last four characters; of a short key only that it is short.")
    priority: int
    free: bool
    owner: str | None = Field(description="The tenant whose key it is; null: everybody's.")
    share: bool = Field(description="Other tenants may use an owner's key too.")
    minute_limit: int | None
    daily_limit: int | None
    spend_limit: SpendLimitView | None
    expires: float | None
    origin: Literal["file", "store", "environment"]
    managed_by_file: bool
    created: int | None
    state: Literal["active", "unused", "damaged", "shadowed", "expired", "overspent", State]
    wait_s: float | None = Field(default=None, description="Until its next chance, where there is one to wait for.")
    rests: list[RestView] = Field(default_factory=list)
    problem: str | None


class TestedView(View):
    """What the provider said to the key.  One that could not be asked is no reason to refuse a key."""

    ok: bool
    status: int | None
    message: str


class ChangedAccount(AccountView, Changed):
    tested: TestedView | None = Field(default=None, description="null: the key was not tried.")


class DeletedAccount(Changed):
    object: Literal["headgate.account.deleted"] = "headgate.account.deleted"
    id: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("accounts")
    publication = admin.publication

    def changed(account: StoredAccount, effective: bool, tested: Result | None = None) -> ChangedAccount:
        view = TestedView.of(tested) if tested else None
        return ChangedAccount.now(effective, _stored(publication, account), tested=view)

    @api.get("/accounts")
    async def list_accounts(provider: Annotated[ProviderName | None, Query()] = None) -> Page[AccountView]:
        """Every key: the file's, the environment's, the store's."""
        found = await standings(admin.link)
        return Page(data=[lived(view, found) for view in views(publication) if provider in (None, view.provider)])

    @api.post("/accounts", status_code=201, responses=documented(404, 409))
    async def add_account(wish: AccountWish) -> ChangedAccount:
        """Seals a key into the store.  `provider` may be a preset's name: the provider is then made from it.  The key
        is tried first, with a request for the provider's models: one that the provider refuses is not stored.
        """
        tested = await tried(publication, wish) if wish.test else None
        refuse_bad(tested, force=wish.force)
        account, effective = await publication.change(
            lambda sources: changes.add_account(sources, publication.keyring.seal, wish)
        )
        return changed(account, effective, tested)

    def ident_of(wanted: str) -> str:
        return named.account_id(wanted, (view.id for view in views(publication)))

    @api.get("/accounts/{wanted:path}", responses=documented(404, 409))
    async def get_account(wanted: Wanted) -> AccountView:
        """One key's account."""
        ident = ident_of(wanted)
        return next(view for view in views(publication) if view.id == ident)

    @api.patch("/accounts/{wanted:path}", responses=documented(404, 409))
    async def edit_account(wanted: Wanted, wish: AccountEdit) -> ChangedAccount:
        """Changes a stored key or its terms.  A new key is tried first, as with POST."""
        ident = ident_of(wanted)
        for name in wish.model_fields_set & wish.NEVER_NULL:
            if getattr(wish, name) is None:
                raise GatewayError(INVALID_VALUE, f"`{name}` cannot be null; leave it out to keep it.", param=name)
        tested = await _tried_anew(publication, ident, wish) if wish.test and wish.key else None
        refuse_bad(tested, force=wish.force)

        after, effective = await publication.change(partial(_edited, publication, ident, wish))
        return changed(after, effective, tested)

    @api.delete("/accounts/{wanted:path}", responses=documented(404, 409))
    async def delete_account(wanted: Wanted) -> DeletedAccount:
        """Deletes a stored key.  Calls that are running with it go on to their end."""
        ident = ident_of(wanted)
        _, effective = await publication.change(lambda sources: (changes.drop_account(sources, ident), None))
        return DeletedAccount.now(effective, id=ident)

    return api


def _edited(publication: Publication, ident: str, wish: AccountEdit, sources: Sources) -> tuple[Objects, StoredAccount]:
    """With what was sent.  A key is sealed here, where no rotation can drop the data key that seals it."""
    said: dict[str, Any] = {name: getattr(wish, name) for name in wish.model_fields_set & {"priority", "free"}}
    if wish.key is not None:
        key = wish.key.get_secret_value()
        said |= {"sealed": publication.keyring.seal(ident, key), "hint": hint(key)}
    after = changes.edit_account(sources, ident, lambda one: replace(one, **said, terms=wish.edited(one.terms)))
    return after, after.accounts[ident]


async def tried(publication: Publication, wish: AccountWish) -> Result:
    """What the provider says to a key that is not stored yet.  Raises GatewayError where it could not be stored."""
    sources = publication.sources
    after, account = changes.add_account(sources, lambda _row, _key: b"", wish)  # judged; nothing is written
    provider = all_providers(replace(sources, objects=after))[wish.provider]
    return await try_key(provider, account.id, wish.key.get_secret_value(), publication.secrets)


async def _tried_anew(publication: Publication, ident: str, wish: AccountEdit) -> Result | None:
    """The same, of a new key for a stored account; None where its provider cannot be asked."""
    changes.edit_account(publication.sources, ident, lambda one: one)  # judged
    provider = publication.snapshot.providers.get(ident.partition("/")[0])
    if provider is None or wish.key is None or provider.auth == "none":
        return None
    return await try_key(provider, ident, wish.key.get_secret_value(), publication.secrets)


def refuse_bad(tested: Result | None, *, force: bool) -> None:
    """Raises GatewayError where the provider has refused the key.  Its words have been scrubbed."""
    if tested is not None and tested.refused and not force:
        sentence = f"The provider refuses this key: {tested.words or tested.message}".rstrip(".")
        raise GatewayError(KEY_REFUSED, f"{sentence}. Nothing was stored; `force` stores it all the same.", param="key")


def lived(view: AccountView, found: Standings) -> AccountView:
    """The account with what the running gateway holds against it."""
    own = rests(found, view.id)
    if view.state != "active" or not own:
        return view
    rest = whole(own)
    if rest is None:
        return view.model_copy(update={"rests": own})
    return view.model_copy(update={"rests": own, "state": rest.state, "wait_s": rest.wait_s})


def views(publication: Publication) -> Iterator[AccountView]:
    """Every account as the operator sees it."""
    providers, stored = publication.snapshot.providers, publication.sources.objects.accounts
    secrets = publication.sources.compiled.secrets
    for provider in providers.values():
        for account in provider.accounts:
            if account.id in secrets:
                yield _declared(provider, account, secrets[account.id])
    yield from (_stored(publication, account) for account in stored.values())


def _stored(publication: Publication, account: StoredAccount) -> AccountView:
    problem = problem_of_account(account, publication.snapshot.providers)
    terms = _in_use(publication, account)
    state: _State = "unused" if problem else _of_terms(terms)
    if account.id in publication.keyring.damaged:
        state, problem = "damaged", "the sealed key does not open; set it anew with PATCH"
    elif account.id in publication.sources.compiled.secrets:
        state, problem = "shadowed", "the configuration file declares an account of this id"
    return AccountView.of(
        account,
        **_terms(terms),
        origin="store",
        managed_by_file=False,
        created=seconds(account.created_at),
        state=state,
        problem=problem,
    )


def _declared(provider: Provider, account: Account, key: str) -> AccountView:
    of_file = provider.origin == "file"
    return AccountView.of(
        account,
        **_terms(account),
        provider=provider.name,
        label=account.id.partition("/")[2],
        hint=hint(key),
        origin="file" if of_file else "environment",
        managed_by_file=of_file,
        created=None,
        state=_of_terms(account),
        problem=None,
    )


_State = Literal["active", "unused", "damaged", "shadowed", "expired", "overspent"]


def _in_use(publication: Publication, account: StoredAccount) -> Account:
    """A stored account as the data plane has it; as it is declared where it has none."""
    provider = publication.snapshot.providers.get(account.provider)
    known = next((one for one in provider.accounts if one.id == account.id), None) if provider else None
    return known or account.terms.account(account.id, account.label, account.priority, account.free)


def _of_terms(account: Account) -> _State:
    now = time.time()
    if account.expires is not None and account.expires <= now:
        return "expired"
    return "overspent" if account.paused_until > now else "active"


def _terms(account: Account) -> dict[str, Any]:
    spend = account.spend
    limit = spend and {"usd": spend.limit / NANO, "period": spend.period, "action": spend.action}
    names = ("share", "minute_limit", "daily_limit", "expires")
    return {"owner": account.owner or None, "spend_limit": limit, **{name: getattr(account, name) for name in names}}
