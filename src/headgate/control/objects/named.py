"""Tokens and accounts by the names that people use, and what a token's list of models may hold.

Pure: what exists in, an id or a refusal out.  An id wins over a name; a name that several have is refused with their
ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headgate.catalog import names
from headgate.catalog.offers import Offers
from headgate.control.refusals import ACCOUNT_NOT_FOUND, ALREADY_EXISTS, AMBIGUOUS_NAME, TOKEN_NOT_FOUND
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.model import Grant, Snapshot


def token_id(wanted: str, grants: Iterable[Grant]) -> str:
    """The id of the token with this id or name.  Raises GatewayError (404, 409)."""
    found = {grant.id: grant.name for grant in grants}
    if wanted in found:
        return wanted
    idents = [ident for ident, name in found.items() if name == wanted]
    if len(idents) > 1:
        raise GatewayError(
            AMBIGUOUS_NAME,
            f"There are {len(idents)} tokens called {wanted!r}: give the id, one of {', '.join(idents)}.",
        )
    if not idents:
        near = names.nearest(wanted, [*found.values(), *found])
        raise GatewayError(TOKEN_NOT_FOUND, names.ended(f"There is no token {wanted!r} in use{near}"))
    return idents[0]


def free_name(name: str, grants: Iterable[Grant], own: str = "") -> None:
    """Raises GatewayError (409) where another token than ``own`` has this name."""
    if other := next((grant for grant in grants if grant.name == name and grant.id != own), None):
        where = "the configuration file declares it" if other.origin == "file" else f"its id is {other.id}"
        raise GatewayError(
            ALREADY_EXISTS,
            f"There is a token called {name!r} already ({where}): give it a new secret, revoke it, or choose another "
            "name.",
            param="name",
        )


def account_id(wanted: str, idents: Iterable[str]) -> str:
    """The id of the account that is meant: ``provider/label``, or a provider or a label that only one has."""
    known = list(dict.fromkeys(idents))
    if wanted in known:
        return wanted
    found = [ident for ident in known if wanted in (ident.partition("/")[0], ident.partition("/")[2])]
    if len(found) > 1:
        raise GatewayError(
            AMBIGUOUS_NAME, f"There are {len(found)} accounts that {wanted!r} may mean: {', '.join(found)}."
        )
    if not found:
        near = names.nearest(wanted, known)
        raise GatewayError(ACCOUNT_NOT_FOUND, names.ended(f"There is no account {wanted!r}{near}"))
    return found[0]


def models(wanted: Iterable[str], snapshot: Snapshot) -> None:
    """Raises GatewayError (400) for the first name that nothing here has: a token that allows only what does not exist
    allows nothing, and a misspelt name is found out by its holder.
    """
    offers = Offers(snapshot.providers)
    for name in wanted:
        if name not in snapshot.aliases and not offers.of(name):
            raise GatewayError(INVALID_VALUE, _unknown(name, snapshot), param="models")


def _unknown(name: str, snapshot: Snapshot) -> str:
    known: Mapping[str, Iterable[str] | None] = {one.name: one.models for one in snapshot.providers.values()}
    qualified = [f"{provider}/{model}" for provider, models in known.items() for model in models or ()]
    near = names.nearest(name, [*snapshot.aliases, *qualified])
    return f"There is no model and no alias {name!r} here{near or '; add its provider or the alias first.'}"
