"""A later attempt at an answer of which the client has a part already.

A ``ContinuedStream`` takes over what the client knows from the stream that broke: id, model, role, the text so far.
It lets through what is new, as its Seam tells.  Behind the seam it is a stream like any other.
"""

from __future__ import annotations

from msgspec import Raw

from headgate.dialects import tally
from headgate.dialects.openai_chat import normalise
from headgate.dialects.openai_chat.stream import chunks
from headgate.dialects.openai_chat.stream.calls import ToolCalls
from headgate.dialects.openai_chat.stream.stream import ChatStream
from headgate.dialects.seam import Seam
from headgate.dialects.tally import Held, Tally
from headgate.dialects.usage import reading as usages
from headgate.model import NOTHING, Usage, Used
from headgate.wire import codec
from headgate.wire.codec import NULL, Object


class ContinuedStream(ChatStream):
    """See ``ChatStream``.  ``join`` before anything else."""

    seam: Seam
    _before: Usage  # what the client had, of the prompt and of the answer
    _begins: Tally  # where in the joined text this attempt's own begins
    _thoughts: bool  # the client has nothing but reasoning
    _held_pieces = 0  # of text that the seam holds
    _dropped: tuple[int, int] = (0, 0)  # pieces and bytes that the client has already, or may not have

    def join(self, before: ChatStream, seam: Seam, used: Usage) -> None:
        """Takes up where ``before`` broke: from here on the two are one stream.  The client has ``used`` of it."""
        self.seam = seam
        self.visible = self._begun = True
        self._held = Held("", len)  # the client waits for the rest of something
        self._face = before._face
        self._choices = before._choices
        for choice in self._choices.values():
            choice.tools = ToolCalls(f"{self.ident}/{choice.index}")  # what was held of them came to nothing
        self._begins = self._counted = before._given
        self.view = before.view.resumed(self._begins, {*normalise.TEXT_KEYS, *tally.THOUGHTS})
        self._saying = self.view.content_json
        self._prompt_tokens = before._prompt_tokens
        self._before = used
        self._thoughts = self.view.is_hollow

    @property
    def used(self) -> Used:
        before, now, seam = self._before, self.view.now, self.seam
        new = self.view.since(self._begins, now)
        whole = self._is_reported_whole
        delivered = tally.added(
            before,
            self._reported,
            new,
            behind=0 if whole or now.size == self._counted.size else self.view.since(self._counted, now),
            done=whole,
            afresh=seam.afresh,
            thoughts=self._thoughts,
        )
        return Used(delivered, self._billed(new))

    def _billed(self, new: int) -> Usage:
        """With what it has repeated, and with the text that it was given."""
        pieces, size = self._dropped
        said = new + tally.count(pieces, size / 4)
        if self._usage_raw is None and not (said or self.begun or self.done):
            return NOTHING.billed
        given = 0 if self.seam.afresh and not self.seam.echoed else self._before.completion
        usage, _ = usages.read(self._usage_raw, Usage(self._before.prompt + given, said))
        if not self._is_reported_whole and said > usage.completion:
            usage.completion = said
            usage.basis = "estimated"
        return usage

    @property
    def _reported(self) -> Usage | None:
        """The provider's report of this attempt."""
        nothing = Usage()
        usage, _ = usages.read(self._usage_raw, nothing)
        return None if usage is nothing else usage

    @property
    def _is_whole(self) -> bool:
        return self.seam.afresh and not self._thoughts

    @property
    def _tokens(self) -> int:
        return self._before.completion + self.used.delivered.completion

    @property
    def begun(self) -> bool:
        return self.seam.begun

    def _finish_up(self, parts: list[bytes]) -> None:
        """The new attempt is complete.  It is not where it has said less than the client has, or nothing at all."""
        seam = self.seam
        open_end = not seam.resolved and not self._has_finished
        if self._hollow or (open_end and not seam.begun):
            self._refuse_nothing()
            return
        if open_end:
            held = seam.close()
            self.error = seam.failure(self.provider)
            if self.error is not None:
                return
            if held:
                self.view.pieces += 1
                self.view.size += len(held.encode())
                rest = {"index": 0, "delta": {"content": held}, "finish_reason": None}
                parts.append(self._face.chunk({"choices": [rest]}))
        super()._finish_up(parts)

    def _take_choice(
        self,
        state: chunks.Choice,
        choice: chunks.Members,
        texts: list[tuple[str, Raw]],
        parts: list[bytes],
        alone: bool,
    ) -> chunks.Fate:
        """Drops what shows nothing before the seam is settled: the client has no part of this attempt yet."""
        fate = super()._take_choice(state, choice, texts, parts, alone)
        if self.seam.resolved or not codec.is_null(choice.get("finish_reason")):
            return fate
        return fate if texts else chunks.Fate.DROPPED

    def _delta_of(self, choice: chunks.Members, state: chunks.Choice) -> tuple[Object, bool]:
        delta, edited = chunks.delta_of(choice, state, self.view.members)
        for name in tally.THOUGHTS:  # never two chains of thought
            thought = delta.pop(name, None)
            if thought is not None:
                edited = True
                self._drop(len(thought) - 2)
        seam = self.seam
        if seam.stopped:  # a stop string has ended the answer, which its engine does not know
            edited = delta.pop("content", None) is not None or edited
        elif not seam.resolved:
            edited = self._pass(seam, choice, delta) or edited
        return delta, edited

    def _drop(self, size: int) -> None:
        if size > 0:
            self._dropped = (self._dropped[0] + 1, self._dropped[1] + size)

    def _pass(self, seam: Seam, choice: chunks.Members, delta: Object) -> bool:
        """Leaves of a delta's content what is new; whether that changed it."""
        raw = delta.get("content")
        text = codec.as_text(raw) if raw is not None and raw != NULL else None
        new = seam.take(text) if text else ""
        ends = not codec.is_null(choice.get("finish_reason"))
        lost = seam.diverged or seam.unclear
        if not lost and not seam.resolved and (ends or normalise.visible_keys(delta) not in ([], ["content"])):
            new += seam.close()
        self.error = self.error or seam.failure(self.provider)
        if seam.stopped:
            choice["finish_reason"] = codec.raw("stop")
            self.done = True
        if new == (text or ""):
            return False
        if seam.held:
            self._held_pieces += 1
        elif new:
            self.view.pieces += self._held_pieces  # they are sent as one, and are as many tokens as before
            self._held_pieces = 0
        self._drop(len(text or "") - len(new) - len(seam.held))
        if new:
            delta["content"] = codec.raw(new)
        else:
            del delta["content"]
        return True
