"""Alerts and webhooks, as the configuration file declares them."""

from __future__ import annotations

import base64
import binascii
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from headgate.catalog.money import nano
from headgate.catalog.words import AlertType, WebhookFormat
from headgate.process.boot import AlertSettings, WebhookSettings
from headgate.resources.callers.allowance import Money
from headgate.resources.fields import Label, Resource, wrong
from headgate.wire import urls

MAX_WEBHOOKS = 20
SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
SECRET_RULE = 'must be whsec_ and the base64 of 24 to 64 random bytes: echo "whsec_$(openssl rand -base64 32)"'


def _url(value: SecretStr) -> SecretStr:
    """Many services put the credential into the path or the query of a webhook's URL."""
    plain, _, query = value.get_secret_value().partition("?")
    if sentence := urls.problem(plain):
        raise wrong(sentence.removesuffix(", without user, query or fragment") + ", without user and fragment")
    if not query.isprintable() or any(one in query for one in " #"):
        raise wrong("has characters that no URL may have")
    return value


def _secret(value: SecretStr) -> SecretStr:
    if signing_key(value.get_secret_value()) is None:
        raise wrong(SECRET_RULE)
    return value


def signing_key(secret: str) -> bytes | None:
    """The bytes of a Standard Webhooks secret, or None where it is not one."""
    if not secret.startswith(SECRET_PREFIX):
        return None
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) in SECRET_BYTES else None


class WebhookTable(Resource):
    """Where alerts are sent.  ``name`` is the URL's host where it is left out, ``events`` all of them."""

    name: Label | None = None
    url: Annotated[SecretStr, AfterValidator(_url)]
    events: list[AlertType] = Field(default=[], max_length=16)
    secret: Annotated[SecretStr, AfterValidator(_secret)] | None = None
    format: WebhookFormat = "standard"

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or urlsplit(self.url.get_secret_value()).hostname or ""

    def settings(self) -> WebhookSettings:
        """What control is told."""
        key = signing_key(self.secret.get_secret_value()) if self.secret else None
        return WebhookSettings(self.label, self.url.get_secret_value(), tuple(self.events), key or b"", self.format)


class SpendRateTable(Resource):
    """An alert where the last hour cost ``times`` the mean hour of the last ``days``, and at least ``min_usd``.

    ``times: 0`` turns it off.
    """

    times: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = 5
    days: Annotated[int, Field(ge=3, le=90)] = 7
    min_usd: Money = Decimal(1)


class AlertsTable(Resource):
    """The thresholds of alerts that can be set."""

    spend_rate: SpendRateTable = SpendRateTable()

    def settings(self, webhooks: list[WebhookTable]) -> AlertSettings:
        """What control is told."""
        rate = self.spend_rate
        hooks = tuple(one.settings() for one in webhooks)
        return AlertSettings(hooks, rate.times, rate.days, nano(rate.min_usd) or 0)
