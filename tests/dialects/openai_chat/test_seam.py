"""Seams: which part of a later attempt's text is new, in whatever pieces it comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.dialects.openai_chat import Seam

TEXT = st.text("ab \n", max_size=12)
CUTS = st.lists(st.integers(0, 120), max_size=8)
SAID = "The river had been low all summer, and the old ferry lay on the mud"


def joined(seam: Seam, answer: str, cuts: list[int]) -> str:
    """What is new of ``answer``; pieces behind one that was no continuation are not looked at."""
    places = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in cuts)})
    new = ""
    for start, end in pairwise(places):
        new += seam.take(answer[start:end])
        if seam.diverged or seam.unclear or seam.stopped:
            return new
    return new + seam.close()


# ------------------------------------------------------------------------------------- white space


@pytest.mark.parametrize(
    ("said", "answer", "new"),
    [
        ("Para one.\n", "\n\nPara two.", "\nPara two."),
        ("Para one.\n\n", "\nPara two.", "Para two."),
        ("    if x:\n    ", "\n        return", "    return"),
        ("Hello ", "world", "world"),
        ("Hello ", " world", "world"),
        ("Hello \t", "\tworld", "\tworld"),
        ("Hello \u3000", " \u3000world", "world"),
    ],
)
@given(cuts=CUTS)
def test_a_target_that_trims_says_the_white_space_again(said: str, answer: str, new: str, cuts: list[int]) -> None:
    """What both begin with is taken out, once, and no more of it."""
    assert joined(Seam(said, afresh=False, trims=True), answer, cuts) == new


@given(TEXT.filter(bool), TEXT, CUTS)
def test_a_target_that_keeps_white_space_is_taken_at_its_word(said: str, rest: str, cuts: list[int]) -> None:
    seam = Seam(said, afresh=False, trims=False)
    new = joined(seam, rest, cuts)
    assert seam.unclear or new == rest
    assert seam.unclear == bool(rest and (rest.startswith(said) or said.startswith(rest)))


@pytest.mark.parametrize(
    ("answer", "new"),
    [("\n    x", "x"), ("\n  x", "\n  x"), ("    x", "    x"), ("\n     x", " x"), ("\n    ", ""), ("\n  ", "\n  ")],
)
@given(cuts=CUTS)
def test_where_nothing_is_known_all_of_it_must_come_again(answer: str, new: str, cuts: list[int]) -> None:
    assert joined(Seam("if x:\n    ", afresh=False), answer, cuts) == new


# ------------------------------------------------------------------------------------- echoes


@given(st.integers(16, len(SAID)), CUTS)
def test_an_echo_is_spliced_like_a_restart(size: int, cuts: list[int]) -> None:
    said = SAID[:size]
    for trims in (True, False, None):
        seam = Seam(said, afresh=False, trims=trims, stops=["mud", "river"])
        assert joined(seam, SAID + " like a sleeping animal.", cuts) == SAID[size:] + " like a sleeping animal."
        assert seam.echoed and seam.afresh and seam.resolved and not seam.stopped


@given(st.integers(1, 15), CUTS)
def test_a_short_text_that_comes_again_is_unclear(size: int, cuts: list[int]) -> None:
    seam = Seam(SAID[:size], afresh=False, trims=False)
    assert joined(seam, SAID, cuts) == "" and seam.unclear and not seam.echoed


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("la " * 7, "la " * 9),
        (" la" * 6 + " ", " la" * 9),
        ("=" * 30, "=" * 50),
        ("| --- " * 9, "| --- " * 12),
        (" la la la la, la", " la la la la, la la,"),
        (f"{SAID}. {SAID}. ", f"{SAID}."),
        (f"{SAID}. ", f"{SAID[:-3]}way"),
        (SAID, SAID[:50]),
        (SAID, SAID[:7]),
    ],
    ids=[
        "syllables",
        "syllables whose white space is said again",
        "a line",
        "a table",
        "a song",
        "a refrain",
        "another way behind 40",
        "half of it",
        "a little of it",
    ],
)
@given(cuts=CUTS)
def test_what_may_be_an_honest_repetition_is_unclear(said: str, answer: str, cuts: list[int]) -> None:
    seam = Seam(said, afresh=False, trims=said != said.rstrip())
    assert joined(seam, answer, cuts) == "" and seam.unclear and not seam.diverged


def test_forty_characters_are_held_at_most() -> None:
    """What is no echo is let go at the first character that differs, or at the fortieth."""
    said = "x" * 20 + SAID
    seam = Seam(said, afresh=False, trims=False)
    assert seam.take(said[:39]) == ""
    assert seam.take("?") == said[:39] + "?" and seam.resolved
    seam = Seam(said, afresh=False, trims=False)
    assert seam.take("y") == "y" and seam.resolved


@given(st.text("ab\n ", min_size=1, max_size=80), st.text("ab\n ", max_size=80), CUTS)
def test_what_is_passed_on_is_never_wrong(said: str, rest: str, cuts: list[int]) -> None:
    """Whichever of the two an attempt does: what is used of it is what is missing, or nothing is used."""
    whole = said + rest
    for answer, afresh in ((rest, False), (whole, False), (whole, True)):
        seam = Seam(said, afresh=afresh, trims=False)
        new = joined(seam, answer, cuts)
        honest = answer is rest
        if seam.unclear or (honest and seam.echoed):
            assert not honest or rest.startswith(said[:16]) or said.startswith(rest)
        else:
            assert new == (rest if honest or seam.echoed or afresh else answer)


# ------------------------------------------------------------------------------------- stop strings


def test_stop_string_across_the_seam_is_found() -> None:
    seam = Seam("One, two ", afresh=False, trims=True, stops=["two three"])
    assert seam.take(" three") == "" and seam.stopped
