"""Listening sockets, and the next step for the operator where there can be none."""

from __future__ import annotations

import errno
import os
import socket

BACKLOG = 4096


class CannotListen(Exception):
    """The text is a sentence with the next step."""


class BadHost(CannotListen):
    """The host is no address of this machine's, and no name of one."""


class PortInUse(CannotListen):
    """Another process listens there."""


def listen(host: str, port: int, table: str, option: str) -> socket.socket:
    """Return a bound, listening socket; ``::`` listens on both families.  Raises CannotListen with the next step:
    ``table`` of the configuration, or ``option`` of the command line.
    """
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise BadHost(f"{table}.host: {host!r} cannot be resolved ({error.strerror})") from error
    both = both_families(family, address[0])
    try:
        return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        step = f"choose another with {option} ({table}.port)"
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {host} is in use; stop what listens there, or {step}") from error
        sentence = f"cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}); {step}"
        raise CannotListen(sentence) from error


def both_families(family: int, address: object) -> bool:
    """True if a listener there takes IPv4 too: ``::`` means every address of this machine."""
    return family == socket.AF_INET6 and str(address) == "::" and socket.has_dualstack_ipv6()
