"""``headgate serve``: the way to ``app.serve``, as short as it can be."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from headgate import app


def serve(arguments: list[str]) -> int:
    """Parses the options and runs the gateway until it ends.  Returns the exit code."""
    return start(**vars(parser().parse_args(arguments)))


def start(
    config: str | None,
    *,
    host: str | None,
    port: int | None,
    control_port: int | None,
    state_dir: str | None,
    log_level: str | None = None,
    log_format: str | None = None,
) -> int:
    """Runs the gateway until it ends.  For None the configuration's value holds.  Returns the exit code."""
    overrides = {
        key: str(value)
        for key, value in (
            ("server.host", host),
            ("server.port", port),
            ("control.port", control_port),
            ("state_dir", state_dir),
            ("logging.level", log_level),
            ("logging.format", log_format),
        )
        if value is not None
    }
    return app.serve(config, overrides)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as the other commands do."""

    def error(self, message: str) -> NoReturn:
        print(f"headgate: {message}\n  → headgate serve --help", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The options, without Typer: it takes longer to import than the data process takes to start.  Typer shows the
    help.
    """
    parser = _Parser(
        prog="headgate serve",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--config", metavar="FILE")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--control-port", type=int, metavar="PORT")
    parser.add_argument("--state-dir", metavar="DIR")
    parser.add_argument("--log-level", metavar="LEVEL")
    parser.add_argument("--log-format", metavar="FORMAT")
    return parser
