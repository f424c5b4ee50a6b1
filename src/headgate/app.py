"""The composition root: the parts of ``headgate serve``, and the start of the control process.

::

    serve ── Supervisor ──┬── data      headgate.data         port 4000, moves streams
                          ├── control   headgate.app control  port 4001, store and admin API
                          └── builtin   headgate.testing      started by its first connection

The children are spawned before the settings are read, and import meanwhile.  Then come the state directory's lock,
the sockets, and one boot message for each.  No code here runs while a stream does.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headgate.model import DataBoot, Grant, Snapshot
from headgate.policy.auth import digest
from headgate.process import boot, credentials, listening, locate, statedir, stdio, welcome
from headgate.process.boot import BuiltinBoot, ControlBoot, Ready
from headgate.process.log import VOICE
from headgate.process.statedir import url_of
from headgate.process.supervisor import ChildPrograms, Duties, Orders, Supervisor, say
from headgate.wire import proxies

if TYPE_CHECKING:
    from headgate.resources.compiled import Compiled
    from headgate.settings import Settings

LOREM = "builtin/lorem"
LAST_LIFE_S = 15.0  # for the processes of a supervisor that was killed: control reads the journal to its end
LOOK_S = 0.05
EXIT_CONFIG, EXIT_PORT, EXIT_STORE = 2, 3, 4


class Refusal(Exception):
    """The gateway cannot start: an exit code and sentences."""

    def __init__(self, code: int, *sentences: str) -> None:
        super().__init__(*sentences)
        self.code = code
        self.sentences = sentences


def serve(
    config: str | None = None, overrides: Mapping[str, str] | None = None, commands: ChildPrograms | None = None
) -> int:
    """Runs the gateway until it is told to end.  Returns the exit code: 0 drained, 2 configuration, 3 port, 4 store.

    ``overrides`` are dotted keys from the command line.  Call it from the main thread: it takes the signals.
    """
    stdio.install()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an image of a process would hold keys; children inherit it
    supervisor = Supervisor(commands or ChildPrograms())
    supervisor.spawn_planes()
    try:
        run = _Run(config, dict(overrides or {}))
        duties = run.duties()
    except Refusal as refusal:
        supervisor.abandon()
        for sentence in refusal.sentences:
            print(f"headgate: {sentence}", file=sys.stderr, flush=True)
        return refusal.code
    try:
        code = supervisor.run(duties)
    finally:
        locate.forget(run.state_dir, os.environ)
    run.release()
    return code


class _Run:
    """One life of the gateway: its settings, its sockets, its tokens.  Mutable: ``_latest``, the file's last good
    content; ports and directories stay those that this life began with (``_settings``).
    """

    def __init__(self, config: str | None, overrides: dict[str, str]) -> None:
        self._overrides = overrides
        if sentence := proxies.problem(os.environ):
            raise Refusal(EXIT_CONFIG, sentence)
        self._settings = self._latest = _load(config, overrides)
        logging = self._settings.file.logging
        VOICE.level, VOICE.form = logging.level, logging.format
        self._read_at: locate.Stamp = None  # so that a change during the reading is read again
        for sentence in self._settings.tree.warnings:
            say(f"headgate: {sentence}")
        state = self._settings.state_dir
        try:
            # Its last life's processes may still be about to leave its ports
            self._patience = LAST_LIFE_S if statedir.abandoned(state) else 0.0
            self._lock = statedir.prepare(state)
            self._instance_key = credentials.instance_key(state)
            self._admin = statedir.AdminToken(state, self._settings.admin_token, credentials.mint_admin)
            self._first: tuple[str, Grant] | None = _first_token(state) if self._admin.first else None
        except statedir.StateError as error:
            raise Refusal(EXIT_STORE, str(error)) from error
        try:
            self._data_listener, self._builtin_listener = self._listen()
        except Refusal:
            self.release()
            raise
        self._builtin_url = f"http://127.0.0.1:{self._builtin_listener.getsockname()[1]}/v1"
        self._first_kept = self._first_shown = False
        self._addresses: dict[str, str | float] = {}
        self._first_told = ""  # the model in the line to try it with

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        server, control = self._settings.file.server, self._settings.file.control
        data = listen(server.host, server.port, patience=self._patience)
        # Control binds its own when it is up: a conflict is reported now, before the start is reported.
        listen(control.host, control.port, "control", "--control-port", self._patience).close()
        return data, listen("127.0.0.1", 0)

    def release(self) -> None:
        """End in order: the next life need not wait for this one."""
        statedir.release(self._lock)

    @property
    def state_dir(self) -> Path:
        return self._settings.state_dir

    def duties(self) -> Duties:
        return Duties(
            data=self._data,
            control=self._control,
            builtin=lambda: (BuiltinBoot(VOICE.level, VOICE.form), (self._builtin_listener.fileno(),)),
            data_listener=self._data_listener,
            builtin_listener=self._builtin_listener,
            drain_s=self._settings.file.server.drain_s,
            on_answering=self._answering,
            on_listening=self._listening,
            on_reloaded=self._reloaded,
            on_draining=self._draining,
        )

    def _data(self, worker: str) -> Orders:
        """Return a data process's boot message: the file as it is now, so that a restart never undoes a reload."""
        from headgate.settings import data_settings  # noqa: PLC0415 - see _load

        snapshot, keys = self._declared()
        if self._first and not self._first_kept:
            token, grant = self._first
            tokens = {**snapshot.tokens, digest(self._instance_key, token.encode()): grant}
            snapshot = msgspec.structs.replace(snapshot, tokens=tokens)
        return DataBoot(data_settings(self._settings, worker), snapshot, keys), (self._data_listener.fileno(),)

    def _declared(self) -> tuple[Snapshot, dict[str, str]]:
        """Return the file's content, or its last good content if it is broken now, and its providers' keys."""
        from headgate.control.snapshot.compose import compose  # noqa: PLC0415 - see _load
        from headgate.settings import compile  # noqa: PLC0415 - see _load

        self._reread()
        compiled = compile(self._latest, self._instance_key, self._builtin_url)
        return compose(0, compiled, {}), compiled.secrets

    def _reread(self) -> None:
        path = self._latest.path or locate.appeared(os.environ)
        stamp = locate.stamp(path)
        if path is None or stamp == self._read_at:
            return  # a start in the middle of a day's traffic must not wait for a large file
        if self._read_at is not None and locate.unfinished(self._read_at, stamp, time.time()):
            return  # and none must begin with half a file
        with contextlib.suppress(Refusal):  # control reports its mistakes
            fresh = _load(str(path), self._overrides)
            if not (fresh.tree.blank and not self._latest.tree.blank):
                self._latest = fresh
        self._read_at = stamp

    def _reloaded(self) -> None:
        self._reread()
        self._leave_note()

    def _control(self) -> Orders:
        from headgate.settings import control_fields  # noqa: PLC0415 - see _load

        snapshot, keys = self._declared()
        order = ControlBoot(
            **control_fields(self._settings),
            admin_token=self._admin.token,
            config_path=str(self._latest.path) if self._latest.path else None,
            config_stamp=self._read_at,
            config_blank=self._latest.tree.blank,
            overrides=self._overrides,
            first_token=self._first[0] if self._first and not self._first_kept else None,
            builtin_url=self._builtin_url,
            declared=snapshot,
            secrets=keys,
            alerting=self._latest.alerting,
        )
        return order, ()

    def _listening(self, data: Ready, control: Ready) -> None:
        try:
            self._admin.keep()
            self._addresses = {
                "data": url_of(data.host, data.port),
                "control": url_of(control.host, control.port),
            }
            self._write_addresses()
        except statedir.StateError as error:
            say(str(error), "error")
        self._leave_note()
        VOICE.announce(f"listening data={_address(data)} control={_address(control)}")
        VOICE.announce(_auto(control))
        if self._admin.made and not self._first:
            shown = f"{welcome.SHOW} shows it" if _log_is_kept() else self._admin.token
            print(f"admin token, shown once (also in {self._settings.state_dir}): {shown}", flush=True)
        self._first_kept = True
        if self._first_shown and control.auto and self._first and self._first_told == LOREM:  # an engine was found
            print(welcome.trial(self._settings.data_url, self._first[0], control.auto), flush=True)
        if self._first_shown:
            with contextlib.suppress(OSError):
                (self._settings.state_dir / welcome.FIRST_TOKEN).unlink()

    def _draining(self) -> None:
        """Record the end of the drain, for commands of other terminals."""
        if self._addresses:
            self._addresses["draining_until"] = time.time() + self._settings.file.server.drain_s
            with contextlib.suppress(statedir.StateError):
                self._write_addresses()

    def _write_addresses(self) -> None:
        file = self._settings.state_dir / statedir.ADDRESSES
        statedir.write_private(file, msgspec.json.encode(self._addresses))

    def _leave_note(self) -> None:
        """Leave a note for commands in other directories, if this gateway is not in the default place.  They may also
        use --state-dir, so a place that cannot be written is no error.
        """
        running = locate.RunningGateway(self._settings.state_dir, self._latest.path)
        if running.state_dir != locate.default_state_dir(os.environ):
            with contextlib.suppress(statedir.StateError):
                locate.note(running, os.environ)

    def _answering(self) -> None:
        """Show the first start's tokens as soon as they work: control's API is ready later."""
        from headgate.settings import compile  # noqa: PLC0415 - see _load

        auto = compile(self._settings, self._instance_key, self._builtin_url).world.aliases["auto"]
        self._show_first("auto" if auto.targets else LOREM)

    def _show_first(self, model: str) -> None:
        """The tokens and a line to try them with, once, and in one piece: the store has the agent's by now."""
        if self._first is None:
            return
        self._first_told = model
        if _log_is_kept():
            print(welcome.without_tokens(), flush=True)
            return
        admin = self._admin.token if self._admin.made else "as configured (admin_token)"
        print(welcome.text(self._settings.data_url, admin, self._first[0], model), flush=True)
        if getattr(sys.stdout, "lost", 0):
            say(f"the tokens could not be written to standard output; to see them: {welcome.SHOW}", "warning")
        else:
            self._first_shown = True


def _load(config: str | None, overrides: Mapping[str, str]) -> Settings:
    # Late: pydantic and PyYAML take longer to import than the data process takes to start, and it starts first.
    from headgate.settings import ConfigError, load  # noqa: PLC0415

    try:
        return load(config, os.environ, overrides)
    except ConfigError as error:
        raise Refusal(EXIT_STORE if error.store else EXIT_CONFIG, *error.problems) from error


def listen(host: str, port: int, table: str = "server", option: str = "--port", patience: float = 0.0) -> socket.socket:
    """A bound, listening socket; waits up to ``patience`` seconds for a port that is in use.  Raises Refusal."""
    end, waited = time.monotonic() + patience, False
    while True:
        try:
            return listening.listen(host, port, table, option)
        except listening.CannotListen as error:
            if not isinstance(error, listening.PortInUse) or time.monotonic() >= end:
                code = EXIT_CONFIG if isinstance(error, listening.BadHost) else EXIT_PORT
                raise Refusal(code, str(error)) from error
        if not waited:
            say(f"port {port} is still in use, by an earlier life of this gateway perhaps; waiting for it")
        waited = True
        time.sleep(LOOK_S)


def _first_token(state: Path) -> tuple[str, Grant]:
    """Return the agent token of a first start, ``hg_pat_<public id>_<secret>``, and its rights (all).

    It lies in the state directory until it was shown: a start that ends before that leaves it to the next one.
    """
    file = state / welcome.FIRST_TOKEN
    token = statedir.read_token(file)
    if token is None or not credentials.is_minted(token):
        token = credentials.mint(credentials.fresh_id())
        statedir.write_private(file, token.encode() + b"\n")
    return token, Grant(id=credentials.public_id(token) or "", name="first", origin="store")


def _address(ready: Ready) -> str:
    return f"[{ready.host}]:{ready.port}" if ":" in ready.host else f"{ready.host}:{ready.port}"


def _auto(control: Ready) -> str:
    """Return the line about `auto`: its targets and the reason, or the next step if it leads nowhere."""
    if control.auto:
        return f"auto leads to {control.auto}{f' – {control.why}' if control.why else ''}"
    return f"auto leads nowhere yet{f': {control.why}' if control.why else ''}"


def _log_is_kept() -> bool:
    return welcome.log_is_kept(os.environ, 1)


# ------------------------------------------------------------------------------------- the control process


def control_main() -> int:
    """The control process's entry: its boot message is on descriptor 3."""
    # Late: only this role may import the store, the API and their libraries (and it does so while the supervisor
    # still reads the settings).
    from headgate.control import process  # noqa: PLC0415

    stdio.install()
    channel = socket.socket(fileno=boot.CHILD_FD)
    try:
        order, _fds = boot.receive(channel, ControlBoot)
    except (EOFError, ConnectionError):
        return 0  # the supervisor could not start and has printed the reason
    return process.run(order, _loader(order), channel)


def _loader(order: ControlBoot) -> Callable[[], Compiled]:
    """Return the function that control calls on every reload.  It raises ConfigError (a ValueError) on a bad file.

    A file that was read once stays the file: if it is removed, its last content stays.
    """
    key = credentials.instance_key(Path(order.state_dir))
    path, blank = order.config_path, order.config_blank

    def reload() -> Compiled:
        # Late: control answers the data process before it needs PyYAML.
        from headgate.settings import ConfigError, compile, load, needs_restart  # noqa: PLC0415

        nonlocal path, blank
        if path and not Path(path).is_file():
            raise ConfigError([f"{path} is gone or no file: its last content stays"])
        fresh = load(path, os.environ, order.overrides)
        if fresh.tree.blank and not blank and fresh.path:
            sentence = "is empty now: its last content stays (write {} into it to declare nothing)"
            raise ConfigError([f"{fresh.path.name}: {sentence}"])
        compiled = compile(fresh, key, order.builtin_url)
        path, blank = (str(fresh.path) if fresh.path else None), fresh.tree.blank
        return replace(compiled, needs_restart=needs_restart(order.born, fresh), path=path)

    return reload


def main(arguments: list[str]) -> int:
    if arguments == ["control"]:
        return control_main()
    print("headgate: start the gateway with `headgate serve`", file=sys.stderr, flush=True)
    return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
