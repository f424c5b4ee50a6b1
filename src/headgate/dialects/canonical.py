"""What the gateway does with a canonical request, whichever API its client speaks and its target will be asked in."""

from headgate.dialects.openai_chat.prefill import as_asked, capped, continued, exhausted, probes, trims
from headgate.dialects.tally import space_tokens

__all__ = ["as_asked", "capped", "continued", "exhausted", "probes", "space_tokens", "trims"]
