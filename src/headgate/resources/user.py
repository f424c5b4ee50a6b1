"""A user of the admin API: a person with a role."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from headgate.catalog.words import Role
from headgate.resources.callers.tenant import TenantName
from headgate.resources.fields import Resource, Text, printable, wrong

MIN_CHARACTERS, MAX_CHARACTERS = 12, 256
TENANT_RULE = "The role tenant_admin needs a tenant, and no other role takes one."

UserName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Unique, whatever its case.", examples=["ada"]),
]
Email = Annotated[
    str,
    Field(pattern=r"^[^@\s]{1,64}@[^@\s]{1,189}$", description="Opens a login too.", examples=["ada@example.com"]),
    AfterValidator(printable),
]  # fmt: skip
Login = Annotated[Text, Field(description="The name or the e-mail.")]


def _fit(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        raise wrong(f"must have {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
    if len(set(text)) < 4:
        raise wrong("is too uniform: use at least four different characters")
    return value


NewPassword = Annotated[SecretStr, AfterValidator(_fit)]
GivenPassword = Annotated[SecretStr, Field(max_length=4 * MAX_CHARACTERS)]


class UserWish(Resource):
    """A new user.  ``tenant``: of a tenant admin.  Without a password, only the OIDC provider lets the user in."""

    name: UserName
    role: Role
    email: Email | None = None
    tenant: TenantName | None = None
    password: NewPassword | None = None

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if (self.role == "tenant_admin") != (self.tenant is not None):
            raise wrong(f"tenant: {TENANT_RULE}")
        return self


class UserEdit(Resource):
    """Only what is sent changes."""

    name: UserName | None = None
    role: Role | None = None
    email: Email | None = None
    tenant: TenantName | None = None
    disabled: bool | None = None


class PasswordWish(Resource):
    password: NewPassword


class PasswordChange(Resource):
    """``current``: what the password is now."""

    current: GivenPassword
    password: NewPassword


class Credentials(Resource):
    name: Login
    password: GivenPassword


class LogoutWish(Resource):
    everywhere: bool = Field(default=False, description="End all sessions of the user, not only this one.")
