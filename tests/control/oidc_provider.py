"""An OpenID Connect provider on a loopback socket: oidc-provider-mock, which is Authlib's server.

It also holds its clients to PKCE (RFC 7636), which that package does not, and can be told to give out bad ID tokens.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import httpx2
import werkzeug.serving
from oidc_provider_mock import User, app

Tamper = Callable[[dict[str, Any]], dict[str, Any]]


class Provider:
    """Started; ``register`` a client first.  ``tamper`` is given each answer of the token endpoint."""

    def __init__(self) -> None:
        os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # of the server: it is on loopback
        self.challenges: dict[str, str] = {}  # by state
        self.by_code: dict[str, str] = {}  # challenges by code
        self.holds_pkce = True
        self.tamper: Tamper | None = None
        inner = app(require_client_registration=True, require_nonce=True, user_claims=())
        self._app = inner.wsgi_app
        inner.wsgi_app = self._between  # type: ignore[method-assign]
        self._server = werkzeug.serving.make_server("127.0.0.1", 0, inner, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def register(self, redirect_uri: str) -> tuple[str, str]:
        """A client's id and secret."""
        body = {"redirect_uris": [redirect_uri]}
        made = httpx2.post(f"{self.url}/oauth2/clients", json=body, trust_env=False, verify=False).json()
        return made["client_id"], made["client_secret"]

    def put_user(self, sub: str, **claims: Any) -> None:
        assert httpx2.put(f"{self.url}/users/{sub}", json=claims, trust_env=False, verify=False).is_success

    def consent(self, authorize: str, sub: str) -> str:
        """What a person does there: log in and agree.  Returns where the browser is sent."""
        answer = httpx2.post(authorize, data={"sub": sub}, trust_env=False, verify=False)
        assert answer.status_code == 302, answer.text
        return str(answer.headers["location"])

    def _between(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path, query = environ["PATH_INFO"], parse_qs(environ.get("QUERY_STRING", ""))
        if path == "/oauth2/authorize" and environ["REQUEST_METHOD"] == "POST":
            assert query["code_challenge_method"] == ["S256"]
            return self._authorized(environ, start, query["code_challenge"][0])
        if path == "/oauth2/token":
            return self._exchanged(environ, start)
        return self._app(environ, start)

    def _authorized(self, environ: dict[str, Any], start: Any, challenge: str) -> Iterable[bytes]:
        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            location = dict(headers).get("Location", "")
            for code in parse_qs(location.partition("?")[2]).get("code", []):
                self.by_code[code] = challenge
            return start(status, headers, *rest)

        return self._app(environ, begin)

    def _exchanged(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = io.BytesIO(body)
        form = parse_qs(body.decode())
        verifier = form.get("code_verifier", [""])[0].encode()
        proof = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).decode().rstrip("=")
        if self.holds_pkce and self.by_code.get(form["code"][0]) != proof:
            start("400 Bad Request", [("Content-Type", "application/json")])
            return [b'{"error": "invalid_grant"}']
        if self.tamper is None:
            return self._app(environ, start)
        answer = b"".join(self._app(environ, lambda *_: None))
        changed = json.dumps(self.tamper(json.loads(answer))).encode()
        start("200 OK", [("Content-Type", "application/json")])
        return [changed]


__all__ = ["Provider", "User"]
