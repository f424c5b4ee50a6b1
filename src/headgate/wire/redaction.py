"""Remove secrets from foreign text before anyone reads it.

Known secrets are found by plain search in all of the text.  Then the text is cut, and patterns remove texts that look
like a key.  This order has two reasons: a cut cannot leave half of a known secret, and no pattern ever meets a long
text.
"""

from __future__ import annotations

import re
from urllib.parse import quote

MOST_TEXT = 2048  # characters that patterns search, and that are returned
_SHORTEST = 4  # the removal of a shorter secret would remove ordinary words
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


def _without(text: str, secret: str) -> str:
    """Return ``text`` without a secret: as it is, in other case, percent-encoded, or cut after its beginning."""
    for spelling in dict.fromkeys((secret, secret.lower(), secret.upper(), quote(secret, safe=""))):
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
