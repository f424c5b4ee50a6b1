"""Tell errors and empty notices from answers, among objects under status 200."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headgate.dialects.openai_chat.errors.complaint import (
    CODES,
    DEEPEST,
    EXCEPTIONS,
    INNER,
    MOST_ITEMS,
    OWN_CODES,
    STATUSES,
    TEXTS,
)  # fmt: skip
from headgate.wire import codec

_PLAIN_TEXTS = (*TEXTS[:10], "Detail")  # members that no other answer contains
_ERRORS = ("errors", "Error", "ErrorMsg", "fault", "exception", "Exception")  # members of errors only
_SPEAKING = (*TEXTS, *INNER, *CODES, *STATUSES, "error", "raw", "metadata")
_WELL = ("", "0", "200", "success", "succeeded", "ok", "none", "null", "no error", "no_error", "成功")
_NOTHING = frozenset((b"null", b"false", b"0", b'""', b"[]", b"{}"))


# Names and senders of notices: ``{"type": "status", "status": "processing", "message": "Thinking"}``
_NOTICE_WORDS = """
    ping pong heartbeat keepalive keepawake alive noop nop ack connected connecting opened open hello start started
    starting begin queued queueing queue inqueue pending waiting wait accepted received scheduled processing
    preprocessing inprogress running working busy thinking generating searching loading modelloading warming warmup
    warmingup initializing preparing progress status statusupdate info notice notification log debug
"""
_NOTICES = frozenset(_NOTICE_WORDS.split())
_NAMES = ("type", "event", "object", "status", "state", "kind")
_ON_NOTICES = frozenset((
    *_NAMES, *TEXTS[:10], "text", "time", "timestamp", "ts", "created", "created_at", "id", "request_id", "model",
    "progress", "percent", "eta", "estimated_time", "position", "queue_position", "elapsed", "step", "seq",
))  # fmt: skip
_LONGEST_TEXT = 2048
_COMPLAINT = re.compile(
    rb"error\b|exception|traceback|out of memory|fail"
    rb"|timed? ?out|overloaded|unavailable|too many requests|limit exceeded|bad gateway|denied"
    rb"|unauthorized|forbidden|internal server|aborted|disconnected",
    re.IGNORECASE,
)


def speaks_of_one(text: bytes) -> bool:
    """True if a short text mentions an error."""
    return len(text) <= _LONGEST_TEXT and _COMPLAINT.search(text) is not None


def is_notice_word(text: bytes) -> bool:
    """True if a text is only the name of a notice: ``ping``, ``keep-alive``."""
    letters = bytes(byte for byte in text[:40].lower() if 0x61 <= byte <= 0x7A)
    return len(text) <= 40 and letters.decode() in _NOTICES


def is_notice(top: codec.Object) -> bool:
    """True if an object only reports that its server is at work."""
    names = [raw for key in _NAMES if (raw := top.get(key)) is not None and memoryview(raw)[0] == 0x22]
    if not any(is_notice_word(bytes(name)) for name in names) or "choices" in top or "usage" in top:
        return False
    texts = [*names, *(top[key] for key in _PLAIN_TEXTS if key in top)]
    return not any(_COMPLAINT.search(text) for text in texts)


def holds_nothing(top: codec.Object) -> bool:
    """True if a notice has no other member, which its client may need."""
    return top.keys() <= _ON_NOTICES and is_notice(top)


def is_error(top: codec.Object) -> bool:
    """True if an object under status 200 is an error, in one of the forms without ``event: error``."""
    if says_error(top.get("error")):
        return True
    for key in OWN_CODES:
        inner = codec.as_object(top.get(key)) if key in top else None
        if inner and (codec.as_integer(inner.get("status_code", inner.get("code"))) or 0) > 0:
            return True
    if "x_groq" in top and says_error((codec.as_object(top["x_groq"]) or {}).get("error")):
        return True
    if _has(top, "choices") or _has(top, "usage"):
        return False
    words = (codec.as_text(top.get("object")), codec.as_text(top.get("type")))
    if "error" in words or any(says_error(top[key]) for key in top if key in _ERRORS or key.endswith(EXCEPTIONS)):
        return True
    inner = codec.as_object(top["Response"]) if "Response" in top else None
    if inner and any(says_error(inner[key]) for key in _ERRORS if key in inner):
        return True
    if "choices" in top or is_notice(top):
        return False
    return _says_why(top) or codec.as_objects(top.get("detail")) not in (None, [])


def says_error(raw: msgspec.Raw | None) -> bool:
    """True if the value of an ``error`` member is an error: some servers send an empty one with every answer."""
    if raw is None or bytes(raw) in _NOTHING:
        return False
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return _speaks(value, 0)


def _speaks(value: Any, depth: int) -> bool:
    """True if a value reports an error.  Of an object, texts and codes count; without them, all members."""
    if isinstance(value, str):
        return value.strip().lower() not in _WELL
    if depth > DEEPEST or not isinstance(value, (dict, list)):
        return value not in (None, False, 0, 200)
    if isinstance(value, list):
        return any(_speaks(one, depth + 1) for one in value[:MOST_ITEMS])
    named = [value[key] for key in _SPEAKING if key in value]
    return any(_speaks(one, depth + 1) for one in named or value.values())


def _says_why(top: codec.Object) -> bool:
    return any(codec.as_text(top[key]) for key in _PLAIN_TEXTS if key in top)


def _has(top: codec.Object, key: str) -> bool:
    return key in top and bytes(top[key]) not in _NOTHING
