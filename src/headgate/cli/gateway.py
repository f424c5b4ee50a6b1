"""This machine's gateway as the commands reach it, running or not.

Owns every request to the admin API.  Where a gateway runs they go to its control plane; where none does, to the same
application in this process, on the store and under the state directory's lock.  The admin token goes to no address but
the one that the holder of that lock wrote down.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2

from headgate import statedir
from headgate.cli.terminal import say, waiting
from headgate.control.snapshot import Compiled
from headgate.settings import ConfigError, Settings, compile, load

CLI_TOKEN = "cli.token"
START_IT = "start it with: headgate serve"
SAME_USER = "run the command as the user who runs the gateway"
API = "/admin/v1"
ANSWER_S = 10.0  # a gateway that is starting, or one that is stuck, gets this long
PAGE = 500
# The next step, where the sentence alone does not name it
_STEPS = {
    "provider_not_found": "headgate providers",
    "token_not_found": "headgate token list",
    "account_not_found": "headgate vault list",
    "alias_not_found": "headgate aliases",
    "model_not_found": "headgate models",
    "request_not_found": "headgate requests",
}
_LISTS = {"/catalog": "models", "/accounts": "vault", "/tokens": "token"}  # where the noun is another word
_WRONG_WISH = frozenset({400, 422})  # what was asked for cannot be: exit code 2, as for a wrong option
T = TypeVar("T")


class Trouble(Exception):
    """The command cannot do its work: one sentence, the next step, an exit code (1 it failed, 2 it was asked wrongly).

    ``api_code`` is the API's own, where it was the API that refused.
    """

    def __init__(self, sentence: str, step: str = "", code: int = 1, api_code: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.step = step
        self.code = code
        self.api_code = api_code


@dataclass(frozen=True)
class Ask:
    """One request to the admin API; ``path`` without /admin/v1."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] | None = None
    timeout_s: float = ANSWER_S


class Gateway:
    """The gateway that a configuration describes.  A context manager; nothing is opened before the first call.

    Mutable: the connection to the admin API, the loop that it lives in, and whether something is yet to be announced.
    """

    def __init__(self, settings: Settings, overrides: Mapping[str, str], announce: bool) -> None:
        self._settings = settings
        self._overrides = overrides
        self._announce = announce
        self.state_dir: Path = settings.state_dir
        self._config = str(settings.path) if settings.path else None
        self._open = AsyncExitStack()
        self._client: httpx2.AsyncClient | None = None
        self._control_url = ""  # of the running gateway; empty while the store is worked on
        self._runner = asyncio.Runner()

    @classmethod
    def find(cls, config: str | None, overrides: Mapping[str, str], *, announce: bool = True) -> Self:
        """``announce``: says so where the store is worked on.  Raises Trouble (2) on a bad configuration."""
        try:
            return cls(load(config, os.environ, overrides), overrides, announce)
        except ConfigError as error:
            raise Trouble("; ".join(error.problems), "headgate config check", code=2) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()

    # --------------------------------------------------------------------------------- asking

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> dict[str, Any]:
        """One request.  Returns the decoded answer; raises Trouble with the API's own sentence."""
        return self._run(self._ask(Ask(method, path, body, params, timeout_s)))

    def together(self, asks: Sequence[Ask], done: Callable[[int], None]) -> list[dict[str, Any] | Trouble]:
        """All of them at once; ``done`` hears the index of each as it ends.  Answers in the order of ``asks``."""

        async def one(index: int, ask: Ask) -> dict[str, Any] | Trouble:
            try:
                return await self._ask(ask)
            except Trouble as trouble:
                return trouble
            finally:
                done(index)

        async def all_of_them() -> list[dict[str, Any] | Trouble]:
            await self._connect()
            return await asyncio.gather(*(one(index, ask) for index, ask in enumerate(asks)))

        return self._run(all_of_them())

    def items(self, path: str, params: Mapping[str, Any] | None = None, limit: int | None = None) -> list[Any]:
        """A list's entries, of as many pages as ``limit`` needs; all of them where it is None."""
        return list(self._entries(path, dict(params or {}), limit))

    def _entries(self, path: str, params: dict[str, Any], limit: int | None) -> Iterator[Any]:
        left = limit
        while left is None or left > 0:
            if left is not None:
                params["limit"] = min(left, PAGE)
            page = self.call("GET", path, params=params)
            yield from page["data"]
            if left is not None:
                left -= len(page["data"])
            if not page.get("has_more") or not page.get("next"):
                return
            params["cursor"] = page["next"]

    def cli_token(self, *, anew: bool = False) -> str:
        """The CLI's own agent token, made through the admin API on first use (or where the kept one was revoked)."""
        file = self.state_dir / CLI_TOKEN
        try:
            kept = None if anew else statedir.read_token(file)
            if kept:
                return kept
            token = str(self.call("POST", "/tokens", {"name": "cli"})["token"])
            statedir.write_private(file, token.encode() + b"\n")
        except statedir.StateError as error:
            raise Trouble(str(error), SAME_USER) from error
        return token

    # --------------------------------------------------------------------------------- where it is

    @property
    def running(self) -> bool:
        """Whether a gateway holds the state directory."""
        who = self._holder()
        return who is not None and not who.command

    def addresses(self) -> dict[str, str]:
        """``data`` and ``control`` of the gateway that runs.  Raises Trouble where none does, or where it is stuck."""
        end = time.monotonic() + ANSWER_S
        while who := self._holder():
            try:
                noted = json.loads((self.state_dir / statedir.ADDRESSES).read_bytes())
                if not who.command:
                    return {"data": str(noted["data"]), "control": str(noted["control"])}
            except (OSError, ValueError, KeyError, TypeError):
                pass  # it is starting: written once both planes answer
            if time.monotonic() > end:
                raise Trouble(
                    f"the gateway (pid {who.pid or 'unknown'}) holds {self.state_dir} but is not ready after "
                    f"{ANSWER_S:.0f} s",
                    "look at its log, or stop it and start it again",
                )
            time.sleep(0.05)
        raise Trouble(f"no gateway runs with the state directory {self.state_dir}", START_IT)

    def _holder(self) -> statedir.Holder | None:
        try:
            return statedir.holder(self.state_dir)
        except statedir.StateError as error:
            raise Trouble(str(error), SAME_USER) from error

    # --------------------------------------------------------------------------------- the connection

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def _ask(self, ask: Ask) -> dict[str, Any]:
        client = await self._connect()
        end = time.monotonic() + ask.timeout_s
        while True:
            try:
                answer = await client.request(
                    ask.method,
                    ask.path,
                    json=ask.body,
                    params=_plain(ask.params),
                    timeout=max(0.1, end - time.monotonic()),
                )
                break
            except httpx2.ConnectError as error:  # control is being started again: nothing was asked yet
                if time.monotonic() > end:
                    raise Trouble(f"no gateway answers at {self._control_url}", "headgate doctor") from error
                await asyncio.sleep(0.1)
            except httpx2.TimeoutException as error:
                sentence = f"the gateway at {self._control_url} has not answered within {ask.timeout_s:.0f} s"
                raise Trouble(sentence, "look at its log, or try again") from error
            except httpx2.TransportError as error:
                raise Trouble(f"the connection to {self._control_url} broke", "try again") from error
            except ValueError as error:  # infinity, or an argument that is no UTF-8
                raise Trouble(f"what was given cannot be sent ({error})", code=2) from error
        if answer.is_success:
            decoded: dict[str, Any] = answer.json() if answer.content else {}
            return decoded
        raise refusal(answer.status_code, answer.content)

    def let_go(self) -> None:
        """Closes what is open, until the next call: while a person is asked, no gateway that starts waits for them."""
        self._client = None
        self._run(self._open.aclose())

    async def _connect(self) -> httpx2.AsyncClient:
        if self._client is None and not self.running:
            try:
                self._client = await self._open.enter_async_context(self._on_the_store())
            except Trouble:
                if not self.running:  # else one has started while this command was getting ready
                    raise
        if self._client is None:
            self._client = await self._open.enter_async_context(self._over_http())
        return self._client

    def _over_http(self) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        self._control_url = self.addresses()["control"]
        try:
            token = statedir.read_token(self.state_dir / statedir.ADMIN_TOKEN)
        except statedir.StateError as error:
            raise Trouble(str(error), SAME_USER) from error
        return httpx2.AsyncClient(
            base_url=self._control_url + API,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,  # a proxy has no business between the CLI and this machine's gateway
        )

    @asynccontextmanager
    async def _on_the_store(self) -> AsyncIterator[httpx2.AsyncClient]:
        # Late: FastAPI and SQLAlchemy take longer to import than all of this, and a running gateway has them already.
        from headgate.control.offline import offline  # noqa: PLC0415
        from headgate.control.store import StoreUnusable  # noqa: PLC0415

        try:
            async with AsyncExitStack() as store:
                with waiting("opening the store"):
                    store_client = offline(self.state_dir, self._settings.database, self._compiled)
                    client = await store.enter_async_context(store_client)
                if self._announce:  # once
                    say(f"no gateway is running: working on the store in {self.state_dir}")
                    self._announce = False
                yield client
        except (statedir.StateError, StoreUnusable) as error:
            raise Trouble(str(error), "headgate doctor") from error

    def _compiled(self) -> Compiled:
        fresh = load(self._config, os.environ, self._overrides)
        # Nobody calls the built-in provider from here
        return compile(fresh, statedir.instance_key(self.state_dir), "http://127.0.0.1:9/v1")


def open_gateway(config: str | None, state_dir: str | None) -> Gateway:
    """The gateway that the configuration describes.  Raises Trouble (exit code 2) on a bad configuration."""
    return Gateway.find(config, {"state_dir": state_dir} if state_dir else {})


def at(collection: str, *names: str, slashes: bool = False) -> str:
    """The path of one object.  ``slashes``: its name may hold some.  Raises Trouble on an empty name."""
    for name in names:
        # A segment of dots would lead to another object
        if not name.strip() or not name.isprintable() or {".", ".."} & set(name.split("/")):
            raise Trouble(f"{name!r} is no name", f"headgate {_LISTS.get(collection, collection.strip('/'))}", 2)
    return "/".join([collection, *(quote(name, safe="/:" if slashes else ":") for name in names)])


def refusal(status: int, body: bytes) -> Trouble:
    """An error answer of the API as Trouble."""
    message, code = failure(body)
    wrong = status in _WRONG_WISH or code == "managed_by_file"
    return Trouble(
        message or f"the gateway answered {status}", _STEPS.get(code, ""), code=2 if wrong else 1, api_code=code
    )


def failure(body: bytes) -> tuple[str, str]:
    """Message and code of an error body, empty where it is none."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"]), str(error["code"])
    except (ValueError, KeyError, TypeError):
        return "", ""


def _plain(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Query parameters: what is None is not sent, booleans as the API spells them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (params or {}).items()
        if value is not None
    }
