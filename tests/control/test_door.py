"""Who may call the admin API from where, and its page: pure parts, no server."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI

from headgate.control.api import docs
from headgate.control.api.access.door import Hosts

LOCAL = Hosts("127.0.0.1")
NAMED = Hosts("127.0.0.1", frozenset({"admin.example.com"}))
OPENED = Hosts("0.0.0.0")


@pytest.mark.parametrize(
    ("hosts", "host", "served"),
    [
        (LOCAL, "127.0.0.1:4001", True),
        (LOCAL, "localhost:4001", True),
        (LOCAL, "LOCALHOST", True),
        (LOCAL, "a.localhost:4001", True),
        (LOCAL, "[::1]:4001", True),
        (LOCAL, "192.0.2.7:4001", True),  # an address cannot be rebound
        (LOCAL, "evil.example.com:4001", False),
        (LOCAL, "localhost.evil.example.com", False),
        (LOCAL, "127.0.0.1.evil.example.com", False),
        (LOCAL, "", False),
        (LOCAL, "[::1", False),
        (NAMED, "admin.example.com", True),
        (NAMED, "admin.example.com.:443", True),
        (NAMED, "evil.example.com", False),
        (OPENED, "headgate:4001", True),
        (Hosts("0.0.0.0", frozenset({"headgate"})), "headgate:4001", True),
        (Hosts("0.0.0.0", frozenset({"headgate"})), "evil.example.com", False),
        (Hosts("127.0.0.1", frozenset({"*"})), "anything.example.com", True),
        (Hosts("gate.internal"), "gate.internal:4001", True),
    ],
)
def test_hosts(hosts: Hosts, host: str, served: bool) -> None:
    assert (hosts.problem({b"host": host.encode()}) is None) is served


@pytest.mark.parametrize(
    ("origin", "served"),
    [
        (None, True),
        ("http://127.0.0.1:4001", True),
        ("http://127.0.0.1:3000", False),
        ("http://localhost:4001", False),  # another origin than that of the address
        ("https://evil.example.com", False),
        ("null", False),
        ("", False),
        ("file://", False),
    ],
)
def test_origins(origin: str | None, served: bool) -> None:
    headers = {b"host": b"127.0.0.1:4001"} | ({} if origin is None else {b"origin": origin.encode()})
    assert (LOCAL.problem(headers) is None) is served


def test_a_page_behind_an_allowed_proxy_may_call() -> None:
    headers = {b"host": b"127.0.0.1:4001", b"origin": b"https://admin.example.com"}
    assert NAMED.problem(headers) is None and LOCAL.problem(headers) is not None


def test_the_page_names_no_other_host_and_runs_nothing() -> None:
    app = FastAPI(title="<t>", version="1", openapi_tags=[{"name": "things", "description": "`a` & b"}])

    @app.get("/things/{ident}", tags=["things"], operation_id="get_thing")
    def get_thing(ident: str, limit: int | None = None) -> dict[str, list[int]]:
        """One <thing>."""
        return {ident: [limit or 0]}

    page = docs.render(app.openapi())
    assert "&lt;t&gt;" in page and "One &lt;thing&gt;." in page and "<code>a</code> &amp; b" in page
    assert "/things/{ident}" in page and "object of list of integer" in page
    assert "<script" not in page and not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "script-src" not in docs.SAFE["content-security-policy"]
    assert docs.SAFE["content-security-policy"].startswith("default-src 'none'")
