"""A token: what its holder may do, and until when."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from headgate.catalog.words import Scope
from headgate.model import Grant
from headgate.resources.fields import ModelName, Resource, Text, credential, instant, wrong

MIN_SECRET = 16
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


class TokenWish(Resource):
    """What a new token may do."""

    name: Text
    scopes: Scopes = Field(default=ALL_SCOPES)
    models: Models = Field(default=[])
    expires: Expires = None

    def grant(self) -> Grant:
        """What the data plane is told, without an id yet."""
        return Grant("", self.name, tuple(self.scopes), tuple(self.models), self.expires)


class TokenEdit(Resource):
    """Only what is sent changes."""

    name: Text | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    expires: Expires = None


# ------------------------------------------------------------------------------------- of the file


def _secret(value: SecretStr) -> SecretStr:
    secret = credential(value)
    if len(secret.get_secret_value()) < MIN_SECRET:
        raise wrong(f"is too short to be a secret: at least {MIN_SECRET} characters, better 32 random ones")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_secret)]


class TokenTable(Resource):
    """A token of the configuration file, with its secret."""

    LATER = dict.fromkeys(["tenant", "limits", "budget", "free_only"], 5)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    secret: Secret
    scopes: list[Scope] = ALL_SCOPES
    models: list[str] = []
    expires: Annotated[float, BeforeValidator(instant), Field(gt=0, allow_inf_nan=False)] | None = None

    def grant(self) -> Grant:
        """What the data plane is told."""
        return Grant(f"file-{self.name}", self.name, tuple(self.scopes), tuple(self.models), self.expires)
