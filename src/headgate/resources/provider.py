"""A provider: who is called, at which address, and what is known of its models.

``ProviderWish`` is a whole one for the store, ``ProviderEdit`` a change of it, ``ProviderBody`` what the store holds;
in all three, what is not set is as the preset has it, else the default.  ``ProviderTable`` is one of the file;
``settings.presets`` has put the preset's row into it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from headgate import model
from headgate.catalog.names import nearest
from headgate.catalog.presets import Dialect, Prefill, Row, YesNo
from headgate.catalog.words import Auth, Training
from headgate.dialects.openai_chat.quirks import QUIRKS
from headgate.resources.account import Key, as_key
from headgate.resources.fields import (
    ModelName,
    Positive,
    ProviderName,
    Resource,
    Text,
    Url,
    as_prefill,
    as_yes_no,
    header_names,
    header_values,
    wrong,
)
from headgate.resources.model_row import ModelTable, ModelWish

MAX_MODELS = 2000

Connections = Annotated[int, Field(ge=1, le=65_535)]
HeaderValue = Annotated[str, Field(max_length=2000)]
Headers = Annotated[dict[str, HeaderValue], Field(max_length=50), AfterValidator(header_values)]
OneModel = Annotated[ModelWish | None, AfterValidator(lambda wish: wish or ModelWish())]


class PoolWish(Resource):
    """Limits of the connections to the provider; seconds."""

    idle_s: Positive | None = None
    max_age_s: Positive | None = None
    wait_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None = None


class _ProviderFields(Resource):
    def declared(self) -> dict[str, Any]:
        """What is set, by the names and in the types of ``model.Provider``; accounts are added elsewhere."""
        found = {name: value for name, value in self if value is not None}
        limits = {name: value for name, value in found.pop("pool", ()) if value is not None}
        if (most := found.pop("max_connections", None)) is not None:
            limits["max_connections"] = most
        if (models := found.pop("models", None)) is not None:
            found["models"] = {ident: (facts or ModelTable()).row(ident) for ident, facts in models.items()}
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
        return {name: plain[name] for name in model.Provider.__struct_fields__ if name in plain} | {
            "pool": model.ConnectionLimits(**limits)
        }


class ProviderEdit(_ProviderFields):
    """Only what is sent changes; null: as the preset has it, else the default."""

    preset: ProviderName | None = Field(default=None, description="A row of GET /presets: everything it says holds.")
    title: Text | None = None
    base_url: Annotated[Url, Field(max_length=2000)] | None = Field(
        default=None, description="Needed where no preset has it.", examples=["https://api.example.com/v1"]
    )
    auth: Auth | None = None
    dialect: Dialect | None = None
    headers: Headers | None = Field(default=None, description="Sent with every request; no keys.")
    quirks: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=50)] | None = None
    training: Training | None = Field(default=None, description="Whether it trains on data.")
    prefill: Prefill | None = Field(default=None, description="How its models are asked to go on with a text.")
    prefill_trims: YesNo | None = Field(
        default=None, description="Whether they lose such a text's trailing white space; null: a probe finds out."
    )
    models: Annotated[dict[ModelName, OneModel], Field(max_length=MAX_MODELS)] | None = Field(
        default=None, description="Only these can be asked for; null: any id."
    )
    max_connections: Connections | None = None
    pool: PoolWish | None = None


class ProviderWish(ProviderEdit):
    """A provider for the store."""

    name: ProviderName = Field(description="The part before the slash in a model's name.")


def _from_base64(value: Any) -> Any:
    return base64.b64decode(value) if isinstance(value, str) else value


Sealed = Annotated[
    bytes, BeforeValidator(_from_base64), PlainSerializer(lambda sealed: base64.b64encode(sealed).decode())
]


class ProviderBody(ProviderEdit):
    """What the store holds.  The values of ``headers`` that are empty are in ``sealed_headers``
    (``control.objects.headers``).
    """

    sealed_headers: dict[str, Sealed] = {}

    @classmethod
    def of(cls, wish: ProviderEdit) -> ProviderBody:
        """A new provider's."""
        return cls(**{name: getattr(wish, name) for name in cls.model_fields if name in wish.model_fields_set})

    def edited(self, edit: ProviderEdit) -> ProviderBody:
        """With what was sent; new headers are in the clear."""
        sent = {name: getattr(edit, name) for name in edit.model_fields_set}
        return self.model_copy(update=sent | ({"sealed_headers": {}} if "headers" in sent else {}))

    def described(self) -> dict[str, Any]:
        shown = {name: value for name, value in super().described().items() if name != "sealed_headers"}
        if "headers" in shown:  # an earlier release kept their values in the clear
            shown["headers"] = sorted(shown["headers"] or ())
        return shown


# ------------------------------------------------------------------------------------- of the file


def _quirks(value: list[str]) -> list[str]:
    for name in value:
        if name not in QUIRKS:
            raise wrong(f"there is no quirk {name!r}{nearest(name, QUIRKS)}; known are {', '.join(sorted(QUIRKS))}")
    return value


class PoolLimits(PoolWish):
    """With its defaults, which ``headgate config show`` shows."""

    idle_s: Positive = 60
    max_age_s: Positive = 600
    wait_s: Annotated[float, Field(ge=0, le=3600)] = 5


class ProviderTable(_ProviderFields):
    """A provider of the configuration file.  An empty ``base_url`` was never given."""

    preset: str | None = None
    base_url: Url = ""
    dialect: Dialect = "openai_chat"
    auth: Auth = "bearer"
    keys: list[Annotated[Key, BeforeValidator(as_key)]] = []
    ca_file: str | None = None
    max_connections: Connections = 1000
    pool: PoolLimits = PoolLimits()
    headers: Annotated[dict[str, str], AfterValidator(header_values)] = {}
    forward_headers: Annotated[list[str], AfterValidator(header_names)] = ["openai-organization", "openai-project"]
    quirks: Annotated[list[str], AfterValidator(_quirks)] = []
    training: Training = "unknown"
    prefill: Annotated[Prefill, BeforeValidator(as_prefill)] = "none"
    prefill_trims: Annotated[YesNo, BeforeValidator(as_yes_no)] | None = None
    models: dict[str, ModelTable | None] | None = None

    def accounts(self, name: str) -> dict[model.Account, str]:
        """Its accounts with their keys."""
        return {
            key.account(f"{name}/{label}", key.label, key.priority, key.free): key.key.get_secret_value()
            for label, key in zip(self.labels, self.keys, strict=True)
        }

    @property
    def labels(self) -> list[str]:
        """What follows the slash in each account's id: the key's label, else its position."""
        return [key.label or str(index) for index, key in enumerate(self.keys)]

    def provider(self, name: str, base: Path, rows: Mapping[str, Row], origin: str) -> model.Provider:
        """What the data plane is told.  ``base``: where a relative ``ca_file`` lies."""
        preset = rows.get(self.preset or "")
        ca_file = str((base / Path(self.ca_file).expanduser()).absolute()) if self.ca_file else None
        declared = self.declared() | {"ca_file": ca_file}
        return model.Provider(
            name=name,
            title=preset.title if preset else None,
            accounts=tuple(self.accounts(name)),
            origin=origin,
            **declared,
        )
