"""The query parameters of the gateway's own endpoints, on both planes: read, and refused where unknown.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headgate.catalog.names import ended, nearest
from headgate.errors import INVALID_VALUE, GatewayError
from headgate.wire import urls

LONGEST_NAME = 50  # characters of a foreign name in an error


def read(query: bytes, known: Collection[str] = ()) -> dict[str, str]:
    """Return the values of a query string by name.  Raises GatewayError as ``refuse_unknown`` does."""
    pairs = urls.parameters(query)
    refuse_unknown([name for name, _value in pairs], known)
    return dict(pairs)


def refuse_unknown(given: Sequence[str], known: Collection[str]) -> None:
    """Raise GatewayError (400) for a name that is unknown or appears twice: a misspelt filter must not look like an
    answer.
    """
    for name in given:
        shown = name[:LONGEST_NAME]
        if name not in known:
            listed = f"known are {', '.join(known)}" if known else "there are none"
            sentence = ended(f"The query parameter {shown!r} is not known here; {listed}{nearest(shown, known)}")
            raise GatewayError(INVALID_VALUE, sentence, param=shown)
        if given.count(name) > 1:
            raise GatewayError(INVALID_VALUE, f"The query parameter {shown!r} appears twice.", param=shown)
