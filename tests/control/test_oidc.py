"""Login with an OpenID Connect provider: a real one on a socket, a real control process, a browser's steps."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from headgate.control.api.access.oidc_logins import _known
from headgate.control.identity.oidc import OidcUser, role_of
from headgate.control.store.database import open_store
from headgate.process.boot import AccessSettings, OidcSettings
from headgate.settings import ConfigError, control_fields, load
from headgate.settings import oidc as oidc_table
from tests.control.child import Child
from tests.control.oidc_provider import Provider
from tests.ports import free_port
from tests.waiting import wait_until

ROLES = {"staff": "viewer", "oncall": "operator", "root": "admin", "acme": "tenant_admin:acme"}
LOGIN = "/admin/v1/oidc/login"
CALLBACK = "/admin/v1/oidc/callback"
CANARY = "client-secret-canary"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def child(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    port = free_port()
    ident, secret = provider.register(f"http://127.0.0.1:{port}{CALLBACK}")
    oidc = OidcSettings(provider.url, ident, secret, "openid profile email", "realm.roles", ROLES)
    with Child(tmp_path_factory.mktemp("oidc"), port=port, access=AccessSettings(oidc=oidc)) as running:
        yield running


@pytest.fixture(autouse=True)
def honest(provider: Provider) -> Iterator[None]:
    yield
    provider.tamper, provider.holds_pkce = None, True


class Visitor:
    """A browser on its way through a login."""

    def __init__(self, child: Child, provider: Provider) -> None:
        self.client = httpx2.Client(base_url=child.url, trust_env=False, verify=False, timeout=60)
        self.provider = provider

    def begin(self) -> str:
        answer = self.client.get(LOGIN)
        assert answer.status_code == 302, answer.text
        return str(answer.headers["location"])

    def log_in(self, sub: str) -> httpx2.Response:
        return self.client.get(self.provider.consent(self.begin(), sub))

    def me(self) -> dict[str, Any]:
        return dict(self.client.get("/admin/v1/me").json())


def test_login_opens_a_session_with_the_claims_role(child: Child, provider: Provider) -> None:
    claims = {"preferred_username": "ada", "email": "ada@example.com", "email_verified": True}
    provider.put_user("sub-ada", realm={"roles": ["staff", "oncall", "else"]}, **claims)
    visitor = Visitor(child, provider)
    location = urlsplit(visitor.begin())
    asked = {name: values[0] for name, values in parse_qs(location.query).items()}
    assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43 and len(asked["state"]) >= 43 and len(asked["nonce"]) >= 43
    page = visitor.log_in("sub-ada")
    assert page.status_code == 200 and "logged in as ada (operator)" in page.text
    cookie = next(one for one in page.headers.get_list("set-cookie") if one.startswith("headgate="))
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert (visitor.me()["name"], visitor.me()["role"]) == ("ada", "operator")
    user = child.call("GET", "/admin/v1/users/ada").json()
    assert (user["oidc"], user["password"], user["email"]) == (True, False, "ada@example.com")
    (row,) = child.call("GET", f"/admin/v1/audit?noun=user&id={user['id']}").json()["data"]
    assert (row["actor_kind"], row["action"]) == ("oidc", "created")

    provider.put_user("sub-ada", realm={"roles": ["acme"]}, **claims)  # the provider decides at each login
    assert visitor.log_in("sub-ada").status_code == 200
    assert (visitor.me()["role"], visitor.me()["tenant"]) == ("tenant_admin", "acme")

    provider.put_user("sub-ada", realm={"roles": ["guest"]}, **claims)  # all roles are gone: sessions elsewhere end too
    assert "no role" in Visitor(child, provider).log_in("sub-ada").text
    assert visitor.client.get("/admin/v1/me").status_code == 401
    ended = child.call("GET", "/admin/v1/audit?noun=session").json()["data"][0]
    assert (ended["actor_kind"], ended["action"]) == ("oidc", "ended")

    provider.put_user("sub-ada", realm={"roles": ["staff"]}, **claims)
    assert visitor.log_in("sub-ada").status_code == 200
    assert child.call("PATCH", "/admin/v1/users/ada", json={"disabled": True}).is_success
    assert visitor.log_in("sub-ada").status_code == 401 and visitor.client.get("/admin/v1/me").status_code == 401


def test_names_and_emails_of_other_users_are_not_taken_over(child: Child, provider: Provider) -> None:
    wish = {"name": "bob", "role": "admin", "email": "bob@example.com", "password": "a-good-password-1"}
    assert child.call("POST", "/admin/v1/users", json=wish).is_success
    provider.put_user(
        "sub-bob", realm={"roles": ["staff"]}, preferred_username="bob", email="bob@example.com", email_verified=True
    )
    visitor = Visitor(child, provider)
    assert visitor.log_in("sub-bob").status_code == 200
    assert (visitor.me()["name"], visitor.me()["role"]) == ("bob-2", "viewer")
    assert child.call("GET", "/admin/v1/users/bob-2").json()["email"] is None
    provider.put_user("sub-odd", realm={"roles": "staff"}, preferred_username='<b>"é', email="x@y.z")
    assert "<b>" not in visitor.log_in("sub-odd").text
    assert visitor.me()["role"] == "viewer"


def test_users_without_a_role_stay_outside(child: Child, provider: Provider) -> None:
    provider.put_user("sub-none", realm={"roles": ["guest", 7, None]}, preferred_username="none")
    visitor = Visitor(child, provider)
    page = visitor.log_in("sub-none")
    assert page.status_code == 401 and "no role" in page.text and not visitor.client.cookies.get("headgate")
    assert child.call("GET", "/admin/v1/users/none").status_code == 404


def test_a_login_is_good_once_and_in_its_own_browser(child: Child, provider: Provider) -> None:
    provider.put_user("sub-eve", realm={"roles": ["staff"]}, preferred_username="eve")
    visitor, other = Visitor(child, provider), Visitor(child, provider)
    callback = provider.consent(visitor.begin(), "sub-eve")
    assert other.client.get(callback).status_code == 401  # login CSRF: another browser's callback
    other.begin()
    assert other.client.get(callback).status_code == 401
    state = parse_qs(urlsplit(callback).query)["state"][0]
    assert visitor.client.get(f"{CALLBACK}?state={state}&error=access_denied").status_code == 401
    assert visitor.client.get(callback).status_code == 401  # it was used by the refusal
    assert visitor.client.get(f"{CALLBACK}?state=x&code=x").status_code == 401
    assert visitor.client.get(CALLBACK).status_code == 401
    fresh = provider.consent(visitor.begin(), "sub-eve")
    assert visitor.client.get(fresh + "&iss=https://evil.example.com").status_code == 401
    good = provider.consent(visitor.begin(), "sub-eve")
    assert visitor.client.get(good).status_code == 200 and visitor.client.get(good).status_code == 401


@pytest.mark.parametrize("holds_pkce", [True, False])
def test_another_logins_code_is_refused(child: Child, provider: Provider, holds_pkce: bool) -> None:
    """Code injection: by PKCE, and by the nonce where the provider does not hold to PKCE."""
    provider.put_user("sub-mal", realm={"roles": ["root"]}, preferred_username="mal")
    provider.holds_pkce = holds_pkce
    victim, attacker = Visitor(child, provider), Visitor(child, provider)
    stolen = parse_qs(urlsplit(provider.consent(attacker.begin(), "sub-mal")).query)["code"][0]
    state = parse_qs(urlsplit(victim.begin()).query)["state"][0]
    assert victim.client.get(f"{CALLBACK}?state={state}&code={stolen}").status_code == 401
    assert not victim.client.cookies.get("headgate")


def _signed(key: Any, alg: str, **changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def tamper(tokens: dict[str, Any]) -> dict[str, Any]:
        payload = tokens["id_token"].split(".")[1]
        claims = json.loads(_b64decode(payload)) | changes
        return {**tokens, "id_token": jwt.encode({"alg": alg}, claims, key, algorithms=[alg])}

    return tamper


def _b64decode(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _unsigned(tokens: dict[str, Any]) -> dict[str, Any]:
    header = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    return {**tokens, "id_token": f"{header}.{tokens['id_token'].split('.')[1]}."}


@pytest.mark.parametrize(
    "tamper",
    [
        _unsigned,
        _signed(RSAKey.generate_key(2048), "RS256"),
        _signed(OctKey.import_key("x" * 32), "HS256"),
        lambda tokens: {**tokens, "id_token": ""},
        lambda tokens: {**tokens, "id_token": "a.b.c"},
        lambda tokens: {"access_token": tokens["access_token"]},
        lambda tokens: {},
    ],
    ids=["unsigned", "foreign key", "symmetric", "empty", "nonsense", "missing", "nothing"],
)
def test_bad_id_tokens_are_refused(child: Child, provider: Provider, tamper: Any) -> None:
    provider.put_user("sub-root", realm={"roles": ["root"]}, preferred_username="root")
    provider.tamper = tamper
    visitor = Visitor(child, provider)
    page = visitor.log_in("sub-root")
    assert page.status_code == 401 and "log says why" in page.text
    assert not visitor.client.cookies.get("headgate")
    assert "Traceback" not in child.log.read_text()


def test_other_clients_tokens_are_refused(child: Child, provider: Provider, tmp_path: Path) -> None:
    port = free_port()
    ident, secret = provider.register(f"http://127.0.0.1:{port}{CALLBACK}")
    provider.put_user("sub-ada2", realm={"roles": ["staff"]}, preferred_username="ada2")
    access = AccessSettings(oidc=OidcSettings(provider.url, ident, secret + "x", "openid", "realm.roles", ROLES))
    with Child(tmp_path, port=port, access=access) as wrong:
        assert Visitor(wrong, provider).log_in("sub-ada2").status_code == 401  # a wrong client secret
        assert secret not in wrong.log.read_text()
    taken: dict[str, str] = {}
    provider.tamper = lambda tokens: taken.update(tokens) or tokens
    assert Visitor(child, provider).log_in("sub-ada2").status_code == 200
    access = AccessSettings(oidc=OidcSettings(provider.url, ident, secret, "openid", "realm.roles", ROLES))
    with Child(tmp_path, port=port, access=access) as other:
        provider.tamper = lambda tokens: {**tokens, "id_token": taken["id_token"]}
        assert Visitor(other, provider).log_in("sub-ada2").status_code == 401  # made for another audience


def test_unreachable_oidc_provider_answers_502(tmp_path: Path) -> None:
    oidc = OidcSettings("http://127.0.0.1:9", "id", CANARY, "openid", "roles", ROLES)
    with Child(tmp_path, access=AccessSettings(oidc=oidc)) as child:
        answer = child.call("GET", "/admin/v1/oidc/login", None)
        assert (answer.status_code, "log says why" in answer.text) == (502, True)
        assert child.call("GET", "/admin/v1/health").is_success and CANARY not in child.log.read_text()


def test_without_a_provider_there_is_no_login(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        for path in ("/admin/v1/oidc/login", CALLBACK):
            answer = child.call("GET", path, None)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "oidc_not_configured")


def test_the_highest_role_counts() -> None:
    assert role_of(["staff", "root", "x"], ROLES) == ("admin", None)
    assert role_of("acme", ROLES) == ("tenant_admin", "acme")
    assert role_of(["acme", "staff"], ROLES) == ("viewer", None)
    for claim in (None, [], "x", 7, {"root": 1}, [["root"]]):
        assert role_of(claim, ROLES) == (None, None)


def test_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "headgate.yaml"
    client = f"issuer: https://id.example.com/realms/x, client_id: gate, client_secret: {CANARY}"
    good = f"{{{client}, roles: {{staff: viewer}}}}"
    file.write_text(f"control: {{oidc: {good}}}\n")
    told = control_fields(load(str(file), {}))["access"].oidc
    assert told is not None and told.client_secret == CANARY and CANARY not in repr(told)
    for broken, words in (
        (good.replace("https", "http"), "must be https://"),
        (good.replace("staff: viewer", "staff: owner"), "control.oidc.roles"),
        (good.replace("{staff: viewer}", "{}"), "control.oidc.roles"),
        (good.replace("client_id: gate, ", ""), "client_id"),
        (good.replace("roles", "rolls"), "roles"),
    ):
        file.write_text(f"control: {{oidc: {broken}}}\n")
        with pytest.raises(ConfigError) as error:
            load(str(file), {})
        assert words in str(error.value) and CANARY not in str(error.value)
    file.write_text(f"control: {{oidc: {good}}}\n")
    found = importlib.util.find_spec
    monkeypatch.setattr(oidc_table.importlib.util, "find_spec", lambda name: None if name == "authlib" else found(name))
    with pytest.raises(ConfigError, match=r"install headgate\[oidc\]"):
        load(str(file), {})


def test_a_login_expires(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from headgate.control.identity.oidc import LOGIN_S, Oidc, OidcFailed

    async def late() -> None:
        client = Oidc(OidcSettings(provider.url, "id", "s", "openid", "roles", ROLES))
        _url, state = await client.begin("http://127.0.0.1/x")
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + LOGIN_S)
        with pytest.raises(OidcFailed, match="expired"):
            await client.finish({"state": state, "code": "x"}, state)

    asyncio.run(late())


def test_first_logins_at_once_make_one_user(tmp_path: Path) -> None:
    found = OidcUser("https://id.example.com", "sub-1", "ann", "ann@example.com", "viewer", None)

    async def main() -> None:
        engine = await open_store(f"sqlite:///{tmp_path}/headgate.db")
        try:
            known = await asyncio.gather(*(_known(engine, found, "192.0.2.1") for _login in range(8)))
            assert {(user.id, user.name) for user in known} == {(known[0].id, "ann")}
        finally:
            await engine.dispose()

    asyncio.run(main())


def test_logins_that_only_begin_are_throttled(child: Child, provider: Provider) -> None:  # the last: they are used up
    visitor = Visitor(child, provider)
    answer = wait_until(lambda: refused if (refused := visitor.client.get(LOGIN)).status_code != 302 else None)
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "too_many_logins"
    assert int(answer.headers["retry-after"]) >= 1
