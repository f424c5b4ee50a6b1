"""A Source and a Face as one stream: how any provider's API serves a client of any other.

Owns the state of a stream: the parts that the client has seen and that are held back, the seam with an earlier attempt,
and the test for a hollow answer.  Knows no API.  Clients of the provider's own API get its pass-through instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from headgate import errors
from headgate.dialects import tally
from headgate.dialects.base import (
    Answer,
    Delta,
    Face,
    Finish,
    PassedEvent,
    RawDelta,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    Source,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.dialects.seam import Seam
from headgate.dialects.tally import ClientView, Held
from headgate.errors import GatewayError
from headgate.model import NOTHING, Delivered, Usage, Used
from headgate.wire.bodies import framing
from headgate.wire.bodies.framing import BodyForm

_OBJECT = 128  # bytes of a delta's memory besides its text
_KINDS = {TextDelta: "content", ReasoningDelta: "reasoning_content", RefusalDelta: "refusal"}


class ComposedStream:
    """Implements ``ports.StreamBridge``.  With ``seam`` it continues an answer of which the client has ``before``."""

    def __init__(
        self, source: Source, face: Face, reply: Reply, seam: Seam | None = None, before: ClientView | None = None
    ) -> None:
        self.source = source
        self.face = face
        self.ident = reply.ident
        self.view = ClientView(keep=reply.keep or seam is not None) if before is None else before
        self.seam = seam
        self.visible = before is not None
        self.done = False
        self.error: GatewayError | None = None
        self.events = 0
        self.skipped = 0
        self.quiet = 0.0
        self._reply = reply
        self._begun = False
        self._refused = False  # the face did not take what came
        self._finish: Finish | None = None
        self._held: Held[Delta] = Held(reply.hold if seam is None else "", _memory_of)
        self._produced = ClientView(keep=False)  # all of this attempt's text, delivered or not
        self._before = reply.before if before is not None else None
        self._begins = self.view.now
        self._thoughts = self.view.is_hollow

    # ------------------------------------------------------------------------------- the bridge

    def feed(self, data: bytes) -> bytes:
        return self._take(self.source.feed(data))

    def whole(self, body: bytes) -> bytes:
        """Take an answer that came whole, and return it as a stream."""
        return self._take(self.source.whole(body))

    def close(self, clean: bool = True) -> bytes:
        return self._take(self.source.close(clean))

    def complete(self, reason: str) -> bool:
        if self._refused:
            return False
        if self._finish is None:
            self._finish = Finish(reason)
        self.error = None
        self.done = True
        return True

    def stop(self, reason: str) -> None:
        self._finish = Finish(reason)
        self.done = True

    def tail(self, usage: Usage, extra: bytes | None = None, trace: bytes | None = None) -> bytes:
        if self.error is not None:
            return self.face.error(self.error)
        return self.face.tail(self._finish or Finish("stop"), usage, extra, trace)

    @property
    def finish(self) -> str:
        return self._finish.reason if self._finish is not None else ""

    @property
    def model(self) -> str:
        return self.source.model or self._reply.model

    @property
    def begun(self) -> bool:
        return self._begun if self.seam is None else self.seam.begun

    @property
    def progress(self) -> int:
        return self.view.estimate

    @property
    def delivered(self) -> Delivered | None:
        if not self.visible:
            return None
        view, before = self.view, self._before
        tokens = self.used.delivered.completion + (before.completion if before is not None else 0)
        # A quiet end is one too, of sources that give the finish reason with it
        finished = self._finish is not None or (self.error is None and 0.0 < self.quiet < math.inf)
        return Delivered(view.text, frozenset(view.members), 1, tokens, finished)

    # ------------------------------------------------------------------------------- usage

    @property
    def used(self) -> Used:
        before, seam, reported = self._before, self.seam, self.source.reported
        if before is not None and seam is not None:
            delivered = tally.added(
                before, reported if self.source.done else None, self.view.since(self._begins, self.view.now),
                done=self.done, afresh=seam.afresh, thoughts=self._thoughts,
            )  # fmt: skip
            return Used(delivered, self._billed(before.prompt + (0 if seam.afresh else before.completion)))
        billed = self._billed(self._reply.prompt_tokens)
        if not self.visible:
            return Used(NOTHING.delivered, billed)
        if self._held.items is None and self._produced.size == self.view.size:
            return Used(billed, billed)
        completion = min(billed.completion, self.view.estimate)
        return Used(Usage(billed.prompt, completion, billed.cached, billed.cache_write), billed)

    def _billed(self, prompt: int) -> Usage:
        """Return the reported usage; without a report, an estimate for a prompt of so many tokens."""
        reported, produced = self.source.reported, self._produced.estimate
        if reported is None:
            return Usage(prompt, produced) if self._begun or self.done else NOTHING.billed
        if not self.source.done and produced > reported.completion:  # the report may be an interim one
            return Usage(reported.prompt, produced, reported.cached, reported.cache_write, reported.reasoning)
        return reported

    # ------------------------------------------------------------------------------- deltas

    def _take(self, deltas: Sequence[Delta]) -> bytes:
        if self.done or self.error is not None:
            return b""
        out: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, Finish):
                self._finish = delta
            else:
                self._pass(delta, out)
            if self.done or self.error is not None:
                break
        source = self.source
        self.events, self.skipped = source.events, source.skipped
        if self.error is None and not self.done:
            self._judge(out)
        self.quiet = source.quiet
        held = self._held.release(done=self.done, quiet=self.quiet) if self.error is None else None
        if held is not None:
            self._show(held)
            self.view.forget_text()  # the held part may be a tool call, which cannot be continued
            out += held
        if not out and not (self.done and not self.visible):
            return b""
        self.visible = True
        try:
            return self.face.put(out, self.model)
        except GatewayError as error:  # of a hook, which the answer must not pass
            self.error, self.done, self._finish, self._refused = error, False, None, True
            return b""

    def _pass(self, delta: Delta, out: list[Delta]) -> None:
        """Append to ``out`` the deltas that the client gets now."""
        passed: Delta | None = delta
        kind = kind_of(delta)
        if kind:
            self._produced.add(kind, size_of(delta))
        seam = self.seam
        if seam is not None:
            passed = self._after(seam, delta, out)
        if passed is None or self.error is not None:
            return
        self._begun = True
        held = self._held
        if held.scope and held.starts_at({kind}):
            held.items = []
        if held.items is not None:
            held.items.append(passed)
        else:
            self._show((passed,))
            out.append(passed)

    def _show(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            kind = kind_of(delta)
            if kind:
                text = delta.text if kind == "content" and isinstance(delta, TextDelta | PassedEvent) else ""
                self.view.add(kind, size_of(delta), text)

    def _after(self, seam: Seam, delta: Delta, out: list[Delta]) -> Delta | None:
        """Return the part of a later attempt's delta that is new to the client."""
        if isinstance(delta, ReasoningDelta):
            return None  # the client gets only one chain of thought
        if not (seam.resolved or kind_of(delta)):
            return None
        if isinstance(delta, TextDelta):
            if seam.stopped:
                return None
            text = delta.text if seam.resolved else seam.take(delta.text)
            if self._diverges(seam):
                return None
            if seam.stopped:
                self._finish = Finish("stop")
                self.done = True
            return TextDelta(text) if text else None
        if not seam.resolved:
            held = seam.close()
            if self._diverges(seam):
                return None
            if held:
                self._show((TextDelta(held),))
                out.append(TextDelta(held))
        return delta

    def _diverges(self, seam: Seam) -> bool:
        self.error = seam.failure(self._reply.provider)
        return self.error is not None

    # ------------------------------------------------------------------------------- the end

    def _judge(self, out: list[Delta]) -> None:
        """Take over the source's end or error."""
        source, seam = self.source, self.seam
        if source.error is not None:
            self.error = source.error
            self._finish = None
        elif source.done:
            if self._is_hollow:
                self.error = tally.hollow_answer(self._reply.provider)
                self._finish = None
                return
            if seam is not None and not seam.resolved:
                held = seam.close()
                if self._diverges(seam):
                    self._finish = None
                    return
                if held:
                    self._show((TextDelta(held),))
                    out.append(TextDelta(held))
            self.done = True

    @property
    def _is_hollow(self) -> bool:
        if self.seam is None:
            return is_hollow(self._produced, self._finish, self._reply)
        nothing = self._finish is None and not self.seam.begun
        return nothing or is_hollow(self.view, self._finish, self._reply)


def whole_answer(source: Source, face: Face, body: bytes, reply: Reply) -> Answer:
    """Return the answer for a client that asked for no stream.  ``body`` is one of status 200: a document or a
    stream.
    """
    deltas: list[Delta] = []
    form = framing.form_of(body)
    if form in (BodyForm.EVENTS, BodyForm.LINES):
        deltas += source.feed(framing.as_events(body, form))
        deltas += source.close()
    else:
        deltas += source.whole(framing.document(body))
    if source.error is not None or not source.done:
        return Answer(
            error=source.error or GatewayError(errors.UPSTREAM_GARBAGE, f"{reply.provider} sent an incomplete answer."),
            used=Used(NOTHING.delivered, source.reported or NOTHING.billed),
        )
    view = ClientView(keep=False)
    finish = Finish("stop")
    for delta in deltas:
        if isinstance(delta, Finish):
            finish = delta
        else:
            view.add(kind_of(delta), size_of(delta))
    model = source.model or reply.model
    hollow = is_hollow(view, finish, reply)
    if hollow:
        used = Used(NOTHING.delivered, source.reported or NOTHING.billed)
    else:
        usage = source.reported or Usage(reply.prompt_tokens, view.estimate)
        used = Used(usage, usage)
    try:
        passed = face.screen(deltas)
    except GatewayError as error:
        return Answer(error=error, used=Used(NOTHING.delivered, used.billed))
    return Answer(
        partial(face.whole, passed, model, used.delivered), used, view.size, hollow, finish.reason,
        skipped=source.skipped, model=model,
    )  # fmt: skip


def is_hollow(view: ClientView, finish: Finish | None, reply: Reply) -> bool:
    """True if an answer has nothing but reasoning in it, and neither its end nor its request explains that."""
    if not view.is_hollow or (finish is not None and finish.reason in tally.TELLING):
        return False
    return finish is None or not reply.may_be_empty


def kind_of(delta: Delta) -> str:
    """Return the member of a chat delta that corresponds to ``delta``; empty if it shows nothing."""
    if isinstance(delta, PassedEvent):
        return delta.kind
    if isinstance(delta, RawDelta) and not delta.shows:
        return ""
    return _KINDS.get(type(delta), "tool_calls" if isinstance(delta, ToolStart | ToolDelta) else "other")


def size_of(delta: Delta) -> int:
    """Return the bytes of ``delta`` that are visible to a client."""
    if isinstance(delta, TextDelta | ReasoningDelta | RefusalDelta):
        return len(delta.text.encode(errors="surrogatepass"))
    if isinstance(delta, PassedEvent):
        return delta.size
    if isinstance(delta, ToolStart):
        return len(delta.name)
    return len(delta.arguments) if isinstance(delta, ToolDelta) else 0


def _memory_of(delta: Delta) -> int:
    if isinstance(delta, PassedEvent):
        return _OBJECT + len(delta.event)
    return _OBJECT + (len(delta.value) if isinstance(delta, RawDelta) else size_of(delta))
