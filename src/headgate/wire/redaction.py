"""Remove secrets from foreign text before anyone reads it.

Known secrets are found by plain search in all of the text.  Then the text is cut, and patterns remove texts that look
like a key.  This order has two reasons: a cut cannot leave half of a known secret, and no pattern ever meets a long
text.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote

MOST_TEXT = 2048  # characters that patterns search, and that are returned
_SHORTEST = 4  # the removal of a shorter secret would remove ordinary words
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_ENTITIES = ({**_MARKUP, "'": "&#x27;"}, {**_MARKUP, "'": "&#39;"})  # two common ways
_TRACE = 8  # this many first characters of a long secret identify it, after any cut

# No alternative may start again within the text of an earlier start: that would be quadratic.  A test measures it.
_KEY_LIKE = re.compile(
    r"(?<![A-Za-z0-9_\-*.])(?:sk|pk|rk|hg|ngk|gsk|xai|pplx|hf|r8|nvapi|fw|tgp|csk|key)[-_][A-Za-z0-9_\-*.]{4,}"
    r"|\bAIza[A-Za-z0-9_\-]{10,}|\bAKIA[A-Z0-9]{8,}"
    r"|(?<![A-Za-z0-9_\-.])eyJ[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-.]+"
    r"|(?<=bearer )[^\s\"',;]+"
    r"|(?<=basic )[A-Za-z0-9+/=]{8,}"
    r"|(?:(?<=key=)|(?<=token=)|(?<=secret=)|(?<=key: )|(?<=key:)|(?<=token: )|(?<=secret: )|(?<=provided: ))"
    r"[^\s\"'&,;)]+"
    r"|(?<=key )[\"'`(<]?(?=[A-Za-z0-9+/_*\-]*[0-9*])[A-Za-z0-9+/_*\-]{12,}=*",
    re.IGNORECASE,
)


def scrub(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return ``text`` without ``secrets`` and without texts that look like a key; at most ``MOST_TEXT`` characters of
    it.
    """
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = _without(text, secret)
    return _KEY_LIKE.sub("[redacted]", text[:MOST_TEXT])


def holds(text: str, secrets: tuple[str, ...]) -> bool:
    """True if one of ``secrets`` is in ``text``, in whichever spelling."""
    return any(any(map(text.__contains__, _spellings(one))) for one in secrets if len(one) >= _SHORTEST)


def _without(text: str, secret: str) -> str:
    """Return ``text`` without a secret: in every spelling, or cut after its beginning."""
    for spelling in _spellings(secret):
        text = text.replace(spelling, "[redacted]")
    if len(secret) <= _TRACE:
        return text
    head, pieces, at = secret[:_TRACE], [], 0
    while (found := text.find(head, at)) >= 0:
        end = found + _TRACE
        while end < len(text) and end - found < len(secret) and text[end] == secret[end - found]:
            end += 1
        pieces += [text[at:found], "[redacted]"]
        at = end
    return "".join((*pieces, text[at:]))


@lru_cache(256)  # an error of an account is seldom its only one
def _spellings(secret: str) -> tuple[str, ...]:
    """Return a secret as it is, in other case, percent-encoded, escaped for JSON and HTML, in hex and in base64."""
    raw = secret.encode()
    digits = [f"{byte:02x}" for byte in raw]
    escaped = [f"{ord(character):04x}" for character in secret]
    found = [secret, secret.lower(), secret.upper(), secret.replace("/", "\\/")]
    for case in (str.lower, str.upper):
        found += ["%" + "%".join(map(case, digits)), "\\u" + "\\u".join(map(case, escaped)), case("".join(digits))]
    percent = quote(secret, safe="")
    found += [percent, percent.lower()]
    for entities in _ENTITIES:
        found.append("".join(entities.get(character, character) for character in secret))
    if len(secret) > _TRACE:  # the few digits of a shorter one stand in ordinary words
        found += _in_base64(raw)
    return tuple(dict.fromkeys(found))


def _in_base64(raw: bytes) -> Iterator[str]:
    """Yield the digits that are the same whatever stands before and behind it."""
    for encode in (b64encode, urlsafe_b64encode):
        for before, first in ((0, 0), (1, 2), (2, 3)):
            digits = encode(b"\0" * before + raw).decode().rstrip("=")
            yield digits[first : len(digits) - ((before + len(raw)) % 3 > 0)]
