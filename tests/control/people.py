"""Users of a running control process, as browsers hold them: a cookie and the token against forged requests."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.control.child import Child

PASSWORD = "canary-password-0123"


class Browser:
    """One person's browser.  ``log_in`` first."""

    def __init__(self, child: Child, name: str, password: str = PASSWORD, **headers: str) -> None:
        self.name = name
        self.password = password
        self._child = child
        self.client = httpx2.Client(base_url=child.url, trust_env=False, verify=False, timeout=60, headers=headers)
        self.csrf = ""

    def log_in(self) -> httpx2.Response:
        answer = self.client.post("/admin/v1/login", json={"name": self.name, "password": self.password})
        if answer.is_success:
            self.csrf = answer.json()["csrf_token"]
        return answer

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        sent = {"x-csrf-token": self.csrf, **headers}
        options = {} if body is None else {"json": body}
        return self.client.request(method, f"/admin/v1{path}", headers=sent, **options)

    def session(self) -> str:
        return str(self.call("GET", "/me").json()["session"])


def add_user(child: Child, name: str, role: str, **fields: Any) -> None:
    wish = {"name": name, "role": role, "password": PASSWORD, **fields}
    answer = child.call("POST", "/admin/v1/users", json=wish)
    assert answer.status_code == 201, answer.text


def logged_in(child: Child, name: str, **headers: str) -> Browser:
    browser = Browser(child, name, **headers)
    answer = browser.log_in()
    assert answer.status_code == 200, answer.text
    return browser


def code_of(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["code"])
