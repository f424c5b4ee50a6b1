"""The gateway's own edits of a canonical request.  They depend neither on the client's API nor on the target's."""

from headgate.dialects.openai_chat.prefill import as_asked, capped, continued, exhausted, probes, trims
from headgate.dialects.openai_chat.request import rewritten
from headgate.dialects.tally import space_tokens

__all__ = ["as_asked", "capped", "continued", "exhausted", "probes", "rewritten", "space_tokens", "trims"]
