"""A data process on its own, as a subprocess: real sockets, no control.  Used by the tests of ``headgate.serving``."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path

from headgate.model import Account, DataBoot, DataSettings, Grant, HookSettings, Limits, Provider, Record, Snapshot
from headgate.policy.auth import digest
from headgate.process import boot
from headgate.process.channel import Ask, AskReply, Down, SpentBefore, address, frame, up_frames
from headgate.wire import records
from tests.forked import spawn
from tests.waiting import wait_until

SOME = 64 << 10  # of a segment, which is 64 MiB and mostly zeros
TOKEN = "hg_test_0123456789abcdef0123456789abcdef"


class DataPlane:
    """``with DataPlane(state, provider) as plane``: a running data process."""

    entry = "headgate.data:main"

    def __init__(
        self,
        state: Path,
        *providers: Provider,
        limits: Limits | None = None,
        snapshot: Snapshot | None = None,
        cors_origins: tuple[str, ...] = (),
        keys: dict[str, str] | None = None,
        public_catalog: bool = True,
        told_spend: bool = True,
        hooks: tuple[HookSettings, ...] = (),
    ) -> None:
        """``told_spend``: where there are budgets, it is told that nothing was spent before it began."""
        self.state = state
        state.mkdir(exist_ok=True)
        key_file = state / "instance.key"
        if not key_file.exists():
            key_file.write_bytes(secrets.token_bytes(32))
        self.key = key_file.read_bytes()
        if snapshot is None:
            snapshot = Snapshot(
                0,
                {digest(self.key, TOKEN.encode()): Grant("t0", "test")},
                {provider.name: provider for provider in providers},
            )
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self.sock.getsockname()[1])
        settings = DataSettings(
            str(state), limits=limits or Limits(), cors_origins=cors_origins, public_catalog=public_catalog, hooks=hooks
        )
        self.boot = DataBoot(settings, snapshot, keys or {})
        holders = [*snapshot.tokens.values(), *snapshot.tenants.values(), *snapshot.groups]
        self.told_spend = told_spend and any(one.budget is not None for one in holders)
        self.start()

    def start(self) -> None:
        self.process, self.parent = spawn(self.entry)
        boot.send(self.parent, self.boot, (self.sock.fileno(),))
        self.parent.settimeout(60)
        ready, _ = boot.receive(self.parent, boot.Ready | boot.Failed)  # type: ignore[arg-type]
        assert isinstance(ready, boot.Ready), ready
        if self.told_spend:
            self.tell(SpentBefore(last=True))

    def tell(self, message: Down) -> None:
        """Tell it something as control does, and wait until it has taken it."""
        path = self.state / "channel.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            with address(path) as reachable:
                listener.bind(reachable)
            listener.listen()
            listener.settimeout(60)
            connection, _ = listener.accept()
            path.unlink()
        with connection:
            connection.settimeout(60)
            connection.sendall(frame(message) + frame(Ask(1, "standings", "", 60.0)))
            frames = up_frames()
            while not any(isinstance(reply, AskReply) for reply in frames.feed(connection.recv(65536))):
                pass

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def records(self) -> list[Record]:
        """Everything that the journal holds, in order."""
        found: list[Record] = []
        for path in sorted((self.state / "journal").iterdir()):
            with path.open("rb") as file:
                data = file.read(SOME)
                while data and data[-64:].strip(b"\0") and (more := file.read(len(data))):  # zeros: there is no more
                    data += more
            found += [record for record, _ in records.scan(data)]
        return found

    def wait_for(self, kind: type, count: int = 1, seconds: float = 30) -> list[Record]:
        """Waits until so many records of one kind are there."""

        def of_kind() -> list[Record]:
            return [record for record in self.records() if isinstance(record, kind)]

        wait_until(
            lambda: len(of_kind()) >= count, seconds, 0.02, lambda: f"{len(of_kind())} of {count} {kind.__name__}"
        )
        return of_kind()

    def rss_kb(self) -> int:
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def stop(self, sig: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, sig)
        code = self.process.wait(60)
        self.parent.close()
        return code

    def __enter__(self) -> DataPlane:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self.parent.close()
        self.sock.close()


def upstream(url: str, name: str = "up", **changes: object) -> Provider:
    """A provider row without models of its own, keyed ``sk-up``."""
    fields: dict[str, object] = {"auth": "none", **changes}
    if fields["auth"] != "none":
        fields.setdefault("accounts", (Account(f"{name}/0"),))
    return Provider(name, url, **fields)  # type: ignore[arg-type]


def post(path: str, body: bytes, *fields: str, token: str = TOKEN) -> bytes:
    """The bytes of one request."""
    head = "".join(f"{field}\r\n" for field in fields)
    return (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"{head}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def read_response(sock: socket.socket, buffered: bytes = b"") -> tuple[int, dict[str, str], bytes, bytes]:
    """(status, headers, body, what came behind it) of one response with a length or chunks.  Raises EOFError."""
    data = buffered
    while b"\r\n\r\n" not in data:
        data += _more(sock)
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    status = int(lines[0].split()[1])
    if status == 100 or status == 204:
        return status, headers, b"", rest
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            while b"\r\n" not in rest:
                rest += _more(sock)
            size_line, _, rest = rest.partition(b"\r\n")
            size = int(size_line, 16)
            while len(rest) < size + 2:
                rest += _more(sock)
            body, rest = body + rest[:size], rest[size + 2 :]
            if size == 0:
                return status, headers, body, rest
    length = int(headers["content-length"])
    while len(rest) < length:
        rest += _more(sock)
    return status, headers, rest[:length], rest[length:]


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise EOFError("the connection is closed")
    return data
