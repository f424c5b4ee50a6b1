"""What the admin API's objects have in common: views, lists, the answer to a change."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, Field, create_model

from headgate.catalog.money import NANO
from headgate.control.objects.registry import StoredNoun

T = TypeVar("T")

Origin = Literal["file", "store", "environment", "detected", "builtin", "shipped"]


class View(BaseModel):
    """What is answered: these fields, all of them."""

    # Built at its first use: a base made by ``view_of`` may have fields whose types only its subclasses spell
    model_config = ConfigDict(extra="forbid", defer_build=True)

    @classmethod
    def of(cls, noun: object, /, **others: Any) -> Self:
        """The fields that ``noun`` has by the same names, and ``others``, which are not as it has them."""
        names = [name for name in cls.model_fields if name not in others and hasattr(noun, name)]
        return cls(**{name: getattr(noun, name) for name in names}, **others)


def view_of(noun: type[Any], *without: str) -> type[View]:
    """Return a view with the fields of ``noun`` but for those ``without``.  ``noun`` is a class of msgspec or of
    pydantic, or a dataclass.

    A subclass spells the fields that are shown in another type, or with a description.
    """
    kinds = get_type_hints(noun)
    if issubclass(noun, BaseModel):
        aliases = {name: name for name in noun.model_fields}
    elif issubclass(noun, msgspec.Struct):
        aliases = {field.name: field.encode_name for field in msgspec.structs.fields(noun)}
    else:
        aliases = {field.name: field.name for field in dataclasses.fields(noun)}
    fields: dict[str, Any] = {
        name: (kinds[name], Field(alias=alias if alias != name else None))
        for name, alias in aliases.items()
        if name not in without
    }
    return create_model(noun.__name__, __base__=View, **fields)


class Changed(View):
    """``pending``: not every data process has confirmed it yet.  They learn of it as soon as they can."""

    effective: bool = Field(description="Every connected data process serves with it.")
    pending: bool = Field(description="The opposite: it is stored, and on its way.")

    @classmethod
    def now(cls, effective: bool, noun: object = None, /, **others: Any) -> Self:
        """As ``of``, of an object that has been changed."""
        return cls.of(noun, effective=effective, pending=not effective, **others)


class Page(View, Generic[T]):
    """A list.  ``next`` is the `cursor` of the next page, null on the last."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False
    next: str | None = None


class _HasOrigin(Protocol):
    @property
    def origin(self) -> str: ...


def created_of(noun: _HasOrigin, stored: StoredNoun | None) -> int | None:
    """When an object was stored (Unix seconds); None of the file's, and of one that has just left the store."""
    return seconds(stored.created_at) if noun.origin == "store" and stored is not None else None


def seconds(at_ns: int | None) -> int | None:
    """Unix seconds of an instant."""
    return None if at_ns is None else at_ns // NANO
