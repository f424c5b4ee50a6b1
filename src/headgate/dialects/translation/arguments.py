"""A tool call's arguments, which some APIs send as text and others require as an object."""

from __future__ import annotations

from msgspec import Raw

from headgate.wire import codec
from headgate.wire.codec import EMPTY_OBJECT


def object_from(text: str) -> Raw:
    """Return the object that ``text`` holds, repaired if necessary; ``{}`` if it holds none.

    A model may write any text: line feeds within strings, Python's words, or the object as a JSON string.
    """
    data = text.encode(errors="replace")
    inner = codec.as_text(data) if data[:1] == b'"' else None
    if inner is not None:
        data = inner.encode(errors="replace")
    if codec.as_object(data) is not None:
        return Raw(data)
    data = codec.repair(data)
    return Raw(data) if codec.as_object(data) is not None else EMPTY_OBJECT
