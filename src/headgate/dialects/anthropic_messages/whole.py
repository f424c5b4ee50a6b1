"""A Messages upstream's whole answer as a Messages client's."""

from __future__ import annotations

from functools import partial

from headgate.dialects.anthropic_messages import seals
from headgate.dialects.anthropic_messages.events import usage_members
from headgate.dialects.anthropic_messages.face import MessagesFace
from headgate.dialects.anthropic_messages.passing_source import is_utf8
from headgate.dialects.anthropic_messages.source import MessagesSource
from headgate.dialects.base import Answer, Reply, own_members
from headgate.dialects.translation.composed import whole_answer
from headgate.wire import codec
from headgate.wire.codec import Object


def passed_answer(body: bytes, reply: Reply) -> Answer:
    """Return the client's answer.  It is the upstream's, but for the message's id and the makers of signatures.  An
    answer in another form than a document is composed anew.
    """
    if not is_utf8(body):
        body = codec.repair(body)
    source = MessagesSource(reply)
    answer = whole_answer(source, MessagesFace(reply), body, reply)
    top = codec.as_object(body)
    if answer.error is not None or answer.hollow or top is None or codec.as_text(top.get("type")) != "message":
        return answer
    answer.skipped = 0  # unknown blocks are passed
    top["id"] = codec.raw(reply.ident)
    if source.reported is None:
        top["usage"] = codec.raw(usage_members(answer.used.delivered))
    if reply.family not in seals.NATIVE:
        _seal(top, reply.family)
    answer.write = partial(_write, top)
    return answer


def _write(top: Object, extra: bytes | None, trace: bytes | None) -> bytes:
    return codec.encode({**top, **own_members(extra, trace)})


def _seal(top: Object, family: str) -> None:
    """Name the maker of each signature."""
    blocks = codec.as_objects(top.get("content")) or []
    sealed = False
    for block in blocks:
        name = seals.member_of(codec.as_text(block.get("type")))
        own = codec.as_text(block.get(name))
        if own:
            block[name] = codec.raw(seals.sealed(own, family))
            sealed = True
    if sealed:
        top["content"] = codec.raw(blocks)
