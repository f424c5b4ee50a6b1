"""The common parts of the commands: shared options, and the groups of nouns.

A noun without a verb lists (``headgate models --search qwen``).  Singular and plural are the same word.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

Config = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Configuration file.")]
StateDir = Annotated[str | None, typer.Option("--state-dir", metavar="DIR", help="State directory of the gateway.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

LIST = "list"
# Other tools' names for the verbs: each stands for the first of its group that the noun has
_VERBS = (
    ("list", "ls"),
    ("show", "get", "inspect", "info"),
    ("remove", "unset", "revoke", "rm", "delete", "del"),
    ("create", "add", "set", "new"),
    ("edit", "update"),
)


class Noun(TyperGroup):
    """A noun's verbs; where none is given ``list``, or ``show`` of a noun that there is only one of."""

    @property
    def _usual(self) -> str:
        return LIST if LIST in self.commands else "show"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        asks_for_help = bool(args) and args[0] in self.get_help_option_names(ctx)
        bare = not args and not ctx.resilient_parsing  # a verb may be being typed
        if not asks_for_help and (bare or (args and args[0].startswith("-"))):
            args = [self._usual, *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, self._meant(cmd_name))

    def _meant(self, word: str) -> str:
        """This noun's own verb for another tool's."""
        words = next((group for group in _VERBS if word in group), ())
        return next((verb for verb in words if verb in self.commands), word)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Its verbs; after a dash the options of ``list``, which may follow the noun itself."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            found += [item for item in self.commands[self._usual].shell_complete(ctx, incomplete) if item not in found]
        return found


def noun(text: str) -> typer.Typer:
    """A Typer application for one noun."""
    return typer.Typer(help=text, cls=Noun, no_args_is_help=False, rich_markup_mode=None)


def listed(text: str | None) -> list[str] | None:
    """``a,b`` as a list; None where nothing was given."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
