"""Arguments of tool calls as objects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.dialects.translation.arguments import object_from


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ('{"a":"x\ny"}', {"a": "x\ny"}),
        ('{"a":NaN}', {"a": None}),
        ('"{\\"a\\":1}"', {"a": 1}),
        ('{"a":"\udcff"}', {"a": "?"}),
        ("", {}),
        ("[1]", {}),
        ('{"a":1}{"b":2}', {}),
    ],
)
def test_objects_are_found_and_repaired(text: str, expected: object) -> None:
    assert json.loads(bytes(object_from(text))) == expected


@given(st.text())
def test_any_text_gives_an_object(text: str) -> None:
    assert isinstance(json.loads(bytes(object_from(text))), dict)
