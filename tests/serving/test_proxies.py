"""The proxy variables, with a real forward proxy: absolute-form for plain text, CONNECT for TLS, and who is spared."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
import trustme

from headgate.control.objects.discovery.probe import check
from headgate.model import Provider as ProviderRow
from headgate.serving.upstream.dialler import Dialer, origin_of
from headgate.testing import Provider
from headgate.wire.proxies import Proxies, ProxyNotServed, problem
from tests.dataplane import DataPlane, upstream
from tests.serving.calls import ask
from tests.serving.proxies import forward_proxy
from tests.serving.tls import ca_file, tls_provider

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


def test_bad_proxy_variable_stops_the_start(
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
        ("example.com", "EXAMPLE.com", True),
        # networks
        ("192.0.2.0/24", "192.0.2.2", True),
        ("192.0.2.9/24", "192.0.2.2", True),
        ("192.0.2.0/24", "192.0.3.2", False),
        ("192.0.2.0/24", "192.0.2.2.example.com", False),
        ("fd00::/8", "fd00::7", True),
        ("[fd00::]/8", "fd00::7", True),
        ("fd00::/8", "fe80::7", False),
        ("0.0.0.0/0", "198.51.100.7", True),
        ("192.0.2.0/99", "192.0.2.2", False),
        # blanks, in every place
        ("a.internal 192.0.2.2", "192.0.2.2", True),
        ("a.internal,\t192.0.2.2 ,", "192.0.2.2", True),
        (" , ,", "192.0.2.2", False),
        # brackets, and other spellings of an address
        ("[fd00::1]", "fd00::1", True),
        ("fd00:0:0::1", "fd00::1", True),
        ("::ffff:192.0.2.2", "192.0.2.2", True),
        ("192.0.2.2", "::ffff:192.0.2.2", True),
        ("192.0.2.0/24", "::ffff:192.0.2.2", True),
        ("", "::ffff:127.0.0.1", True),
        # dots at the end
        ("example.com.", "example.com", True),
        ("example.com", "example.com.", True),
        ("example.com.", "api.example.com.", True),
        # stars
        ("*.svc.cluster.local", "vllm.svc.cluster.local", True),
        ("*.svc.cluster.local", "svc.cluster.local", False),
        ("192.0.2.*", "192.0.2.7", True),
        # ports
        ("vllm:8000", "vllm:8000", True),
        ("vllm:8000", "vllm:9000", False),
        ("192.0.2.2:8000", "192.0.2.2:8000", True),
        ("[fd00::1]:8000", "[fd00::1]:8000", True),
        ("192.0.2.2:80", "192.0.2.2", True),
        ("http://example.com/", "example.com", True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, direct: bool) -> None:
    shown = f"[{host}]" if host.count(":") > 1 and "[" not in host else host
    dialer = Dialer({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy})
    assert (dialer.plain_proxy(origin_of(f"http://{shown}/v1")) is None) is direct


def test_the_lower_case_variable_wins() -> None:
    for environment in (
        {"HTTP_PROXY": "http://upper:1", "http_proxy": "http://lower:2"},
        {"http_proxy": "http://lower:2", "HTTP_PROXY": "http://upper:1"},
    ):
        found = Dialer(environment).plain_proxy(origin_of("http://example.com/v1"))
        assert found is not None and (found.host, found.port) == ("lower", 2)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("http://proxy:port", "the port a number"),
        ("http://[::1", "cannot be read"),
        ("http://proxy:99999", "the port a number"),
        ("http://user:canary/ss@proxy:3128", "percent-encoded"),
        ("http://user:canary#ss@proxy:3128", "percent-encoded"),
        ("http://user:canary?ss@proxy:3128", "percent-encoded"),
        ("http://user:canary word@proxy:3128", "blank"),
        ("http://proxy:31\n28", "blank or a control character"),
        ("http://", "no host"),
        ("http://:3128", "no host"),
        ("http://user:canary@", "no host"),
        ("socks5://user:canary@proxy:1080", "socks5:// proxy; only http://"),
        ("https://user:canary@proxy:3128", "https:// proxy; only http://"),
        ("ca/nary://x", "no proxy"),
        ("http://" + "a" * 70 + ".example:3128", "cannot be read"),
    ],
)
@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "All_Proxy"])
def test_variables_that_cannot_be_followed(variable: str, value: str, words: str) -> None:
    sentence = problem({variable: value})
    assert sentence is not None and words in sentence and sentence.startswith(variable)
    assert "canary" not in sentence and "nary" not in sentence
    with pytest.raises(ProxyNotServed):
        Dialer({variable: value})


@pytest.mark.parametrize(
    ("value", "host", "port", "login"),
    [
        ("http://127.0.0.1:3128 ", "127.0.0.1", 3128, None),
        ("\thttp://proxy:3128/\n", "proxy", 3128, None),
        ("proxy:3128", "proxy", 3128, None),
        ("HTTP://proxy", "proxy", 80, None),
        ("http://[fd00::1]:3128", "fd00::1", 3128, None),
        ("http://user@proxy:3128", "proxy", 3128, b"user:"),
        ("http://us%40er:p%2Fa%3Ass@proxy:3128", "proxy", 3128, b"us@er:p/a:ss"),
        ("http://user:p@ss@proxy:3128", "proxy", 3128, b"user:p@ss"),
        ("http://b%C3%BC:%ff@proxy:3128", "proxy", 3128, "bü:".encode() + b"\xff"),
    ],
)
def test_variables_that_can_be_followed(value: str, host: str, port: int, login: bytes | None) -> None:
    found = Proxies({"http_proxy": value}).of(False, "example.com", 80)
    assert found is not None and (found.host, found.port) == (host, port)
    assert found.authorization == (
        b"" if login is None else b"Proxy-Authorization: Basic " + base64.b64encode(login) + b"\r\n"
    )


@pytest.mark.parametrize("value", ["", "   "])
def test_an_empty_variable_is_none(value: str) -> None:
    assert Proxies({"http_proxy": value, "all_proxy": ""}).of(False, "example.com", 80) is None


@pytest.mark.parametrize("spared", ["", "127.0.0.0/8", NAME])
def test_a_check_of_a_provider_takes_the_way_of_its_traffic(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, spared: str
) -> None:
    row = ProviderRow("up", f"http://{NAME}:{provider.port}/v1", auth="none")
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port} ")
        monkeypatch.setenv("NO_PROXY", spared)
        [result] = asyncio.run(check(row, {}))
    if spared == NAME:
        assert not result.ok and proxy.heads == []
    else:
        assert result.ok, result
        assert b"Basic " + base64.b64encode(b"user:p@ss") in proxy.heads[0]


def test_a_check_goes_through_a_tunnel_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    with forward_proxy() as proxy, tls_provider(authority, NAME) as provider:
        monkeypatch.setenv("https_proxy", f"user:pw@127.0.0.1:{proxy.port}")
        trusted = ca_file(authority, tmp_path)
        row = ProviderRow("up", f"https://{NAME}:{provider.port}/v1", auth="none", ca_file=trusted)
        [result] = asyncio.run(check(row, {}))
    assert result.ok, result
    assert proxy.heads[0].startswith(f"CONNECT {NAME}:{provider.port} ".encode())
    assert base64.b64encode(b"user:pw") in proxy.heads[0]
