"""The selection of catalog entries by a query: which of them, in which order, which page.  Pure.

Both planes answer with it (``/v1/models`` and ``/admin/v1/catalog``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import Struct

from headgate.catalog import parameters
from headgate.catalog.entries import Entry, UseCounts, used
from headgate.catalog.names import nearest
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.model import CAPABILITIES

MAX_LIMIT = 2000
MAX_WORDS = 200  # characters of a query's value
KINDS = ("chat", "embedding", "image", "speech", "transcription", "other")
KNOWN = (*CAPABILITIES, *KINDS)
SYNONYMS = {"function_calling": "tools", "tool_use": "tools"}  # what other catalogs call a capability


class CatalogQuery(Struct, frozen=True):
    """The parameters of GET /models.  ``limit`` 1–2000.  ``after_id``: the page begins behind this entry."""

    provider: str | None = None
    free_only: bool = False
    configured_only: bool = False
    search: str | None = None
    capability: str | None = None
    sort_by: str = "usage"
    limit: int = 500
    offset: int = 0
    after_id: str | None = None


def read(query: bytes) -> CatalogQuery:
    """Return the selection that a URL's query string asks for.  Raises GatewayError (400) with the parameter's name."""
    found = {name: _PARAMETERS[name](name, value) for name, value in parameters.read(query, _PARAMETERS).items()}
    return CatalogQuery(**found)  # type: ignore[arg-type]  # each value by the reader of its name


def _bad(name: str, message: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, message, param=name[:50])


def _text(name: str, value: str) -> str:
    if not value or len(value) > MAX_WORDS or not value.isprintable():
        raise _bad(name, f"{name} must have 1 to {MAX_WORDS} printable characters")
    return value


def capability(name: str, value: str) -> str:
    """A capability by our word for it, or a kind of model.  Raises GatewayError (400) for one that is neither."""
    meant = SYNONYMS.get(value, value)
    if meant not in KNOWN:
        near = nearest(value, [*KNOWN, *SYNONYMS]) or f"; known are {', '.join(KNOWN)}"
        raise _bad(name, f"there is no capability {value[:50]!r}{near}")
    return meant


def _flag(name: str, value: str) -> bool:
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise _bad(name, f"{name} must be true or false")


def _count(least: int, most: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 9 and least <= int(value) <= most):
            raise _bad(name, f"{name} must be a whole number from {least} to {most}")
        return int(value)

    return read


def _order(name: str, value: str) -> str:
    if value not in _ORDERS:
        raise _bad(name, f"{name} must be one of {', '.join(_ORDERS)}")
    return value


_PARAMETERS: Mapping[str, Callable[[str, str], object]] = {
    "provider": _text,
    "free_only": _flag,
    "configured_only": _flag,
    "search": _text,
    "capability": capability,
    "sort_by": _order,
    "limit": _count(1, MAX_LIMIT),
    "offset": _count(0, 999_999_999),
    "after_id": _text,
}

_UNKNOWN = 1 << 62  # sorts behind everything that is known
# By what entries are put in order, beside the built-in provider, which is last in each; equals keep theirs.
_ORDERS: Mapping[str, Callable[[Entry, UseCounts], object]] = {
    "usage": lambda entry, uses: -used(entry, uses),
    "name": lambda entry, uses: entry.model.id.casefold(),
    "provider": lambda entry, uses: entry.model.owned_by,
    "context": lambda entry, uses: -(entry.model.headgate.context_window or 0),
    "cost": lambda entry, uses: _UNKNOWN if entry.cost is None else entry.cost,
}


def select(
    listed: Iterable[Entry], wanted: CatalogQuery, uses: UseCounts, allowed: Collection[str] = ()
) -> tuple[list[Entry], int]:
    """The page that ``wanted`` asks for, and how many there are without ``limit`` and ``offset``.

    ``allowed`` are the names that a token is limited to; empty means all.
    """
    return page(ordered(listed, wanted.sort_by, uses), wanted, allowed)


def ordered(listed: Iterable[Entry], sort_by: str, uses: UseCounts) -> list[Entry]:
    """By one of the orders of a CatalogQuery; the built-in provider is last in each."""
    by = _ORDERS[sort_by]
    return sorted(listed, key=lambda entry: (entry.last, by(entry, uses)))


def page(listed: Iterable[Entry], wanted: CatalogQuery, allowed: Collection[str] = ()) -> tuple[list[Entry], int]:
    """``select`` of what is in order already."""
    found = list(listed)
    if wanted.after_id is not None:
        at = next((i for i, entry in enumerate(found) if entry.id == wanted.after_id), len(found))
        found = found[at + 1 :]
    if allowed:
        found = [entry for entry in found if permitted(entry, allowed)]
    for test in _tests(wanted):
        found = [entry for entry in found if test(entry)]
    return found[wanted.offset : wanted.offset + wanted.limit], len(found)


def permitted(entry: Entry, allowed: Collection[str]) -> bool:
    """A token that is limited to ``allowed`` may ask for it: by its name, or as the model that serves it."""
    return any(name in allowed for name in entry.reach)


def _tests(wanted: CatalogQuery) -> list[Callable[[Entry], bool]]:
    tests: list[Callable[[Entry], bool]] = []
    if wanted.provider is not None:
        provider = wanted.provider
        tests.append(lambda entry: provider in entry.groups)
    if wanted.free_only:
        tests.append(lambda entry: entry.model.headgate.free)
    if wanted.configured_only:
        tests.append(lambda entry: entry.model.headgate.configured)
    if wanted.search is not None:
        words = wanted.search.casefold()
        tests.append(lambda entry: words in entry.words)
    if wanted.capability is not None:
        having = SYNONYMS.get(wanted.capability, wanted.capability)
        tests.append(lambda entry: having in entry.model.headgate.capabilities or having == entry.model.headgate.kind)
    return tests
