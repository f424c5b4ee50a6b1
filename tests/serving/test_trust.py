"""Certificate authorities: what a CA file may be, and one that is replaced while the gateway runs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from headgate.control.objects.discovery.probe import check
from headgate.model import Provider as ProviderRow
from headgate.process import trust
from headgate.testing import Provider
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import ask
from tests.serving.tls import ca_file, tls_provider
from tests.waiting import wait_until

AUTHORITY, OTHER = trustme.CA(), trustme.CA()
PEM = AUTHORITY.cert_pem.bytes()
DER = base64.b64decode(b"".join(PEM.split(b"\n")[1:-2]))
KEY = AUTHORITY.private_key_pem.bytes()
BROKEN = PEM[:100] + b"AAAA" + PEM[104:]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PEM, None),
        (PEM + OTHER.cert_pem.bytes(), None),
        ("# Größte Zertifizierungsstelle\n".encode() + PEM.replace(b"\n", b"\r\n"), None),
        (KEY + PEM, None),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (DER, "DER"),
        (KEY, "private key and no certificate"),
        (b"this is no certificate", "holds no certificate"),
        (b"-----BEGIN PKCS7-----\nMA==\n-----END PKCS7-----\n", "holds a pkcs7 and no certificate"),
        (BROKEN, "cannot be read"),
        (PEM[: len(PEM) // 2], "cannot be read"),
    ],
)
def test_what_a_ca_file_may_be(content: bytes, words: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    found = trust.problem(path)
    assert found is None if words is None else words in str(found)


def test_what_is_no_file(tmp_path: Path) -> None:
    assert trust.problem(tmp_path) == "is no file"
    assert trust.problem(tmp_path / "nothing") == "does not exist"


@contextmanager
def provider_of(authority: trustme.CA) -> Iterator[Provider]:
    with tls_provider(authority, "127.0.0.1") as provider:
        yield provider


def test_a_replaced_authority_is_used_without_a_restart(tmp_path: Path) -> None:
    """Both ways: what the new one signed is trusted, what only the old one signed is not any more."""
    trusted = ca_file(AUTHORITY, tmp_path)
    with provider_of(AUTHORITY) as old, provider_of(OTHER) as new:
        rows = [
            upstream(f"https://127.0.0.1:{one.port}/v1", name, ca_file=trusted)
            for one, name in ((old, "a"), (new, "b"))
        ]
        with DataPlane(tmp_path / "s", *rows) as plane:
            assert ask(plane, "a/echo").status == 200  # its connection goes into the pool
            assert ask(plane, "b/echo").status == 502
            Path(trusted).write_bytes(b"-----BEGIN CERTIFICATE-----\nhalf of it")
            closed = old.accepted
            wait_until(lambda: ask(plane, "a/echo").status == 200 and old.accepted > closed)
            assert ask(plane, "a/echo").status == 200, "the former authority stays while the file is unsound"
            ca_file(OTHER, tmp_path)
            assert ask(plane, "b/echo").status == 200
            wait_until(lambda: ask(plane, "a/echo").status == 502)


def test_a_check_reads_the_file_anew(tmp_path: Path) -> None:
    with provider_of(OTHER) as provider:
        trusted = ca_file(AUTHORITY, tmp_path)
        row = ProviderRow("up", f"https://127.0.0.1:{provider.port}/v1", auth="none", ca_file=trusted)
        assert not asyncio.run(check(row, {}))[0].ok
        ca_file(OTHER, tmp_path)
        assert asyncio.run(check(row, {}))[0].ok
        Path(row.ca_file or "").write_bytes(DER)
        [result] = asyncio.run(check(row, {}))
        assert not result.ok and "DER" in result.message
