"""A saved prompt with a caller's variables: what is inserted where, and every refusal."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import GatewayError
from headgate.model import PromptMessage, PromptReference, PromptVersion, SavedPrompt, TemplateMessage
from headgate.policy import saved_prompts

BRACES = st.text(st.sampled_from("{}ab \t_"), max_size=40)
NAMES = ("a", "b", "a_b")


def version(*messages: tuple[str, str], number: int = 1, **variables: str | None) -> PromptVersion:
    return PromptVersion(number, tuple(TemplateMessage.of(*message) for message in messages), variables)


def prompts(*all_: SavedPrompt) -> dict[str, SavedPrompt]:
    return {one.key: one for one in all_}


OLD, NEW = version(("system", "old"), number=1), version(("system", "new"), number=4)
SHARED = SavedPrompt("support", (OLD, NEW), labels={"production": 1})
OWN = SavedPrompt("support", (version(("system", "acme's")),), tenant="acme")
FOREIGN = SavedPrompt("secret", (version(("system", "theirs")),), tenant="acme")
KNOWN = prompts(SHARED, OWN, FOREIGN)


def filled(one: PromptVersion, sent: Mapping[str, str]) -> tuple[PromptMessage, ...]:
    return saved_prompts.filled(one, sent, "headgate.prompt.variables")


def refused(reference: PromptReference, tenant: str = "", known: Mapping[str, SavedPrompt] = KNOWN) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        saved_prompts.expand(reference, tenant, known)
    return caught.value


# ------------------------------------------------------------------------------------- placeholders


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("",)),
        ("plain", ("plain",)),
        ("{{a}}", ("", "a", "")),
        ("Hi {{a}}, {{ b }}!", ("Hi ", "a", ", ", "b", "!")),
        ("{{{a}}}", ("{", "a", "}")),
        ('{{"json": 1}} {a} {{a b}} {{}} {{1a}} {{a.b}} {{ a', ('{{"json": 1}} {a} {{a b}} {{}} {{1a}} {{a.b}} {{ a',)),
        ("{{a\n}}", ("{{a\n}}",)),
        ("{{" + "a" * 65 + "}}", ("{{" + "a" * 65 + "}}",)),
    ],
)
def test_braces_that_are_placeholders(text: str, parts: tuple[str, ...]) -> None:
    assert TemplateMessage.of("user", text).parts == parts


@given(BRACES, BRACES, BRACES)
def test_values_are_inserted_once_and_literally(template: str, first: str, second: str) -> None:
    """Split by hand at each placeholder: no value is read as a template, whatever braces it holds."""
    message = TemplateMessage.of("user", template)
    values = dict.fromkeys((*NAMES, *message.names), first) | {"b": second}
    (found,) = filled(PromptVersion(1, (message,), dict.fromkeys(values)), values)
    pieces = []
    rest = template
    for literal, name in zip(message.parts[0::2], message.names, strict=False):
        assert rest.startswith(literal)
        pieces += [literal, values[name]]
        rest = rest[len(literal) :]
        rest = rest[rest.index("}}") + 2 :]
    assert found.text == "".join(pieces) + rest


@given(st.text("{}a\n\t é\0\U0001f600", max_size=60))
def test_a_text_without_placeholders_stays_as_it_is(text: str) -> None:
    message = TemplateMessage.of("system", text)
    if not message.names:
        (found,) = filled(PromptVersion(1, (message,)), {})
        assert found == PromptMessage("system", text) and message.text == text


# ------------------------------------------------------------------------------------- which one


@pytest.mark.parametrize(
    ("wanted", "text"), [("", "new"), ("latest", "new"), ("4", "new"), ("1", "old"), ("production", "old")]
)
def test_version_by_number_label_or_none(wanted: str, text: str) -> None:
    found = saved_prompts.expand(PromptReference("support", wanted), "", KNOWN)
    assert (found.messages[0].text, found.name) == (text, "support")


def test_a_tenants_own_prompt_comes_before_the_shared_one() -> None:
    def text(ident: str, tenant: str) -> str:
        return saved_prompts.expand(PromptReference(ident), tenant, KNOWN).messages[0].text

    assert [text("support", tenant) for tenant in ("acme", "other", "")] == ["acme's", "new", "new"]
    assert text("secret", "acme") == text("acme/secret", "acme") == "theirs"


@pytest.mark.parametrize("tenant", ["", "other", "acm", "acme/x"])
def test_a_foreign_prompt_is_answered_as_one_that_is_not_there(tenant: str) -> None:
    for ident in ("secret", "acme/secret", "/secret"):
        error = refused(PromptReference(ident), tenant)
        absent = refused(PromptReference(ident), tenant, {})
        assert (error.kind.status, error.kind.code, error.param) == (404, "prompt_not_found", "headgate.prompt.id")
        assert error.message == absent.message


@pytest.mark.parametrize("wanted", ["2", "5", "0", "staging", "-1", "1.0", "9" * 30, "٤"])
def test_unknown_version(wanted: str) -> None:
    error = refused(PromptReference("support", wanted))
    assert (error.kind.code, error.param) == ("prompt_not_found", "headgate.prompt.version")


# ------------------------------------------------------------------------------------- variables


def test_defaults_hold_where_nothing_is_sent() -> None:
    one = version(("system", "{{tone}} {{name}}"), ("user", "{{name}}"), tone="kind", name=None, unused="x")
    assert filled(one, {"name": "Ada"}) == (
        PromptMessage("system", "kind Ada"),
        PromptMessage("user", "Ada"),
    )
    assert filled(one, {"name": "", "tone": "{{name}}"})[0].text == "{{name}} "


@pytest.mark.parametrize(
    ("sent", "name", "words"),
    [
        ({}, "name", "is missing"),
        ({"name": "x", "nmae": "y"}, "nmae", "is not a variable of this prompt's version 1: it takes name, tone"),
    ],
)
def test_missing_and_unknown_variables(sent: dict[str, str], name: str, words: str) -> None:
    one = SavedPrompt("p", (version(("system", "{{name}}"), name=None, tone="kind"),))
    error = refused(PromptReference("p", variables=sent), known=prompts(one))
    assert (error.kind.status, error.param) == (400, f"headgate.prompt.variables.{name}") and words in error.message


def test_a_result_that_is_too_long_is_refused_before_it_is_made() -> None:
    one = version(("system", "{{a}}" * 1000), a=None)
    assert len(filled(one, {"a": "x" * 1000})[0].text) == 1_000_000
    with pytest.raises(GatewayError) as caught:
        filled(one, {"a": "x" * 60_000})
    assert caught.value.param == "headgate.prompt.variables"


def test_tags_name_the_prompt_and_never_replace_the_callers() -> None:
    found = saved_prompts.expand(PromptReference("support"), "", KNOWN)
    assert found.tags({"job": "x"}) == {"job": "x", "prompt": "support", "prompt_version": "support@4"}
    assert found.tags(None) == {"prompt": "support", "prompt_version": "support@4"}
    for key in ("prompt", "prompt_version"):
        with pytest.raises(GatewayError) as caught:
            found.tags({key: "mine"})
        assert (caught.value.kind.status, caught.value.param) == (400, "headgate.metadata")
