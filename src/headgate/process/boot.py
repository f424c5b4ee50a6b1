"""The messages between parent and child at a start: one down (with file descriptors), one back.

The supervisor keeps one end of a Unix socket pair, the child gets the other as its file descriptor 3.  Down comes the
child's Boot message; a data process gets the bound listening socket with it (SCM_RIGHTS).  Back comes Ready once the
child answers, or Failed with an exit code and a sentence.  Control also sends Adopted, Reloaded and DrainGateway.  The
pair stays open: a child that reads end-of-file on it knows that its supervisor is gone.  Settings never travel through
the environment or a command line, where others could read them.
"""

from __future__ import annotations

import socket
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from headgate.model import Snapshot
from headgate.process.frames import LENGTH, Frames, frame
from headgate.process.locate import Stamp

CHILD_FD = 3
T = TypeVar("T")


class OidcSettings(Struct, frozen=True):
    """The OIDC provider of the admin API's users.  ``roles``: values of the claim ``role_claim``, and the role of each
    (``tenant_admin:<tenant>``).
    """

    issuer: str
    client_id: str
    client_secret: str  # empty: none
    scope: str
    role_claim: str
    roles: dict[str, str]

    def __repr__(self) -> str:  # a log line or a traceback must not print the secret
        return f"OidcSettings({self.issuer})"


class AccessSettings(Struct, frozen=True):
    """Who may reach the admin API, and how people log in.  ``public_url``: what browsers reach it under; empty: what
    their requests say, and no links of invites are made.
    """

    allowed_hosts: tuple[str, ...] = ()
    public_url: str = ""
    oidc: OidcSettings | None = None


class WebhookSettings(Struct, frozen=True):
    """One webhook.  ``events``: the types of alerts that it gets; empty: all.  ``key`` signs what is sent; where it is
    empty, nothing is signed.  ``format``: standard | slack.
    """

    name: str
    url: str
    events: tuple[str, ...] = ()
    key: bytes = b""
    format: str = "standard"

    @property
    def host(self) -> str:
        """All of the URL that may be shown."""
        return urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:  # the URL may hold a credential
        return f"WebhookSettings({self.name})"


class AlertSettings(Struct, frozen=True):
    """Where alerts go, and when a spend rate is one: at ``rate_times`` (0: never) the mean hour of ``rate_days``, and
    from ``rate_least`` nano-USD an hour.
    """

    webhooks: tuple[WebhookSettings, ...] = ()
    rate_times: float = 5.0
    rate_days: int = 7
    rate_least: int = 1_000_000_000


class MasterKey(Struct, frozen=True):
    """What the configuration says of the vault's master key: the key itself, or the file that holds it."""

    value: str = ""
    file: str = ""

    def __repr__(self) -> str:  # a traceback must not print keys
        return f"MasterKey({self.file or ('declared' if self.value else 'of the state directory')})"


class ControlBoot(Struct, frozen=True):
    """The boot message of the control process.

    ``first_token`` is set on the first start of a state directory only: the token that the supervisor prints.  The
    store keeps its digest.  ``declared`` is the last good configuration file, compiled, and ``secrets`` its
    providers' keys.  A control process that starts again while the file is broken keeps that configuration.  ``born``
    are the keys that a reload cannot change, as ``settings.fixed`` gives them.
    """

    state_dir: str
    database: str  # a SQLAlchemy URL
    host: str
    port: int
    admin_token: str
    config_path: str | None
    data_url: str  # http://HOST:PORT of the data plane
    overrides: dict[str, str] = {}
    first_token: str | None = None
    log_level: str = "info"
    log_format: str = "auto"
    log_calls: bool = True
    builtin_url: str = ""  # base URL of the built-in provider, on the supervisor's loopback socket
    declared: Snapshot = Snapshot()
    secrets: dict[str, str] = {}
    born: dict[str, str] = {}
    config_stamp: Stamp = None  # of the file when ``declared`` was read (``locate.stamp``)
    access: AccessSettings = AccessSettings()
    config_blank: bool = True  # it held only comments
    master_key: MasterKey = MasterKey()
    alerting: AlertSettings = AlertSettings()


class Ready(Struct, frozen=True, tag="ready"):
    """The child answers on this address.  ``auto`` and ``why`` come from control: the targets of `auto` (empty: none
    yet), and the reason, in words for the operator.
    """

    host: str
    port: int
    auto: str = ""
    why: str = ""


class Adopted(Struct, frozen=True, tag="adopted"):
    """Control has opened the store, and the store has the first start's token: it may be shown from now on."""


class Reloaded(Struct, frozen=True, tag="reloaded"):
    """Control serves with the file as it is now.  The supervisor reads it too, so that the next process that starts
    begins with it.
    """


class DrainGateway(Struct, frozen=True, tag="drain"):
    """End the gateway, like SIGTERM: an operator asked control for it."""


class Failed(Struct, frozen=True, tag="failed"):
    """The child cannot start.  ``code`` is the exit code that the supervisor ends with: 2, 3 or 4 (see CONFIG)."""

    code: int
    message: str


def send(sock: socket.socket, message: Struct, fds: tuple[int, ...] = ()) -> None:
    """Sends one message; ``fds`` travel with its first byte."""
    data = frame(message)
    if fds:
        sent = socket.send_fds(sock, [data[: LENGTH.size]], list(fds))
        sock.sendall(data[sent:])
    else:
        # One write: the parent is woken by the first byte, and a niced child may not run again for a long time.
        sock.sendall(data)


def receive(sock: socket.socket, kind: type[T]) -> tuple[T, tuple[int, ...]]:
    """Waits for one message, and reads no byte of the next one.  Raises EOFError where the other side has closed."""
    frames = Frames(msgspec.msgpack.Decoder(kind))
    data, fds, _flags, _address = socket.recv_fds(sock, frames.wanted, 4)
    while data:
        for message in frames.feed(data):
            return message, tuple(fds)
        data = sock.recv(min(frames.wanted, 1 << 20))
    raise EOFError("the other side of the boot socket is closed")


class BuiltinBoot(Struct, frozen=True):
    """The boot message of the built-in provider; its listening socket comes with it."""

    log_level: str = "info"
    log_format: str = "auto"
