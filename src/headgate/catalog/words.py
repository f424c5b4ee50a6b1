"""The words that fields of resources may have, each list once: for checks, schemas, help texts and completion.

Imports no library: the command line shows its help with these.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

Auth = Literal["bearer", "x-api-key", "api-key", "x-goog-api-key", "query", "none"]
Training = Literal["never", "unknown", "yes"]
Scope = Literal["gate:chat", "gate:models", "gate:usage"]
Level = Literal["debug", "info", "warning", "error"]
LogForm = Literal["auto", "console", "json"]
Outcome = Literal["delivered", "failed", "cancelled", "truncated", "hollow", "refused", "budget_exceeded", "lost"]
Role = Literal["admin", "operator", "viewer", "tenant_admin"]  # the highest first
# Of tokens, tenants and budgets
Period = Literal["day", "month", "total"]
BudgetMode = Literal["hard", "soft"]
Unpriced = Literal["allow", "refuse"]
TokenFormat = Literal["pat", "triple", "plain"]
Tier = Literal["slow", "medium", "fast", "ludicrous"]
PromptRole = Literal["system", "developer", "user", "assistant"]
# Of an alias
Strategy = Literal["priority", "weighted", "cheapest", "fastest", "balanced"]
OnMidstreamFailure = Literal["continue", "error"]
OnDisconnect = Literal["cancel", "drain", "detach"]
ToolCalls = Literal["stream", "hold"]
Structured = Literal["error", "buffer"]
Affinity = Literal["none", "prompt_cache", "session"]
Privacy = Literal["any", "no_train", "trusted", "own"]
CachePace = Literal["at_once", "recorded"]
# Of alerts and webhooks
AlertType = Literal["budget.threshold", "account.spend_threshold", "account.parked", "spend.rate"]
WebhookFormat = Literal["standard", "slack"]


def choices(words: Any) -> tuple[str, ...]:
    """Return the words of one of these types, in order."""
    found: tuple[str, ...] = get_args(words)
    return found


def listed(words: Any) -> str:
    """Return the words as prose: ``a, b or c``."""
    *others, last = choices(words)
    return f"{', '.join(others)} or {last}"
