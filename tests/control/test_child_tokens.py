"""Tokens that a token's holder has made, as the admin API sees them: a real control process and a real data process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.control.child import Child
from tests.control.people import add_user, logged_in
from tests.dataplane import DataPlane
from tests.waiting import wait_until

TENANTS = ("acme", "bolt")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("children")) as running:
        running.configure(tenants=TENANTS)
        assert running.call("POST", "/admin/v1/reload").is_success
        yield running


@pytest.fixture(scope="module")
def plane(child: Child) -> Iterator[DataPlane]:
    with DataPlane(child.state) as running:
        wait_until(lambda: child.call("GET", "/readyz", None).status_code == 200)
        yield running


def admin(child: Child, method: str, path: str, body: Any = None) -> Any:
    answer = child.call(method, f"/admin/v1{path}", **({} if body is None else {"json": body}))
    assert answer.is_success, answer.text
    return answer.json()


def minted(plane: DataPlane, parent: str, **wish: Any) -> Any:
    headers = {"authorization": f"Bearer {parent}"}
    answer = httpx2.post(
        f"{plane.url}/v1/tokens", json=wish, headers=headers, trust_env=False, verify=False, timeout=30
    )
    assert answer.is_success, answer.text
    return answer.json()


def test_children_move_with_their_parent_to_another_tenant(child: Child, plane: DataPlane) -> None:
    for tenant in TENANTS:
        add_user(child, f"admin-{tenant}", "tenant_admin", tenant=tenant)
    former, present = (logged_in(child, f"admin-{tenant}") for tenant in TENANTS)
    parent = admin(child, "POST", "/tokens", {"name": "moving", "tenant": TENANTS[0]})
    ident = minted(plane, parent["token"])["id"]
    admin(child, "POST", f"/tokens/{ident}/rotate", {"overlap_s": 600})  # its former secret moves too
    assert former.call("GET", f"/tokens/{ident}").is_success
    admin(child, "PATCH", f"/tokens/{parent['id']}", {"tenant": TENANTS[1]})
    for method, path in (("GET", ""), ("POST", "/rotate"), ("DELETE", "")):
        assert former.call(method, f"/tokens/{ident}{path}").status_code == 404
    assert present.call("GET", f"/tokens/{ident}").json()["tenant"] == TENANTS[1]
    assert present.call("POST", f"/tokens/{ident}/rotate").is_success


def test_child_without_an_expiry_survives_its_parents_next_child(child: Child, plane: DataPlane) -> None:
    parent = admin(child, "POST", "/tokens", {"name": "lasting"})
    ident = minted(plane, parent["token"])["id"]
    assert admin(child, "PATCH", f"/tokens/{ident}", {"expires": None})["expires"] is None
    minted(plane, parent["token"])
    assert admin(child, "GET", f"/tokens/{ident}")["revoked"] is None


@pytest.mark.parametrize("change", [{"tenant": "acme"}, {"free_only": True}, {"unpriced": "refuse"}])
def test_terms_of_the_parent_cannot_be_changed_on_a_child(
    child: Child, plane: DataPlane, change: dict[str, Any]
) -> None:
    parent = admin(child, "POST", "/tokens", {"name": f"parent of {change}"})
    ident = minted(plane, parent["token"])["id"]
    answer = child.call("PATCH", f"/admin/v1/tokens/{ident}", json=change)
    (name,) = change
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", name)
    assert admin(child, "PATCH", f"/tokens/{ident}", {"limits": {"rpm": 5}})["limits"]["rpm"] == 5
