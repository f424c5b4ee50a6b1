"""The APIs of callers and providers, and the streams that turn an answer of one into an answer of another.

Adding an API is one folder, and one line here for each of its sides.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.dialects.anthropic_messages import dialect as anthropic_messages
from headgate.dialects.base import Answer, Backend, Client, Reply
from headgate.dialects.gemini import dialect as gemini
from headgate.dialects.openai_chat import dialect as openai_chat
from headgate.dialects.openai_responses import dialect as openai_responses
from headgate.dialects.seam import Seam
from headgate.dialects.tally import THOUGHTS, ClientView
from headgate.dialects.translation.composed import ComposedStream, whole_answer
from headgate.ports import StreamBridge

DEFAULT: Client = openai_chat.CLIENT  # of paths that belong to no API
CLIENTS: Mapping[str, Client] = {
    client.name: client
    for client in (openai_chat.CLIENT, anthropic_messages.CLIENT, openai_responses.CLIENT, gemini.CLIENT)
}
BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (openai_chat.BACKEND, anthropic_messages.BACKEND, openai_responses.BACKEND, gemini.BACKEND)
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
    return ComposedStream(backend.source(reply), face, reply, seam, _view_before(before))


def _view_before(before: StreamBridge) -> ClientView:
    """Return the part of the answer that the client has from ``before``."""
    delivered = before.delivered
    if isinstance(before, ComposedStream):
        view = before.view
    else:
        view = ClientView(keep=True)
        text = (delivered.text if delivered is not None else None) or ""
        view.add("content", len(text.encode()), text)
        view.members = set(delivered.members) if delivered is not None else set()
    view.members &= {"content", "refusal", *THOUGHTS}  # other members were held back and are lost
    return view


def composed_answer(client: Client, backend: Backend, body: bytes, reply: Reply) -> Answer:
    """Return the answer for a client that asked for no stream.  ``body`` is one of status 200 from a provider of
    another API: a document or a stream.
    """
    return whole_answer(backend.source(reply), client.face(reply), body, reply)
