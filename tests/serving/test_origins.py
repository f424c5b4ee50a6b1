"""Where a request goes and how it shows who it is: names, addresses, TLS, headers, keys."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
import trustme

from headgate.testing import Provider
from tests.dataplane import DataPlane, upstream
from tests.ports import free_port
from tests.serving.calls import STREAM_HEAD, ask, chunk_event, chunked, transcript, whole_stream
from tests.serving.tls import TlsServer, ca_file, server_context


def test_an_unreachable_provider(tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(f"http://127.0.0.1:{free_port()}/v1")) as plane:
        answer = ask(plane, "up/m")
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
        assert "refused" in answer.error["message"] and "127.0.0.1" not in answer.raw.decode()


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream("http://nowhere.invalid/v1")) as plane:
        answer = ask(plane, "up/m")
        assert answer.status in (502, 504) and answer.error["code"] in ("upstream_unreachable", "upstream_timeout")


def test_a_name_with_two_addresses_of_which_one_answers(provider: Provider, tmp_path: Path) -> None:
    """``localhost`` is 127.0.0.1 and, on most machines, ::1, where nobody listens."""
    with DataPlane(tmp_path / "s", upstream(provider.url.replace("127.0.0.1", "localhost"))) as plane:
        ask(plane, "up/echo").check_stream("say something please")


def test_the_request_that_arrives(provider: Provider, tmp_path: Path) -> None:
    row = upstream(
        provider.url, auth="bearer", headers={"X-Row": "ours"}, forward_headers=("openai-project", "cookie", "x-gone"),
    )  # fmt: skip
    with DataPlane(tmp_path / "s", row, keys={"up/0": "sk-up-secret"}) as plane:
        sent = (
            "OpenAI-Project: proj_1",
            "Cookie: a=b",
            "X-Other: no",
            "OpenAI-Organization: org",
            "User-Agent: test/1",
        )
        assert ask(plane, "up/echo", *sent).status == 200
    headers = provider.requests[-1].headers
    assert headers["authorization"] == "Bearer sk-up-secret" and headers["x-row"] == "ours"
    assert headers["openai-project"] == "proj_1" and headers["host"] == f"127.0.0.1:{provider.port}"
    assert headers["accept"] == "text/event-stream" and headers["accept-encoding"] == "identity"
    assert not {"cookie", "x-other", "openai-organization", "x-request-id", "connection"} & set(headers)
    assert "test" not in headers["user-agent"]


@pytest.mark.parametrize("auth", ["bearer", "x-api-key", "api-key", "query", "none"])
def test_each_way_to_show_a_key(provider: Provider, tmp_path: Path, auth: str) -> None:
    key = "sk-a/b+c"
    with DataPlane(tmp_path / "s", upstream(provider.url, auth=auth), keys={"up/0": key}) as plane:
        assert ask(plane, "up/echo").status == 200
    seen = provider.requests[-1]
    found = {name: seen.headers.get(name) for name in ("authorization", "x-api-key", "api-key")}
    expected: dict[str, str | None] = dict.fromkeys(found)
    if auth == "bearer":
        expected["authorization"] = f"Bearer {key}"
    elif auth in expected:
        expected[auth] = key
    assert found == expected
    assert seen.path == "/v1/chat/completions" + ("?key=sk-a%2Fb%2Bc" if auth == "query" else "")


def test_an_account_whose_key_is_not_known_here(provider: Provider, tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(provider.url, auth="bearer")) as plane:
        answer = ask(plane, "up/echo")
        assert (answer.status, answer.error["code"]) == (503, "no_provider_key") and "retry-after" in answer.headers


# ------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    ("names", "trusted", "status", "says"),
    [
        (("127.0.0.1",), True, 200, ""),
        (("127.0.0.1",), False, 502, "certificate is not trusted"),
        (("other.example",), True, 502, "certificate is not trusted"),
    ],
)
def test_tls(
    authority: trustme.CA, tmp_path: Path, names: tuple[str, ...], trusted: bool, status: int, says: str
) -> None:
    server = TlsServer(server_context(authority, *names), whole_stream(transcript("secret")))
    row = upstream(f"https://127.0.0.1:{server.port}/v1", ca_file=ca_file(authority, tmp_path) if trusted else None)
    with DataPlane(tmp_path / "s", row) as plane:
        answers = [ask(plane, "up/m") for _ in range(3)]
        assert [answer.status for answer in answers] == [status] * 3
        if says:
            assert says in answers[0].error["message"] and answers[0].error["code"] == "upstream_unreachable"
        else:
            answers[0].check_stream("secret")
            assert server.connections == 1 and server.protocols == ["http/1.1"]
    server.close()


def test_plain_text_where_tls_is_expected(provider: Provider, tmp_path: Path) -> None:
    with DataPlane(tmp_path / "s", upstream(provider.url.replace("http:", "https:"))) as plane:
        answer = ask(plane, "up/m")
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")


def test_what_a_tls_upstream_sent_before_it_cut_is_relayed(authority: trustme.CA, tmp_path: Path) -> None:
    """A TLS end without close_notify is a cut like any other."""
    context = server_context(authority, "127.0.0.1")
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listening.accept()
        secured = context.wrap_socket(sock, server_side=True)
        secured.recv(65536)
        secured.sendall(STREAM_HEAD + chunked(chunk_event({"content": "half"})))
        time.sleep(0.1)
        secured.shutdown(socket.SHUT_RDWR)
        secured.close()

    threading.Thread(target=serve, daemon=True).start()
    row = upstream(f"https://127.0.0.1:{listening.getsockname()[1]}/v1", ca_file=ca_file(authority, tmp_path))
    with DataPlane(tmp_path / "s", row) as plane:
        answer = ask(plane, "up/m")
        answer.check_truncated("upstream_cut")
        assert answer.text == "half"
    listening.close()
