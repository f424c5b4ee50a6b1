"""The client's part of each chunk of a stream, and the verdict: complete, cut or hollow.

Owns the choices of one stream and its verdict.  Knows nothing of bytes, events and usage: ``stream`` reads those.
"""

from __future__ import annotations

import math

from msgspec import Raw

from headgate import errors
from headgate.dialects.base import Quotable, Reply
from headgate.dialects.openai_chat import normalise
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.stream import chunks, finishes
from headgate.dialects.openai_chat.stream.envelope import Envelope
from headgate.dialects.openai_chat.stream.splice import Template
from headgate.dialects.tally import TELLING, THOUGHTS, ClientView, Held, Tally, hollow_answer
from headgate.errors import GatewayError
from headgate.wire import codec, sse
from headgate.wire.codec import EMPTY_TEXT, NULL, ZERO, Object

QUIET_S = 2.0  # seconds: only the usage and [DONE] follow the last finish reason, and some servers send neither
QUIET_BEHIND_USAGE_S = 0.5
_ASSISTANT = Raw(b'"assistant"')
_KEPT, _EDITED, _DROPPED = chunks.Fate


class Delivery:
    """The choices of one stream, as far as they have come; see ``stream.ChatStream``, which sets its members up."""

    visible: bool
    done: bool
    error: GatewayError | None
    quiet: float
    skipped: int
    ident: str
    provider: str
    _begun: bool  # there has been something to see
    _choices: dict[int, chunks.Choice]
    _ending: chunks.Choice | None  # whose finish reason the chunk at hand brings, and nothing else
    _expects: int
    _face: Envelope
    _held: Held[bytes]
    _reply: Reply
    _saying: bytearray | None  # where the text of the chunks that the template knows goes
    _secrets: tuple[str, ...]
    _sent: Quotable | None
    _free: Tally | None  # what there was before what is held
    _template: Template
    view: ClientView

    # ------------------------------------------------------------------------------- chunks

    def _take_chunk(self, data: bytes, top: Object, parts: list[bytes], told: bool) -> None:
        raw = top.get("choices")
        choices = codec.as_objects(raw) if raw is not None and raw != NULL else []
        if choices is None:
            self._skip(data)
            return
        face = self._face
        if not self._begun and not face.model_is_theirs:
            face.adopt_model(top)
        changed = False
        kept: list[chunks.Members] = []
        texts: list[tuple[str, Raw]] = []
        before = len(parts)
        view = self.view
        visible, said = self.visible, len(view.content_json or b"")
        held = self._held
        free = view.now if held.scope == "tools" else None
        alone = len(choices) == 1
        for position, choice in enumerate(choices):
            fate = self._take_choice(self._state_of(choice, position), choice, texts, parts, alone)
            if self.error is not None:
                return
            if fate is not _DROPPED:
                kept.append(choice)
            changed = changed or fate is not _KEPT
        if not kept:
            face.carry(top)
            if not choices and told and self._has_finished:
                self._mind_the_end(QUIET_BEHIND_USAGE_S)
            return
        out = face.respell(data, top, kept if changed or face.carried else None)
        if codec.has_halves(out):
            out = codec.join_halves(out)
        event = sse.encode(out)
        if self._ending is not None:
            self._ending.ending = event
            self._ending = None
            return
        parts.append(event)
        if held.starts_at(view.members):
            self._free = free
            self._hold_from(parts, before, said, visible)
        elif held.items is None and len(texts) == 1 and len(choices) == 1 and len(parts) == before + 1:
            key, text = texts[0]
            if key in normalise.TEXT_KEYS:
                last = next(reversed(top))
                self._template.learn(data, out, key, text, last, top[last])
                self._saying = view.content_json if key == "content" else None

    def _state_of(self, choice: chunks.Members, position: int) -> chunks.Choice:
        raw = choice.get("index")
        index = 0 if raw is not None and raw == ZERO else codec.as_index(raw)
        if index is None or index < 0:
            index = position
        state = self._choices.get(index)
        if state is None:
            if index >= max(chunks.MOST_CHOICES, self._expects):
                said = f"{self.provider} sent a choice with an index that was not asked for."
                raise GatewayError(errors.UPSTREAM_GARBAGE, said)
            state = self._choices[index] = chunks.Choice(index, self.ident)
        return state

    def _take_choice(
        self, state: chunks.Choice, choice: chunks.Members, texts: list[tuple[str, Raw]], parts: list[bytes],
        alone: bool,
    ) -> chunks.Fate:  # fmt: skip
        """One choice of a chunk, brought into its form in place.  ``alone``: the chunk has no other.

        Due chunks go into ``parts`` before it, the visible members into ``texts``.
        """
        failure = chunks.failure_of(choice)
        if failure is not None:
            self._fail(codec.encode({"error": failure}))
            return _DROPPED
        delta, delta_edited = self._delta_of(choice, state)
        finish = finishes.read(choice, state.called)
        if finish.reason == finishes.FAILED:
            self._fail(codec.encode(choice), finish.word)
        if self.error is not None:
            return _DROPPED  # with its finish reason, which ends no answer of the client's
        if chunks.join_halves(delta, state):
            delta_edited = True
            self._template.forget()  # a half waits, and must not be passed
            texts.append(("", NULL))
        edited = False
        index = choice.get("index")
        if index is None or (index != ZERO and codec.as_integer(index) != state.index):
            choice["index"] = state.index
            edited = True
        seen = normalise.visible_keys(delta)
        if seen and not self._begun and finish.reason is not None and self._would_be_hollow(seen, finish.reason):
            state.hold(choice, delta)  # reasoning, and the end: shown only where an answer follows
            seen = []
            delta, delta_edited = {}, True
        if seen:
            first = not self._begun
            self._show(state, seen, delta, parts)
            texts += [(key, delta[key]) for key in seen]
            kept = True
        else:
            first = False
            kept = self._keeps(state, choice, delta, finish.reason is not None, parts)
        if finish.reason is not None:
            self._template.forget()
            texts.append(("", NULL))  # such a chunk is no model for others
            ends = state.end(finish, doubted=first or not self._begun) and not seen and alone
            self._mind_the_end(QUIET_S)
            if ends:
                self._ending = state
                kept = True
                edited = finishes.spell(choice, finish) or edited
            else:
                choice["finish_reason"] = NULL
                edited = True
        elif not codec.is_null(choice.get("finish_reason")) or "finish_reason" not in choice:
            choice["finish_reason"] = NULL
            edited = True
        if not kept:
            return _DROPPED
        if delta_edited:
            choice["delta"] = delta
        return _EDITED if edited or delta_edited else _KEPT

    def _delta_of(self, choice: chunks.Members, state: chunks.Choice) -> tuple[Object, bool]:
        return chunks.delta_of(choice, state, self.view.members)

    def _would_be_hollow(self, seen: list[str], reason: str) -> bool:
        return THOUGHTS.issuperset(seen) and reason not in TELLING

    def _keeps(
        self, state: chunks.Choice, choice: chunks.Members, delta: Object, ends: bool, parts: list[bytes]
    ) -> bool:
        """True if an invisible choice of a chunk is sent: its role was sent, and it has more than members of an end."""
        if not self._begun:
            if not ends:
                state.hold(choice, delta)
            return False
        if not state.role_sent:
            if not ends:
                state.hold(choice, delta)
            self._send_role(state, parts, EMPTY_TEXT)
            return False
        if not ends and state.finish is None:
            return True
        return bool(chunks.extras(delta) or chunks.extras(choice))

    def _show(self, state: chunks.Choice, seen: list[str], delta: Object, parts: list[bytes]) -> None:
        """Add the visible part of a chunk.  An earlier finish reason is dropped."""
        empty = EMPTY_TEXT if "content" in seen or "refusal" in seen else NULL
        if not self._begun:
            self._begun = True
            self.visible = self._held.scope != "all"
            for other in self._choices.values():
                self._send_role(other, parts, empty)
        self._send_role(state, parts, empty)
        if state.finish is not None:
            if state.ending is not None and chunks.says_more(state.ending):
                parts.append(chunks.without_finish(state.ending))
            state.take_back()
            self._mind_the_end(0.0)
        self._count(seen, delta, state)

    def _count(self, seen: list[str], delta: Object, state: chunks.Choice) -> None:
        view = self.view
        view.pieces += 1
        view.members.update(seen)
        for key in seen:
            if key == "tool_calls":
                view.size += state.tools.take_size()
            elif key == "reasoning" and "reasoning_content" in seen:
                continue  # the same text under both names
            elif key in normalise.TEXT_KEYS:
                text = bytes(delta[key])[1:-1]
                view.size += len(text)
                if key == "content" and view.content_json is not None and self._held.items is None:
                    view.content_json += text

    def _hold_from(self, parts: list[bytes], begin: int, said: int, visible: bool) -> None:
        """The chunk that began at ``begin`` has the first tool call: it and what follows are held."""
        self._template.forget()  # until all of it is complete, nothing goes past what is held
        self._held.items = parts[begin:]
        del parts[begin:]
        self.visible = visible
        if self.view.content_json is not None:
            del self.view.content_json[said:]

    # ------------------------------------------------------------------------------- what goes out

    def _send_role(self, choice: chunks.Choice, parts: list[bytes], content: Raw) -> None:
        """The first chunk of a choice, with what chunks before it have said.  ``content``: null or empty."""
        if choice.role_sent:
            return
        choice.role_sent = True
        delta: chunks.Members = {"role": _ASSISTANT, "content": content}
        (beyond, within), *others = choice.held or [({}, {})]
        held = {"index": choice.index, "delta": {**delta, **within}, **beyond, "finish_reason": None}
        parts.append(self._face.chunk({"choices": [held], **self._face.take_carried()}))
        for beyond, within in others:
            held = {"index": choice.index, "delta": within, **beyond, "finish_reason": None}
            parts.append(self._face.chunk({"choices": [held]}))
        choice.held = []

    def _send_rest(self, choice: chunks.Choice, parts: list[bytes]) -> None:
        """Send the held parts, whose continuation has not come."""
        self._send_role(choice, parts, EMPTY_TEXT)
        if choice.tools.waits:
            waiting = choice.tools.take_waiting()
            call = {"index": choice.index, "delta": {"tool_calls": waiting}, "finish_reason": None}
            parts.append(self._face.chunk({"choices": [call]}))
        for key in choice.halves:
            rest = {"index": choice.index, "delta": {key: "\ufffd"}, "finish_reason": None}
            parts.append(self._face.chunk({"choices": [rest]}))

    def _send_finish(self, choice: chunks.Choice, parts: list[bytes]) -> None:
        if choice.finish_sent:
            return
        choice.finish_sent = True
        if choice.ending is not None:
            parts.append(choice.ending)
            return
        reason = choice.finish or choice.called or "stop"
        finish: chunks.Members = {"index": choice.index, "delta": {}, "finish_reason": reason}
        if choice.word:
            finish["native_finish_reason"] = choice.word
        parts.append(self._face.chunk({"choices": [finish]}))

    # ------------------------------------------------------------------------------- the end

    @property
    def _has_finished(self) -> bool:
        return len(self._choices) >= self._expects and all(
            choice.finish is not None for choice in self._choices.values()
        )

    @property
    def _is_over(self) -> bool:
        """Every choice has ended, and nothing speaks against it."""
        return 0.0 < self.quiet < math.inf

    def _mind_the_end(self, quiet: float) -> None:
        """After ``quiet`` seconds of silence the stream is complete; 0.0: a finish reason was taken back."""
        if self._has_finished and (quiet != QUIET_S or not any(one.doubted for one in self._choices.values())):
            self.quiet = quiet
        elif self.quiet:
            self.quiet = math.inf

    @property
    def _hollow(self) -> bool:
        """True if only reasoning has come, and no finish reason explains that."""
        if not self.view.is_hollow or chunks.tell_why(self._choices):
            return False
        return not (self._has_finished and self._reply.may_be_empty)

    @property
    def _is_torn(self) -> bool:
        """Something that could not be read belonged into a tool call, or something in one does not."""
        if "tool_calls" in self.view.members and any(choice.tools.doubled for choice in self._choices.values()):
            return True
        return self.skipped > 0 and not all(choice.tools.sound for choice in self._choices.values())

    def _fail(self, data: bytes, finish: str = "") -> None:
        if self._is_over and not self.view.is_hollow and not self._is_torn:
            self.done = True  # all of it is here; later bytes do not matter
            return
        chunks.take_back_finish(self._choices)
        self.error = failures.stream_failure(
            data, provider=self.provider, secrets=self._secrets, sent=self._sent, finish=finish
        )

    def _skip(self, data: bytes) -> None:
        """An event that cannot be read.  Without it a tool call would be another one."""
        self.skipped += 1
        if chunks.tears_a_call(data):
            self._tear()

    def _tear(self) -> None:
        chunks.take_back_finish(self._choices)
        said = f"{self.provider} sent part of a tool call that cannot be read."
        self.error = GatewayError(errors.UPSTREAM_GARBAGE, said)

    def _refuse_nothing(self) -> None:
        chunks.take_back_finish(self._choices)
        self.error = hollow_answer(self.provider)
