"""Query strings: one reader for every endpoint of our own."""

from __future__ import annotations

import pytest

from headgate.catalog import parameters, selection
from headgate.errors import GatewayError
from headgate.serving.public.streams import PARAMETERS
from headgate.wire import urls


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (b"", []),
        (b"a=1&b=&c", [("a", "1"), ("b", ""), ("c", "")]),
        (b"a=%C3%A9+x", [("a", "é x")]),
        ("a=é".encode(), [("a", "é")]),  # as clients send it that do not escape
        (b"a=\xff", [("a", "�")]),
        (b"a=1&a=2", [("a", "1"), ("a", "2")]),
    ],
)
def test_parameters_are_decoded(query: bytes, wanted: list[tuple[str, str]]) -> None:
    assert urls.parameters(query) == wanted


@pytest.mark.parametrize(
    ("query", "known", "param", "words"),
    [
        (b"x=1", (), "x", "there are none"),
        (b"aftr=1", PARAMETERS, "aftr", "known are after, expires, signature; did you mean after?"),
        (b"after=1&after=2", PARAMETERS, "after", "appears twice"),
        (b"limit=1&limit=2", ("limit",), "limit", "appears twice"),
        (b"x" * 60, (), "x" * 50, "x" * 50 + "'"),
    ],
)
def test_unknown_and_repeated_parameters_are_refused(
    query: bytes, known: tuple[str, ...], param: str, words: str
) -> None:
    with pytest.raises(GatewayError) as refused:
        parameters.read(query, known)
    assert refused.value.kind.status == 400 and refused.value.param == param and words in refused.value.message


def test_a_selection_is_read_from_a_query() -> None:
    found = selection.read(b"search=qwen&free_only=1&capability=tool_use&limit=3")
    assert (found.search, found.free_only, found.capability, found.limit) == ("qwen", True, "tools", 3)
    with pytest.raises(GatewayError, match="sort_by must be one of"):
        selection.read(b"sort_by=age")
