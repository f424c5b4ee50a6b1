"""What the admin API's objects have in common: strict models, lists, the answer to a change."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from headgate.catalog.names import PROVIDER_NAME
from headgate.control.objects.fields import capability, wrong

T = TypeVar("T")
NANO = 1_000_000_000

Origin = Literal["file", "store", "environment", "detected", "builtin", "shipped"]


class Wish(BaseModel):
    """What a client sends: unknown fields are refused, and what was sent is never repeated in an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class View(BaseModel):
    """What is answered: these fields, all of them."""

    model_config = ConfigDict(extra="forbid")


class Changed(View):
    """``pending``: not every data process has confirmed it yet.  They learn of it as soon as they can."""

    effective: bool = Field(description="Every connected data process serves with it.")
    pending: bool = Field(description="The opposite: it is stored, and on its way.")


class Page(View, Generic[T]):
    """A list.  ``next`` is the `cursor` of the next page, null on the last."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False
    next: str | None = None


def printable(value: str) -> str:
    """``value``, where every character of it can be shown."""
    if not value.isprintable():
        raise wrong("must have printable characters only")
    return value


def seconds(at_ns: int | None) -> int | None:
    """Unix seconds of an instant."""
    return None if at_ns is None else at_ns // NANO


# A name that clients may send as `model`: an alias, a model's id, provider/model
ModelName = Annotated[str, Field(pattern=r"^\S+$", min_length=1, max_length=256), AfterValidator(printable)]
ProviderName = Annotated[str, Field(pattern=f"^{PROVIDER_NAME}$", examples=["openai"])]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["team"])]
Text = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(printable)]
Capability = Annotated[str, Field(examples=["tools"]), AfterValidator(capability)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000_000)]
