"""Signatures of thinking, and who made them.

A provider returns its reasoning with a signature, and accepts that reasoning in later requests only with it.  Another
provider refuses it.  So a signature of any provider but Anthropic itself carries its maker's name while the client has
it: ``hg1:<family>:<signature>``.  It returns to that family without the name.  Other targets do not get the reasoning.

Anthropic's own signatures pass as they are.  They are valid at each of its hosts (docs.anthropic.com, Extended
thinking).
"""

from __future__ import annotations

NATIVE = frozenset(("", "anthropic"))  # families whose signatures carry no name
_MARK = "hg1:"
_MEMBERS = {"thinking": "signature", "redacted_thinking": "data"}


def member_of(kind: str | None) -> str:
    """Return the member of a block in which its signature stands; empty if blocks of this type have none."""
    return _MEMBERS.get(kind or "", "")


def sealed(signature: str, family: str) -> str:
    """Return a signature of ``family`` as the client gets it."""
    return signature if family in NATIVE else f"{_MARK}{family}:{signature}"


def opened(signature: str, family: str) -> str | None:
    """Return the client's signature as ``family`` made it; None if another one did, or if it is empty."""
    if not signature.startswith(_MARK):
        return signature if signature and family in NATIVE else None
    maker, _, own = signature.removeprefix(_MARK).partition(":")
    return own if own and maker == family else None
