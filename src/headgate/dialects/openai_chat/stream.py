"""An upstream's chat stream in, the client's out: the contract of a stream, for every upstream that exists.

``ChatStream`` holds the first chunk back until there is something to see, says the role once, fills what is missing,
keeps what it does not know, tells an end from a cut, and finds an error in whatever form it comes.  It is pure: bytes
in, bytes out, and a verdict (``done``, ``error``, ``usage``).  It never looks back at text that it has passed on.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Raw

from headgate import errors
from headgate.dialects.openai_chat import chunks, failures, shapes
from headgate.dialects.openai_chat.splice import Template
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec, sse
from headgate.wire.codec import EMPTY_TEXT, NULL, Object

_CHUNK = Raw(b'"chat.completion.chunk"')
_ASSISTANT = Raw(b'"assistant"')
_DONE = b"data: [DONE]\n\n"
_OURS = frozenset(("id", "object", "created", "model", "choices", "usage", "error"))
_ZERO = Raw(b"0")
_TELLING = ("length", "content_filter")  # finish reasons that say why there is nothing to see
_NO_CHOICES = Raw(b"[]")
_SNIFF = 16 << 10
_MOST_CARRIED = 32
_LARGEST_CARRIED = 64 << 10


class _Fate(Enum):
    """What becomes of one choice of a chunk."""

    KEPT = "as it came"
    EDITED = "changed"
    DROPPED = "not sent"


_KEPT, _EDITED, _DROPPED = _Fate


class ChatStream:
    """One attempt's stream.  Implements ``ports.StreamBridge``; see there for ``feed``, ``close`` and ``tail``.

    ``done``: the upstream has said that it is complete.  ``error``: it will not be; what has been returned stays valid.
    Once either is set, whatever else comes is ignored.  ``visible``: something has been returned.  ``events`` counts
    what the upstream really sent (its comments are no progress), ``skipped`` those of them that were not JSON.
    """

    def __init__(
        self,
        ident: str,
        created: int,
        model: str,
        include_usage: bool,
        *,
        provider: str = "The upstream",
        secrets: tuple[str, ...] = (),
        max_event: int = 8 << 20,
        prompt_tokens: int = 0,
    ) -> None:
        self.visible = False
        self.done = False
        self.error: GatewayError | None = None
        self.events = 0
        self.skipped = 0
        self.ident = ident
        self._include_usage = include_usage
        self.provider = provider
        self._secrets = secrets
        self._prompt_tokens = prompt_tokens
        self._max_event = max_event
        self._decoder = sse.Decoder(max_event + len(b"data: "))
        self._template = Template()
        self._id = codec.raw(ident)
        self._created = codec.raw(created)
        self._model = codec.raw(model)
        self._model_is_theirs = False
        self._choices: dict[int, chunks.Choice] = {}
        self._carried: Object = {}  # top-level members of chunks that were not sent, for the next one that is
        self._usage_raw: Raw | None = None
        self._usage_at = 0  # progress when the last usage came
        self._text_bytes = 0
        self._text_events = 0
        self._sniffed = b""  # what came before the first event: an answer that is no stream at all

    # ------------------------------------------------------------------------------- the bridge

    @property
    def model(self) -> str:
        """The model that every chunk names: the upstream's own id for it, once it has given one."""
        return codec.as_text(self._model) or ""

    @property
    def progress(self) -> int:
        """Estimated completion tokens so far: four bytes each, and at least one for each piece."""
        return max(self._text_events, self._text_bytes >> 2)

    @property
    def usage(self) -> Usage:
        """What the upstream reported, else an estimate; where it did not complete, at least what was streamed."""
        usage = shapes.read_usage(self._usage_raw)[0] if self._usage_raw is not None else None
        if usage is None:
            return Usage(self._prompt_tokens, self.progress)
        if not self.done and self.progress > max(usage.completion, self._usage_at):
            usage.completion = max(usage.completion, self.progress)
            usage.basis = "estimated"
        return usage

    def feed(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        template = self._template
        decoder = self._decoder
        at = 0
        end = len(data)
        while at < end:
            if template.known and decoder.fresh and not self._ended:
                after, length = template.splice(data, at, parts)
                if length:
                    at = after
                    self.events += 1
                    self._text_events += 1
                    self._text_bytes += length
                    continue
            # One event the slow way; what follows it may be spliced again.  A read may hold hundreds of events.
            cut = data.find(b"\n\n", at) + 2
            piece = data[at:cut] if cut > 1 else data[at:]
            at += len(piece)
            self._feed_slowly(piece, parts)
        return b"".join(parts)

    def _feed_slowly(self, data: bytes, parts: list[bytes]) -> None:
        if not self.events and len(self._sniffed) < _SNIFF:
            self._sniffed += data[:_SNIFF]
        for event in self._decoder.feed(data):
            self._take(event, parts)
        self._check_size()

    def close(self) -> bytes:
        parts: list[bytes] = []
        for event in self._decoder.close():
            self._take(event, parts)
        self._check_size()
        if not self._ended:
            self._judge_end()
        return b"".join(parts)

    def tail(self, extra: bytes | None = None) -> bytes:
        if self.error is not None:
            return failures.error_event(self.error, self.ident)
        parts: list[bytes] = []
        for choice in self._choices.values():
            self._send_role(choice, parts)
            self._send_finish(choice, parts)
        if self._include_usage:
            chunk: chunks.Members = {"choices": _NO_CHOICES, "usage": shapes.usage_object(self.usage, self._usage_raw)}
            if extra is not None:
                chunk["headgate"] = Raw(extra)
            parts.append(self._frame({**self._carried, **chunk}))
        parts.append(_DONE)
        return b"".join(parts)

    @property
    def _ended(self) -> bool:
        return self.done or self.error is not None

    # ------------------------------------------------------------------------------- events

    def _take(self, event: sse.Event, parts: list[bytes]) -> None:
        if self.done or self.error is not None:
            return
        if event.error or event.name == b"error":
            self._fail(event.error or event.data)
            return
        data = event.data
        if not data:
            return
        if b"\n" in data:
            data = data.replace(b"\n", b" ")  # space between JSON's tokens: some clients read one line of an event
        self.events += 1
        if data[:6] == b"[DONE]":
            self._finish_up()
            return
        data, top = chunks.parse(data)
        if top is None:
            self.skipped += 1
            return
        self._note_usage(top)
        if chunks.is_complaint(top):
            self._fail(data)
        else:
            self._take_chunk(data, top, parts)

    def _fail(self, data: bytes) -> None:
        self.error = failures.stream_failure(data, provider=self.provider, secrets=self._secrets)

    def _note_usage(self, top: Object) -> None:
        raw = top.get("usage")
        if raw is None or raw == NULL:
            groq = top.get("x_groq")
            raw = (codec.as_object(groq) or {}).get("usage") if groq is not None else None
        if raw is not None and raw != NULL and raw != codec.EMPTY_OBJECT:
            self._usage_raw = raw
            self._usage_at = self.progress

    def _finish_up(self) -> None:
        """The upstream says that it is complete."""
        if self.visible:
            self.done = True
        else:
            said = f"{self.provider} answered with nothing: no text, no tool call, no refusal."
            self.error = GatewayError(errors.UPSTREAM_HOLLOW, said)

    def _judge_end(self) -> None:
        """The body has ended without ``[DONE]``: complete where every choice has its finish reason, else a cut."""
        if self._choices and all(choice.finish is not None for choice in self._choices.values()):
            self._finish_up()
        elif self.events or not self._sniffed.strip():
            said = f"{self.provider} closed the connection before its answer was complete."
            self.error = GatewayError(errors.UPSTREAM_CUT, said)
        elif chunks.is_complaint(chunks.parse(self._sniffed)[1] or {}):
            self._fail(self._sniffed)
        else:
            self.error = failures.garbage(self._sniffed, provider=self.provider)

    def _check_size(self) -> None:
        if self._decoder.overflowed and not self._ended:
            said = f"{self.provider} sent an event of more than {self._max_event} bytes."
            self.error = GatewayError(errors.UPSTREAM_TOO_LARGE, said)

    # ------------------------------------------------------------------------------- chunks

    def _take_chunk(self, data: bytes, top: Object, parts: list[bytes]) -> None:
        raw = top.get("choices")
        choices = codec.as_objects(raw) if raw is not None and raw != NULL else []
        if choices is None:
            self.skipped += 1
            return
        if not self.visible and not self._model_is_theirs:
            self._adopt_model(top)
        changed = False
        kept: list[chunks.Members] = []
        texts: list[tuple[str, Raw]] = []
        before = len(parts)
        for position, choice in enumerate(choices):
            fate = self._take_choice(position, choice, texts, parts)
            if self.error is not None:
                return
            if fate is not _DROPPED:
                kept.append(choice)
            changed = changed or fate is not _KEPT
        if not kept:
            self._carry(top)
            return
        out = self._respell(data, top, kept if changed or self._carried else None)
        parts.append(sse.encode(out))
        if len(texts) == 1 and len(choices) == 1 and len(parts) == before + 1:
            key, text = texts[0]
            if key in shapes.TEXT_KEYS:
                last = next(reversed(top))
                self._template.learn(data, out, key, text, last, top[last])

    def _take_choice(
        self, position: int, choice: chunks.Members, texts: list[tuple[str, Raw]], parts: list[bytes]
    ) -> _Fate:
        """One choice of a chunk, brought into its form in place.

        Role chunks that are due go into ``parts`` before it, the members that can be seen into ``texts``.
        """
        fate = _KEPT
        raw = choice.get("index")
        index = 0 if raw is not None and raw == _ZERO else codec.as_integer(raw)
        if index is None:
            choice["index"] = index = position
            fate = _EDITED
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = chunks.Choice(index, self.ident)
        delta, delta_edited = chunks.delta_of(choice, state.tools)
        finish_edited, finishes = self._settle_finish(choice, state)
        seen = shapes.visible_keys(delta)
        if not self.visible and (seen or (finishes and state.finish in _TELLING)) and self.error is None:
            self.visible = True
            for other in self._choices.values():
                self._send_role(other, parts)
        if not self.visible or not (state.role_sent or seen or finishes):
            state.hold(choice, delta)
            if self.visible:
                self._send_role(state, parts)
            return _DROPPED
        if not state.role_sent:
            self._send_role(state, parts)
        if state.finish_sent and not seen:
            return _DROPPED  # a second finish, and what comes with it
        if finishes:
            state.finish_sent = True
            self._template.forget()
            texts.append(("", NULL))  # such a chunk is no model for others
        if seen:
            self._count(seen, delta, state)
            texts += [(key, delta[key]) for key in seen]
        if delta_edited:
            choice["delta"] = delta
        return _EDITED if delta_edited or finish_edited else fate

    def _settle_finish(self, choice: chunks.Members, state: chunks.Choice) -> tuple[bool, bool]:
        """Puts the choice's finish reason in order: (whether that changed it, whether this is its one finish)."""
        raw = choice.get("finish_reason")
        if raw is not None and raw == NULL:
            return False, False
        reason = shapes.finish_reason(raw, bool(state.tools.calls))
        if reason in shapes.FAILED_FINISHES:
            said = f"{self.provider} broke off its answer ({reason})."
            self.error = GatewayError(errors.UPSTREAM_ERROR_EVENT, said)
            return True, False
        if reason is None or state.finish is not None:
            choice["finish_reason"] = NULL
            return True, False
        state.finish = reason
        choice["finish_reason"] = reason
        return bytes(raw or b"")[1:-1] != reason.encode(), True

    def _count(self, seen: list[str], delta: Object, state: chunks.Choice) -> None:
        self._text_events += 1
        for key in seen:
            if key == "tool_calls":
                self._text_bytes += state.tools.take_size()
            elif key == "reasoning" and "reasoning_content" in seen:
                continue  # the same text under both names
            elif key in shapes.TEXT_KEYS:
                self._text_bytes += len(bytes(delta[key])) - 2

    def _carry(self, top: Object) -> None:
        """Keeps what a chunk that is not sent says beyond its choices, for the next one that is."""
        if "choices" not in top and "object" not in top:
            return
        for key, value in top.items():
            small = len(value) <= _LARGEST_CARRIED and len(self._carried) < _MOST_CARRIED
            if small and key not in _OURS and value != NULL:
                self._carried.setdefault(key, value)

    def _adopt_model(self, top: Object) -> None:
        raw = top.get("model")
        if raw is not None and codec.as_text(raw):
            self._model = raw
            self._model_is_theirs = True

    # ------------------------------------------------------------------------------- what goes out

    def _respell(self, data: bytes, top: Object, choices: list[chunks.Members] | None) -> bytes:
        """The chunk as the client gets it: where nothing had to change, byte for byte but for what is ours.

        ``choices`` is None where they are as they came.
        """
        usage = top.get("usage")
        fits = usage is not None and usage == NULL if self._include_usage else usage is None
        ours = {"id": self._id, "created": self._created, "model": self._model}
        if choices is None and fits and top.get("object") == _CHUNK and not chunks.is_compact(data, top):
            swapped = chunks.swap(data, top, ours)
            if swapped is not None:
                return swapped
        chunk: chunks.Members = {**top, **ours, "object": _CHUNK}
        if self._include_usage:
            chunk["usage"] = NULL
        elif usage is not None:
            del chunk["usage"]
        if choices is not None:
            chunk["choices"] = choices
            for key, value in self._carried.items():
                chunk.setdefault(key, value)
            self._carried = {}
        return codec.encode(chunk)

    def _frame(self, members: chunks.Members) -> bytes:
        """A chunk of our own making."""
        chunk: chunks.Members = {
            "id": self._id,
            "object": _CHUNK,
            "created": self._created,
            "model": self._model,
            **members,
        }
        if self._include_usage:
            chunk.setdefault("usage", NULL)
        return sse.encode(codec.encode(chunk))

    def _send_role(self, choice: chunks.Choice, parts: list[bytes]) -> None:
        if choice.role_sent:
            return
        choice.role_sent = True
        delta = {"role": _ASSISTANT, "content": EMPTY_TEXT, **choice.held_delta}
        held = {"index": choice.index, "delta": delta, **choice.held, "finish_reason": None}
        parts.append(self._frame({"choices": [held], **self._carried}))
        self._carried = {}
        choice.held = choice.held_delta = {}

    def _send_finish(self, choice: chunks.Choice, parts: list[bytes]) -> None:
        if choice.finish_sent:
            return
        choice.finish_sent = True
        reason = choice.finish or ("tool_calls" if choice.tools.calls else "stop")
        finish = {"index": choice.index, "delta": {}, "finish_reason": reason}
        parts.append(self._frame({"choices": [finish]}))
