"""The shell's completions beside commands and options: models, aliases, providers, presets, tokens, accounts, choices.

Owns the table of what stands where.  Names come from the running gateway, which gets half a second.  If none runs, or
if it is slow, the shell gets no completions and no message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from typer import _completion_classes, _completion_shared
from typer import completion as typer_completion
from typer._click.shell_completion import CompletionItem

from headgate.catalog import words
from headgate.cli.trouble import Trouble

ANSWER_S = 0.5
MOST = 2000
Source = Callable[[str], Iterable[str]]


def models(part: str) -> Iterable[str]:
    """Everything that ``model`` may be: aliases, and the models that can be called."""
    params = {"limit": MOST, "configured_only": True, "search": part or None}
    return dict.fromkeys([*aliases(part), *(row["id"] for row in _data("/catalog", params))])


def aliases(part: str) -> Iterable[str]:
    return (row["name"] for row in _data("/aliases"))


def providers(part: str) -> Iterable[str]:
    return (row["name"] for row in _data("/providers"))


def tenants(part: str) -> Iterable[str]:
    return (row["name"] for row in _data("/tenants"))


def budgets(part: str) -> Iterable[str]:
    return (row["name"] for row in _data("/budgets"))


def prompts(part: str) -> Iterable[str]:
    return dict.fromkeys(row["name"] for row in _data("/prompts"))


def tokens(part: str) -> Iterable[str]:
    return (row["name"] for row in _data("/tokens"))


def accounts(part: str) -> Iterable[str]:
    return (row["id"] for row in _data("/accounts"))


def presets(part: str) -> Iterable[str]:
    """The rows that Headgate ships; no gateway is needed."""
    return sorted(path.stem for path in (Path(__file__).parents[2] / "catalog" / "presets").glob("*.toml"))


def either(*sources: Source) -> Source:
    return lambda part: dict.fromkeys(name for source in sources for name in source(part))


def choices(kind: Any) -> Source:
    """One of ``catalog.words``."""
    return lambda part: words.choices(kind)


def several(source: Source) -> Source:
    """A list with commas: the last one is completed."""

    def complete(part: str) -> Iterable[str]:
        before, comma, last = part.rpartition(",")
        return (f"{before}{comma}{name}" for name in source(last))

    return complete


OUTCOMES = choices(words.Outcome)
SCOPES = choices(words.Scope)
UNPRICED = choices(words.Unpriced)
FORMATS = choices(words.TokenFormat)
TIERS = choices(words.Tier)
ROLES = choices(words.Role)
CAPABILITIES: Source = lambda part: ("tools", "json_schema", "vision", "reasoning", "audio")  # noqa: E731
WHERE: dict[str, dict[str, Source]] = {
    "serve": {
        "log_level": choices(words.Level),
        "log_format": choices(words.LogForm),
    },
    "chat": {"model": models},
    "explain": {"model": models, "token": tokens},
    "usage list": {"model": models, "provider": providers, "token": tokens},
    "models list": {"provider": providers, "capability": CAPABILITIES},
    "models show": {"ident": models},
    "models set": {"ident": models, "capabilities": several(CAPABILITIES)},
    "models unset": {"ident": models},
    "providers show": {"name": providers},
    "providers add": {
        "name": presets,
        "preset": presets,
        "auth": choices(words.Auth),
        "training": choices(words.Training),
    },
    "providers remove": {"name": providers},
    "providers check": {"names": providers},
    "vault list": {"provider": providers},
    "vault add": {"provider": either(providers, presets)},
    "vault remove": {"ident": accounts},
    "aliases show": {"name": aliases},
    "cache clear": {"alias": aliases},
    "aliases set": {
        "name": aliases,
        "targets": models,
        "strategy": choices(words.Strategy),
        "on_midstream_failure": choices(words.OnMidstreamFailure),
        "on_disconnect": choices(words.OnDisconnect),
        "tool_calls": choices(words.ToolCalls),
        "structured": choices(words.Structured),
        "privacy": choices(words.Privacy),
        "cache_pace": choices(words.CachePace),
    },
    "aliases unset": {"name": aliases},
    "token show": {"ident": tokens},
    "token create": {
        "models": several(models), "scopes": several(SCOPES), "tenant": tenants, "over_budget": aliases,
        "unpriced": UNPRICED, "form": FORMATS, "tier": TIERS, "tiers": several(TIERS),
    },
    "token edit": {
        "ident": tokens, "models": several(models), "scopes": several(SCOPES), "tenant": tenants,
        "over_budget": aliases, "unpriced": UNPRICED, "tier": TIERS, "tiers": several(TIERS),
    },
    "tenant show": {"name": tenants},
    "tenant set": {"name": tenants, "over_budget": aliases},
    "tenant remove": {"name": tenants},
    "budget set": {"name": budgets, "model": models},
    "budget remove": {"name": budgets},
    "prompt list": {"tenant": tenants},
    **{
        f"prompt {verb}": {"name": prompts, "tenant": tenants}
        for verb in ("show", "versions", "label", "diff", "render", "remove")
    },
    "prompt set": {"name": prompts, "tenant": tenants, "role": choices(words.PromptRole)},
    "token rotate": {"ident": tokens},
    "token revoke": {"ident": tokens},
    "user add": {"role": ROLES, "tenant": tenants},
    "user edit": {"role": ROLES, "tenant": tenants},
    "requests list": {
        "token": tokens, "model": models, "requested": models, "provider": providers, "outcome": OUTCOMES,
    },
}  # fmt: skip


def attach(command: Any, path: str) -> None:
    """Has the parameters of ``command``, and of all below it, completed as WHERE says."""
    for parameter in command.params:
        source = WHERE.get(path, {}).get(parameter.name)
        if source is not None:
            parameter._custom_shell_complete = _completer(source)
    for name, below in getattr(command, "commands", {}).items():
        attach(below, f"{path} {name}")


def script(ctx: Any, option: str, shell: str) -> None:
    """Prints or installs the completion script of ``shell``, else of the shell that runs the command.  Does not return.

    Typer's own options know the running shell only: none in a container or under make.
    """
    known = [one.value for one in _completion_shared.Shells]
    shell = shell or _completion_shared._get_shell_name() or ""
    if shell not in known:
        said = f"there is no completion for the shell {shell}" if shell else "the shell is not known"
        raise Trouble(said, f"headgate {option} SHELL, with one of: {', '.join(known)}", code=2)
    carry_out = typer_completion.show_callback if option == "--show-completion" else typer_completion.install_callback
    carry_out(ctx, ctx.command.params[0], shell)


def without_rich() -> None:
    """Typer takes Rich's markup out of help texts before a shell shows them; ours have none, and Rich takes long."""
    if hasattr(_completion_classes, "_sanitize_help_text"):
        _completion_classes._sanitize_help_text = lambda text: text


def _completer(source: Source) -> Callable[[Any, Any, str], list[CompletionItem]]:
    def complete(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        try:
            found = [name for name in source(incomplete) if name.startswith(incomplete)]
        except Exception:  # noqa: BLE001  (whatever it is: a traceback on the command line helps nobody)
            return []
        return [CompletionItem(name) for name in found]

    return complete


def _data(path: str, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    from headgate.cli.reach.gateway import running_gateway  # noqa: PLC0415 - late: only where names are asked for

    answer: dict[str, Any] = running_gateway().call("GET", path, params=params, timeout_s=ANSWER_S)
    return list(answer["data"])
