"""Commands whose modules are imported when they are needed, and not to be listed.

Owns the root command's look-up: names, synonyms, help and completion of the first word come from ``LateCommand``
entries.  A module is imported when its command is run, when its own help is shown, or when a later word is completed.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from headgate.cli.parsing import values

_SYNONYMS = {
    "account": "vault",
    "accounts": "vault",
    "alias": "aliases",
    "model": "models",
    "provider": "providers",
    "request": "requests",
    "tokens": "token",
    "tenants": "tenant",
    "budgets": "budget",
    "prompts": "prompt",
    "users": "user",
    "invites": "invite",
    "key": "vault",
    "keys": "vault",
    "start": "serve",
    "stop": "drain",
}


COMPLETE = "_HEADGATE_COMPLETE"  # set by the shell's completion script


class LateCommand(NamedTuple):
    """``place``: ``module:attribute`` below ``headgate.cli``, a function or a Typer application."""

    name: str
    place: str
    help: str


class _Stub(TyperCommand):
    """Stands for a command until it is loaded."""

    def __init__(self, late: LateCommand) -> None:
        super().__init__(name=late.name, help=late.help, rich_markup_mode=None)
        self.late = late

    def loaded(self) -> Any:
        """The command that it stands for."""
        module, _, attribute = self.late.place.partition(":")
        found = getattr(importlib.import_module(f"headgate.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
            found.command(self.late.name)(function)
            command = typer.main.get_command(found)
        else:
            command = typer.main.get_group(found)
        command.name = self.late.name
        values.simplify(command)
        if COMPLETE in os.environ:
            from headgate.cli.parsing import completion  # noqa: PLC0415 - late: only the shell needs it

            completion.attach(command, self.late.name)
        return command


class Root(TyperGroup):
    """The command itself: loads what is late, and takes either number of a noun and the words of other tools."""

    def add_late(self, late: LateCommand) -> None:
        self.add_command(_Stub(late))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, _SYNONYMS.get(cmd_name, cmd_name))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, _Stub):
            command = command.loaded()
        return name, command, rest
