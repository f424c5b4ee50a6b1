"""A command line that cannot be read, said as every other error is: a sentence and the next step."""

from __future__ import annotations

import re
from typing import Any

from headgate.cli.trouble import Trouble

_SUGGESTED = re.compile(r"\.? \((?:Possible options|Did you mean(?: one of)?): ([^)]+?)\??\)$")


def trouble(error: Any) -> Trouble:
    """``error`` is Typer's: it has a message, and the context of the command that was meant."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "headgate"
    return Trouble(_sentence(str(error.format_message())), f"{path} --help", getattr(error, "exit_code", 2))


def _sentence(message: str) -> str:
    """``no such option: --followw; did you mean --follow?``"""
    message = _SUGGESTED.sub(r"; did you mean \1?", message.strip()).replace(". Did you mean", "; did you mean")
    message = message.replace("Got unexpected extra argument(s) (", "unexpected: ").removesuffix(")")
    return (message[:1].lower() + message[1:]).rstrip(".")
