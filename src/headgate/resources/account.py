"""An account: one key of a provider, its place among the others, whose it is, and how much may be used of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from headgate.catalog.money import NANO
from headgate.model import Account, Spend
from headgate.resources.callers.tenant import TenantName
from headgate.resources.callers.token import Expires
from headgate.resources.fields import Credential, Label, ProviderName, Resource, Usd
from headgate.wire import credentials

Secret = Annotated[Credential, Field(min_length=1, max_length=credentials.MAX, description="Write-only.")]
Priority = Annotated[int, Field(ge=-1000, le=1000, description="Higher is asked first.")]
Requests = Annotated[int, Field(ge=1, le=1_000_000_000)]


class SpendLimit(Resource):
    """How much may be spent with a key in a UTC day or month, and what follows: a warning, or no call until it ends."""

    usd: Annotated[Usd, Field(gt=0)]
    period: Literal["day", "month"] = "month"
    action: Literal["warn", "park"] = "park"


class AccountTerms(Resource):
    """The terms of a key's use, in the file, the API and the store."""

    owner: TenantName | None = Field(default=None, description="The tenant whose key it is; null: everybody's.")
    share: bool = Field(default=False, description="Other tenants may use an owner's key too, after their own.")
    minute_limit: Requests | None = Field(default=None, description="Requests within a minute; null: any number.")
    daily_limit: Requests | None = Field(default=None, description="Requests within a UTC day; null: any number.")
    spend_limit: SpendLimit | None = None
    expires: Expires = None

    @property
    def terms(self) -> AccountTerms:
        """Only these fields, of a class that has more."""
        return AccountTerms(**{name: getattr(self, name) for name in AccountTerms.model_fields})

    def account(self, ident: str, label: str | None, priority: int, free: bool) -> Account:
        """What the data plane is told."""
        limit = self.spend_limit
        spend = Spend(int(limit.usd * NANO), limit.period, limit.action) if limit else None
        return Account(
            ident, label, priority, free, self.owner or "", self.share, self.minute_limit, self.daily_limit,
            self.expires, spend,
        )  # fmt: skip


class AccountWish(AccountTerms):
    """A key for a provider of the file, of the store, or of a preset: then the provider is made too."""

    provider: ProviderName
    key: Secret
    label: Label | None = Field(default=None, description="Left out: key-1, key-2, …")
    priority: Priority = 0
    free: bool = Field(default=False, description="Calls with it cost nothing.")
    test: bool = Field(default=True, description="Try the key first; one that the provider refuses is not stored.")
    force: bool = Field(default=False, description="Store a key that the provider refuses all the same.")


class AccountEdit(Resource):
    """Only what is sent changes.  A new ``key`` replaces the former at once."""

    key: Secret | None = None
    priority: Priority | None = None
    free: bool | None = None
    owner: TenantName | None = None
    share: bool | None = None
    minute_limit: Requests | None = None
    daily_limit: Requests | None = None
    spend_limit: SpendLimit | None = None
    expires: Expires = None
    test: bool = Field(default=True, description="Try a new key first; one that the provider refuses is not stored.")
    force: bool = Field(default=False, description="Store a key that the provider refuses all the same.")

    NEVER_NULL: ClassVar = frozenset({"key", "priority", "free", "share", "test", "force"})

    def edited(self, terms: AccountTerms) -> AccountTerms:
        """``terms`` with what was sent."""
        sent = self.model_fields_set & AccountTerms.model_fields.keys()
        return terms.model_copy(update={name: getattr(self, name) for name in sent})


# ------------------------------------------------------------------------------------- of the file


def as_key(value: Any) -> Any:
    """``keys: [sk-1]`` is short for ``keys: [{key: sk-1}]``."""
    return {"key": value} if isinstance(value, str) else value


class Key(AccountTerms):
    """An account of the configuration file, below its provider."""

    key: Credential
    label: Label | None = None
    priority: Priority = 0
    free: bool = False
