"""The proxy variables, with a real forward proxy: absolute-form for plain text, CONNECT for TLS, and who is spared."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trustme
from calls import ask
from proxies import forward_proxy
from tls import ca_file, tls_provider

from dataplane import DataPlane, upstream
from headgate.serving.connect import Dialer, origin_of
from headgate.testing import Provider

NAME = "provider.test"  # resolved by nobody but the proxy: RFC 6761 reserves .test
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_plain_text_goes_to_the_proxy_with_the_whole_url(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with forward_proxy() as proxy:
        monkeypatch.setenv(variable, f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        row = upstream(f"http://{NAME}:{provider.port}/v1")
        with DataPlane(tmp_path / "s", row) as plane:
            for _ in range(2):
                ask(plane, "up/echo").check_stream("say something please")
    head = proxy.heads[0]
    assert head.startswith(f"POST http://{NAME}:{provider.port}/v1/chat/completions HTTP/1.1\r\n".encode())
    assert f"Host: {NAME}:{provider.port}".encode() in head
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss") in head


def test_tls_goes_through_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    with forward_proxy() as proxy, tls_provider(authority, NAME) as provider:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        row = upstream(f"https://{NAME}:{provider.port}/v1", ca_file=ca_file(authority, tmp_path), auth="bearer")
        with DataPlane(tmp_path / "s", row, keys={"up/0": "sk-not-for-the-proxy"}) as plane:
            for _ in range(2):
                ask(plane, "up/echo").check_stream("say something please")
        assert provider.requests[-1].headers["authorization"] == "Bearer sk-not-for-the-proxy"
    assert [head.split(b"\r\n")[0] for head in proxy.heads] == [f"CONNECT {NAME}:{provider.port} HTTP/1.1".encode()]
    assert not any(b"sk-not-for-the-proxy" in head for head in proxy.heads)


def test_a_proxy_that_refuses_the_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with forward_proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with DataPlane(tmp_path / "s", upstream(f"https://{NAME}/v1")) as plane:
            answer = ask(plane, "up/m")
            assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
            assert "407" in answer.error["message"]


def test_loopback_is_reached_directly(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        with DataPlane(tmp_path / "s", upstream(provider.url)) as plane:
            ask(plane, "up/echo").check_stream("say something please")
        assert proxy.heads == []


def test_a_proxy_variable_that_is_not_understood_stops_the_start_with_a_sentence(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(AssertionError, match="proxy"):  # what the harness says where the process answers Failed
        DataPlane(tmp_path / "s", upstream(provider.url))


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "api.example.com", False),
        ("example.com", "api.example.com", True),
        (".example.com", "api.example.com", True),
        ("example.com", "example.com", True),
        ("ample.com", "example.com", False),
        ("other.org, example.com", "example.com", True),
        ("*", "anything.org", True),
        ("", "localhost", True),
        ("", "127.0.0.5", True),
        ("", "::1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("EXAMPLE.com", "example.com", True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, direct: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    dialer = Dialer({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy})
    assert (dialer.plain_proxy(origin_of(f"http://{shown}/v1")) is None) is direct


def test_the_lower_case_variable_wins() -> None:
    for environment in (
        {"HTTP_PROXY": "http://upper:1", "http_proxy": "http://lower:2"},
        {"http_proxy": "http://lower:2", "HTTP_PROXY": "http://upper:1"},
    ):
        found = Dialer(environment).plain_proxy(origin_of("http://example.com/v1"))
        assert found is not None and (found.host, found.port) == ("lower", 2)
