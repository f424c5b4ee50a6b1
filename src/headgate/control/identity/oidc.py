"""Login with an OpenID Connect provider: authorization code with PKCE, state and nonce.

Authlib (the extra ``oidc``) makes the requests' parts and proves the ID token; httpx2 carries them.  Owns the logins
that have begun, in memory: each is good once, for LOGIN_S, in the browser that began it.  Only asymmetric signatures
count.  Raises OidcFailed with a sentence; what the provider answered goes to the log alone.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import structlog

from headgate.catalog.words import Role
from headgate.control.identity.roles import ROLES
from headgate.model.bounded import Bounded
from headgate.process.boot import OidcSettings

LOGIN_S = 600.0
MAX_BEGUN = 1000
FRESH_S = 3600.0  # the provider's metadata and keys are read again after that
REREAD_S = 30.0  # and for an unknown key, no more often
CALL_S = 10.0
MAX_ANSWER = 1 << 20
LEEWAY_S = 60
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")

log = structlog.get_logger("headgate.api")


class OidcFailed(Exception):
    """The login did not succeed.  The message is a sentence for the person at the browser."""


@dataclass(frozen=True, slots=True)
class OidcUser:
    """Who the provider says it is.  ``email`` only where the provider has verified it; ``role`` None: it has none."""

    issuer: str
    subject: str
    name: str
    email: str | None
    role: Role | None
    tenant: str | None


@dataclass(frozen=True, slots=True)
class _Begun:
    nonce: str
    verifier: str
    redirect_uri: str
    until: float


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What discovery has found.  ``keys``: the provider's, as JSON Web Keys."""

    issuer: str
    authorize: str
    token: str
    userinfo: str | None
    jwks: str
    auth_method: str
    algorithms: tuple[str, ...]
    keys: Mapping[str, Any]
    read_at: float


class Oidc:
    """One provider.  Mutable: what discovery has found, and the logins that have begun."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._begun: Bounded[str, _Begun] = Bounded(MAX_BEGUN)
        self._found: _Metadata | None = None

    async def begin(self, redirect_uri: str) -> tuple[str, str]:
        """Where to send the browser, and the state that it has to bring back.  Raises OidcFailed."""
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # noqa: PLC0415 - an extra
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415

        found = await self._metadata()
        state, until = secrets.token_urlsafe(32), time.monotonic() + LOGIN_S
        begun = _Begun(secrets.token_urlsafe(32), secrets.token_urlsafe(48), redirect_uri, until)
        self._begun.put(state, begun)
        url: str = prepare_grant_uri(
            found.authorize,
            client_id=self._settings.client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=self._settings.scope,
            state=state,
            nonce=begun.nonce,
            code_challenge=create_s256_code_challenge(begun.verifier),
            code_challenge_method="S256",
        )
        return url, state

    async def finish(self, answer: Mapping[str, str], browser_state: str) -> OidcUser:
        """The user of a login that ends at the callback.  ``answer``: its query; ``browser_state``: of the browser's
        cookie.  Raises OidcFailed.
        """
        state = answer.get("state", "")
        if not state or not hmac.compare_digest(state.encode(), browser_state.encode()):
            raise OidcFailed("This login was not begun in this browser; begin it again.")
        begun = self._begun.pop(state, None)
        if begun is None or begun.until <= time.monotonic():
            raise OidcFailed("This login has expired or was used already; begin it again.")
        found = await self._metadata()
        if answer.get("iss", found.issuer) != found.issuer:  # RFC 9207
            raise self._failed("the answer comes from another issuer")
        if "error" in answer or not answer.get("code"):
            raise self._failed(f"the provider refused: {answer.get('error', 'no code')[:100]!r}")
        tokens = await self._tokens(found, answer["code"], begun)
        claims = await self._proven(found, tokens, begun.nonce)
        if found.userinfo is not None and _claim(claims, self._settings.role_claim) is None:
            claims = {**await self._userinfo(found, tokens, claims), **claims}
        return self._user(found, claims)

    # --------------------------------------------------------------------------------- the provider's answers

    async def _metadata(self, renew: bool = False) -> _Metadata:
        age = time.monotonic() - self._found.read_at if self._found else FRESH_S
        if self._found is not None and age < (REREAD_S if renew else FRESH_S):
            return self._found
        from authlib.oidc.discovery import get_well_known_url  # noqa: PLC0415 - an extra

        issuer = self._settings.issuer
        told = await self._call("GET", get_well_known_url(issuer, external=True))
        try:
            if str(told["issuer"]).rstrip("/") != issuer.rstrip("/"):
                raise self._failed("its metadata names another issuer")
            methods = told.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
            signed = told.get("id_token_signing_alg_values_supported") or ["RS256"]
            method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
            keys = await self._call("GET", self._endpoint(told["jwks_uri"]))
            self._found = _Metadata(
                issuer=told["issuer"],
                authorize=self._endpoint(told["authorization_endpoint"]),
                token=self._endpoint(told["token_endpoint"]),
                userinfo=self._endpoint(told["userinfo_endpoint"]) if told.get("userinfo_endpoint") else None,
                jwks=told["jwks_uri"],
                auth_method=method if self._settings.client_secret else "none",
                algorithms=tuple(one for one in ALGORITHMS if one in signed),
                keys=keys,
                read_at=time.monotonic(),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise self._failed("its metadata is incomplete") from error
        return self._found

    def _endpoint(self, url: object) -> str:
        """An https URL; http only where the issuer itself is on http, which is a loopback address then."""
        text = str(url)
        if not text.startswith("https://") and not (
            text.startswith("http://") and self._settings.issuer.startswith("http://")
        ):
            raise self._failed("its metadata has an endpoint without https")
        return text

    async def _tokens(self, found: _Metadata, code: str, begun: _Begun) -> dict[str, Any]:
        from authlib.oauth2.auth import ClientAuth  # noqa: PLC0415 - an extra
        from authlib.oauth2.rfc6749.parameters import prepare_token_request  # noqa: PLC0415

        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=begun.redirect_uri, code_verifier=begun.verifier
        )
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        auth = ClientAuth(self._settings.client_id, self._settings.client_secret, found.auth_method)
        url, headers, body = auth.prepare("POST", found.token, headers, body)
        return await self._call("POST", url, headers, body)

    async def _proven(self, found: _Metadata, tokens: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The ID token's claims.  Its signature, issuer, audience, times and nonce are right.  Raises OidcFailed."""
        from authlib.oidc.core import CodeIDToken  # noqa: PLC0415 - an extra
        from joserfc import jwt  # noqa: PLC0415
        from joserfc.errors import JoseError  # noqa: PLC0415
        from joserfc.jwk import KeySet  # noqa: PLC0415

        options = {
            "iss": {"essential": True, "value": found.issuer},
            "aud": {"essential": True, "value": self._settings.client_id},
        }
        params = {"nonce": nonce, "client_id": self._settings.client_id, "access_token": tokens.get("access_token")}
        for renewed in (False, True):
            try:
                keys = KeySet.import_key_set(dict(found.keys))  # type: ignore[arg-type]
                token = jwt.decode(str(tokens.get("id_token", "")), keys, algorithms=found.algorithms)
                claims = CodeIDToken(token.claims, token.header, options, params)
                claims.validate(leeway=LEEWAY_S)
                return dict(claims)
            except (JoseError, ValueError, KeyError, TypeError) as error:
                fresh = await self._metadata(renew=True)  # the provider may have a new key
                if renewed or fresh is found:
                    why = f"its ID token is not good: {type(error).__name__}: {str(error)[:200]}"
                    raise self._failed(why) from error
                found = fresh
        raise AssertionError("unreachable")

    async def _userinfo(
        self, found: _Metadata, tokens: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        assert found.userinfo is not None
        told = await self._call("GET", found.userinfo, {"authorization": f"Bearer {tokens.get('access_token')}"})
        if told.get("sub") != claims.get("sub"):  # OpenID Connect Core 5.3.2
            raise self._failed("its userinfo is another user's")
        return told

    async def _call(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> dict[str, Any]:
        try:
            async with (
                httpx2.AsyncClient(timeout=CALL_S, follow_redirects=False) as client,
                client.stream(method, url, headers=headers, content=body) as answer,
            ):
                read = bytearray()
                async for piece in answer.aiter_bytes():
                    read += piece
                    if len(read) > MAX_ANSWER:
                        raise self._failed("an answer is too large")
            if answer.status_code != 200:
                raise self._failed(f"{url} answered {answer.status_code}: {bytes(read[:200])!r}")
            told = json.loads(read)
        except (httpx2.HTTPError, ValueError) as error:
            raise self._failed(f"{url}: {type(error).__name__}: {str(error)[:200]}") from error
        if not isinstance(told, dict):
            raise self._failed(f"{url} answered no object")
        return told

    def _failed(self, why: str) -> OidcFailed:
        log.warning("an OIDC login failed", issuer=self._settings.issuer, why=why)
        return OidcFailed("The login provider's answer cannot be used; the gateway's log says why.")

    # --------------------------------------------------------------------------------- claims → user

    def _user(self, found: _Metadata, claims: Mapping[str, Any]) -> OidcUser:
        granted = role_of(_claim(claims, self._settings.role_claim), self._settings.roles)
        email = claims.get("email") if claims.get("email_verified") is True else None
        wanted = claims.get("preferred_username") or claims.get("email") or claims.get("name") or claims["sub"]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(wanted).partition("@")[0])[:58].strip("-") or "user"
        return OidcUser(found.issuer, str(claims["sub"]), name, email if isinstance(email, str) else None, *granted)


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """A claim by its name, else by its path with dots."""
    if path in claims:
        return claims[path]
    found: object = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def role_of(claim: object, roles: Mapping[str, str]) -> tuple[Role | None, str | None]:
    """The highest role that the claim's values have, with its tenant; (None, None): no value has one."""
    values = claim if isinstance(claim, list) else [claim]
    targets = [roles[value] for value in values if isinstance(value, str) and value in roles]
    for role in ROLES:
        for target in targets:
            name, _, tenant = target.partition(":")
            if name == role:
                return role, tenant or None
    return None, None
