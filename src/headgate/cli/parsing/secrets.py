"""Secrets that a person types or pipes in: never on the command line, which other users of the machine can read."""

from __future__ import annotations

import getpass
import sys

from headgate.cli.trouble import Trouble


def read_secret(name: str, owner: str = "", *, twice: bool = False) -> str:
    """Return the first line of standard input, else what is typed at a hidden prompt.  Raises Trouble."""
    if not sys.stdin.isatty():
        given = sys.stdin.readline().rstrip("\r\n")
    else:
        given = getpass.getpass(f"{name}{owner and f' of {owner}'} (not shown): ")
        if twice and getpass.getpass("once more: ") != given:
            raise Trouble(f"the two {name}s differ", "try again", 2)
    if not given.strip():
        raise Trouble(f"no {name} was given", "pipe it in, or type it at the prompt", 2)
    return given
