"""Values of known shapes in a text that comes in pieces, found as in the whole text.

A position of the text is decided once no more text could change the verdict: no match can begin there, or a match has.
``Rule.partial`` finds the first position that is not decided; the text from there on is held.  So the places where a
text is cut do not matter.  Every repetition is bounded and possessive, or its neighbours are disjoint: a scan is
linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from headgate.hooks.api import ARGUMENTS

Atom = str | tuple[str, int, int]  # a literal, or a class of characters with its least and most
Span = tuple[int, int]


def _atoms(shape: Sequence[Atom]) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    for atom in shape:
        found += [(re.escape(c), 1, 1) for c in atom] if isinstance(atom, str) else [atom]
    return found


def full(shape: Sequence[Atom]) -> str:
    """Return the pattern of a shape.  The last atom is read only as often as it must be there."""
    *atoms, (tail, least, _most) = _atoms(shape)
    return "".join(cls if lo == hi == 1 else f"{cls}{{{lo},{hi}}}+" for cls, lo, hi in atoms) + f"({tail}{{{least}}})"


def _by_first(patterns: Iterable[tuple[str, str]], before: str) -> str:
    """Return the pattern of any of ``patterns`` (first character, rest).

    Each alternative begins with another character: the search then skips all others, ten times as fast.
    """
    rests: dict[str, list[str]] = {}
    for first, rest in patterns:
        rests.setdefault(first, []).append(rest)
    ahead = f"(?<!{before}{{}})" if before else ""
    return "|".join(f"{first}{ahead.format(first)}(?:{'|'.join(found)})" for first, found in rests.items())


def beginning(shape: Sequence[Atom]) -> str:
    """Return the pattern of what may become the shape: its beginning, up to the end of the text."""
    *atoms, (tail, least, _most) = _atoms(shape)
    out = f"{tail}{{0,{least - 1}}}\\Z"
    for cls, lo, hi in reversed(atoms):
        out = f"(?:{cls}{{{lo},{hi}}}+{out}|{cls}{{0,{hi}}}\\Z)"
    return out


def whole_match(found: re.Match[str]) -> Span | None:
    return found.span()


def value_only(found: re.Match[str]) -> Span | None:
    """The last group: what stands before it may be shown."""
    return found.span(found.lastindex or 0)


class Rule(Struct, frozen=True):
    """One kind of value.  ``check`` says what of a match is masked; None: it is none after all.

    ``more`` matches what belongs to the value behind the match; while all that is left is ``pending``, more may come.
    ``end``: the value goes on up to a match of it, at most ``LONGEST`` characters.
    ``needs``: without this text there is none.  ``digits``: it may stand in JSON without quotes.
    """

    kind: str
    pattern: re.Pattern[str]
    partial: re.Pattern[str]
    check: Callable[[re.Match[str]], Span | None] = whole_match
    more: re.Pattern[str] | None = None
    pending: re.Pattern[str] = re.compile("")
    end: re.Pattern[str] | None = None
    digits: bool = False
    needs: str = ""

    @property
    def masked(self) -> str:
        return f"[masked: {self.kind}]"


def rule_of(kind: str, before: str, shapes: Iterable[Sequence[Atom]], any_case: bool = False, **more: object) -> Rule:
    """Return the rule for a value of any of ``shapes``, each of which begins with a literal.

    ``before``: a class of which no character may stand before the value.  ``any_case``: upper case counts as lower.
    """
    pieces: list[tuple[str, str]] = []
    partial: list[str] = []
    for shape in shapes:
        partial.append(beginning(shape))
        assert isinstance(shape[0], str)
        rest = full((shape[0][1:], *shape[1:]))
        for first in dict.fromkeys((shape[0][0].upper(), shape[0][0]) if any_case else shape[0][0]):
            pieces.append((re.escape(first), f"(?i:{rest})" if any_case else rest))
    ahead = f"(?<!{before})" if before else ""
    begins = re.compile(f"{ahead}(?:{'|'.join(partial)})", re.ASCII | (re.IGNORECASE if any_case else re.NOFLAG))
    return Rule(kind, re.compile(_by_first(pieces, before), re.ASCII), begins, **more)  # type: ignore[arg-type]


LONGEST = 16 << 10  # characters of a value with an end of its own
_END = 64  # of those, what may be the beginning of the end


class RuleMask:
    """Implements ``api.Mask``.  Mutable: the value that is being left out, and the last character before the text."""

    def __init__(self, rules: Sequence[Rule], window: int, channel: str = "") -> None:
        self.window = window
        self._rules = rules
        self._json = channel == ARGUMENTS
        self._before = ""
        self._inside: Rule | None = None
        self._left = 0

    def scan(self, text: str, last: bool) -> tuple[str, int]:
        """Return the text without the values, and how much of it is decided."""
        before = len(self._before)
        buffer, at = self._before + text, before
        out: list[str] = []
        matches = _Matches(self._rules, buffer)
        hold = -1
        while True:
            if self._inside is not None:
                at = self._leave_out(self._inside, buffer, at, last)
                if self._inside is not None:
                    break
            if hold < at:
                hold = len(buffer) if last else self._undecided(buffer, at)
            found = matches.next(at)
            if found is None or (found[0] >= hold and hold < len(buffer)):
                out.append(buffer[at:hold])
                at = hold
                break
            _, start, end, rule = found
            out += (buffer[at:start], self._masked(rule, buffer[start:end]))
            at = end
            if rule.more is not None or rule.end is not None:
                self._inside, self._left = rule, LONGEST
        self._before = buffer[at - 1 : at] if at else ""
        return "".join(out), at - before

    def _masked(self, rule: Rule, value: str) -> str:
        if self._json and rule.digits and value.isdigit():
            return "9" * len(value)  # perhaps a number: what stands there must remain JSON
        return rule.masked

    def _undecided(self, buffer: str, at: int) -> int:
        start = max(at, len(buffer) - self.window)
        found = (rule.partial.search(buffer, start) for rule in self._rules)
        return min((one.start() for one in found if one is not None), default=len(buffer))

    def _leave_out(self, rule: Rule, buffer: str, at: int, last: bool) -> int:
        """Return where the value ends, or may end later: then it is still ``_inside``."""
        if rule.end is not None:
            return self._leave_out_to(rule.end, buffer, at, last)
        assert rule.more is not None
        more = rule.more.match(buffer, at)
        at = more.end() if more is not None else at
        if last or not rule.pending.fullmatch(buffer, at):
            self._inside = None
        return at

    def _leave_out_to(self, end: re.Pattern[str], buffer: str, at: int, last: bool) -> int:
        limit = at + self._left
        found = end.search(buffer, at, limit)
        if found is not None or len(buffer) >= limit:
            self._inside = None
            return found.end() if found is not None else limit
        stop = len(buffer) if last else max(at, len(buffer) - _END)
        self._left -= stop - at
        if last:
            self._inside = None
        return stop


class _Matches:
    """The matches of several rules in one text, each searched once: no rule is read again for another's matches."""

    def __init__(self, rules: Sequence[Rule], text: str) -> None:
        self._rules = rules
        self._text = text
        self._found: list[tuple[int, int, int] | None] = [(-1, -1, -1)] * len(rules)

    def next(self, at: int) -> tuple[int, int, int, Rule] | None:
        """Return the first match from ``at`` on: its start, its value's start and end, and its rule."""
        best: tuple[int, int, int, Rule] | None = None
        for i, rule in enumerate(self._rules):
            found = self._found[i]
            if found is not None and found[0] < at:
                found = self._found[i] = self._search(rule, at)
            if found is not None and (best is None or found[0] < best[0]):
                best = (*found, rule)
        return best

    def _search(self, rule: Rule, at: int) -> tuple[int, int, int] | None:
        if rule.needs and self._text.find(rule.needs, at) < 0:
            return None
        while (match := rule.pattern.search(self._text, at)) is not None:
            span = rule.check(match)
            if span is not None:
                return match.start(), *span
            at = match.start() + 1
        return None


def find_kinds(rules: Sequence[Rule], text: str) -> str | None:
    """Return the kind of the first value in ``text``; None: there is none."""
    found = _Matches(rules, text).next(0)
    return found[3].kind if found is not None else None
