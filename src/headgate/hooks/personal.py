"""``mask-personal``: e-mail addresses, telephone numbers, and numbers of payment cards (with a sound check digit)."""

from __future__ import annotations

import re

from headgate.hooks.rules import Rule, Span

WINDOW = 384  # the longest beginning: an e-mail address, 320 characters

_LOCAL = r"[A-Za-z0-9._%+\-]"
_LABEL = r"[A-Za-z0-9\-]"
_ADDRESS = rf"(?<!{_LOCAL}){_LOCAL}{{1,64}}+@(?:{_LABEL}{{1,63}}+\.){{1,3}}?[A-Za-z]{{2}}"
_PART_OF_ADDRESS = rf"(?<!{_LOCAL}){_LOCAL}{{1,64}}+(?:@(?:{_LABEL}{{1,63}}+\.){{0,3}}{_LABEL}{{0,63}})?\Z"
_GAP = "[ ./()-]{0,2}"
_INTERNATIONAL = rf"\+(?<![\w+]\+)[1-9](?:{_GAP}\d){{7,14}}(?!\d)"
_PART_OF_INTERNATIONAL = rf"(?<![\w+])\+(?:[1-9](?:{_GAP}\d){{0,14}}{_GAP})?\Z"
_AMERICAN = r"[(\d](?<![\w.+(\-].)(?:(?<=\()\d{3}\) ?|(?<=\d)\d{2}[ .\-])\d{3}[ .\-]\d{4}(?!\d)"
_LAST_SEVEN = r"(?:\d{0,3}|\d{3}[ .\-]\d{0,4})"
_PART_OF_AMERICAN = (
    rf"(?<![\w.+(\-])(?:\((?:\d{{0,3}}|\d{{3}}\)(?: ?{_LAST_SEVEN}))|\d{{1,3}}|\d{{3}}[ .\-]{_LAST_SEVEN})\Z"
)
_CARD = (
    r"[2-6](?<![\d.].)(?:\d{12,18}|\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|(?<=3)[47]\d\d([ -])\d{6}\2\d{5})(?!\d)"
)
_FOURS = r"(?:\d{0,4}|\d{4}[ -](?:\d{0,4}|\d{4}[ -](?:\d{0,4}|\d{4}[ -]\d{0,3})))"
_PART_OF_CARD = (
    rf"(?<![\d.])(?:[2-6]\d{{0,18}}|[2-6]\d{{3}}[ -]{_FOURS}|3[47]\d\d[ -](?:\d{{0,6}}|\d{{6}}[ -]\d{{0,5}}))\Z"
)
_DOUBLED = {str(n): sum(divmod(2 * n, 10)) for n in range(10)}


def is_sound(digits: str) -> bool:
    """True if the last digit is the check digit of the others (Luhn: ISO/IEC 7812-1, annex B)."""
    return (sum(map(int, digits[::-2])) + sum(_DOUBLED[digit] for digit in digits[-2::-2])) % 10 == 0


def _card(found: re.Match[str]) -> Span | None:
    """The longest card number that a match begins with: three more digits may follow one of sixteen."""
    text = found.group()
    for value in (text, text[:19]) if len(text) == 23 else (text,):
        digits = value.replace(" ", "").replace("-", "")
        if len(set(digits)) > 1 and is_sound(digits):
            return found.start(), found.start() + len(value)
    return None


def _rule(kind: str, pattern: str, partial: str, **more: object) -> Rule:
    return Rule(kind, re.compile(pattern, re.ASCII), re.compile(partial, re.ASCII), **more)  # type: ignore[arg-type]


RULES: tuple[Rule, ...] = (
    _rule(
        "e-mail address", _ADDRESS, _PART_OF_ADDRESS, more=re.compile(rf"(?:{_LABEL}|\.(?={_LABEL}))*+"),
        pending=re.compile(r"\.?"), needs="@",
    ),
    _rule("card number", _CARD, _PART_OF_CARD, check=_card, digits=True),
    _rule("telephone number", _INTERNATIONAL, _PART_OF_INTERNATIONAL, needs="+"),
    _rule("telephone number", _AMERICAN, _PART_OF_AMERICAN),
)  # fmt: skip
