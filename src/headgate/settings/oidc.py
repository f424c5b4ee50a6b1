"""The OIDC provider whose users may log in to the admin API, as the configuration file declares it."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from headgate.process.boot import OidcSettings
from headgate.resources.fields import Resource, Url, wrong
from headgate.wire.urls import is_loopback

MISSING = "needs Authlib, which is not installed: install headgate[oidc]"
_ROLE = r"^(admin|operator|viewer|tenant_admin:[A-Za-z0-9._-]{1,64})$"
RoleTarget = Annotated[str, Field(pattern=_ROLE)]
Word = Annotated[str, Field(min_length=1, max_length=256)]


def _issuer(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise wrong("must be https:// (http:// only on a loopback address)")
    return value


class OidcTable(Resource):
    """``roles``: values of the claim ``role_claim``, and the role of each."""

    issuer: Annotated[Url, AfterValidator(_issuer)]
    client_id: Word
    client_secret: SecretStr | None = None
    scopes: list[Word] = Field(default=["openid", "profile", "email"])
    role_claim: Word = "roles"
    roles: Annotated[dict[Word, RoleTarget], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if importlib.util.find_spec("authlib") is None:
            raise wrong(MISSING)
        if "openid" not in self.scopes:
            raise wrong("scopes: must contain openid")
        return self

    def settings(self) -> OidcSettings:
        """What control is told."""
        secret = self.client_secret.get_secret_value() if self.client_secret else ""
        scope = " ".join(self.scopes)
        return OidcSettings(self.issuer, self.client_id, secret, scope, self.role_claim, dict(self.roles))
