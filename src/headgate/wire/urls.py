"""The rules for a base URL, for configuration, admin API and the rows of ``providers/``; query strings.  Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, urlsplit

_SHAPE = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
NO_HOST = "names no host that can be called"


def problem(url: str) -> str | None:
    """Return the reason why ``url`` cannot be called, to be read after its field's name; None if it can."""
    if not _SHAPE.fullmatch(url):
        return "must be http://HOST[:PORT]/PATH or https://…, without user, query or fragment"
    if not url.isprintable():
        return "has characters that no URL may have"
    try:
        host, port = urlsplit(url).hostname, urlsplit(url).port
        if not host or port == 0:
            return NO_HOST
        host.encode("idna")  # as the resolver takes it
    except UnicodeError:
        return NO_HOST
    except ValueError as error:
        return f"cannot be read as a URL: {error}"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host's name leads to the machine that uses it: ``localhost``, names below it, loopback addresses."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def parameters(query: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a query string, in its order.  Bytes that are no UTF-8 are replaced."""
    return parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True)
