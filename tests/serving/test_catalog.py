"""GET /models, /models/{id}, /aliases and /providers of a running data process: what is listed, in which order, what a
query selects, who may see it, and what nobody may see.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from headgate.dialects.openai_chat import read
from headgate.model import (
    FREE,
    Account,
    Alias,
    Grant,
    ModelRow,
    Price,
    PriceTier,
    Provider,
    Snapshot,
    TargetRef,
    Timeouts,
)
from headgate.policy.auth import digest
from headgate.policy.routing.router import Router
from tests.dataplane import TOKEN, DataPlane
from tests.serving.calls import Answer, body, opened
from tests.waiting import wait_until

SMALL = "hg_small_0123456789abcdef0123456789abcdef"
CHAT_ONLY = "hg_chat__0123456789abcdef0123456789abcdef"
OLD = "hg_old___0123456789abcdef0123456789abcdef"
NANO = 10**9
EXACT = Price(int(0.15 * NANO), int(0.6 * NANO), None, None, (PriceTier(200_000, NANO, None),), "genai-prices 0.2.3")
HIDDEN = ("10.1.2.3", "secret-host", "team-account", "sk-")


def snapshot(key: bytes) -> Snapshot:
    def grant(ident: str, token: str, **changes: object) -> tuple[bytes, Grant]:
        return digest(key, token.encode()), Grant(ident, ident, **changes)  # type: ignore[arg-type]

    shared = ModelRow("shared/llama", "llama-up", context_window=8192, capabilities=("tools",))
    providers = (
        Provider(
            "first", "http://secret-host:1/v1", accounts=(Account("first/team-account", "team-account"),),
            title="First & Co", training="never",
            models={
                "big": ModelRow(
                    "big", context_window=200_000, max_output=4096, capabilities=("tools", "vision"), price=EXACT
                ),
                "shared/llama": shared,
                "embed": ModelRow("embed", kind="embedding"),
            },
        ),
        Provider("keyless", "http://10.1.2.3/v1", models={"locked": ModelRow("locked", price=Price(NANO, NANO))}),
        Provider("second", "http://10.1.2.3/v1", auth="none", models={"shared/llama": shared}, origin="store"),
        Provider(
            "open", "http://10.1.2.3/v1", accounts=(Account("open/0", free=True),), origin="environment",
            catalog={"maker/model-7b": ModelRow("maker/model-7b", title="Größtes Modell", price=Price(5, 5))},
        ),
        Provider(
            "engine", "http://10.1.2.3:11434/v1", auth="none", models={"qwen:4b": ModelRow("qwen:4b")},
            origin="detected",
        ),
        Provider(
            "builtin", "http://10.1.2.3/v1", auth="none", price=FREE, origin="builtin",
            catalog={"lorem": ModelRow("lorem")},
        ),
    )  # fmt: skip
    aliases = (
        Alias("headgate/chat", (TargetRef("first/big"), TargetRef("second/shared/llama")), use_case="talk"),
        Alias("auto", (TargetRef("open/named-by-an-alias"),), origin="shipped", why="open: the only one"),
        Alias("headgate/vision", (), use_case="images", origin="shipped", why="no model sees"),
    )
    return Snapshot(
        0,
        dict(
            (
                grant("t0", TOKEN),
                grant("t1", SMALL, models=("headgate/chat", "second/shared/llama", "open/maker/model-7b")),
                grant("t2", CHAT_ONLY, scopes=("gate:chat",)),
                grant("t3", OLD, expires=1.0),
            )
        ),
        {provider.name: provider for provider in providers},
        {alias.name: alias for alias in aliases},
        timeouts=Timeouts(),
    )


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    state = tmp_path_factory.mktemp("catalog")
    (state / "instance.key").write_bytes(b"k" * 32)
    with DataPlane(state, snapshot=snapshot(b"k" * 32)) as running:
        yield running


def get(plane: DataPlane, path: str, *fields: str, token: str | None = None, method: str = "GET") -> Answer:
    lines = [*fields, f"Authorization: Bearer {token}"] if token else list(fields)
    head = "".join(f"{line}\r\n" for line in lines)
    data = f"{method} {path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{head}\r\n".encode()
    with opened(plane, data) as stream:
        if method != "HEAD":
            return stream.rest()
        stream.head()
        assert stream.buffer == b"" and stream.sock.recv(1) == b""
        return Answer(stream.status, stream.headers, b"", True)


def ids(plane: DataPlane, query: str = "", token: str | None = None) -> list[str]:
    answer = get(plane, f"/v1/models{query}", token=token)
    assert answer.status == 200, answer.raw
    return [entry["id"] for entry in answer.json["data"]]


ALL = [
    "headgate/chat", "auto", "big", "shared/llama", "embed", "locked", "open/maker/model-7b",
    "open/named-by-an-alias", "qwen:4b", "builtin/lorem",
]  # fmt: skip


# ------------------------------------------------------------------------------------- what there is


@pytest.mark.parametrize("prefix", ["/v1", "/api/gate/v1", ""])
def test_everything_that_can_be_asked_for_is_listed_once(plane: DataPlane, prefix: str) -> None:
    answer = get(plane, f"{prefix}/models")
    body = answer.json
    assert (body["object"], body["has_more"], body["total"]) == ("list", False, 10)
    assert [entry["id"] for entry in body["data"]] == ALL
    for entry in body["data"]:
        assert set(entry) == {
            "id", "object", "created", "owned_by", "type", "display_name", "created_at", "headgate",
        }  # fmt: skip
        assert entry["object"] == "model" and isinstance(entry["created"], int)
    assert answer.headers["content-type"] == "application/json"
    assert "no-cache" in answer.headers["cache-control"]


def test_an_entry_says_what_is_known_and_null_where_nothing_is(plane: DataPlane) -> None:
    rows = {entry["id"]: entry for entry in get(plane, "/v1/models").json["data"]}
    assert rows["big"] == {
        "id": "big", "object": "model", "created": 0, "owned_by": "first",
        "type": "model", "display_name": "big", "created_at": "1970-01-01T00:00:00Z",
        "headgate": {
            "alias": False, "provider": "first", "providers": ["first"], "provider_model": "big", "title": None,
            "kind": "chat", "context_window": 200_000, "max_output": 4096, "capabilities": ["tools", "vision"],
            "price": {
                "input": 0.15, "output": 0.6, "cached_input": None, "cache_write": None, "source": "genai-prices 0.2.3",
                "tiers": [{"above": 200_000, "input": 1.0, "output": None, "cached_input": None, "cache_write": None}],
            },
            "free": False, "training": "never", "origin": "file", "configured": True, "aliases": ["headgate/chat"],
            "retired": False,
            "uses_30d": 0,
        },
    }  # fmt: skip
    pool = rows["shared/llama"]["headgate"]
    assert (pool["providers"], pool["provider_model"], pool["price"]) == (["first", "second"], "llama-up", None)
    assert pool["aliases"] == ["headgate/chat"] and pool["context_window"] == 8192
    named = rows["open/named-by-an-alias"]["headgate"]
    assert (named["context_window"], named["price"], named["aliases"]) == (None, None, ["auto"])
    assert rows["open/maker/model-7b"]["headgate"]["free"]  # its account is
    assert rows["locked"]["headgate"]["configured"] is False
    assert rows["builtin/lorem"]["headgate"]["price"] == {
        "input": 0.0, "output": 0.0, "cached_input": 0.0, "cache_write": 0.0, "source": None, "tiers": [],
    }  # fmt: skip
    alias = rows["headgate/chat"]
    assert alias["owned_by"] == "headgate" and alias["headgate"]["alias"]
    assert alias["headgate"]["providers"] == ["first", "second"]
    assert (alias["headgate"]["provider_model"], alias["headgate"]["context_window"]) == ("big", 200_000)


def test_what_is_listed_is_what_the_router_resolves(plane: DataPlane) -> None:
    router = Router(snapshot(b"k" * 32))
    for name in ALL:
        if name != "locked":
            attempt = router.plan(read(body(name, headgate=None)), Grant("t", "t")).attempts[0]
            info = get(plane, f"/v1/models/{urllib.parse.quote(name, safe='')}").json["headgate"]
            assert (attempt.target.provider.name, attempt.target.upstream_model) == (
                info["provider"],
                info["provider_model"],
            )


@pytest.mark.parametrize(
    ("path", "ident", "providers"),
    [
        ("shared/llama", "shared/llama", ["first", "second"]),
        ("shared%2Fllama", "shared/llama", ["first", "second"]),
        ("second/shared/llama", "second/shared/llama", ["second"]),
        ("second%2fshared%2Fllama", "second/shared/llama", ["second"]),
        ("headgate/chat", "headgate/chat", ["first", "second"]),
        ("qwen:4b", "qwen:4b", ["engine"]),
        ("qwen%3A4b", "qwen:4b", ["engine"]),
        ("builtin/lorem", "builtin/lorem", ["builtin"]),
        ("open/named-by-an-alias", "open/named-by-an-alias", ["open"]),
    ],
)
def test_one_model_is_found_by_every_name_that_resolves(
    plane: DataPlane, path: str, ident: str, providers: list[str]
) -> None:
    for prefix in ("/v1", "/api/gate/v1", ""):
        answer = get(plane, f"{prefix}/models/{path}")
        assert answer.status == 200
        assert (answer.json["id"], answer.json["headgate"]["providers"]) == (ident, providers)


@pytest.mark.parametrize(
    "path", ["nothing", "open/nobody-knows", "nobody/big", "headgate/vision", "first/", "%ff", "%00", "x" * 300, "big/"]
)
def test_what_is_not_known_is_404(plane: DataPlane, path: str) -> None:
    answer = get(plane, f"/v1/models/{path}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


def test_the_official_client_lists_and_retrieves(plane: DataPlane) -> None:
    client = OpenAI(base_url=f"{plane.url}/v1", api_key=TOKEN)
    assert [model.id for model in client.models.list()] == ALL
    assert client.models.retrieve("shared/llama").owned_by == "first"


# ------------------------------------------------------------------------------------- what a query selects


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("provider=second", ["shared/llama"]),
        ("provider=headgate", ["headgate/chat", "auto"]),
        ("provider=nobody", []),
        ("free_only=true", ["auto", "open/maker/model-7b", "open/named-by-an-alias", "builtin/lorem"]),
        ("free_only=false&provider=keyless", ["locked"]),
        ("configured_only=1&provider=keyless", []),
        ("search=GR%C3%96SSTES", ["open/maker/model-7b"]),
        ("search=gr%C3%B6%C3%9Ftes", ["open/maker/model-7b"]),
        ("search=llama", ["shared/llama"]),
        ("capability=vision", ["headgate/chat", "big"]),
        ("capability=function_calling&provider=first", ["big", "shared/llama"]),
        ("capability=embedding", ["embed"]),
        ("sort_by=name&provider=first", ["big", "embed", "shared/llama"]),
        ("sort_by=context&limit=3", ["headgate/chat", "big", "shared/llama"]),
        ("sort_by=cost&limit=2", ["open/maker/model-7b", "headgate/chat"]),
        ("sort_by=provider&limit=3", ["qwen:4b", "big", "shared/llama"]),
        ("limit=2&offset=1", ["auto", "big"]),
        ("offset=999", []),
    ],
)
def test_queries(plane: DataPlane, query: str, expected: list[str]) -> None:
    assert ids(plane, f"?{query}") == expected


@pytest.mark.parametrize("order", ["usage", "name", "provider", "context", "cost"])
def test_the_built_in_provider_is_last_in_every_order(plane: DataPlane, order: str) -> None:
    found = ids(plane, f"?sort_by={order}")
    assert found[-1] == "builtin/lorem" and sorted(found) == sorted(ALL)


def test_pages_follow_each_other(plane: DataPlane) -> None:
    seen: list[str] = []
    for offset in range(0, 12, 3):
        body = get(plane, f"/v1/models?limit=3&offset={offset}").json
        seen += [entry["id"] for entry in body["data"]]
        assert body["total"] == 10 and body["has_more"] is (offset + 3 < 10)
    assert seen == ALL


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"), ("limit=2001", "limit"), ("limit=1.5", "limit"), ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=%D9%A3", "limit"), ("offset=-1", "offset"), ("offset=99999999999999999999", "offset"),
        ("sort_by=price", "sort_by"), ("free_only=yes", "free_only"), ("free_only", "free_only"),
        ("search=", "search"), (f"search={'x' * 201}", "search"), ("search=%00", "search"), ("provider=", "provider"),
        ("Limit=5", "Limit"), ("page=2", "page"), ("limit=5&limit=6", "limit"), ("%ff=1", "\ufffd"),
    ],
)  # fmt: skip
def test_what_is_not_a_query_is_refused_with_its_parameter(plane: DataPlane, query: str, param: str) -> None:
    answer = get(plane, f"/v1/models?{query}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_value", param)


@pytest.mark.parametrize("path", ["/v1/models/big", "/v1/aliases", "/v1/providers", "/v1/usage", "/v1/requests/x"])
def test_where_there_are_no_parameters_they_are_refused(plane: DataPlane, path: str) -> None:
    answer = get(plane, f"{path}?limit=5", token=TOKEN)
    assert (answer.status, answer.error["param"]) == (400, "limit")


# ------------------------------------------------------------------------------------- who may see it


def test_token_sees_what_it_may_use(plane: DataPlane) -> None:
    assert ids(plane, token=TOKEN) == ALL
    # by its name, or as the model that serves it: `shared/llama` is served by `first` first
    assert ids(plane, token=SMALL) == ["headgate/chat", "open/maker/model-7b"]
    assert get(plane, "/v1/models", token=SMALL).json["total"] == 2
    assert get(plane, "/v1/models/second/shared/llama", token=SMALL).status == 200
    assert get(plane, "/v1/models/embed", token=SMALL).error["code"] == "model_not_found"
    assert [row["id"] for row in get(plane, "/v1/aliases", token=SMALL).json["data"]] == ["headgate/chat"]
    assert ids(plane, token=CHAT_ONLY) == ALL  # what strangers see it sees too
    for path in ("/v1/models", "/v1/models/big", "/v1/aliases", "/v1/providers"):
        assert get(plane, path, token="hg_nobody").error["code"] == "invalid_api_key"
        assert get(plane, path, "Authorization: Basic eDp5").error["code"] == "invalid_token_format"
        assert get(plane, path, token=OLD).error["code"] == "expired_api_key"


def test_a_catalog_that_is_not_public(tmp_path: Path) -> None:
    (tmp_path / "instance.key").write_bytes(b"k" * 32)
    with DataPlane(tmp_path, snapshot=snapshot(b"k" * 32), public_catalog=False) as plane:
        for path in ("/v1/models", "/models/big", "/v1/aliases", "/api/gate/v1/providers"):
            stranger = get(plane, path)
            assert (stranger.status, stranger.headers["www-authenticate"]) == (401, "Bearer")
            assert get(plane, path, token=CHAT_ONLY).error["code"] == "scope_missing"
            assert get(plane, path, token=TOKEN).status == 200
        for path in ("/health", "/livez", "/readyz"):
            assert get(plane, path).status == 200


def test_nothing_that_strangers_must_not_know_is_said(plane: DataPlane) -> None:
    for path in ("/v1/models?limit=2000", "/v1/models/locked", "/v1/models/qwen:4b", "/v1/aliases", "/v1/providers"):
        for token in (None, TOKEN):
            text = get(plane, path, token=token).raw.decode()
            assert not [word for word in HIDDEN if word in text], path


def test_aliases_and_providers(plane: DataPlane) -> None:
    body = get(plane, "/v1/aliases").json
    assert (body["object"], body["has_more"]) == ("list", False)
    chat, auto, vision = body["data"]
    assert chat == {
        "id": "headgate/chat", "object": "headgate.alias", "use_case": "talk",
        "models": ["first/big", "second/shared/llama"], "configured": True, "origin": "file", "why": None,
        "uses_30d": 0,
    }  # fmt: skip
    assert (auto["origin"], auto["why"]) == ("shipped", "open: the only one")
    assert (vision["models"], vision["configured"], vision["why"]) == ([], False, "no model sees")
    rows = get(plane, "/v1/providers").json["data"]
    assert [row["name"] for row in rows] == ["first", "keyless", "second", "open", "engine", "builtin"]
    assert rows[0] == {
        "name": "first", "object": "headgate.provider", "title": "First & Co", "status": "ready", "models": 3,
        "training": "never", "origin": "file",
    }  # fmt: skip
    assert (rows[1]["status"], rows[3]["models"]) == ("no_key", None)


# ------------------------------------------------------------------------------------- HTTP


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/big", "/v1/aliases", "/v1/providers"])
def test_what_has_not_changed_is_not_sent_again(plane: DataPlane, path: str) -> None:
    first = get(plane, path)
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = get(plane, path, f"If-None-Match: {known}")
        assert (again.status, again.raw, again.headers["etag"]) == (304, b"", etag)
    assert get(plane, path, 'If-None-Match: "x"').raw == first.raw
    private = get(plane, path, token=TOKEN)
    assert "private" in private.headers["cache-control"] and "Authorization" in private.headers["vary"]
    head = get(plane, path, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(first.raw)))
    assert get(plane, path, method="POST").error["code"] == "method_not_allowed"


def test_browsers_of_allowed_origins_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "instance.key").write_bytes(b"k" * 32)
    with DataPlane(tmp_path, snapshot=snapshot(b"k" * 32), cors_origins=("https://app.example",)) as plane:
        answer = get(plane, "/v1/models", "Origin: https://app.example")
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        preflight = get(
            plane, "/v1/models/shared/llama", "Origin: https://app.example", "Access-Control-Request-Method: GET",
            method="OPTIONS",
        )  # fmt: skip
        assert preflight.status == 204 and "GET" in preflight.headers["access-control-allow-methods"]
        assert "access-control-allow-origin" not in get(plane, "/v1/models", "Origin: https://evil.example").headers


def test_a_client_that_reads_nothing_holds_one_answer(tmp_path: Path) -> None:
    """Pipelined large lists, each another: they wait for the client, not in our memory."""
    (tmp_path / "instance.key").write_bytes(b"k" * 32)
    rows = {f"m/{n}": ModelRow(f"m/{n}", title="t" * 200) for n in range(2000)}
    world = {"open": Provider("open", "http://127.0.0.1:9", auth="none", catalog=rows)}
    with DataPlane(tmp_path, snapshot=Snapshot(0, {}, world)) as plane:
        size = len(get(plane, "/v1/models?limit=2000").raw)
        before = plane.rss_kb()
        asked = [f"/v1/models?limit=2000&search=m/&offset={n}" for n in range(40)]
        with opened(plane, "".join(f"GET {path} HTTP/1.1\r\nHost: g\r\n\r\n" for path in asked).encode()) as stream:
            wait_until(lambda: get(plane, "/health").json["calls"] >= 1)
            assert plane.rss_kb() - before < 20 * size / 1024
            for path in asked:  # and each is answered, in order, once it reads
                stream.status, stream.raw = 0, b""
                answer = stream.rest()
                assert answer.status == 200 and len(answer.json["data"]) == 2000 - int(path.rpartition("=")[2])


# ------------------------------------------------------------------------------------- questions that need control


@pytest.mark.parametrize("ident", ["a/b", "a%2Fb", "%E2%82%AC", "a%20b", "what?is=this", "x" * 128])
def test_an_id_with_odd_characters_is_a_question_like_any_other(plane: DataPlane, ident: str) -> None:
    if "?" in ident:
        assert get(plane, f"/v1/requests/{ident}", token=TOKEN).status == 400
        ident = urllib.parse.quote(ident, safe="")
    answer = get(plane, f"/v1/requests/{ident}", token=TOKEN)
    assert (answer.status, answer.error["code"]) == (503, "control_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("ident", ["%ff", "%0d%0a", "x" * 257])
def test_what_can_be_no_id_is_not_asked(plane: DataPlane, ident: str) -> None:
    answer = get(plane, f"/v1/requests/{ident}", token=TOKEN)
    assert (answer.status, answer.error["code"]) == (404, "request_not_found")


def test_the_lists_are_json_whatever_the_names_hold(tmp_path: Path) -> None:
    (tmp_path / "instance.key").write_bytes(b"k" * 32)
    odd = 'sm"all\\\u20ac/x'
    rows = {odd: ModelRow(odd, title="</script>")}
    with DataPlane(
        tmp_path, snapshot=Snapshot(0, {}, {"p": Provider("p", "http://h", auth="none", models=rows)})
    ) as plane:
        assert ids(plane) == [odd]
        assert json.loads(get(plane, f"/v1/models/{urllib.parse.quote(odd)}").raw)["id"] == odd
