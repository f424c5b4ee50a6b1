"""An account: one key of a provider, its place among the others, and whether calls with it cost anything."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from headgate.resources.fields import Credential, Label, ProviderName, Resource
from headgate.wire import credentials

Secret = Annotated[Credential, Field(min_length=1, max_length=credentials.MAX, description="Write-only.")]
Priority = Annotated[int, Field(ge=-1000, le=1000, description="Higher is asked first.")]


class AccountWish(Resource):
    """A key for a provider of the file, of the store, or of a preset: then the provider is made too."""

    provider: ProviderName
    key: Secret
    label: Label | None = Field(default=None, description="Left out: key-1, key-2, …")
    priority: Priority = 0
    free: bool = Field(default=False, description="Calls with it cost nothing.")


class AccountEdit(Resource):
    """Only what is sent changes.  A new ``key`` replaces the former at once."""

    key: Secret | None = None
    priority: Priority | None = None
    free: bool | None = None


# ------------------------------------------------------------------------------------- of the file


def as_key(value: Any) -> Any:
    """``keys: [sk-1]`` is short for ``keys: [{key: sk-1}]``."""
    return {"key": value} if isinstance(value, str) else value


class Key(Resource):
    """An account of the configuration file, below its provider."""

    key: Credential
    label: Label | None = None
    priority: Priority = 0
    free: bool = False
