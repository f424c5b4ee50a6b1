"""This machine's gateway as the commands reach it, running or not.

Owns which gateway that is, and every request to the admin API.  Where a gateway runs they go to its control plane, and
need its state directory and nothing else: no valid configuration, none of its variables.  Where none does, they go to
the same application in this process (``store``).  The admin token goes to no address but the one that the holder of the
state directory's lock wrote down.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headgate.cli.display.terminal import say, waiting
from headgate.cli.reach.line import ANSWER_S, SAME_USER, AdminLine, AdminRequest, Answered, OverHttp, admin_token
from headgate.cli.trouble import Trouble
from headgate.process import locate, statedir

__all__ = ["AdminRequest", "Gateway", "Trouble", "at", "failure", "open_gateway", "refusal"]

CLI_TOKEN = "cli.token"
CLI_NAME = "headgate-cli"  # of that token
START_IT = "start it with: headgate serve"
STORE = "headgate.db"
PAGE = 500
# The next step, where the sentence alone does not name it
_STEPS = {
    "provider_not_found": "headgate providers",
    "token_not_found": "headgate token list",
    "account_not_found": "headgate vault list",
    "alias_not_found": "headgate aliases",
    "tenant_not_found": "headgate tenant list",
    "budget_not_found": "headgate budget list",
    "prompt_not_found": "headgate prompt list",
    "user_not_found": "headgate user list",
    "model_not_found": "headgate models",
    "request_not_found": "headgate requests",
}
_LISTS = {
    "/catalog": "models",
    "/accounts": "vault",
    "/tokens": "token",
    "/users": "user",
    "/prompts": "prompt",
}  # where the noun is another word
_WRONG_WISH = frozenset({400, 422})  # what was asked for cannot be: exit code 2, as for a wrong option


class OnTheStore:
    """On the store of a gateway that does not run, under the state directory's lock.  ``announce``: says so."""

    def __init__(self, state_dir: Path, config: str | None, overrides: Mapping[str, str], *, announce: bool) -> None:
        # Late: all of the control plane and its libraries, which a running gateway has imported already
        with waiting("opening the store"):
            from headgate.cli.reach.store import Store  # noqa: PLC0415

            self._store = Store(state_dir, config, overrides)
        if announce:
            say(f"no gateway is running: working on the store in {self._store.state_dir}")

    def ask(self, ask: AdminRequest) -> Answered:
        return self._store.ask(ask)

    def together(self, asks: Sequence[AdminRequest], done: Callable[[int], None]) -> list[Answered | Trouble]:
        return self._store.together(asks, done)

    def close(self) -> None:
        self._store.close()


class Gateway:
    """One gateway of this machine.  A context manager; nothing is opened before the first call.

    Mutable: the way to the admin API while one is open, and whether something is yet to be announced.
    """

    def __init__(self, place: locate.Place, config: str | None, overrides: Mapping[str, str], announce: bool) -> None:
        self._config = config
        self._overrides = overrides
        self._announce = announce
        self.state_dir: Path = place.state_dir
        self.config = place.config
        self._line: AdminLine | None = None

    @classmethod
    def find(cls, config: str | None, overrides: Mapping[str, str], *, announce: bool = True) -> Self:
        """The gateway of the options, the environment and the file, else the one that runs elsewhere.

        ``announce``: says so where that is another one than expected, or where the store is worked on.  Raises Trouble
        (2) where ``--config`` names no file, and where several gateways could be meant.
        """
        try:
            place = locate.place(config, overrides.get("state_dir"), os.environ)
        except locate.NoSuchFile as error:
            raise Trouble(str(error), code=2) from error
        gateway = cls(place, config, overrides, announce)
        if place.by != "option" and not gateway.running and (other := _elsewhere(place)):
            gateway.state_dir = other.state_dir
            if announce:
                say(f"the gateway that runs with {other.state_dir}:")
        return gateway

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()

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
        return _decoded(*self._connect().ask(AdminRequest(method, path, body, params, timeout_s)))

    def together(self, asks: Sequence[AdminRequest], done: Callable[[int], None]) -> list[dict[str, Any] | Trouble]:
        """All of them at once; ``done`` hears the index of each as it ends.  Answers in the order of ``asks``."""
        return [_judged(answer) for answer in self._connect().together(asks, done)]

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
            token = self._own_token()
            statedir.write_private(file, token.encode() + b"\n")
        except statedir.StateError as error:
            raise Trouble(str(error), SAME_USER) from error
        return token

    def _own_token(self) -> str:
        try:
            return str(self.call("POST", "/tokens", {"name": CLI_NAME})["token"])
        except Trouble as trouble:
            if trouble.api_code != "already_exists":
                raise
        # Its file was lost, and with it the secret
        return str(self.call("POST", at("/tokens", CLI_NAME, "rotate"), {})["token"])

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

    def let_go(self) -> None:
        """Closes what is open, until the next call: while a person is asked, no gateway that starts waits for them."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _connect(self) -> AdminLine:
        if self._line is None and not self.running:
            try:
                self._line = OnTheStore(self.state_dir, self._config, self._overrides, announce=self._announce)
                self._announce = False  # once
            except Trouble:
                if not self.running:  # else one has started while this command was getting ready
                    raise
        if self._line is None:
            self._line = OverHttp(self.addresses()["control"], admin_token(self.state_dir))
        return self._line


def _elsewhere(place: locate.Place) -> locate.RunningGateway | None:
    """Return the running gateway of another place: the one that reads the same file.  If this place was never used,
    return the only gateway that runs.  Raises Trouble (2) where that could be several.
    """
    found = list(locate.running(os.environ))
    same = [one for one in found if one.config is not None and one.config == place.config]
    if not same and place.by == "default" and not (place.state_dir / STORE).exists():
        same = found
    if len(same) > 1:
        where = ", ".join(str(one.state_dir) for one in same)
        raise Trouble(f"several gateways run: {where}", "say which one with --state-dir", 2)
    return same[0] if same else None


def _decoded(status: int, body: bytes) -> dict[str, Any]:
    if 200 <= status < 300:
        decoded: dict[str, Any] = json.loads(body) if body else {}
        return decoded
    raise refusal(status, body)


def _judged(answer: Answered | Trouble) -> dict[str, Any] | Trouble:
    if isinstance(answer, Trouble):
        return answer
    try:
        return _decoded(*answer)
    except Trouble as trouble:
        return trouble


def open_gateway(config: str | None, state_dir: str | None) -> Gateway:
    """The gateway that the options, the configuration or a running gateway name (``Gateway.find``)."""
    return Gateway.find(config, {"state_dir": state_dir} if state_dir else {})


def running_gateway() -> Gateway:
    """The one that runs, in silence.  Raises Trouble where none does, or where it is not ready."""
    gateway = Gateway.find(None, {}, announce=False)
    if not gateway.running:
        raise Trouble("no gateway is running", START_IT)
    return gateway


def at(collection: str, *names: str, slashes: bool = False) -> str:
    """The path of one object.  ``slashes``: its name may hold some.  Raises Trouble on an empty name."""
    from urllib.parse import quote  # noqa: PLC0415 - late: see line.py

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
