"""Decide whether and how to continue a stream that broke after the client had seen a part of it.

::

    class  what the client has                              what happens
    C0     nothing visible                                  an ordinary next attempt
    C1     plain text of one choice                         continue it; else begin afresh and splice
    C2     reasoning only                                   begin afresh, without its reasoning
    C3     part of a tool call                              error event
    C4     part of a structured answer                      error event
    C5     several choices, log probabilities, audio, …     error event
    —      all of it, with its finish reason                complete; a later error does not count

Called only for a stream that has broken; others pay nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from headgate.model import Delivered, Usage

_THOUGHTS = frozenset(("reasoning_content", "reasoning", "reasoning_details"))
_TEXT = _THOUGHTS | {"content"}


class Verdict(NamedTuple):
    """``name`` is the class.  ``goes_on``: another attempt may follow.  ``prefill``: that attempt may get the text.
    ``why``: the reason against another attempt, for people.
    """

    name: str
    goes_on: bool
    prefill: bool = False
    why: str = ""


C0 = Verdict("C0", True)
C1 = Verdict("C1", True, prefill=True)
C2 = Verdict("C2", True)
C3 = Verdict("C3", False, why="part of a tool call had been sent (tool_calls: hold on the alias keeps them back)")
C4 = Verdict("C4", False, why="the answer has a given structure (structured: buffer on the alias keeps it back)")
C5 = Verdict("C5", False, why="the answer is more than one text: n, logprobs, penalties, audio, or provider-side tools")
LONG = Verdict("C5", False, why="the answer is longer than what is kept of one (96 KiB of text)")
WHOLE = Verdict("whole", False)
OVER = Verdict("over", False, why="the answer had ended")
FORBIDDEN = "on_midstream_failure is error"


def judge(delivered: Delivered | None, obstacle: str | None) -> Verdict:
    """Return the class of a broken stream.  ``delivered``: the part that the client has (None: nothing).  ``obstacle``:
    the request's own obstacle to a continuation (``model.Prompt``).
    """
    if delivered is None:
        return C0
    if delivered.finished:
        return WHOLE if delivered.members - _THOUGHTS else OVER
    if "tool_calls" in delivered.members or "function_call" in delivered.members:
        return C3
    if obstacle == "structured":
        return C4
    if obstacle is not None or delivered.choices > 1 or not delivered.members <= _TEXT:
        return C5
    if delivered.text is None:
        return LONG
    return C1 if delivered.text else C2


def least_tokens(delivered: Delivered, usage: Usage) -> int:
    """Return the least number of tokens that the client has: as reported, or by pieces and characters.

    The number of pieces alone is not enough: some upstreams send one character in each.  Tokens have two or more on
    average.
    """
    reported = usage.completion if usage.basis == "provider" else 0
    return max(reported, min(delivered.tokens, len(delivered.text or "") >> 1))
