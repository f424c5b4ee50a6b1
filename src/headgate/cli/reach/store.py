"""The admin API on the store, in this process, for commands while no gateway runs.

Imports the control plane, so it is itself imported only then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from headgate.cli.reach.line import AdminRequest, Answered, plain
from headgate.cli.reach.offline import offline
from headgate.cli.trouble import StoreTrouble, Trouble
from headgate.control.store.database import StoreUnusable
from headgate.process import credentials, statedir
from headgate.resources.compiled import Compiled
from headgate.settings import ConfigError, compile, load

NOWHERE = "http://127.0.0.1:9/v1"  # nobody calls the built-in provider from here
T = TypeVar("T")


class Store:
    """Opens on construction.  Mutable: the client, and the loop that it lives in.  Raises Trouble."""

    def __init__(self, state_dir: Path, config: str | None, overrides: Mapping[str, str]) -> None:
        self._config = config
        self._overrides = {**overrides, "state_dir": str(state_dir)}
        try:
            settings = load(config, os.environ, self._overrides)
        except ConfigError as error:
            raise Trouble("; ".join(error.problems), "headgate config check", code=2) from error
        self.state_dir = settings.state_dir
        self._open = AsyncExitStack()
        self._runner = asyncio.Runner()
        try:
            public_url = settings.file.control.public_url or ""
            on_store = offline(self.state_dir, settings.database, self._compiled, settings.master_key, public_url)
            self._client = self._run(self._open.enter_async_context(on_store))
        except (statedir.StateError, StoreUnusable) as error:
            self._runner.close()
            kind = StoreTrouble if isinstance(error, StoreUnusable) else Trouble
            raise kind(str(error), "headgate doctor") from error
        except ConfigError as error:  # it was changed since
            self._runner.close()
            raise Trouble("; ".join(error.problems), "headgate config check", code=2) from error

    def _compiled(self) -> Compiled:
        fresh = load(self._config, os.environ, self._overrides)
        return compile(fresh, credentials.instance_key(self.state_dir), NOWHERE)

    def ask(self, ask: AdminRequest) -> Answered:
        return self._run(self._ask(ask))

    def together(self, asks: Sequence[AdminRequest], done: Callable[[int], None]) -> list[Answered | Trouble]:
        async def one(index: int, ask: AdminRequest) -> Answered | Trouble:
            try:
                return await self._ask(ask)
            except Trouble as trouble:
                return trouble
            finally:
                done(index)

        async def all_of_them() -> list[Answered | Trouble]:
            return await asyncio.gather(*(one(index, ask) for index, ask in enumerate(asks)))

        return self._run(all_of_them())

    async def _ask(self, ask: AdminRequest) -> Answered:
        try:
            answer = await self._client.request(ask.method, ask.path, json=ask.body, params=plain(ask.params))
        except ValueError as error:  # infinity, or an argument that is no UTF-8
            raise Trouble(f"the input cannot be sent ({error})", code=2) from error
        return answer.status_code, answer.content

    def close(self) -> None:
        self._run(self._open.aclose())
        self._runner.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)
