"""A token: what its holder may do, and until when."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from headgate.catalog.words import Scope, Tier, TokenFormat, Unpriced
from headgate.model import Grant
from headgate.resources.callers.allowance import Allowance, BudgetTable, LimitsTable, Money, OverBudget
from headgate.resources.callers.tenant import TenantName
from headgate.resources.fields import ModelName, Resource, Text, credential, instant, wrong

MIN_SECRET = 16
MAX_TTL_S = 2_592_000  # 30 days
YEAR_9999 = 253_402_300_799  # its last second: the last that a calendar can show

ALL_SCOPES: list[Scope] = list(get_args(Scope))
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=3)]
Models = Annotated[
    list[ModelName], Field(max_length=100, description="Models and aliases that it may use; empty: all.")
]
# As the configuration file reads it; a number is never taken for milliseconds
Expires = Annotated[
    Annotated[float, Field(gt=0, le=YEAR_9999, allow_inf_nan=False)] | None,
    BeforeValidator(instant),
    Field(
        description="ISO 8601 (UTC where no zone is given) or Unix seconds; null: never.",
        json_schema_extra={"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}, {"type": "null"}]},
    ),
]


Tiers = Annotated[list[Tier], Field(max_length=4, description="Tiers that its calls may name; empty: all.")]


class TokenTerms(Allowance):
    """What the file and the API say of a token, beside its name, scopes, models and expiry."""

    tenant: TenantName | None = None
    free_only: bool = Field(default=False, description="Only models that cost nothing, and keys of free plans.")
    unpriced: Unpriced | None = Field(
        default=None, description="`refuse`: no model whose price is not known.  A hard budget implies it."
    )
    tier: Tier | None = Field(
        default=None, description="Of its calls that name none; null: medium, if it may use that."
    )
    tiers: Tiers = []

    def terms(self) -> dict[str, Any]:
        """Arguments for ``model.Grant``."""
        return {
            **super().terms(),
            "tenant": self.tenant or "",
            "free_only": self.free_only,
            "priced_only": self.unpriced == "refuse",
            "tier": self.tier or "",
            "tiers": tuple(self.tiers),
        }


class TokenWish(TokenTerms):
    """What a new token may do."""

    name: Text
    scopes: Scopes = Field(default=ALL_SCOPES)
    models: Models = Field(default=[])
    expires: Expires = None
    format: TokenFormat = Field(
        default="pat",
        description="`pat`: hg_pat_<id>_<secret>; `triple`: cli_…:key_…:secret_…; `plain`: hg_ and 40 characters.",
    )

    def grant(self) -> Grant:
        """What the data plane is told, without an id yet."""
        return Grant("", self.name, tuple(self.scopes), tuple(self.models), self.expires, **self.terms())


class TokenEdit(Resource):
    """Only what is sent changes; of ``limits``, too."""

    name: Text | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    expires: Expires = None
    tenant: TenantName | None = None
    limits: LimitsTable | None = None
    budget: BudgetTable | None = None
    over_budget: OverBudget | None = None
    free_only: bool | None = None
    unpriced: Unpriced | None = None
    tier: Tier | None = None
    tiers: Tiers | None = None


# ------------------------------------------------------------------------------------- made by a token's holder


class ChildWish(Resource):
    """A token that the holder of another one makes: it may do no more than that one, and what it uses counts against
    both.
    """

    name: Text | None = Field(default=None, description="Else the parent's name and the child's id.")
    run: Text | None = Field(default=None, description="What it is for, in your own words: a run, a task, a session.")
    models: Models | None = Field(default=None, description="A part of the parent's; left out: all of them.")
    scopes: Scopes | None = Field(default=None, description="A part of the parent's; left out: all of them.")
    limits: LimitsTable = LimitsTable()
    budget_usd: Money | None = Field(default=None, description="Its slice of the budget, in all: it spends no more.")
    ttl_s: float = Field(
        default=3600, gt=0, le=MAX_TTL_S, allow_inf_nan=False,
        description="Seconds until it ends.  The end of the parent comes first.",
    )  # fmt: skip


# ------------------------------------------------------------------------------------- of the file


def _secret(value: SecretStr) -> SecretStr:
    secret = credential(value)
    if len(secret.get_secret_value()) < MIN_SECRET:
        raise wrong(f"is too short to be a secret: at least {MIN_SECRET} characters, better 32 random ones")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_secret)]


class TokenTable(TokenTerms):
    """A token of the configuration file, with its secret."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    secret: Secret
    scopes: list[Scope] = ALL_SCOPES
    models: list[str] = []
    expires: Annotated[float, BeforeValidator(instant), Field(gt=0, allow_inf_nan=False)] | None = None

    def grant(self) -> Grant:
        """What the data plane is told."""
        ident = f"file-{self.name}"
        return Grant(ident, self.name, tuple(self.scopes), tuple(self.models), self.expires, **self.terms())
