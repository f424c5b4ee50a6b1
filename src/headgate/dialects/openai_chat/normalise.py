"""The parts that answers and chunks share: content parts, text.

Each function takes members as an upstream sent them, and returns them as the OpenAI schema has them, or reports that
nothing had to change.
"""

from __future__ import annotations

import re

from msgspec import Raw

from headgate.wire import codec
from headgate.wire.codec import NULL, Object

TEXT_KEYS = ("content", "reasoning_content", "reasoning", "refusal")
OTHER_VISIBLE_KEYS = ("tool_calls", "function_call", "audio", "images", "reasoning_details")
EMPTY = frozenset((b"null", b'""', b"[]", b"{}"))

VISIBLE_KEYS = frozenset((*TEXT_KEYS, *OTHER_VISIBLE_KEYS))
FORMS = frozenset(("function_call", "audio"))  # objects that some servers send with empty members


# ------------------------------------------------------------------------------------- content parts


def put_parts(delta: Object, raw: Raw) -> None:
    """Turn content that came as an array of parts into strings: ``content`` and ``reasoning_content``.

    Mistral's reasoning models stream ``[{"type": "thinking", "thinking": [{"type": "text", …}]}]``
    (docs.mistral.ai, Reasoning); the official clients read a string.  A single part, strings as parts, and a bare
    value are accepted too.
    """
    text: list[str] = []
    thoughts: list[str] = []
    parts = codec.as_list(raw)
    for value in [raw] if parts is None else parts:
        part = codec.as_object(value)
        inner = part.get("thinking") if part is not None else None
        if part is None:
            text.append(_bare(value))
        elif inner is None:
            text.append(codec.as_text(part.get("text")) or "")
        else:
            pieces = codec.as_objects(inner)
            said = (
                codec.as_text(inner) if pieces is None else "".join(codec.as_text(p.get("text")) or "" for p in pieces)
            )
            thoughts.append(said or "")
    del delta["content"]
    if text or not thoughts:
        delta["content"] = codec.raw("".join(text))
    if thoughts:
        delta["reasoning_content"] = codec.raw("".join(thoughts))


def _bare(raw: Raw) -> str:
    """Return the text of a part that is a string; a number or a boolean as it stands."""
    text = codec.as_text(raw)
    if text is not None:
        return text
    return "" if raw == NULL or memoryview(raw)[0] in b"{[" else bytes(raw).decode(errors="replace")


# ------------------------------------------------------------------------------------- text


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str, limit: int = 500) -> str:
    """``text`` without control characters, cut to ``limit`` characters."""
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def visible_keys(delta: Object) -> list[str]:
    """Return the members of a delta or message with a visible value."""
    return [
        key for key, value in delta.items() if key in VISIBLE_KEYS and (len(value) > 4 or bytes(value) not in EMPTY)
    ]


def says_something(raw: Raw) -> bool:
    """True if an object has a member with a value other than a number."""
    return any(
        bytes(value) not in EMPTY and codec.as_number(value) is None for value in (codec.as_object(raw) or {}).values()
    )
