"""Secrets out of foreign text: known ones wherever they stand, and whatever looks like one."""

from __future__ import annotations

import json

import pytest

from headgate.dialects.openai_chat import error_body, failure
from headgate.dialects.openai_chat.errors.failures import stream_failure
from headgate.wire.redaction import MOST_TEXT, scrub
from tests.spellings import leaks, spellings

SECRET = "canary/9f8e7d6c5b4a+39"  # of no form that a pattern knows


@pytest.mark.parametrize(
    "text",
    [
        f"the value {SECRET} is wrong",
        SECRET,
        SECRET * 3,
        f"x{SECRET}x",
        SECRET.upper(),
        SECRET.lower(),
        "in a URL: ?k=canary%2F9f8e7d6c5b4a%2B39&x",
        f"cut: {SECRET[:14]}…",
        f"masked: {SECRET[:9]}*****",
        "a" * (MOST_TEXT - 10) + SECRET,
        "a" * 100_000 + SECRET,
        ("a" * 50 + SECRET) * 2000,
    ],
)
def test_a_known_secret(text: str) -> None:
    clean = scrub(text, (SECRET,))
    assert "canary/9" not in clean.lower() and "9f8e7d6c5b" not in clean.lower() and len(clean) <= 2 * MOST_TEXT


def test_of_several_secrets_none_stays() -> None:
    assert scrub("one-secret two-secret", ("one-secret", "two-secret")) == "[redacted] [redacted]"


def test_words_as_short_as_words_stay() -> None:
    assert scrub("an apple", ("app",)) == "an apple"


PLACES = [
    {"error": {"message": "no", "param": SECRET}},
    {"error": {"message": SECRET}},
    {"error": {"message": "no", "code": SECRET, "type": SECRET, "param": f"x.{SECRET}"}},
    {"detail": [{"loc": ["body", SECRET], "msg": SECRET, "type": SECRET}]},
    {"errors": {SECRET: [SECRET]}},
    {"errors": [{"field": SECRET, "message": "no"}]},
    {"error": SECRET},
    [{"error": {"message": f"header {SECRET}", "param": SECRET}}],
    {"error": {"message": json.dumps({"error": {"message": SECRET, "param": SECRET}})}},
    {"error": {"message": "x", "metadata": {"raw": json.dumps({"message": SECRET, "param": SECRET})}}},
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 422, 429, 500, 503])
def test_no_field_of_a_foreign_error_carries_one(place: object, status: int) -> None:
    body = json.dumps(place).encode()
    if status == 200:
        error = stream_failure(body, provider="up", secrets=(SECRET,))
    else:
        error = failure(status, {}, body, provider="up", secrets=(SECRET,))
    assert SECRET.encode() not in error_body(error) and b"canary" not in error_body(error)


def test_a_known_secret_is_removed_in_every_spelling() -> None:
    secret = "Kq7/Zp+9=Wm3&xVt5bN8"
    for name, spelled in spellings(secret).items():
        assert not leaks({"it": secret}, {"there": scrub(f"it is {spelled}, no good", (secret,)).encode()}), name


def test_a_short_secret_takes_no_word_of_a_text() -> None:
    text = "the model abc does not exist"
    assert scrub(text, ("Wm3x",)) == text
