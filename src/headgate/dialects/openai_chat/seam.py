"""Where one attempt's text ends and the next one's begins: which part of the new text the client does not have yet.

A client has seen ``said`` when its stream breaks.  The next attempt either *continues* it (the target was given the
text as a prefill) or begins *afresh* (and is compared with it).  A Seam takes the new attempt's text piece by piece
and gives what is new; it is settled as soon as there is nothing left to compare, and then out of the way.

It never trims or normalises.  Four things happen at a seam and nowhere else:

- Targets that trim a prefill's trailing whitespace generate it again.  Whether one does is learnt where that shows:
  ``trims`` is what is known before, ``trimmed`` what has been seen.
- Some targets begin their answer with the prefill itself (Mistral's ``prefix``; DeepSeek's does not).
- A stop string may lie across the seam, where neither attempt's engine can see it: the text ends before it.
- A fresh answer that is not what the client has is no continuation of it: ``diverged``.
"""

from __future__ import annotations

from collections.abc import Iterable


class Seam:
    """``afresh``: the new attempt begins again at the start.  ``echoes``: a continuing one may begin with what it was
    given.  ``stops``: the request's stop strings.
    """

    __slots__ = (
        "_at", "_beyond", "_echo", "_held", "_said", "_space", "afresh", "begun", "diverged", "settled", "stopped",
        "trimmed",
    )  # fmt: skip

    def __init__(
        self,
        said: str,
        *,
        afresh: bool,
        trims: bool | None = None,
        echoes: bool = False,
        stops: Iterable[str] = (),
    ) -> None:
        self.afresh = afresh
        self.begun = False  # the new attempt has said something
        self.settled = False
        self.stopped = False  # a stop string lies across the seam
        self.diverged = False
        self.trimmed: bool | None = None
        self._said = said if afresh else ""
        self._at = 0
        self._held = ""  # might still be what the client has, or part of a stop string
        self._echo = said if echoes and not afresh else ""
        # What a target that trims would say again.  Only all of it together tells: half of an indentation followed by
        # the other half is no repetition.
        self._space = "" if afresh or trims is False else said[len(said.rstrip()) :]
        # What would complete a stop string that the client has the beginning of
        self._beyond = () if afresh else tuple({stop[n:] for stop in stops for n in _begun(said, stop)})

    def take(self, text: str) -> str:
        """What of ``text`` is new.  Look at ``diverged`` and ``stopped`` afterwards."""
        self.begun = True
        if self._at < len(self._said):
            text = self._compare(text)
        if not text or self.diverged:
            return ""
        text = self._held + text
        self._held = ""
        if self._echo:
            if len(text) < len(self._echo) and self._echo.startswith(text):
                self._held = text
                return ""
            if text.startswith(self._echo):
                text = text[len(self._echo) :]
                self._space = ""
            self._echo = ""
            if not text:
                return ""
        if self._space:
            if len(text) < len(self._space) and self._space.startswith(text):
                self._held = text
                return ""
            self.trimmed = text.startswith(self._space)
            if self.trimmed:
                text = text[len(self._space) :]
            self._space = ""
            if not text:
                return ""
        return self._before_a_stop(text)

    def close(self) -> str:
        """The new attempt's text has ended: what was held and is new, now that nothing can follow it."""
        if self._at < len(self._said):
            self.diverged = True
            return ""
        self.settled = True
        held, self._held = self._held, ""
        return held

    def _compare(self, text: str) -> str:
        rest = len(self._said) - self._at
        if not self._said.startswith(text[:rest], self._at):
            self.diverged = True
            return ""
        self._at += min(rest, len(text))
        return text[rest:]

    def _before_a_stop(self, text: str) -> str:
        if any(text.startswith(beyond) for beyond in self._beyond):
            self.stopped = self.settled = True
            return ""
        self._beyond = tuple(beyond for beyond in self._beyond if beyond.startswith(text))
        if self._beyond:
            self._held = text
            return ""
        self.settled = True
        return text


def _begun(said: str, stop: str) -> list[int]:
    """How many characters of ``stop`` may stand at the end of ``said`` already."""
    return [n for n in range(1, len(stop)) if said.endswith(stop[:n])]
