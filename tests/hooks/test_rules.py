"""Masks find in pieces what they find in the whole text, hold little, and take linear time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.hooks import personal, secrets
from headgate.hooks.api import ARGUMENTS
from headgate.hooks.personal import is_sound
from headgate.hooks.rules import RuleMask

PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7bq+/\n" * 70 + "-----END RSA PRIVATE KEY-----"
SECRETS = {
    "sk-proj-abcdefghijklmnopqrstuvwx12345": "[masked: API key]",
    "ghp_" + "a1B2" * 9: "[masked: API key]",
    "xoxb-123456789012-abcdef": "[masked: API key]",
    "AKIAIOSFODNN7EXAMPLE": "[masked: AWS key]",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-def": "[masked: token]",
    PRIVATE_KEY: "[masked: private key]",
    "Authorization: Bearer abc123def456ghi789jkl": "Authorization: Bearer [masked: bearer token]",
    "postgres://bob:hunter2@db:5432/x": "postgres://bob:[masked: password]@db:5432/x",
    "redis://:p@ss:w@rd@db, ann@b": "redis://:[masked: password]@db, ann@b",
    "API_KEY = 'Zx81kd93jd81lsd9dk20fk'": "API_KEY = '[masked: secret]'",
    r"{\"token\": \"Zx81kd93jd81lsd9dk20fk\"}": r"{\"token\": \"[masked: secret]\"}",
    '"token": "Zx81kd93jd81lsd9dk20fk"': '"token": "[masked: secret]"',
}
PERSONAL = {
    "bob.smith+x@mail.example.co.uk": "[masked: e-mail address]",
    "4111 1111 1111 1111": "[masked: card number]",
    "4111111111111111": "[masked: card number]",
    "3782-822463-10005": "[masked: card number]",
    "+49 (171) 1234567": "[masked: telephone number]",
    "555-123-4567": "[masked: telephone number]",
    "(555) 123-4567": "[masked: telephone number]",
}
HARMLESS = (
    "sk-learn is fine", "4111 1111 1111 1112", "0.4111111111111111",
    "a digest: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "the key = the lock and nothing else", "token: aaaaaaaaaa1111111111", "@home and a@b", "2026-11-28 20:15:00", "https://example.com:8080/a@b",
    "1 + 2", "bearer of good news", "1.2.3.4", "f(x) = (555)",
)  # fmt: skip


def run(module: object, pieces: Sequence[str], channel: str = "") -> str:
    mask = RuleMask(module.RULES, module.WINDOW, channel)  # type: ignore[attr-defined]
    held = out = ""
    for i, piece in enumerate(pieces):
        held += piece
        given, used = mask.scan(held, i == len(pieces) - 1)
        out, held = out + given, held[used:]
        assert len(held) <= mask.window
    assert not held
    return out


@pytest.mark.parametrize(
    ("module", "value", "shown"),
    [*((secrets, *item) for item in SECRETS.items()), *((personal, *item) for item in PERSONAL.items())],
)
def test_values_are_masked_wherever_the_text_is_cut(module: object, value: str, shown: str) -> None:
    text, expected = f"Here: {value}, and so on.", f"Here: {shown}, and so on."
    assert run(module, [text]) == expected
    assert run(module, list(text)) == expected
    for at in range(len(text)) if len(text) < 200 else range(0, len(text), 37):
        assert run(module, [text[:at], text[at:]]) == expected


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay(text: str) -> None:
    assert run(secrets, list(text)) == text and run(personal, list(text)) == text


def test_text_that_is_no_beginning_leaves_at_once() -> None:
    mask = RuleMask(secrets.RULES, secrets.WINDOW)
    assert mask.scan("A word, ", False) == ("A word, ", 8)
    assert mask.scan("and sk-", False) == ("and ", 4)
    assert mask.scan("sk-" + "a" * 20, False) == ("[masked: API key]", 23)  # decided: its rest is left out
    assert mask.scan("aaa, and ", False) == (", and ", 9)
    assert mask.scan("sk-", True) == ("sk-", 3)


def test_numbers_in_arguments_remain_json() -> None:
    assert run(personal, ['{"card": 4111', '111111111111, "to": "a@b', '.com"}'], ARGUMENTS) == (
        '{"card": 9999999999999999, "to": "[masked: e-mail address]"}'
    )


def test_check_digits() -> None:
    assert is_sound("4111111111111111") and is_sound("378282246310005") and not is_sound("4111111111111112")


_PARTS = [
    *SECRETS,
    *PERSONAL,
    *HARMLESS,
    *"sk-@.+1 4:=/\n(",
    "key",
    "token=",
    "Bearer ",
    "http://",
    "co",
    "x@",
    "é",
    "-----",
]


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    parts = draw(st.lists(st.sampled_from(_PARTS), min_size=1, max_size=7))
    lengths = [draw(st.integers(1, len(part))) if draw(st.booleans()) else len(part) for part in parts]
    text = "".join(part[:length] for part, length in zip(parts, lengths, strict=True)) + draw(st.text(max_size=5))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(max_examples=120, deadline=None)
@given(cut_texts())
def test_pieces_give_what_the_whole_text_gives(pieces: list[str]) -> None:
    for module in (secrets, personal):
        assert run(module, pieces) == run(module, ["".join(pieces)])


ADVERSARIES = (
    "a",
    "1 ",
    "1111 ",
    "sk-",
    "a@",
    "a.b@c.",
    "token=",
    "http://a:",
    "eyJ",
    "+1",
    "-----BEGIN ",
    "(555) 12",
    "bearer ",
)


def test_adversarial_texts_take_linear_time() -> None:
    """Eight times the text takes eight times as long: a quadratic scan would take 64 times."""

    def seconds(module: object, text: str) -> float:
        begun = time.thread_time()
        run(module, [text])
        return time.thread_time() - begun

    for module in (secrets, personal):
        for unit in ADVERSARIES:
            small, large = (unit * (size // len(unit)) for size in (32 << 10, 256 << 10))
            base = min(seconds(module, small) for _ in range(3))
            assert min(seconds(module, large) for _ in range(2)) < 24 * base + 0.02, unit
