"""A later attempt at an answer of which the client has a part already.

A ``Joined`` stream takes over what the client knows from the stream that broke (id, model, role, what was said) and
lets through what is new, as its Seam tells.  Behind the seam it is a stream like any other.
"""

from __future__ import annotations

from msgspec import Raw

from headgate import errors
from headgate.dialects.openai_chat import chunks, shapes
from headgate.dialects.openai_chat import usage as usages
from headgate.dialects.openai_chat.calls import ToolCalls
from headgate.dialects.openai_chat.seam import Seam
from headgate.dialects.openai_chat.stream import ChatStream
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec
from headgate.wire.codec import NULL, Object


class Joined(ChatStream):
    """See ``ChatStream``.  ``join`` before anything else."""

    seam: Seam
    _before: Usage  # what the client had, of the prompt and of the answer
    _thoughts: int  # tokens of reasoning, where the client has nothing else
    _first_progress: int

    def join(self, before: ChatStream, seam: Seam) -> None:
        """Takes up where ``before`` broke: from here on the two are one stream of the client's."""
        self.seam = seam
        self.visible = self._begun = True
        self._hold = ""  # what the client waits for is the rest of something
        self._held = None
        self._face = before._face
        self._choices = before._choices
        for choice in self._choices.values():
            choice.tools = ToolCalls(f"{self.ident}/{choice.index}")  # what was held of them came to nothing
        self._kinds = before._kinds & {*shapes.TEXT_KEYS, *shapes.THOUGHTS}
        self._said = before._said
        self._prompt_tokens = before._prompt_tokens
        self._before = before.given
        self._thoughts = self._before.completion if self._kinds <= shapes.NO_ANSWER else 0
        self._text_events, self._text_bytes = before._given
        self._first_progress = self.progress

    @property
    def usage(self) -> Usage:
        """Of the whole answer: the prompt once, and what the client has been given."""
        if self._usage_raw is None or (self.seam.afresh and not self._thoughts):
            return super().usage
        own = self.own_usage
        if self._thoughts:  # the client has the first attempt's, and none of this one's
            own.completion += self._thoughts - own.reasoning
            own.reasoning = self._thoughts
        else:
            # The text that it was given is no prompt of the client's, and was counted where it was written
            own.prompt = max(0, own.prompt - self._before.completion)
            own.completion += self._before.completion
            own.cached = min(own.cached, own.prompt)
            own.cache_write = min(own.cache_write, own.prompt - own.cached)
        own.basis = "estimated"
        return own

    def _shown_usage(self) -> Raw:
        return usages.write(self.usage, self._usage_raw if self.seam.afresh and not self._thoughts else None)

    @property
    def own_usage(self) -> Usage:
        """Of this attempt alone, as its provider bills it."""
        since = self.progress - self._first_progress
        given = 0 if self.seam.afresh else self._before.completion
        if self._usage_raw is None and not (since or self.begun or self.done):
            return Usage()
        usage, _ = usages.read(self._usage_raw, Usage(self._prompt_tokens + given, since))
        if not self.done:
            usage.completion = max(usage.completion, since)
        return usage

    @property
    def begun(self) -> bool:
        return self.seam.begun

    def _finish_up(self, parts: list[bytes]) -> None:
        """The new attempt is complete.  It is not where it has said less than the client has, or nothing at all."""
        seam = self.seam
        open_end = not seam.settled and not self._has_finished
        if self._hollow or (open_end and not seam.begun):
            self._refuse_nothing()
            return
        if open_end:
            held = seam.close()
            if seam.diverged:
                self._diverge()
                return
            if held:
                self._text_events += 1
                self._text_bytes += len(held.encode())
                rest = {"index": 0, "delta": {"content": held}, "finish_reason": None}
                parts.append(self._face.chunk({"choices": [rest]}))
        super()._finish_up(parts)

    def _diverge(self) -> None:
        said = f"{self.provider} gave another answer than the one that broke off, so it cannot be continued."
        self.error = GatewayError(errors.UPSTREAM_DIVERGED, said)

    @property
    def trimmed(self) -> bool | None:
        """Whether the target has shown here that it trims a prefill's trailing whitespace."""
        return self.seam.trimmed

    def _delta_of(self, choice: chunks.Members, state: chunks.Choice) -> tuple[Object, bool]:
        delta, edited = chunks.delta_of(choice, state)
        for name in shapes.THOUGHTS:  # never two chains of thought
            edited = delta.pop(name, None) is not None or edited
        seam = self.seam
        if seam.stopped:  # a stop string has ended the answer, which its engine does not know
            edited = delta.pop("content", None) is not None or edited
        elif not seam.settled:
            edited = self._pass(seam, choice, delta) or edited
        return delta, edited

    def _pass(self, seam: Seam, choice: chunks.Members, delta: Object) -> bool:
        """Leaves of a delta's content what is new; whether that changed it."""
        raw = delta.get("content")
        text = codec.as_text(raw) if raw is not None and raw != NULL else None
        new = seam.take(text) if text else ""
        ends = not codec.is_null(choice.get("finish_reason"))
        if not seam.diverged and not seam.settled and (ends or shapes.visible_keys(delta) not in ([], ["content"])):
            new += seam.close()
        if seam.diverged:
            self._diverge()
        if seam.stopped:
            choice["finish_reason"] = codec.raw("stop")
            self.done = True
        if new == (text or ""):
            return False
        if new:
            delta["content"] = codec.raw(new)
        else:
            del delta["content"]
        return True
