"""Which stream of an upstream becomes which stream of a client: one table.

Today there is one API on both sides.  An entry is a pair of dialects and what makes its bridge; no entry, no bridge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate.dialects.openai_chat import ChatStream, Joined, Quotable, Seam
from headgate.ports import StreamBridge


class NoBridge(LookupError):
    """This version has no bridge between the two dialects."""


_BRIDGES: Mapping[tuple[str, str], Callable[..., StreamBridge]] = {
    ("openai_chat", "openai_chat"): ChatStream,
}


def has_bridge(upstream: str, client: str = "openai_chat") -> bool:
    """Whether a provider that speaks ``upstream`` can serve a client that speaks ``client``."""
    return (upstream, client) in _BRIDGES


def open_stream(
    upstream: str,
    ident: str,
    created: int,
    model: str,
    include_usage: bool,
    *,
    client: str = "openai_chat",
    provider: str = "The upstream",
    secrets: tuple[str, ...] = (),
    max_event: int = 8 << 20,
    prompt_tokens: int = 0,
    hold: str = "",
    choices: int = 1,
    keep: bool = False,
    sent: Quotable | None = None,
) -> StreamBridge:
    """A bridge for one attempt's stream.

    ``ident`` is the ``chatcmpl-`` id, ``created`` Unix seconds, ``model`` the target's id for a stream that names none,
    ``prompt_tokens`` the estimate for one without usage; ``hold``, ``keep``, ``choices`` and ``sent`` as in
    ``ChatStream``.
    Raises NoBridge.
    """
    make = _BRIDGES.get((upstream, client))
    if make is None:
        raise NoBridge(f"a {client} client cannot be served from a {upstream} upstream in this version")
    return make(
        ident,
        created,
        model,
        include_usage,
        provider=provider,
        secrets=secrets,
        max_event=max_event,
        prompt_tokens=prompt_tokens,
        hold=hold,
        choices=choices,
        keep=keep,
        sent=sent,
    )


def join_stream(
    upstream: str,
    before: StreamBridge,
    seam: Seam,
    model: str,
    include_usage: bool,
    *,
    provider: str,
    secrets: tuple[str, ...],
    max_event: int,
    sent: Quotable | None = None,
) -> StreamBridge:
    """A bridge for a later attempt at the answer that broke in ``before``, of which the client has a part.

    Raises NoBridge.
    """
    if not has_bridge(upstream) or not isinstance(before, ChatStream):
        raise NoBridge(f"a stream cannot go on at a {upstream} upstream in this version")
    joined = Joined(
        before.ident, 0, model, include_usage, provider=provider, secrets=secrets, max_event=max_event, keep=True,
        sent=sent,
    )  # fmt: skip
    joined.join(before, seam)
    return joined
