"""Every command but ``serve``, as Typer sees them: their names and what they are for.

Each noun has a module of its own.  It is imported only when its command is run, asked for help or completed, because
all of them together take longer than a command may.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from headgate import __version__
from headgate.catalog import words
from headgate.cli.display.terminal import say
from headgate.cli.parsing import misuse, values
from headgate.cli.parsing.late import COMPLETE, LateCommand, Root
from headgate.cli.parsing.options import Config, Json, StateDir
from headgate.cli.trouble import Trouble

COMMANDS = (
    LateCommand("chat", "tasks.chat:command", "Ask a model, and see the answer as it streams."),
    LateCommand("welcome", "tasks.welcome:command", "Show the first tokens, and a line to try one with."),
    LateCommand("status", "tasks.gate:status", "Show the state of the gateway."),
    LateCommand("reload", "tasks.gate:reload", "Read the configuration file again.  Running streams are not touched."),
    LateCommand("drain", "tasks.gate:drain", "Stop the gateway when its running calls have ended."),
    LateCommand("detect", "tasks.gate:detect", "Look for engines on this machine again."),
    LateCommand("usage", "nouns.usage:app", "Requests, tokens and cost, and the ledger."),
    LateCommand("explain", "tasks.explain:explain", "Show where a request would go, and where one went."),
    LateCommand("doctor", "tasks.doctor:command", "Check configuration, keys, engines, ports and limits."),
    LateCommand("models", "nouns.models:app", "Models, with their capabilities and prices."),
    LateCommand("providers", "nouns.providers:app", "Providers, and the state of their keys."),
    LateCommand("vault", "nouns.vault:app", "Providers' keys, sealed in the store."),
    LateCommand("invite", "nouns.invites:app", "Links with which others lend a key."),
    LateCommand("aliases", "nouns.aliases:app", "Aliases: names that clients use, and the models behind them."),
    LateCommand("cache", "tasks.cache:app", "Show and empty the response cache."),
    LateCommand("prompt", "nouns.prompts:app", "Saved prompts: messages that clients name, in versions."),
    LateCommand("token", "nouns.callers.tokens:app", "Agent tokens: the credentials of clients."),
    LateCommand("tenant", "nouns.callers.tenants:app", "Tenants: limits and budgets above tokens."),
    LateCommand("budget", "nouns.callers.budgets:app", "Budgets and limits of a tag, a session, a model or a user."),
    LateCommand("user", "nouns.callers.users:app", "Users of the admin API, and their roles."),
    LateCommand("audit", "nouns.audit:app", "Changes: who made them, when, and what they changed."),
    LateCommand("alert", "nouns.alerts:alerts", "Alerts: budgets, parked accounts and unusual spend."),
    LateCommand("webhook", "nouns.alerts:webhooks", "Show and test the webhooks that get alerts."),
    LateCommand("requests", "nouns.requests:app", "Requests: models, outcomes, timings and cost."),
    LateCommand("config", "tasks.config:app", "The configuration file."),
)


class Commands(Root):
    """The command itself, with all that it has."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for late in COMMANDS:
            self.add_late(late)
        values.simplify(self)
        if COMPLETE in os.environ:
            from headgate.cli.parsing import completion  # noqa: PLC0415 - late: only the shell needs it

            completion.attach(self.commands["serve"], "serve")
            completion.without_rich()

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in ("--show-completion", "--install-completion"):
            from headgate.cli.parsing import completion  # noqa: PLC0415 - late: only the shell needs it

            completion.script(ctx, args[0], args[1] if len(args) > 1 else "")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="headgate",
    help="A streaming-first, OpenAI-compatible gateway for language models.",
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich takes as long to import as Typer
)


def run() -> int:
    """Runs the command line.  Returns the exit code; errors are one line and the next step on standard error."""
    if sys.stdout is None:  # it was closed before the start (`>&-`)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        code = int(app(prog_name="headgate", standalone_mode=False) or 0)
        sys.stdout.flush()  # here, where it is said if that fails
        return code
    except Trouble as trouble:
        return _complain(trouble)
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            return 2
        return _complain(misuse.trouble(error))
    except typer.Abort:  # Ctrl+C or Ctrl+D at a question
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `headgate requests | head`
        _drop_output()
        return 0
    except OSError as error:  # a full disk behind `>`; errors of the gateway come as Trouble
        what = error if error.filename else f"standard output cannot be written ({error.strerror or error})"
        print(f"headgate: {what}", file=sys.stderr)
        _drop_output()
        return 1


def _complain(trouble: Trouble) -> int:
    say(f"headgate: {trouble.sentence}")
    if trouble.step:
        say(f"  → {trouble.step}")
    return trouble.code


def _drop_output() -> None:
    """Drop the buffered output, which cannot be written: the interpreter must not try it again at its end."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headgate {__version__}")
        raise typer.Exit


@app.callback()
def headgate(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """A streaming-first, OpenAI-compatible gateway for language models."""


@app.command("serve")
def start(
    config: Config = None,
    host: Annotated[str | None, typer.Option("--host", help="Address of the data plane.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the data plane.")] = None,
    control_port: Annotated[int | None, typer.Option("--control-port", help="Port of the control plane.")] = None,
    state_dir: StateDir = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help=f"{words.listed(words.Level)}.")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help=f"{words.listed(words.LogForm)}.")] = None,
) -> None:
    """Start the gateway.

    The data plane is on port 4000, the control plane on port 4001.

    Exit codes: 0 drained, 2 configuration, 3 port in use, 4 state directory or store unusable.
    """
    # Here for help and completion: __init__ goes a shorter way
    from headgate.cli import serve  # noqa: PLC0415 - late: the other commands start without it

    plane = {"host": host, "port": port, "control_port": control_port, "state_dir": state_dir}
    raise typer.Exit(serve.start(config, **plane, log_level=log_level, log_format=log_format))  # type: ignore[arg-type]


@app.command("version")
def version_(as_json: Json = False) -> None:
    """Print the version."""
    print(json.dumps({"version": __version__}) if as_json else f"headgate {__version__}")


@app.command()
def conform(
    url: Annotated[str, typer.Argument(help="The endpoint's base URL, like https://api.example.com/v1.")],
    token: Annotated[str | None, typer.Option("--token", envvar="HEADGATE_TOKEN", help="Its API key.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A chat model; else the first it lists.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what needs many more calls.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that an answer may take.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Check any OpenAI-compatible endpoint.

    Exit code 1 where it breaks the contract.
    """
    from headgate.cli.tasks.conform import conform as check  # noqa: PLC0415 - late: the other commands start without it

    raise typer.Exit(check(url, token, model, as_json=as_json, quick=quick, timeout=timeout))
