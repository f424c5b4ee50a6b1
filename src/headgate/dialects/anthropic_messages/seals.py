"""Signatures of thinking, and who made them.

A provider returns its reasoning with a signature, and accepts that reasoning in later requests only with it.  Another
provider refuses it.  So a signature of any provider but Anthropic itself carries its maker's name while the client has
it: ``hg1:<family>:<signature>``.  It returns to that family without the name.  Other targets do not get the reasoning.

Anthropic's own signatures pass as they are.  They are valid at each of its hosts (docs.anthropic.com, Extended
thinking).
"""

from __future__ import annotations

from headgate.wire import codec
from headgate.wire.codec import Object

THINKING = "messages.thinking"
NATIVE = frozenset(("", "anthropic"))  # families whose signatures carry no name
_MARK = "hg1:"
NOBODYS = f"{_MARK}none:"  # of reasoning that broke off before its signature: no family opens it
_NO_BLOCKS = codec.raw([])
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


def maker_of(signature: str) -> str:
    """Return the family that the client's signature names; empty if it names none."""
    return signature.removeprefix(_MARK).partition(":")[0] if signature.startswith(_MARK) else ""


def unseal(members: Object, family: str) -> tuple[str, ...]:
    """Give ``family`` its own signatures in a request's members, and leave out the reasoning of others.  Return the
    names of what was left out.  Messages without reasoning keep their bytes: signatures are bound to those.
    """
    raw = members.get("messages")
    if raw is None or not (_MARK.encode() in bytes(raw) or (family not in NATIVE and b'thinking"' in bytes(raw))):
        return ()
    messages = codec.as_objects(raw) or []
    dropped = False
    for message in messages:
        blocks = codec.as_objects(message.get("content"))
        if blocks is None or not any(member_of(codec.as_text(block.get("type"))) for block in blocks):
            continue
        left = [block for block in blocks if _opens(block, family)]
        dropped = dropped or len(left) < len(blocks)
        message["content"] = codec.raw(left)
    members["messages"] = codec.raw([message for message in messages if message.get("content") != _NO_BLOCKS])
    thinking = codec.as_object(members.get("thinking")) or {}
    if dropped and codec.as_text(thinking.get("type")) == "enabled" and _is_answering_tools(messages):
        del members["thinking"]  # it requires that the turn of the tools begins with its reasoning
        return (THINKING, "thinking")
    return (THINKING,) if dropped else ()


def _opens(block: Object, family: str) -> bool:
    """True if ``family`` gets the block.  Take its maker's name off its signature."""
    name = member_of(codec.as_text(block.get("type")))
    if not name:
        return True
    own = opened(codec.as_text(block.get(name)) or "", family)
    if own is not None:
        block[name] = codec.raw(own)
    return own is not None


def _is_answering_tools(messages: list[Object]) -> bool:
    blocks = codec.as_objects(messages[-1].get("content")) if messages else None
    return any(codec.as_text(block.get("type")) == "tool_result" for block in blocks or ())
