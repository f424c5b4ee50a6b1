"""The way to the admin API over HTTP, to the gateway that runs; ``store`` has the other one, without a gateway.

Both answer with a status and a body, and raise Trouble where there is no answer.  This one uses the standard library's
client, imported with the first request: others take longer to import than a command may take.  Never through a proxy:
it has no business between the CLI and this machine's gateway.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headgate.cli.trouble import Trouble
from headgate.process import statedir

API = "/admin/v1"
ANSWER_S = 10.0  # a gateway that is starting, or one that is stuck, gets this long
TOGETHER = 32  # requests at once
SAME_USER = "run the command as the user who runs the gateway"
_RETRY_S = 0.1


@dataclass(frozen=True)
class AdminRequest:
    """One request to the admin API; ``path`` without /admin/v1."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] | None = None
    timeout_s: float = ANSWER_S


Answered = tuple[int, bytes]


class AdminLine(Protocol):
    """A way to the admin API."""

    def ask(self, ask: AdminRequest) -> Answered:
        """Status and body.  Raises Trouble where there is no answer."""
        ...

    def together(self, asks: Sequence[AdminRequest], done: Callable[[int], None]) -> list[Answered | Trouble]:
        """All of them at once, in the order of ``asks``; ``done`` hears the index of each as it ends."""
        ...

    def close(self) -> None: ...


class OverHttp:
    """To the control plane of the gateway that runs.  Each request has a connection of its own."""

    def __init__(self, url: str, token: str | None) -> None:
        from urllib.parse import urlsplit  # noqa: PLC0415 - late: see above

        self._url = url
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._headers = {"Authorization": f"Bearer {token}", "Connection": "close"}

    def ask(self, ask: AdminRequest) -> Answered:
        import http.client  # noqa: PLC0415 - late: see above
        from urllib.parse import urlencode  # noqa: PLC0415

        try:
            body = None if ask.body is None else json.dumps(ask.body, ensure_ascii=False, allow_nan=False).encode()
            query = urlencode(plain(ask.params))
        except ValueError as error:  # infinity, or an argument that is no UTF-8
            raise Trouble(f"the input cannot be sent ({error})", code=2) from error
        path = f"{API}{ask.path}{'?' + query if query else ''}"
        end = time.monotonic() + ask.timeout_s
        while True:
            try:
                return self._once(ask.method, path, body, max(0.1, end - time.monotonic()))
            except ConnectionRefusedError as error:  # control is being started again: nothing was asked yet
                if time.monotonic() > end:
                    raise Trouble(f"no gateway answers at {self._url}", "headgate doctor") from error
                time.sleep(_RETRY_S)
            except TimeoutError as error:
                sentence = f"the gateway at {self._url} has not answered within {ask.timeout_s:.0f} s"
                raise Trouble(sentence, "look at its log, or try again") from error
            except http.client.InvalidURL as error:
                raise Trouble(f"the input cannot be sent ({error})", code=2) from error
            except (OSError, http.client.HTTPException) as error:
                raise Trouble(f"the connection to {self._url} broke", "try again") from error

    def _once(self, method: str, path: str, body: bytes | None, timeout: float) -> Answered:
        import http.client  # noqa: PLC0415 - late: see above

        connection = http.client.HTTPConnection(*self._address, timeout=timeout)
        try:
            headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def together(self, asks: Sequence[AdminRequest], done: Callable[[int], None]) -> list[Answered | Trouble]:
        import threading  # noqa: PLC0415 - late: see above

        answers: list[Answered | Trouble] = [Trouble("it was not asked")] * len(asks)
        waiting_ones = iter(enumerate(asks))
        turn = threading.Lock()

        def work() -> None:
            while True:
                with turn:
                    index, ask = next(waiting_ones, (-1, None))
                if ask is None:
                    return
                try:
                    answers[index] = self.ask(ask)
                except Trouble as trouble:
                    answers[index] = trouble
                done(index)

        # Daemons: Ctrl+C ends the command at once
        workers = [threading.Thread(target=work, daemon=True) for _ in range(min(TOGETHER, len(asks)))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return answers

    def close(self) -> None:
        """Close the connection."""


def plain(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Return query parameters: None is not sent, booleans are spelled as in the API."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (params or {}).items()
        if value is not None
    }


def admin_token(state_dir: Path) -> str | None:
    """Raises Trouble where it cannot be read."""
    try:
        return statedir.read_token(state_dir / statedir.ADMIN_TOKEN)
    except statedir.StateError as error:
        raise Trouble(str(error), SAME_USER) from error
