"""Tokens and accounts by name, lists of models that a token may hold, and a validation error's words.  Pure."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headgate.catalog.names import ended, nearest
from headgate.control.objects import named
from headgate.errors import GatewayError
from headgate.model import Alias, Grant, ModelRow, Provider, Snapshot, TargetRef
from headgate.resources import wording

GRANTS = [
    Grant("aa11", "laptop", origin="store"),
    Grant("aa11", "laptop", origin="store"),  # rotated: its former secret is good for a while
    Grant("bb22", "phone", origin="store"),
    Grant("cc33", "twin", origin="store"),
    Grant("dd44", "twin", origin="store"),
    Grant("file-ci", "ci", origin="file"),
    Grant("ee55", "bb22", origin="store"),  # named like another one's id
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("laptop", "aa11"),
        ("aa11", "aa11"),
        ("ci", "file-ci"),
        ("file-ci", "file-ci"),
        ("bb22", "bb22"),
        ("dd44", "dd44"),
    ],
)
def test_a_token_by_id_or_name(wanted: str, found: str) -> None:
    assert named.token_id(wanted, GRANTS) == found


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        ("twin", "ambiguous_name", "cc33"),
        ("laptpo", "token_not_found", "did you mean laptop?"),
        ("zzzzzzzz", "token_not_found", "There is no token 'zzzzzzzz' in use."),
    ],
)
def test_a_token_that_is_not_meant_clearly(wanted: str, code: str, words: str) -> None:
    with pytest.raises(GatewayError) as refused:
        named.token_id(wanted, GRANTS)
    assert refused.value.kind.code == code and words in refused.value.message and "?." not in refused.value.message


@pytest.mark.parametrize(("name", "own"), [("tablet", ""), ("laptop", "aa11"), ("", "")])
def test_a_free_name(name: str, own: str) -> None:
    named.free_name(name, GRANTS, own)


@pytest.mark.parametrize(("name", "own"), [("laptop", ""), ("laptop", "bb22"), ("ci", ""), ("twin", "cc33")])
def test_a_name_that_is_taken(name: str, own: str) -> None:
    with pytest.raises(GatewayError) as refused:
        named.free_name(name, GRANTS, own)
    assert (refused.value.kind.status, refused.value.param) == (409, "name")


ACCOUNTS = ["groq/key-1", "openai/key-1", "openai/team", "mistral/env"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("groq/key-1", "groq/key-1"), ("groq", "groq/key-1"), ("team", "openai/team"), ("mistral", "mistral/env")],
)
def test_an_account_by_id_provider_or_label(wanted: str, found: str) -> None:
    assert named.account_id(wanted, ACCOUNTS) == found


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("openai", "ambiguous_name"),
        ("key-1", "ambiguous_name"),
        ("grok", "account_not_found"),
        ("", "account_not_found"),
    ],
)
def test_an_account_that_is_not_meant_clearly(wanted: str, code: str) -> None:
    with pytest.raises(GatewayError) as refused:
        named.account_id(wanted, ACCOUNTS)
    assert refused.value.kind.code == code


def snapshot() -> Snapshot:
    providers = {
        "groq": Provider("groq", "http://127.0.0.1:1", models={"llama": ModelRow("llama")}),
        "any": Provider("any", "http://127.0.0.1:1"),
    }
    return Snapshot(providers=providers, aliases={"my/chat": Alias("my/chat", (TargetRef("groq/llama"),))})


def test_models_that_exist_may_be_listed() -> None:
    named.models(["groq/llama", "my/chat", "any/whatever", "llama"], snapshot())


@pytest.mark.parametrize(
    ("name", "words"),
    [("groq/lama", "groq/llama?"), ("my/chta", "my/chat?"), ("nosuch/model-of-the-future", "add its provider")],
)
def test_models_that_nothing_has_are_refused(name: str, words: str) -> None:
    with pytest.raises(GatewayError) as refused:
        named.models(["my/chat", name], snapshot())
    assert refused.value.param == "models" and words in refused.value.message


def test_a_sentence_ends_once() -> None:
    assert ended(f"no{nearest('grok', ['groq'])}") == "no; did you mean groq?"
    assert ended("no") == "no."


# ------------------------------------------------------------------------------------- a validation error's words


class Colour(Enum):
    red = "red"
    blue = "blue"


class Every(BaseModel):
    model_config = ConfigDict(extra="forbid")
    whole: int = 0
    number: float = 0
    text: Annotated[str, Field(min_length=1, max_length=5, pattern="^[a-z]+$")] = "a"
    flag: bool = False
    names: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    table: dict[str, int] = {}
    word: Literal["on", "off"] = "on"
    colour: Colour = Colour.red
    share: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 1
    count: Annotated[int, Field(ge=0, le=3)] = 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"whole": "x"}, "must be a whole number"),
        ({"whole": 1.5}, "must be a whole number"),
        ({"whole": None}, "must be a whole number"),
        ({"number": "x"}, "must be a number"),
        ({"text": 5}, "must be text"),
        ({"text": ""}, "is empty"),
        ({"text": "abcdef"}, "must have at most 5 characters"),
        ({"text": "A"}, "has characters that are not allowed here, or too many (^[a-z]+$)"),
        ({"flag": "maybe"}, "must be true or false"),
        ({"names": "a"}, "must be a list"),
        ({"names": []}, "must have at least 1 entry"),
        ({"names": ["a", "b", "c"]}, "must have at most 2 entries"),
        ({"table": []}, "must be an object"),
        ({"word": "maybe"}, "must be 'on' or 'off'"),
        ({"colour": "green"}, "must be 'red' or 'blue'"),
        ({"share": 0}, "must be more than 0.0"),
        ({"share": 10}, "must be less than 10.0"),
        ({"share": float("inf")}, "must be a finite number"),
        ({"count": -1}, "must not be negative"),
        ({"count": 4}, "must be at most 3"),
        ({"other": 1}, "is not known here"),
    ],
)
def test_no_sentence_is_pydantics(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        Every.model_validate(given)
    assert wording.phrase(error.value.errors()[0]) == words  # type: ignore[arg-type]
