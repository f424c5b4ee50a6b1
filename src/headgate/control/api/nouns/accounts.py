"""/admin/v1/accounts: providers' keys.  They go in and never come out: a hint is all that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, Field

from headgate.control.api.errors import documented
from headgate.control.api.parts import Admin
from headgate.control.api.routers import router
from headgate.control.api.standings import RestView, Standings, State, rests, standings, whole
from headgate.control.api.views import Changed, Page, View, seconds
from headgate.control.identity.vault import hint
from headgate.control.objects import changes, named
from headgate.control.objects.assemble import problem_of_account
from headgate.control.objects.registry import StoredAccount
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


class AccountView(View):
    """``state``: `unused` and `damaged` say in ``problem`` what to do; `shadowed`: the file has one of this id; the
    others are the running gateway's.  ``rests``: all that it holds against the account, single models included.
    """

    object: Literal["headgate.account"] = "headgate.account"
    id: str
    provider: str
    label: str
    hint: str = Field(description="First three and last four characters; of a short key only that it is short.")
    priority: int
    free: bool
    origin: Literal["file", "store", "environment"]
    managed_by_file: bool
    created: int | None
    state: Literal["active", "unused", "damaged", "shadowed", State]
    wait_s: float | None = Field(default=None, description="Until its next chance, where there is one to wait for.")
    rests: list[RestView] = Field(default_factory=list)
    problem: str | None


class ChangedAccount(AccountView, Changed):
    pass


class DeletedAccount(Changed):
    object: Literal["headgate.account.deleted"] = "headgate.account.deleted"
    id: str


def routes(admin: Admin) -> APIRouter:
    """The routes, on these surroundings."""
    api = router("accounts")
    publication = admin.publication

    def changed(account: StoredAccount, effective: bool) -> ChangedAccount:
        return ChangedAccount.now(effective, _stored(publication, account))

    @api.get("/accounts")
    async def list_accounts(provider: Annotated[ProviderName | None, Query()] = None) -> Page[AccountView]:
        """Every key: the file's, the environment's, the store's."""
        found = await standings(admin.link)
        return Page(data=[lived(view, found) for view in views(publication) if provider in (None, view.provider)])

    @api.post("/accounts", status_code=201, responses=documented(404, 409))
    async def add_account(wish: AccountWish) -> ChangedAccount:
        """Seals a key into the store.  `provider` may be a preset's name: the provider is then made from it."""
        account, effective = await publication.change(
            lambda sources: changes.add_account(sources, publication.keyring.seal, wish)
        )
        return changed(account, effective)

    def ident_of(wanted: str) -> str:
        return named.account_id(wanted, (view.id for view in views(publication)))

    @api.get("/accounts/{wanted:path}", responses=documented(404, 409))
    async def get_account(wanted: Wanted) -> AccountView:
        """One key's account."""
        ident = ident_of(wanted)
        return next(view for view in views(publication) if view.id == ident)

    @api.patch("/accounts/{wanted:path}", responses=documented(404, 409))
    async def edit_account(wanted: Wanted, wish: AccountEdit) -> ChangedAccount:
        """Changes a stored key, its priority or whether it is free."""
        ident = ident_of(wanted)
        said: dict[str, Any] = {}
        for name in wish.model_fields_set:
            if getattr(wish, name) is None:
                raise GatewayError(INVALID_VALUE, f"`{name}` cannot be null; leave it out to keep it.", param=name)
        for name in wish.model_fields_set - {"key"}:
            said[name] = getattr(wish, name)
        if wish.key is not None:
            key = wish.key.get_secret_value()
            said |= {"sealed": publication.keyring.seal(ident, key), "hint": hint(key)}
        after, effective = await publication.change(
            lambda sources: (edited := changes.edit_account(sources, ident, lambda one: replace(one, **said)),
                             edited.accounts[ident])
        )  # fmt: skip
        return changed(after, effective)

    @api.delete("/accounts/{wanted:path}", responses=documented(404, 409))
    async def delete_account(wanted: Wanted) -> DeletedAccount:
        """Deletes a stored key.  Calls that are running with it go on to their end."""
        ident = ident_of(wanted)
        _, effective = await publication.change(lambda sources: (changes.drop_account(sources, ident), None))
        return DeletedAccount.now(effective, id=ident)

    return api


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
    state: Literal["active", "unused", "damaged", "shadowed"] = "unused" if problem else "active"
    if account.id in publication.keyring.damaged:
        state, problem = "damaged", "the sealed key does not open; set it anew with PATCH"
    elif account.id in publication.sources.compiled.secrets:
        state, problem = "shadowed", "the configuration file declares an account of this id"
    return AccountView.of(
        account,
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
        provider=provider.name,
        label=account.id.partition("/")[2],
        hint=hint(key),
        origin="file" if of_file else "environment",
        managed_by_file=of_file,
        created=None,
        state="active",
        problem=None,
    )
