"""``headgate chat``: one question through the data plane, shown as it streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer

from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.reach.completions import AUTO, Send, ask, with_own_token
from headgate.cli.reach.gateway import open_gateway
from headgate.cli.trouble import Trouble


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Trouble(f"standard input is no text ({error})", code=2) from error


@contextmanager
def _way(url: str | None, token: str | None, config: str | None, state_dir: str | None) -> Iterator[Send]:
    """How to ask: another gateway, or this machine's with the token that was given, else with the CLI's own."""
    if url and not token:
        raise Trouble("--url names another gateway, which needs its own token", "give --token or HEADGATE_TOKEN", 2)
    if url:
        yield partial(ask, url.rstrip("/").removesuffix("/v1"), token or "", proxies=True)
        return
    with open_gateway(config, state_dir) as gateway:
        yield partial(ask, gateway.addresses()["data"], token) if token else partial(with_own_token, gateway)


def command(
    message: Annotated[
        str | None,
        typer.Argument(
            help="The message; - reads standard input. Without it a conversation begins.", show_default=False
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Alias or model.")] = AUTO,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Another gateway's base URL (without /v1).")] = None,
    token: Annotated[str | None, typer.Option("--token", envvar="HEADGATE_TOKEN", help="Agent token.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Ask a model, and see the answer as it streams.

    Without a message a conversation begins; where standard input is a pipe or a file, that is the message.  Speed and
    the time to the first token go to standard error.
    """
    converse = message is None and sys.stdin.isatty()
    if converse and as_json:
        raise Trouble("a conversation has no --json", 'headgate chat --json "…"', 2)
    text = _read() if message == "-" or (message is None and not converse) else message or ""
    if message is None and not converse and not text.strip():
        raise Trouble("nothing was asked", 'headgate chat "Hello"', 2)
    with _way(url, token, config, state_dir) as send:
        if converse:
            from headgate.cli.tasks.conversation import Conversation  # noqa: PLC0415 - late: see late.py

            Conversation(send, model, system).hold()
            return
        messages = [{"role": "system", "content": system}] if system else []
        transcript = send(
            {"model": model, "messages": [*messages, {"role": "user", "content": text}]}, live=not as_json
        )
    if as_json:
        print(transcript.as_json())
    else:
        print(transcript.summary(), file=sys.stderr)
