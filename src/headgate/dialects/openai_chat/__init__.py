"""The OpenAI chat completions API, and the many servers that speak it in their own way.

``read`` and ``render`` convert requests.  ``answer`` converts a whole answer, ``ChatStream`` a stream, ``failure`` an
upstream's refusal.  ``error_body`` and ``error_event`` write failures for the client.  The transcripts beside the tests
show the bytes that servers really send, and the reason for each rule.
"""

from headgate.dialects.openai_chat.answers import answer
from headgate.dialects.openai_chat.errors.failures import error_body, error_event, failure, garbage
from headgate.dialects.openai_chat.errors.quotation import Sent
from headgate.dialects.openai_chat.prefill import (
    as_asked,
    continued,
    exhausted,
    probed,
    probes,
    trims,
)
from headgate.dialects.openai_chat.quirks import adds_stream_options
from headgate.dialects.openai_chat.request import asked_for, read, render
from headgate.dialects.openai_chat.stream.joining import ContinuedStream
from headgate.dialects.openai_chat.stream.stream import ChatStream
from headgate.dialects.openai_chat.whole import answer_from_stream, answer_in_parts, whole_answer
from headgate.dialects.seam import Seam
from headgate.dialects.tally import space_tokens

__all__ = [
    "ChatStream",
    "ContinuedStream",
    "Seam",
    "Sent",
    "adds_stream_options",
    "answer",
    "answer_from_stream",
    "answer_in_parts",
    "as_asked",
    "asked_for",
    "continued",
    "error_body",
    "error_event",
    "exhausted",
    "failure",
    "garbage",
    "probed",
    "probes",
    "read",
    "render",
    "space_tokens",
    "trims",
    "whole_answer",
]
