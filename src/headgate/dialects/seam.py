"""Where one attempt's text ends and the next one's begins: which part of the new text the client does not have yet.

A client has seen ``before`` when its stream breaks.  The next attempt either *continues* it (the target was given the
text as a prefill) or begins *afresh* (and is compared with it).  A Seam takes the new attempt's text piece by piece
and gives what is new; it is settled as soon as there is nothing left to compare, and then out of the way.

It never trims or normalises.  Four things happen at a seam and nowhere else:

- A target may not have taken the prefill and begin at the beginning: an *echo*.  It is compared like a fresh answer.
- A target that was given the text without its trailing white space generates that again.
- A stop string may lie across the seam, where neither attempt's engine can see it: the text ends before it.
- A fresh answer that is not what the client has is no continuation of it: ``diverged``.

Whether a target drops trailing white space is known before (``trims``); nothing is concluded from a seam.
"""

from __future__ import annotations

from collections.abc import Iterable

ECHO = 40  # characters: so much of the beginning, repeated, is an echo, and so much is held at most to tell
LEAST_ECHO = 16  # a shorter text may be repeated honestly
_VARIED = 0.6  # of the triples of characters in ordinary text nine in ten are different


class Seam:
    """``afresh``: the new attempt begins again at the start.  ``stops``: the request's stop strings.  ``limited``: a
    continuing one may say only what is left of a limit, so that an echo of it ends too early and is of no use.

    ``trims``: the target was given the text without its trailing white space, or drops that by itself (True); it keeps
    the text as it is (False); nobody knows (None): then white space is a repetition only where all of it is repeated.

    Afterwards, ``echoed``: the attempt did not continue the text but repeated it.  ``unclear``: it may have, and that
    cannot be told from a text that honestly says the same again; nothing of it is used.  ``diverged``: it is another
    answer.  ``stopped``: a stop string lies across the seam.
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
        self.begun = False  # the new attempt has said something
        self.resolved = False
        self.stopped = False
        self.diverged = False
        self.echoed = False
        self.unclear = False
        self._before = before
        self._compared = len(before) if afresh else 0  # characters that must be what the client has
        self._at = 0
        self.held = ""  # might still be what the client has, or part of a stop string
        self._head = "" if afresh else before[:ECHO]
        self._trims = trims
        self._limited = limited
        self._space = "" if afresh or trims is False else before[len(before.rstrip()) :]
        # What would complete a stop string that the client has the beginning of
        self._beyond = () if afresh else tuple({stop[n:] for stop in stops for n in _begun(before, stop)})

    def take(self, text: str) -> str:
        """What of ``text`` is new.  Look at ``diverged``, ``unclear`` and ``stopped`` afterwards."""
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

    def close(self) -> str:
        """The new attempt's text has ended: what was held and is new, now that nothing can follow it."""
        if self._head and self.held:  # all of it is what the text begins with
            self.unclear = True
            return ""
        if self._at < self._compared:
            self._differ()
            return ""
        self.resolved = True
        held, self.held = self.held, ""
        return held

    def _after_echo(self, text: str) -> str:
        """``text``, held while it may be an echo; one that is, is compared from here on."""
        head = self._head
        if not text.startswith(head[: len(text)]):
            self._head = ""
            return text
        if len(text) < len(head):
            self.held = text
            return ""
        self._head = self._space = ""
        self._beyond = ()  # its engine has the whole text, and looks for the stop strings itself
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
        """An echo that goes another way may have been an honest repetition of the beginning."""
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
        # Only all of it together tells: half of an indentation followed by the other half is no repetition
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
    """How many characters of ``stop`` may stand at the end of ``before`` already."""
    return [n for n in range(1, len(stop)) if before.endswith(stop[:n])]


def _alike(one: str, other: str) -> int:
    """With how many characters both begin."""
    most = min(len(one), len(other))
    return next((at for at in range(most) if one[at] != other[at]), most)


def _repeats_itself(before: str, head: str) -> bool:
    """Whether ``before`` has come back to its beginning before, ends in a repetition that goes on with ``head``, or
    begins so monotonously that it may: that the next text begins with ``head`` then proves nothing.
    """
    triples = [head[at : at + 3] for at in range(len(head) - 2)]
    if before.find(head, 1) >= 0 or len(set(triples)) < _VARIED * len(triples):
        return True
    return any(_goes_round(text, head) for text in (before, before.rstrip()))  # white space may be said again as well


def _goes_round(text: str, head: str) -> bool:
    size = len(text)
    for period in range(1, min(len(head), size // 2) + 1):
        unit = text[size - period :]
        if text.endswith(unit, 0, size - period) and (unit * (len(head) // period + 1)).startswith(head):
            return True
    return False
