"""``headgate serve``: the way to ``app.serve``, as short as it can be."""

from __future__ import annotations

import argparse

from headgate import app


def serve(arguments: list[str]) -> int:
    """Parses the options and runs the gateway until it ends.  Returns the exit code."""
    return start(**vars(parser().parse_args(arguments)))


def start(
    config: str | None, *, host: str | None, port: int | None, control_port: int | None, state_dir: str | None
) -> int:
    """Runs the gateway until it ends.  What is None the configuration says.  Returns the exit code."""
    overrides = {
        key: str(value)
        for key, value in (
            ("server.host", host),
            ("server.port", port),
            ("control.port", control_port),
            ("state_dir", state_dir),
        )
        if value is not None
    }
    return app.serve(config, overrides)


def parser() -> argparse.ArgumentParser:
    """The options, without Typer: it takes longer to import than the data process takes to start."""
    parser = argparse.ArgumentParser(
        prog="headgate serve",
        description="Start the gateway: data plane on port 4000, control plane on port 4001.",
        epilog="Exit codes: 0 drained, 2 configuration, 3 port in use, 4 state directory or store unusable.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="configuration (else HEADGATE_CONFIG, ./headgate.yaml)")
    parser.add_argument("--host", help="address of the data plane (server.host)")
    parser.add_argument("--port", type=int, help="port of the data plane (server.port)")
    parser.add_argument("--control-port", type=int, metavar="PORT", help="port of the control plane (control.port)")
    parser.add_argument("--state-dir", metavar="DIR", help="where store, journal, keys and sockets lie (state_dir)")
    return parser
