"""Find the part of a later attempt's text that the client does not have yet.

A client has seen ``before`` when its stream breaks.  The next attempt either *continues* it (the target was given the
text as a prefill) or begins *afresh* (and is compared with it).  A Seam takes the new attempt's text piece by piece and
returns the new part.  It is *resolved* when there is nothing left to compare, and is not called any more.

It never trims or normalises.  Four cases occur only at a seam:

- A target ignores the prefill and begins at the beginning: an *echo*.  It is compared like a fresh answer.
- A target was given the text without its trailing white space, and generates that again.
- A stop string lies across the seam.  Neither attempt's engine can see it, so the text ends before it here.
- A fresh answer differs from the text that the client has.  It cannot continue it: ``diverged``.

``trims`` is known before the attempt; a seam draws no conclusion about it.
"""

from __future__ import annotations

from collections.abc import Iterable

from headgate.errors import UPSTREAM_DIVERGED, GatewayError

ECHO = 40  # characters: a repetition of the beginning this long is an echo; at most this much text is held
LEAST_ECHO = 16  # characters: a shorter text may be repeated by chance
_VARIED = 0.6  # share of different triples of characters; ordinary text has 0.9


class Seam:
    """``afresh``: the new attempt begins again at the start.  ``stops``: the request's stop strings.  ``limited``: the
    request limits the answer's length.  A continuing attempt then has only the rest, and an echo ends too early.

    ``trims`` is True if the target drops the text's trailing white space, or was given the text without it.  It is
    False if the target keeps the text as it is, and None if that is unknown.  With None, white space is a repetition
    only if all is repeated.

    Results: ``echoed``: the attempt repeated the text instead of continuing it.  ``unclear``: it may have repeated the
    text, or the answer says the same twice; the attempt is not used.  ``diverged``: it is another answer.
    ``stopped``: a stop string lies across the seam.
    """

    __slots__ = (
        "_at",
        "_before",
        "_beyond",
        "_compared",
        "_head",
        "_limited",
        "_space",
        "_trims",
        "afresh",
        "begun",
        "diverged",
        "echoed",
        "held",
        "resolved",
        "stopped",
        "unclear",
    )  # fmt: skip

    def __init__(
        self,
        before: str,
        *,
        afresh: bool,
        trims: bool | None = None,
        stops: Iterable[str] = (),
        limited: bool = False,
    ) -> None:
        self.afresh = afresh
        self.begun = False  # the new attempt has sent text
        self.resolved = False
        self.stopped = False
        self.diverged = False
        self.echoed = False
        self.unclear = False
        self._before = before
        self._compared = len(before) if afresh else 0  # characters to compare with the client's text
        self._at = 0
        self.held = ""  # may repeat the client's text, or begin a stop string
        self._head = "" if afresh else before[:ECHO]
        self._trims = trims
        self._limited = limited
        self._space = "" if afresh or trims is False else before[len(before.rstrip()) :]
        # Endings of stop strings whose beginning the client already has
        self._beyond = () if afresh else tuple({stop[n:] for stop in stops for n in _begun(before, stop)})

    def take(self, text: str) -> str:
        """Return the new part of ``text``.  Check ``failure`` and ``stopped`` afterwards."""
        self.begun = True
        text = self.held + text
        self.held = ""
        if self._head:
            text = self._after_echo(text)
        if self._at < self._compared:
            text = self._compare(text)
        if self._space and text:
            text = self._after_space(text)
        if not text or self.diverged or self.unclear:
            return ""
        return self._before_a_stop(text)

    def failure(self, provider: str) -> GatewayError | None:
        """Return why the new attempt does not continue the client's text; None if it does so far."""
        if self.unclear:
            return GatewayError(
                UPSTREAM_DIVERGED, f"{provider} may have begun the answer again instead of going on with it."
            )
        if self.diverged:
            said = f"{provider} gave another answer than the one that broke off, so it cannot be continued."
            return GatewayError(UPSTREAM_DIVERGED, said)
        return None

    def close(self) -> str:
        """End the new attempt's text, and return the held part of it that is new."""
        if self._head and self.held:  # all of it repeats the beginning
            self.unclear = True
            return ""
        if self._at < self._compared:
            self._differ()
            return ""
        self.resolved = True
        held, self.held = self.held, ""
        return held

    def _after_echo(self, text: str) -> str:
        """Return ``text``, or hold it while it may be an echo.  An echo is compared from here on."""
        head = self._head
        if not text.startswith(head[: len(text)]):
            self._head = ""
            return text
        if len(text) < len(head):
            self.held = text
            return ""
        self._head = self._space = ""
        self._beyond = ()  # its engine has the whole text, and finds the stop strings itself
        if len(head) < LEAST_ECHO or _repeats_itself(self._before, head):
            self.unclear = True
            return ""
        self.echoed = self.afresh = True
        if self._limited:
            self.unclear = True
            return ""
        self._compared = len(self._before)
        return text

    def _compare(self, text: str) -> str:
        rest = self._compared - self._at
        if not self._before.startswith(text[:rest], self._at):
            self._differ()
            return ""
        self._at += min(rest, len(text))
        return text[rest:]

    def _differ(self) -> None:
        """Note the difference.  A text that began like an echo may have repeated the beginning on purpose."""
        self.unclear, self.diverged = self.echoed, not self.echoed

    def _after_space(self, text: str) -> str:
        space = self._space
        if self._trims:
            alike = _alike(space, text)
            self._space = space[alike:] if alike == len(text) else ""
            return text[alike:]
        if len(text) < len(space) and space.startswith(text):
            self.held = text
            return ""
        self._space = ""
        # Only a repetition of all of it counts: two halves of an indentation are no repetition
        return text.removeprefix(space)

    def _before_a_stop(self, text: str) -> str:
        if any(text.startswith(beyond) for beyond in self._beyond):
            self.stopped = self.resolved = True
            return ""
        self._beyond = tuple(beyond for beyond in self._beyond if beyond.startswith(text))
        if self._beyond:
            self.held = text
            return ""
        self.resolved = True
        return text


def _begun(before: str, stop: str) -> list[int]:
    """Return the lengths of the beginnings of ``stop`` with which ``before`` ends."""
    return [n for n in range(1, len(stop)) if before.endswith(stop[:n])]


def _alike(one: str, other: str) -> int:
    """Return the length of the common beginning."""
    most = min(len(one), len(other))
    return next((at for at in range(most) if one[at] != other[at]), most)


def _repeats_itself(before: str, head: str) -> bool:
    """True if ``before`` contains its beginning again, ends in a repetition that continues with ``head``, or begins
    monotonously.  Then a text that begins with ``head`` does not prove an echo.
    """
    triples = [head[at : at + 3] for at in range(len(head) - 2)]
    if before.find(head, 1) >= 0 or len(set(triples)) < _VARIED * len(triples):
        return True
    return any(_goes_round(text, head) for text in (before, before.rstrip()))  # white space may be repeated as well


def _goes_round(text: str, head: str) -> bool:
    size = len(text)
    for period in range(1, min(len(head), size // 2) + 1):
        unit = text[size - period :]
        if text.endswith(unit, 0, size - period) and (unit * (len(head) // period + 1)).startswith(head):
            return True
    return False
