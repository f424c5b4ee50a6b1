"""/admin/v1/prompts on a running control process, on both databases: versions, labels, tenants, roles, bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from headgate.control.audit.file_changes import described
from headgate.control.objects import prompts
from headgate.control.objects.assemble import Sources
from headgate.control.objects.registry import Objects, changes_between
from headgate.errors import GatewayError
from headgate.model import SavedPrompt, Tenant
from headgate.process.channel import World
from headgate.resources import wording
from headgate.resources.callers import prompt as resource
from headgate.resources.callers.prompt import PromptBody, PromptTable, VersionWish
from headgate.resources.compiled import Compiled
from tests.control.child import Child
from tests.control.people import Browser, add_user, code_of, logged_in
from tests.control.postgres_server import Server

HELLO = {
    "messages": [{"role": "system", "content": "Hello {{name}}, {{tone}}"}],
    "variables": {"name": None, "tone": ""},
}
OTHER = {"messages": [{"role": "user", "content": "Other"}], "note": "shorter"}
TENANTS = ("acme", "other")


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def child(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    options = {}
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        options = {"database": server.database()}
    with Child(tmp_path_factory.mktemp("prompts"), **options) as running:
        running.configure(tenants=TENANTS)
        assert running.call("POST", "/admin/v1/reload").is_success
        yield running


def call(child: Child | Browser, method: str, path: str, body: Any = None) -> httpx2.Response:
    if isinstance(child, Browser):
        return child.call(method, path, body)
    return child.call(method, f"/admin/v1{path}", **({} if body is None else {"json": body}))


def ok(child: Child | Browser, method: str, path: str, body: Any = None) -> Any:
    answer = call(child, method, path, body)
    assert answer.is_success, answer.text
    return answer.json()


def code(child: Child | Browser, method: str, path: str, body: Any = None) -> str:
    answer = call(child, method, path, body)
    return f"{answer.status_code} {code_of(answer)}"


def test_versions_from_the_first_to_the_end(child: Child) -> None:
    made = call(child, "POST", "/prompts/life/versions", HELLO)
    assert made.status_code == 201
    assert {key: made.json()[key] for key in ("prompt", "tenant", "version", "made", "labels", "note")} == {
        "prompt": "life", "tenant": None, "version": 1, "made": True, "labels": [], "note": None,
    }  # fmt: skip
    same = call(child, "POST", "/prompts/life/versions", {**HELLO, "note": "again"})
    assert (same.status_code, same.json()["version"], same.json()["made"]) == (200, 1, False)
    assert ok(child, "POST", "/prompts/life/versions", OTHER)["version"] == 2
    assert ok(child, "POST", "/prompts/life/versions", HELLO)["version"] == 3  # not the latest: a version again
    assert ok(child, "PATCH", "/prompts/life", {"labels": {"production": 1, "next": 3}})["labels"] == {
        "next": 3, "production": 1,
    }  # fmt: skip
    listed = ok(child, "GET", "/prompts/life/versions")["data"]
    assert [(one["version"], one["labels"]) for one in listed] == [(3, ["next"]), (2, []), (1, ["production"])]
    assert listed[0]["digest"] == listed[2]["digest"] != listed[1]["digest"]
    assert listed[1]["note"] == "shorter" and listed[1]["created"] > 0
    for wanted, number in (("latest", 3), ("production", 1), ("2", 2)):
        assert ok(child, "GET", f"/prompts/life/versions/{wanted}")["version"] == number
    for number in (1, 3):
        assert code(child, "DELETE", f"/prompts/life/versions/{number}") == "409 in_use"
    ok(child, "PATCH", "/prompts/life", {"labels": {"next": None}})
    ok(child, "DELETE", "/prompts/life/versions/3")
    assert ok(child, "GET", "/prompts/life")["latest"] == 2
    assert ok(child, "POST", "/prompts/life/versions", HELLO)["version"] == 4  # a number is not given again
    ok(child, "DELETE", "/prompts/life/versions/2")
    assert code(child, "GET", "/prompts/life/versions/2") == "404 prompt_not_found"
    assert ok(child, "DELETE", "/prompts/life")["object"] == "headgate.prompt.deleted"
    assert code(child, "GET", "/prompts/life") == "404 prompt_not_found"
    rows = ok(child, "GET", "/audit?noun=prompt&id=life")["data"]
    assert [row["action"] for row in rows] == ["deleted", *["changed"] * 7, "created"]
    assert "Hello" not in json.dumps(rows) and rows[-1]["after"]["versions"]["1"].startswith("sha256:")


def test_render_is_what_a_request_would_get(child: Child) -> None:
    ok(child, "POST", "/prompts/render/versions", HELLO)
    found = ok(child, "POST", "/prompts/render/render", {"variables": {"name": "{{tone}}"}})
    assert found["messages"] == [{"role": "system", "content": "Hello {{tone}}, "}]
    missing = call(child, "POST", "/prompts/render/render", {})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "variables.name")
    assert code(child, "POST", "/prompts/render/render", {"version": "9"}) == "404 prompt_not_found"
    routed = ok(child, "POST", "/explain", {
        "model": "up-a/m", "messages": [], "headgate": {"prompt": {"id": "render", "variables": {"name": "x"}}},
    })  # fmt: skip
    assert routed["code"] is None
    unknown = {"model": "up-a/m", "messages": [], "headgate": {"prompt": {"id": "nothing"}}}
    assert code(child, "POST", "/explain", unknown) == "404 prompt_not_found"


@pytest.mark.parametrize(
    ("wish", "param", "words"),
    [
        ({"messages": []}, "messages", "at least"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.role", "must be"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.content", "is empty"),
        (
            {"messages": [{"role": "user", "content": "{{nmae}}"}], "variables": {"name": "x"}},
            None,
            "did you mean name?",
        ),
        ({"messages": [{"role": "user", "content": "{{name}}"}]}, None, "{{name}} is not among its variables"),
        ({"messages": [{"role": "user", "content": "x"}], "variables": {"a b": "x"}}, None, "a b"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": 1}, "temperature", ""),
    ],
)
def test_versions_that_cannot_be_meant(child: Child, wish: Any, param: str | None, words: str) -> None:
    answer = call(child, "POST", "/prompts/wrong/versions", wish)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text
    assert param is None or answer.json()["error"]["param"] == param
    assert code(child, "GET", "/prompts/wrong") == "404 prompt_not_found"


def test_labels_that_cannot_be_meant(child: Child) -> None:
    ok(child, "POST", "/prompts/labels/versions", OTHER)
    for labels in ({"production": 2}, {"latest": 1}, {"Production": 1}, {"7": 1}, {}):
        assert code(child, "PATCH", "/prompts/labels", {"labels": labels}) == "400 invalid_value", labels
    assert code(child, "PATCH", "/prompts/labelz", {"labels": {"a": 1}}) == "404 prompt_not_found"
    near = call(child, "DELETE", "/prompts/labelz")
    assert "did you mean labels?" in near.json()["error"]["message"]


def test_each_tenant_has_its_own(child: Child) -> None:
    for tenant in ("", *(f"?tenant={name}" for name in TENANTS)):
        assert ok(child, "POST", f"/prompts/mine/versions{tenant}", HELLO)["version"] == 1
    ok(child, "POST", "/prompts/mine/versions?tenant=acme", OTHER)
    listed = {(one["name"], one["tenant"]): one["latest"] for one in ok(child, "GET", "/prompts")["data"]}
    assert [listed["mine", tenant] for tenant in (None, *TENANTS)] == [1, 2, 1]
    assert {one["tenant"] for one in ok(child, "GET", "/prompts?tenant=acme")["data"]} == {"acme"}
    assert code(child, "POST", "/prompts/mine/versions?tenant=nobody", HELLO) == "404 tenant_not_found"
    ok(child, "PUT", "/tenants/leaving", {})
    ok(child, "POST", "/prompts/mine/versions?tenant=leaving", HELLO)
    refused = call(child, "DELETE", "/tenants/leaving")
    assert code_of(refused) == "in_use" and "the prompt mine" in refused.json()["error"]["message"]
    ok(child, "DELETE", "/prompts/mine?tenant=leaving")
    ok(child, "DELETE", "/tenants/leaving")


def test_a_tenant_admin_manages_its_own_and_sees_no_others(child: Child) -> None:
    add_user(child, "boss", "tenant_admin", tenant="acme")
    add_user(child, "looker", "viewer")
    own, viewer = logged_in(child, "boss"), logged_in(child, "looker")
    ok(child, "POST", "/prompts/hidden/versions?tenant=other", HELLO)
    ok(child, "POST", "/prompts/public/versions", HELLO)
    assert ok(own, "POST", "/prompts/team/versions", HELLO)["tenant"] == "acme"
    ok(own, "PATCH", "/prompts/team?tenant=acme", {"labels": {"production": 1}})
    assert {one["tenant"] for one in ok(own, "GET", "/prompts")["data"]} == {"acme"}
    for name in ("hidden", "public", "nothing"):
        answers = {code(own, *one) for one in (
            ("GET", f"/prompts/{name}"), ("GET", f"/prompts/{name}/versions"), ("GET", f"/prompts/{name}/versions/1"),
            ("DELETE", f"/prompts/{name}"), ("DELETE", f"/prompts/{name}/versions/1"),
            ("PATCH", f"/prompts/{name}", {"labels": {"a": 1}}), ("POST", f"/prompts/{name}/render", {}),
        )}  # fmt: skip
        assert answers == {"404 prompt_not_found"}, name
    near = call(own, "GET", "/prompts/hiden").json()["error"]["message"]
    assert "hidden" not in near
    for method, path, body in (
        ("GET", "/prompts?tenant=other", None), ("GET", "/prompts/hidden?tenant=other", None),
        ("POST", "/prompts/x/versions?tenant=other", HELLO), ("DELETE", "/prompts/hidden?tenant=other", None),
    ):  # fmt: skip
        assert code(own, method, path, body) == "403 forbidden"
    assert ok(viewer, "GET", "/prompts/hidden/versions/1?tenant=other")["version"] == 1
    assert code(viewer, "POST", "/prompts/hidden/versions?tenant=other", OTHER) == "403 forbidden"
    ok(own, "DELETE", "/prompts/team")


# ------------------------------------------------------------------------------------- without a process


def sources(objects: Objects | None = None, *declared: SavedPrompt) -> Sources:
    world = World({}, {}, tenants={"acme": Tenant("acme")}, prompts={one.key: one for one in declared})
    return Sources(Compiled(world, {}, {}), objects or Objects())


def wish(text: str) -> VersionWish:
    return VersionWish.model_validate({"messages": [{"role": "user", "content": text}]})


def refused(change: Any, *arguments: Any) -> str:
    with pytest.raises(GatewayError) as caught:
        change(*arguments)
    return caught.value.kind.code


def test_what_the_file_declares_is_changed_there(tmp_path: Path) -> None:
    table = PromptTable.model_validate({"name": "p", "versions": [{"version": 2, **HELLO}]})
    stored, _ = prompts.add_version(sources(), "", "p", wish("stored"))
    both = sources(stored, table.declared_prompt())
    assert refused(prompts.add_version, both, "", "p", wish("x")) == "managed_by_file"
    assert refused(prompts.set_labels, both, "p", {"a": 2}) == "managed_by_file"
    assert refused(prompts.drop_version, both, "p", 1) == "managed_by_file"
    assert prompts.drop_prompt(both, "p").prompts == {}
    assert refused(prompts.drop_prompt, sources(None, table.declared_prompt()), "p") == "managed_by_file"


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects()
    for number in range(resource.MAX_VERSIONS):
        objects, _ = prompts.add_version(sources(objects), "", "many", wish(f"{number}"))
    assert refused(prompts.add_version, sources(objects), "", "many", wish("x")) == "too_many"
    objects = prompts.drop_version(sources(objects), "many", 1)
    objects, made = prompts.add_version(sources(objects), "", "many", wish("x"))
    assert made == (101, True)
    monkeypatch.setattr(prompts, "MAX_PROMPTS", 1)
    assert refused(prompts.add_version, sources(objects), "acme", "many", wish("x")) == "too_many"
    monkeypatch.undo()
    monkeypatch.setattr(prompts, "MAX_PROMPT", 1000)
    assert refused(prompts.add_version, sources(objects), "", "many", wish("x" * 900)) == "too_many"
    monkeypatch.undo()
    monkeypatch.setattr(prompts, "MAX_CHARACTERS", 1000)
    assert refused(prompts.add_version, sources(objects), "acme", "new", wish("x" * 900)) == "too_many"
    for text, words in (("x" * 262_145, "262144"), ("{{a}}" * 1001, "1,001 placeholders")):
        with pytest.raises(ValidationError) as caught:
            VersionWish.model_validate({"messages": [{"role": "user", "content": text}], "variables": {"a": "x"}})
        assert words in wording.sentence(caught.value).replace("262,144", "262144")
    with pytest.raises(ValidationError):
        VersionWish.model_validate({"messages": [{"role": "user", "content": "x" * 200_000}] * 2})


def test_a_stored_prompt_is_read_as_it_was_written() -> None:
    objects, _ = prompts.add_version(sources(), "acme", "p", VersionWish.model_validate(HELLO))
    objects = prompts.set_labels(sources(objects), "acme/p", {"production": 1})
    body = objects.prompts["acme/p"].body
    assert PromptBody.from_store(body.to_store()) == body
    assert body.stored_prompt().key == "acme/p" and body.stored_prompt().tenant == "acme"
    (change,) = changes_between(Objects(), objects)
    assert (change.noun, change.object, change.action) == ("prompt", "acme/p", "created")


def test_the_audit_log_has_digests_of_the_file_s_prompts() -> None:
    table = PromptTable.model_validate({"name": "p", "tenant": "acme", "versions": [{"version": 2, **HELLO}]})
    (found,) = described(sources(None, table.declared_prompt()).compiled, b"key")["prompt"].items()
    assert found[0] == "acme/p" and found[1]["versions"]["2"].startswith("sha256:") and "Hello" not in str(found)


def test_versions_of_a_file_stand_in_order() -> None:
    for versions, labels in (([2, 1], {}), ([1, 1], {}), ([], {}), ([1], {"production": 2})):
        with pytest.raises(ValidationError):
            PromptTable.model_validate(
                {"name": "p", "versions": [{"version": number, **HELLO} for number in versions], "labels": labels}
            )
