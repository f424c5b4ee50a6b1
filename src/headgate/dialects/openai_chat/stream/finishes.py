"""Finish reasons: every server's word for why an answer ends → one of OpenAI's, or a failure.

Words are compared by their letters alone: ``MAX_TOKENS``, ``max-tokens``, ``maxTokens`` and ``FinishReason.MAX_TOKENS``
are one word.  A word that no table has is judged by what it contains.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from msgspec import Raw

from headgate.wire import codec
from headgate.wire.codec import NULL, Object

_STOP = Raw(b'"stop"')
_OPENAI = frozenset(("stop", "length", "tool_calls", "content_filter", "function_call"))
FAILED = "error"
_KEYS = ("finish_reason", "native_finish_reason")
_CALLED = ("tool_calls", "function_call")

_TABLE = {
    "": None,
    "null": None,
    "none": None,
    "nil": None,
    "nan": None,
    "undefined": None,
    "unspecified": None,
    "unfinished": None,
    "notfinished": None,
    "incomplete": "length",  # OpenAI's Responses API
    "inprogress": None,
    "pending": None,
    # ai.google.dev/api/generate-content: FinishReason
    "spii": "content_filter",
    "recitation": "content_filter",
    "language": "content_filter",
    "blocklist": "content_filter",
    "malformedfunctioncall": FAILED,
    "malformedresponse": FAILED,
    "unexpectedtoolcall": FAILED,
    "toomanytoolcalls": FAILED,
    "missingthoughtsignature": FAILED,
    "noimage": FAILED,
    "imageother": FAILED,
    # docs.anthropic.com: stop_reason
    "endturn": "stop",
    "stopsequence": "stop",
    "pauseturn": "stop",
    "refusal": "content_filter",
    "compaction": "length",
    # docs.cohere.com: finish_reason
    "complete": "stop",
    "errortoxic": "content_filter",
    "errorlimit": "length",
    "usercancel": FAILED,
    "limit": "length",
    # the engines
    "eos": "stop",
    "eostoken": "stop",
    "load": FAILED,  # Ollama has loaded the model and said nothing
    "unload": FAILED,
    "repetition": "length",  # vLLM breaks off an answer that repeats itself
    "repetitiondetected": "length",
}
# In this order: the first that a word contains.  ``ERROR_TOXIC`` and ``ERROR_LIMIT`` stand above.
_PARTS = (
    (
        FAILED,
        re.compile(
            "error|fail|abort|cancel|timeout|timedout|timelimit|deadline|overload|unavailable|exception|interrupt"
            "|disconnect|connectionlost|insufficient|ratelimit|quota|crash|killed|preempt|malformed"
        ),
    ),
    (
        "content_filter",
        re.compile(
            "filter|safety|unsafe|prohibit|block|polic|moderat|refus|sensitiv|toxic|guardrail|censor|violat|recitation"
            "|harm|inspection|risk"
        ),
    ),
    (
        "length",
        re.compile(
            "length|max(?:imum)?(?:completion|prompt|input|generated|response)?token|maxoutput|tokens?limit|outoftoken"
            "|contextwindow|maxcontext|toolong|truncat|maxnew|budget"
        ),
    ),
    ("tool_calls", re.compile("tooluse|toolcall|functioncall")),
)


class FinishReason(NamedTuple):
    """``reason``: one of OpenAI's, ``FAILED``, or None where the answer has not ended.

    ``word`` is the server's own where it says more than ``reason``, for ``native_finish_reason``.
    """

    reason: str | None
    word: str = ""


NOT_YET = FinishReason(None)
STOP = FinishReason("stop")


def read(choice: Object, called: str = "") -> FinishReason:
    """How a choice of a chunk or an answer ends.  ``called``: the reason in place of ``stop`` after a call.

    OpenRouter says ``stop`` for what it does not know, and the server's own word in ``native_finish_reason``.
    """
    raw = choice.get("finish_reason")
    native = choice.get("native_finish_reason")
    if native is None or native == NULL:
        if raw is None or raw == NULL:
            return NOT_YET
        if raw == _STOP and not called:
            return STOP
        word = codec.as_text(raw) or ""
        reason = reason_of(word)
    else:
        word = codec.as_text(native) or ""
        reason, theirs = reason_of(codec.as_text(raw) or "" if raw is not None else ""), reason_of(word)
        if theirs == FAILED or (reason == "stop" and theirs in ("length", "content_filter")):
            reason = theirs
    if reason in _CALLED:
        if not called:
            return FinishReason("stop", word)  # there is no call that a client could answer
        return FinishReason(called, "" if word in _OPENAI else word)
    if called and reason == "stop":
        return FinishReason(called, "" if word in _OPENAI else word)
    return FinishReason(reason, "" if word.lower() in _OPENAI and word != FAILED else word)


def lift(choice: dict[str, Any], inner: Object) -> bool:
    """Takes a finish reason out of a delta or a message, to where it belongs; whether there was one."""
    found = False
    for key in _KEYS:
        raw = inner.pop(key, None)
        if raw is not None:
            found = True
            outer = choice.get(key)
            if outer is None or outer == NULL or reason_of(codec.as_text(outer) or "") is None:
                choice[key] = raw
    return found


def spell(choice: dict[str, Any], finish: FinishReason) -> bool:
    """Puts a finish reason into a choice, in place; whether that changed it."""
    raw = choice.get("finish_reason")
    changed = raw is None or bytes(raw)[1:-1] != (finish.reason or "").encode()
    if changed:
        choice["finish_reason"] = codec.raw(finish.reason)
    if finish.word and codec.is_null(choice.get("native_finish_reason")):
        choice["native_finish_reason"] = codec.raw(finish.word)
        changed = True
    return changed


def reason_of(word: str) -> str | None:
    """OpenAI's reason for one server's word.  One that nobody documents is ``stop``."""
    if word in _OPENAI:
        return word
    # Google's compatible API: "content_filter: RECITATION", "function_call_filter: MALFORMED_FUNCTION_CALL"
    for part in (word, word.rpartition(":")[2], word.rpartition(".")[2]):
        letters = "".join(filter(str.isalpha, part[:100].lower())).removeprefix("finishreason")
        if letters in _TABLE:
            return _TABLE[letters]
    letters = "".join(filter(str.isalpha, word[:100].lower()))
    return next((reason for reason, pattern in _PARTS if pattern.search(letters)), "stop")
