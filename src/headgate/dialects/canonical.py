"""What the gateway does with a canonical request, whichever API its client speaks and its target will be asked in."""

from headgate.dialects.openai_chat.prefill import as_asked, continued, exhausted, probes, trims
from headgate.dialects.openai_chat.request import rewritten
from headgate.dialects.tally import space_tokens

__all__ = ["as_asked", "continued", "exhausted", "probes", "rewritten", "space_tokens", "trims"]
