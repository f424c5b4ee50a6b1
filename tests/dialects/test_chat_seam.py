"""Seams: what a target that says the prefill again may do, whatever the pieces in which it does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.dialects.openai_chat import Seam

TEXT = st.text("ab \n", max_size=12)


def joined(seam: Seam, answer: str, cuts: list[int]) -> str:
    places = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in cuts)})
    pieces = [answer[start:end] for start, end in pairwise(places)]
    return "".join(seam.take(piece) for piece in pieces) + seam.close()


@given(TEXT.filter(bool), TEXT, st.lists(st.integers(0, 30), max_size=6))
def test_a_repeated_prefill_is_taken_out(said: str, rest: str, cuts: list[int]) -> None:
    assert joined(Seam(said, afresh=False, trims=False, echoes=True), said + rest, cuts) == rest


@given(TEXT.filter(bool), TEXT, st.lists(st.integers(0, 30), max_size=6))
def test_what_does_not_repeat_it_passes_whole(said: str, rest: str, cuts: list[int]) -> None:
    if not rest.startswith(said):
        assert joined(Seam(said, afresh=False, trims=False, echoes=True), rest, cuts) == rest
    assert joined(Seam(said, afresh=False, trims=False), rest, cuts) == rest


@pytest.mark.parametrize(
    ("pieces", "new"), [(["One, two, ", "three"], "three"), (["three"], "three"), (["One"], "One")]
)
def test_the_text_so_far_is_given_as_it_is(pieces: list[str], new: str) -> None:
    seam = Seam("One, two, ", afresh=False, echoes=True)
    assert "".join(map(seam.take, pieces)) + seam.close() == new
    assert seam.settled and not seam.diverged


def test_a_stop_string_behind_the_repetition_still_counts() -> None:
    seam = Seam("One, tw", afresh=False, echoes=True, stops=["two"])
    assert seam.take("One, two, three") == "" and seam.stopped
