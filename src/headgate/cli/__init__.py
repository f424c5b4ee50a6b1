"""The ``headgate`` command.  Decides who answers; each answer is imported only then.

``--version`` needs no library, ``serve`` only those of its start: Typer and Rich take longer to import than the data
process takes to start.
"""

from __future__ import annotations

import sys

from headgate import __version__


def main() -> None:
    """The console script's entry.  Ends the process with the command's exit code."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"], ["version"]):
        print(f"headgate {__version__}")
        return
    if arguments[:1] in (["serve"], ["start"]) and not {"-h", "--help"} & set(arguments):
        from headgate.cli.serve import serve  # noqa: PLC0415 - late: see above

        sys.exit(serve(arguments[1:]))
    try:
        from headgate.cli.commands import run  # noqa: PLC0415 - late: see above

        code = run()
    except KeyboardInterrupt:  # while it was importing
        code = 130
    sys.exit(code)
