"""The gateway's own edits of a canonical request, and its fingerprint.  They depend neither on the client's API nor on
the target's.
"""

from collections.abc import Mapping
from hashlib import sha256

from msgspec import Raw

from headgate.dialects.anthropic_messages.request import OWN_FIELDS
from headgate.dialects.openai_chat.prefill import as_asked, capped, continued, exhausted, probes, trims
from headgate.dialects.openai_chat.request import rewritten
from headgate.dialects.tally import space_tokens
from headgate.model import Call
from headgate.wire import codec

__all__ = [
    "as_asked", "capped", "continued", "exhausted", "fingerprint", "probes", "rewritten", "space_tokens", "trims",
]  # fmt: skip

# Members that do not change an answer: its form, and what is for the records of gateways and providers.  The model is
# a part of the plan.
_BESIDE = frozenset(
    (
        "model", "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention",
    )
)  # fmt: skip


def fingerprint(call: Call, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the SHA-256 of what may change the answer to ``call``.  The order of members and white space do not."""
    members = call.body if call.native is None else call.native
    telling = {name: Raw(codec.canonical(members[name])) for name in sorted(members) if name not in _BESIDE}
    fields = sorted((name, value) for name, value in headers.items() if name.startswith(OWN_FIELDS))
    return sha256(repr((call.dialect, codec.encode(telling), fields)).encode()).digest()
