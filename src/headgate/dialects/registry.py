"""Which APIs callers and providers speak, and how an answer of the one becomes an answer of the other.

Adding an API is one folder, and one line here for each of its sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from headgate.dialects.anthropic_messages import dialect as anthropic_messages
from headgate.dialects.base import Answer, Backend, Client, Delta, Finish, Reply
from headgate.dialects.composed import ComposedStream, is_hollow, kind_of, size_of
from headgate.dialects.openai_chat import dialect as openai_chat
from headgate.dialects.seam import Seam
from headgate.dialects.tally import THOUGHTS, Shown
from headgate.errors import UPSTREAM_GARBAGE, GatewayError
from headgate.model import Usage
from headgate.ports import StreamBridge
from headgate.wire.bodies import framing
from headgate.wire.bodies.framing import Form

DEFAULT: Client = openai_chat.CLIENT  # of paths that belong to no API
CLIENTS: Mapping[str, Client] = {client.name: client for client in (openai_chat.CLIENT, anthropic_messages.CLIENT)}
BACKENDS: Mapping[str, Backend] = {
    backend.name: backend for backend in (openai_chat.BACKEND, anthropic_messages.BACKEND)
}


def open_stream(client: Client, backend: Backend, reply: Reply) -> StreamBridge:
    """The stream of a call's first attempt that answers, or of one that follows attempts which showed nothing."""
    passes = backend.passes
    if passes is not None and client.name == backend.name:
        return passes.stream(reply)
    return ComposedStream(backend.source(reply), client.face(reply), reply)


def join_stream(client: Client, backend: Backend, before: StreamBridge, seam: Seam, reply: Reply) -> StreamBridge:
    """The stream of a later attempt at the answer that broke in ``before``, of which the client has a part."""
    passes = backend.passes
    if passes is not None and client.name == backend.name:
        joined = passes.joined(before, seam, reply)
        if joined is not None:
            return joined
    face = before.face if isinstance(before, ComposedStream) else client.face(reply, before)
    return ComposedStream(backend.source(reply), face, reply, seam, _shown(before))


def _shown(before: StreamBridge) -> Shown:
    """What the client has of the answer that broke in ``before``."""
    delivered = before.delivered
    if isinstance(before, ComposedStream):
        shown = before.shown
    else:
        shown = Shown(keep=True)
        text = (delivered.text if delivered is not None else None) or ""
        shown.add("content", len(text.encode()), text)
        shown.kinds = set(delivered.kinds) if delivered is not None else set()
    shown.kinds &= {"content", "refusal", *THOUGHTS}  # what was held of anything else came to nothing
    return shown


def composed_answer(client: Client, backend: Backend, body: bytes, reply: Reply) -> Answer:
    """The answer for a client that asked for no stream, from a body of status 200 of another API's provider, whatever
    form that has.
    """
    source = backend.source(reply)
    deltas: list[Delta] = []
    form = framing.form_of(body)
    if form in (Form.EVENTS, Form.LINES):
        deltas += source.feed(framing.as_events(body, form))
        deltas += source.close()
    else:
        deltas += source.whole(framing.document(body))
    if source.error is not None or not source.done:
        return Answer(error=source.error or GatewayError(UPSTREAM_GARBAGE, f"{reply.provider} sent half an answer."))
    shown = Shown(keep=False)
    finish = Finish("stop")
    for delta in deltas:
        if isinstance(delta, Finish):
            finish = delta
        else:
            shown.add(kind_of(delta), size_of(delta))
    used = source.reported or Usage(reply.prompt_tokens, shown.estimate)
    model = source.model or reply.model
    face = client.face(reply)
    try:
        passed = face.screen(deltas)
    except GatewayError as error:
        return Answer(error=error, usage=used)
    return Answer(
        partial(face.whole, passed, model, used), source.reported, shown.size,
        is_hollow(shown, finish), finish.reason, skipped=source.skipped, model=model,
    )  # fmt: skip
