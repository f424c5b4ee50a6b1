"""How much of an answer a client least_tokens has when its stream breaks."""

from __future__ import annotations

import pytest

from headgate.model import Delivered, Usage
from headgate.policy.attempts.continuation import least_tokens


@pytest.mark.parametrize(
    ("text", "pieces", "usage", "expected"),
    [
        ("abcdefghij", 10, Usage(3, 10), 5),  # a character each
        ("съешь ещё", 9, Usage(3, 9), 4),  # …of two bytes
        ("word " * 10, 10, Usage(3, 10), 10),
        ("a word at once " * 10, 10, Usage(3, 10), 10),  # several tokens each, nobody knows how many
        ("abc", 3, Usage(3, 9, basis="provider"), 9),
        ("abc", 3, Usage(3, 9, basis="estimated"), 1),
        (None, 30, Usage(3, 30), 0),
    ],
)
def test_pieces_are_no_tokens(text: str | None, pieces: int, usage: Usage, expected: int) -> None:
    assert least_tokens(Delivered(text, frozenset({"content"}), 1, pieces), usage) == expected
