"""The control process: what it starts, in which order, and how it ends.

The link comes before everything that takes time, so that a waiting data process hears its Snapshot at once; the admin
API comes last.  Ends with 0 on SIGTERM, SIGINT, and when the supervisor is gone (the boot socket reads end-of-file);
what the journal holds by then is recorded first.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.catalog.presets import BadRow, Row, rows
from headgate.control.api.parts import Admin
from headgate.control.identity.master_key import VaultLocked
from headgate.control.ingest.call_log import CallLog, current_names
from headgate.control.ingest.feed import Listener
from headgate.control.ingest.recorder import Recorder
from headgate.control.reports.client_questions import Answers
from headgate.control.reports.spent_before import SpentSource
from headgate.control.snapshot.compose import world_of
from headgate.control.snapshot.hub import Hub
from headgate.control.snapshot.publication import Publication
from headgate.control.snapshot.seeking import seek
from headgate.control.snapshot.setup import Publishing, set_up
from headgate.control.snapshot.upkeep import Upkeep
from headgate.control.store.database import StoreUnusable, open_store
from headgate.control.telemetry.alerting import Alerting
from headgate.errors import GatewayError
from headgate.model import AUTO
from headgate.process import boot as boot_channel
from headgate.process import listening, locate, statedir
from headgate.process.boot import Adopted, ControlBoot, DrainGateway, Failed, Ready, Reloaded
from headgate.process.log import LogLine, configure, drawn, form_of
from headgate.resources.compiled import Compiled

try:
    import uvloop

    new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
except ImportError:  # a platform without it: slower, the same otherwise
    new_event_loop = None

if TYPE_CHECKING:
    from headgate.control.api.web import AdminServer

NICENESS = 5  # the recorder must never take CPU from streams
WATCH_S = 1.0
LOOK_S = 0.2
EARLIER_LIFE_S = 30.0  # it answers for 3 s more, and reads the journal for 10
LOCK = "control.lock"
SETTLE_S = 1.5  # engines and prices are known sooner, whatever answers
LAST_READING_S = 10.0
BAD_CONFIG, PORT_IN_USE, STORE_UNUSABLE = 2, 3, 4

log = structlog.get_logger("headgate.control")


class CannotStart(Exception):
    """``code`` is the exit code, the message a sentence for the operator."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(boot: ControlBoot, load: Callable[[], Compiled], sock: socket.socket) -> int:
    """Runs control until it is told to end; returns the exit code.

    It begins with ``boot.declared``; ``load`` reads the configuration file anew, and raises ValueError with a readable
    sentence on a bad one.  ``sock`` is the child's end of the boot socket: Ready or Failed is sent on it, and Reloaded.
    """
    os.nice(NICENESS)
    write_logs(boot.log_level, boot.log_format)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(ControlProcess(boot, load, sock).live())
    except CannotStart as error:
        log.error("control cannot start", code=error.code, error=str(error))
        boot_channel.send(sock, Failed(error.code, str(error)))
        return error.code


def write_logs(level: str, form: str) -> None:
    """One line per event to standard error, as ``headgate.process.log`` draws them; the libraries' too."""
    configure(level, form)
    drawn_as = form_of(form, sys.stderr)

    def render(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        raised = event.pop("exception", None)
        line = LogLine(time.time(), event.pop("level"), "control", str(event.pop("event")), event)
        text = drawn(line, drawn_as)
        return f"{text}\n{raised}" if raised and not drawn_as.json else text

    structlog.configure(
        processors=[structlog.processors.add_log_level, _visible, structlog.processors.format_exc_info, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _visible(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Control characters in what others have said are written out: a log is read on terminals."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode()
    return event


class ControlProcess:
    """One life of the process.  The mutable state is in the parts that it starts: store, publication, link,
    recorder.
    """

    def __init__(self, boot: ControlBoot, load: Callable[[], Compiled], sock: socket.socket) -> None:
        self._boot = boot
        self._load = load
        self._sock = sock
        self._state = Path(boot.state_dir)
        self._end = asyncio.Event()
        self._reload = asyncio.Event()
        self._settled = asyncio.Event()
        self._drain_asked = False

    async def live(self) -> int:
        """Starts everything, waits for the end, ends everything.  Raises CannotStart."""
        self._listen_for_the_end()
        alone = await self._be_alone()
        try:
            listener = bind(self._boot.host, self._boot.port)
            try:
                engine = await self._open_store()
                try:
                    await self._serve(engine, listener)
                finally:
                    await engine.dispose()
            finally:
                listener.close()
        finally:
            os.close(alone)
        return 0

    async def _be_alone(self) -> int:
        """Waits for the control process of an earlier life, whose supervisor was killed: two that read the journal
        would count twice.
        """
        end = time.monotonic() + EARLIER_LIFE_S
        while (descriptor := statedir.take_alone(self._state / LOCK)) is None:
            if time.monotonic() > end:
                raise CannotStart(STORE_UNUSABLE, f"another control process works on {self._state} and does not end")
            await asyncio.sleep(LOOK_S)
        return descriptor

    async def _open_store(self) -> AsyncEngine:
        try:
            return await open_store(self._boot.database)
        except StoreUnusable as error:
            raise CannotStart(STORE_UNUSABLE, str(error)) from error

    async def _serve(self, engine: AsyncEngine, listener: socket.socket) -> None:
        publishing, recorder = await self._begin(engine, listener.getsockname()[1])
        publication, upkeep = publishing.publication, publishing.upkeep
        spent = SpentSource(engine, recorder, lambda: publication.snapshot)
        link = Hub(self._state / "channel.sock", publication, Answers(engine, recorder, publishing.tokens), spent)
        publication.link = link
        tasks = []
        try:
            tasks.append(await self._answer_data(link, recorder))
            self._tell(Adopted())
            if self._end.is_set():  # started for what the journal holds, or without a supervisor by now
                return
            # FastAPI costs 0.3 s at import: in a thread, while the link and the recorder are at work already.  Before
            # the file is read in another: two threads importing pydantic at once can wait for each other for good.
            imported = await asyncio.to_thread(_import_web)
            tasks.append(asyncio.create_task(self._watch(publishing), name="configuration watch"))
            tasks.append(asyncio.create_task(upkeep.each_minute(), name="each minute"))
            tasks.append(asyncio.create_task(seek(publication, upkeep), name="seek engines"))
            boot = self._boot
            alerting = Alerting(engine, publishing, link)
            recorder.feed.listen("alerts", alerting.take)
            tasks.append(asyncio.create_task(alerting.run(), name="alerts"))
            parts = (engine, publishing, link, recorder, alerting.webhooks)
            admin = Admin(*parts, boot.data_url, self._ask_to_drain, boot.access)
            web = imported.server(admin, boot.admin_token, boot.host)
            api = asyncio.create_task(web.serve(sockets=[listener]), name="admin API")
            tasks.append(api)
            up = asyncio.create_task(self._say_ready(web, listener, publication), name="say ready")
            await self._until_the_end(tasks)
            up.cancel()
            web.stop()
            await asyncio.wait([api])
        finally:
            for task in tasks[1:]:
                task.cancel()
            await recorder.stop(LAST_READING_S)
            await link.close()

    async def _begin(self, engine: AsyncEngine, port: int) -> tuple[Publishing, Recorder]:
        """Everything that a data process will be told, composed; nobody is answered yet."""
        try:
            boot, ports = self._boot, own_ports(self._boot, port)
            more = (ports, boot.first_token, boot.master_key, boot.access.public_url)
            publishing = await set_up(self._state, engine, self._load, self._say_reloaded, *more)
            await publishing.publication.begin(
                Compiled(
                    world_of(boot.declared),
                    dict(boot.declared.tokens),
                    self._boot.secrets,
                    rows=await asyncio.to_thread(known_rows, self._boot.config_path, self._state),
                    path=self._boot.config_path,
                    detect_engines=False,  # until the file has said so
                    alerting=boot.alerting,
                )
            )
        except SQLAlchemyError as error:
            raise CannotStart(STORE_UNUSABLE, f"the store cannot be used: {error}") from error
        except (VaultLocked, statedir.StateError, ValueError, OSError) as error:  # a key is lost or damaged
            raise CannotStart(STORE_UNUSABLE, str(error)) from error
        recorder = Recorder(engine, self._state / "journal")
        recorder.feed.listen("spend limits", publishing.spend.take)
        if self._boot.log_calls and self._boot.log_level != "error":
            recorder.feed.listen("call log", self._call_log(publishing.publication))
        return publishing, recorder

    def _call_log(self, publication: Publication) -> Listener:
        names = current_names(lambda: publication.snapshot)
        shown = CallLog(sys.stderr.write, form_of(self._boot.log_format, sys.stderr), names)
        return shown.listener(everything=self._boot.log_level in ("debug", "info"))

    async def _answer_data(self, link: Hub, recorder: Recorder) -> asyncio.Task[None]:
        try:
            await link.start()
            return await recorder.start()
        except (SQLAlchemyError, OSError) as error:
            raise CannotStart(STORE_UNUSABLE, f"the state directory cannot be used: {error}") from error

    async def _say_ready(self, web: AdminServer, listener: socket.socket, publication: Publication) -> None:
        await web.up.wait()
        with contextlib.suppress(TimeoutError):  # the operator is told what `auto` leads to: engines may be found yet
            async with asyncio.timeout(SETTLE_S):
                await self._settled.wait()
        host, port = listener.getsockname()[:2]
        auto = publication.snapshot.aliases.get(AUTO)
        first = auto.targets[0].model if auto and auto.targets else ""
        try:
            boot_channel.send(self._sock, Ready(host, port, first, (auto and auto.why) or ""))
        except OSError:
            self._end.set()  # the supervisor is gone
            return
        gc.collect()
        gc.freeze()  # the libraries' hundred thousands of objects: no collection of the recorder's rows looks at them
        log.info("control is ready", host=host, port=port, generation=publication.snapshot.generation)

    def _say_reloaded(self) -> None:
        self._tell(Reloaded())

    def _tell(self, message: Adopted | Reloaded) -> None:
        try:
            boot_channel.send(self._sock, message)
        except OSError:
            self._end.set()  # the supervisor is gone

    def _ask_to_drain(self) -> None:
        """Once is enough.  Raises OSError where the supervisor is gone (and this process ends already)."""
        if not self._drain_asked:
            boot_channel.send(self._sock, DrainGateway())
            self._drain_asked = True

    def _listen_for_the_end(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end.set)
        # A terminal's interrupt goes to every process of the group; the supervisor decides when control ends: last
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        loop.add_reader(self._sock.fileno(), self._on_boot_socket)

    def _on_boot_socket(self) -> None:
        try:
            gone = not self._sock.recv(64)
        except OSError:
            gone = True
        if gone:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._end.set()

    async def _until_the_end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Returns when the end was asked for.  A task that ends before is a defect: raises what it raised."""
        end = asyncio.create_task(self._end.wait(), name="wait for the end")
        try:
            done, _ = await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
        for task in done - {end}:
            task.result()
            raise RuntimeError(f"the task {task.get_name()!r} ended by itself")

    async def _watch(self, publishing: Publishing) -> None:
        """Reads the file, looks around, then reloads when the file has changed or SIGHUP came.  A bad file has been
        logged by the time that it raises.

        It is read at once: it may have changed, or broken, since the supervisor compiled what this life of control
        began with.
        """
        read = self._boot.config_stamp
        while locate.unfinished(read, locate.stamp(self._path(publishing.publication)), time.time()):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        read = locate.stamp(self._path(publishing.publication))
        done = await self._reload_once(publishing.upkeep)
        await publishing.upkeep.settle()
        self._settled.set()
        while True:
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._reload.wait()
                now = locate.stamp(self._path(publishing.publication))
            except TimeoutError:
                now = locate.stamp(self._path(publishing.publication))
                if (now == read and done) or locate.unfinished(read, now, time.time()):
                    continue
            self._reload.clear()
            read = now
            done = await self._reload_once(publishing.upkeep)

    def _path(self, publication: Publication) -> str | Path | None:
        """The file that is watched; where there was none so far, one that has been made since."""
        return publication.sources.compiled.path or self._boot.config_path or locate.appeared(os.environ)

    async def _reload_once(self, upkeep: Upkeep) -> bool:
        """False where the store was in the way: the file is as it was, so that nothing else would try again."""
        try:
            await upkeep.reload()
        except (ValueError, OSError):
            return True
        except (SQLAlchemyError, GatewayError) as error:  # blocked, or busy with changes that wait for it
            log.error("the configuration was not reloaded: the store cannot be used", error=str(error))
            return False
        return True


def known_rows(config_path: str | None, state: Path) -> Mapping[str, Row]:
    """The rows of ``providers/`` as settings find them, before settings are there; without those of the operator's own
    that are broken: reading the file will say so.
    """
    folders = [*([Path(config_path).parent / "providers"] if config_path else []), state / "providers"]
    try:
        return rows(folders, lenient=True)
    except BadRow:  # too many
        return rows()


def own_ports(boot: ControlBoot, port: int) -> frozenset[int]:
    """The ports of this machine on which no engine is looked for: this gateway's own."""
    return frozenset({port, *(urlsplit(url).port or 0 for url in (boot.data_url, boot.builtin_url))})


def bind(host: str, port: int) -> socket.socket:
    """The admin API's listening socket.  Raises CannotStart."""
    try:
        listener = listening.listen(host, port, "control", "--control-port")
    except listening.CannotListen as error:
        raise CannotStart(BAD_CONFIG if isinstance(error, listening.BadHost) else PORT_IN_USE, str(error)) from error
    listener.setblocking(False)
    return listener


def _import_web() -> ModuleType:
    # Late, and in a thread: see _serve
    from headgate.control.api import web  # noqa: PLC0415

    return web
