"""An upstream's chat stream in, the client's out: the contract of a stream, for every upstream that exists.

``ChatStream`` holds the first chunk back until there is visible content, and sends the role once.  It fills missing
members, keeps unknown ones, tells an end from a cut, and recognises errors in every form.  It is pure: bytes
in, bytes out, and a verdict (``done``, ``error``, ``usage``).  It never looks back at text that it has passed on.
"""

from __future__ import annotations

from msgspec import Raw

from headgate import errors
from headgate.dialects.base import Reply
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.stream import chunks
from headgate.dialects.openai_chat.stream.delivery import Delivery
from headgate.dialects.openai_chat.stream.envelope import Envelope
from headgate.dialects.openai_chat.stream.splice import Template
from headgate.dialects.tally import CALLS, NO_TEXT, ClientView, Held, Tally
from headgate.dialects.usage import reading as usages
from headgate.errors import GatewayError
from headgate.model import NOTHING, Delivered, Usage, Used
from headgate.wire import codec, sse
from headgate.wire.bodies import framing
from headgate.wire.codec import EMPTY_TEXT, Object

_DONE = b"data: [DONE]\n\n"
_NO_CHOICES = Raw(b"[]")
_SNIFF = 16 << 10


class ChatStream(Delivery):
    """One attempt's stream.  Implements ``ports.StreamBridge``; see there for ``feed``, ``close`` and ``tail``.

    ``done``: the upstream has completed it.  ``error``: it will not be completed; returned bytes stay valid.  Once
    either is set, later bytes are ignored.  ``visible``: bytes have been returned.  ``events``: number of the
    upstream's events, without comments.  ``skipped``: number of those that could not be read.  ``quiet``: see
    ``ports.StreamBridge``.  A finish reason is returned by ``tail()``: text may follow it.

    ``hold``: what is not returned before it is complete, so that it can still come from another attempt: ``tools``
    (from the first tool call on) or ``all``; empty for nothing.  ``keep``: the text is kept, so that another
    attempt can go on where this one breaks (``joining.ContinuedStream``).  ``choices``: how many were asked for; a
    stream that ends without ``[DONE]`` before all of them have finished was cut.  ``sent``: the request, which an error
    may quote.
    """

    _ended_early = False  # by the gateway: the upstream has not said that it is complete

    def __init__(self, reply: Reply) -> None:
        self.visible = False
        self.done = False
        self.error: GatewayError | None = None
        self.events = 0
        self.quiet = 0.0
        self.skipped = 0
        self._reply = reply
        self.ident = reply.ident
        self._include_usage = reply.include_usage
        self.provider = reply.provider
        self._secrets = reply.secrets
        self._sent = reply.sent
        self._prompt_tokens = reply.prompt_tokens
        self._max_event = reply.max_event
        self._decoder = sse.Decoder(reply.max_event + len(b"data: "))
        self._template = Template()
        self._face = Envelope(reply.ident, reply.created, reply.model, reply.include_usage)
        self._choices: dict[int, chunks.Choice] = {}
        self._usage_raw: Raw | None = None
        self.view = ClientView(keep=reply.keep)
        self._saying = self.view.content_json  # where the text of the chunks that the template knows goes
        self._free: Tally | None = None  # what there was before what is held
        self._counted = NO_TEXT  # what had come when the last usage did
        self._sniffed = b""  # what came before the first event: an answer that is no stream at all
        self._begun = False
        self._noticed = False  # its server has said that it is at work, which is no progress, as a comment is none
        self._expects = reply.choices
        self._held: Held[bytes] = Held(reply.hold, len)
        self._ending: chunks.Choice | None = None  # whose finish reason the chunk at hand brings, and nothing else

    # ------------------------------------------------------------------------------- the bridge

    @property
    def envelope(self) -> Envelope:
        """The common members of the client's chunks."""
        return self._face

    @property
    def is_reported(self) -> bool:
        """Whether the upstream has said what the answer used."""
        return self._usage_raw is not None

    @property
    def model(self) -> str:
        """The model that every chunk names: the upstream's own id for it, once it has given one."""
        return codec.as_text(self._face.model) or ""

    @property
    def finish(self) -> str:
        first = next(iter(self._choices.values()), None)
        return first.finish or "" if first is not None else ""

    @property
    def progress(self) -> int:
        """Estimated completion tokens so far: four bytes each."""
        return (self.view.size + 3) >> 2

    @property
    def used(self) -> Used:
        billed = self._usage_up_to(self.view.now) if self._usage_raw is not None or self._begun else NOTHING.billed
        if not self.visible:
            return Used(NOTHING.delivered, billed)
        if self._held.items is None:
            return Used(billed, billed)
        delivered = self._usage_up_to(self._given)
        if self._given.size < self._counted.size:  # the report has what is held in it
            delivered.completion = min(delivered.completion, self.view.since(NO_TEXT, self._given))
            delivered.basis = "estimated"
        return Used(delivered, billed)

    @property
    def _given(self) -> Tally:
        """The streamed part, without the held part."""
        return self._free if self._held.items is not None and self._free is not None else self.view.now

    def _usage_up_to(self, tally: Tally) -> Usage:
        usage, _ = usages.read(self._usage_raw, Usage(self._prompt_tokens, self.view.since(NO_TEXT, tally)))
        if not self._is_reported_whole and usage.basis == "provider" and tally.size > self._counted.size:
            usage.completion += self.view.since(self._counted, tally)
            usage.basis = "estimated"
        return usage

    @property
    def _is_reported_whole(self) -> bool:
        """True if the last report, where there is one, counts the whole attempt."""
        return self.done and not self._ended_early

    @property
    def _is_counted(self) -> bool:
        """Whether the tokens of what was streamed are known to one: the upstream says them, or sends one an event."""
        before, now = self._counted if self._usage_raw is not None else NO_TEXT, self.view.now
        return now.size == before.size or self.view.since(before, now) == now.pieces - before.pieces

    def feed(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        view, saying = self.view, self._saying
        template = self._template
        decoder = self._decoder
        at = 0
        end = len(data)
        while at < end:
            if template.known and decoder.fresh:
                after, text = template.splice(data, at, parts)
                if text:
                    at = after
                    self.events += 1
                    view.pieces += 1
                    view.size += len(text)
                    if saying is not None:
                        saying += text
                    continue
            # One event the slow way; later ones may be spliced again.  A read may hold hundreds of events.
            cut = data.find(b"\n\n", at) + 2
            piece = data[at:cut] if cut > 1 else data[at:]
            at += len(piece)
            self._feed_slowly(piece, parts)
            saying = self._saying
        if saying is not None and len(saying) > view.room:
            view.bound()
            self._saying = view.content_json
        if self._held.scope:
            return self._release(parts)
        return b"".join(parts)

    def whole(self, body: bytes) -> bytes:
        """Take an answer that came whole, and return it as a stream."""
        mended, top = chunks.parse(framing.document(body))
        choices = codec.as_objects(top.get("choices")) if top is not None else None
        if top is None or (not choices and not failures.is_error(top)):
            self.error = failures.garbage(body, provider=self.provider, secrets=self._secrets, sent=self._sent)
            return b""
        out = self.feed(sse.encode(mended))
        if self.error is None:
            out += self.feed(sse.encode(b"[DONE]"))
        return out

    def _feed_slowly(self, data: bytes, parts: list[bytes]) -> None:
        if not self.events and len(self._sniffed) < _SNIFF:
            self._sniffed += data[:_SNIFF]
        for event in self._decoder.feed(data):
            self._take(event, parts)
        self._check_size()
        if self._ended:
            self._template.forget()  # nothing is passed on any more

    def close(self, clean: bool = True) -> bytes:
        parts: list[bytes] = []
        for event in self._decoder.close():
            self._take(event, parts)
        self._check_size()
        if not self._ended:
            self._judge_end(parts, clean)
        return self._release(parts) if self._held.scope else b"".join(parts)

    def complete(self, reason: str) -> bool:
        """Declares the stream complete although its end was lost; False where what has come does not allow that."""
        if not self._has_finished:
            if len(self._choices) != 1 or not self._is_counted:
                return False
            for choice in self._choices.values():
                choice.finish = reason
        self.error = None
        self.done = self._ended_early = True
        return True

    def stop(self, reason: str) -> None:
        for choice in self._choices.values():
            if not choice.finish_sent:
                choice.finish, choice.ending, choice.word = reason, None, ""
        self.done = self._ended_early = True

    def tail(self, usage: Usage, extra: bytes | None = None, trace: bytes | None = None) -> bytes:
        if self.error is not None:
            return failures.error_event(self.error, self.ident)
        parts: list[bytes] = []
        for choice in self._choices.values():
            self._send_rest(choice, parts)
        face = self._face
        if face.carried and not self._include_usage and trace is None:
            rest = {"index": 0, "delta": {}, "finish_reason": None}
            parts.append(face.chunk({"choices": [rest], **face.take_carried()}))
        for choice in self._choices.values():
            self._send_finish(choice, parts)
        if self._include_usage or trace is not None:
            chunk: chunks.Members = {"choices": _NO_CHOICES}
            if self._include_usage:
                chunk["usage"] = usages.write(usage, self._usage_raw if self._is_whole else None)
            if extra is not None:
                chunk["headgate"] = Raw(extra)
            if trace is not None:
                chunk["route_trace"] = Raw(trace)
            parts.append(self._face.chunk({**self._face.carried, **chunk}))
        parts.append(_DONE)
        return b"".join(parts)

    @property
    def _is_whole(self) -> bool:
        """Whether the upstream's report is of the whole answer."""
        return True

    @property
    def _ended(self) -> bool:
        return self.done or self.error is not None

    # ------------------------------------------------------------------------------- for another attempt

    @property
    def delivered(self) -> Delivered | None:
        if not self.visible:
            return None
        view = self.view
        kinds = view.members if self._held.items is None else view.members - CALLS
        return Delivered(view.text, frozenset(kinds), len(self._choices), self._tokens, self._has_finished)

    @property
    def _tokens(self) -> int:
        """Those that the client has, of this attempt and those before it."""
        return self.used.delivered.completion

    @property
    def begun(self) -> bool:
        """There has been something to see, whether it has been returned or is held."""
        return self._begun

    def _release(self, parts: list[bytes]) -> bytes:
        """Return the chunks that are due: ``parts``, and the held ones if they may go out now."""
        held = self._held.release(done=self.done, quiet=self.quiet) if self.error is None else None
        if held is None:
            return b"".join(parts)
        self.view.forget_text()  # what was held is not in it
        self._saying = None
        self.visible = self._begun
        return b"".join(parts + held)

    # ------------------------------------------------------------------------------- events

    def _take(self, event: sse.Event, parts: list[bytes]) -> None:
        if self._ended:
            return
        name = event.name
        if event.error or name == b"error":
            self._fail(event.error or event.data)
            return
        data = event.data
        if not data:
            return
        if name:
            data = chunks.named(name, data)
        line = data.replace(b"\n", b" ") if b"\n" in data else data  # space between JSON's tokens
        mended, top = chunks.parse_event(line)
        if top is not None:
            self._take_payload(line, mended, top, parts)
            return
        for payload in chunks.payloads(codec.mend(data)):
            self._take_payload(payload, *chunks.parse_event(payload), parts)

    def _take_payload(self, payload: bytes, data: bytes, top: Object | None, parts: list[bytes]) -> None:
        """``data`` is ``payload`` as it could be read, ``top`` its members."""
        if self._ended:
            return
        if self._held.items is not None:
            parts = self._held.items
        if chunks.is_notice(payload, top):
            self._noticed = True
            return
        self.events += 1
        if top is None:
            if payload.strip().strip(b'"')[:6].upper() == b"[DONE]":
                self._finish_up(parts)
            elif chunks.is_plain_complaint(payload):
                self._fail(payload)
            else:
                self._skip(payload)
            return
        told = self._note_usage(top)
        if chunks.is_complaint(top):
            self._fail(data)
        else:
            try:
                self._take_chunk(data, top, parts, told)
            except GatewayError as error:  # more choices or tool calls than an answer can have
                self.error = error
        if told:
            self._counted = self.view.now

    def _note_usage(self, top: Object) -> bool:
        raw = usages.find(top)
        if raw is None:
            return False
        self._usage_raw = usages.merge(self._usage_raw, raw)
        return True

    def _finish_up(self, parts: list[bytes]) -> None:
        """The upstream says that it is complete."""
        if self._hollow:
            self._refuse_nothing()
        elif self._is_torn:
            self._tear()
        else:
            self._complete(parts)

    def _complete(self, parts: list[bytes]) -> None:
        self.done = True
        if not self._begun:  # an end is all there is to see: the client's stream begins with it
            for choice in self._choices.values():
                self._send_role(choice, parts, EMPTY_TEXT)
            self.visible = self._begun = True

    def _judge_end(self, parts: list[bytes], clean: bool) -> None:
        """The body has ended without ``[DONE]``: complete where every choice has its finish reason, else a cut.

        It is a cut too where the connection broke (not ``clean``) and this server's finish reasons come early.
        """
        if self._has_finished and (clean or self._is_over):
            self._finish_up(parts)
        elif self.events or self._noticed or not self._sniffed.strip():
            chunks.take_back_finish(self._choices)
            said = f"{self.provider} closed the connection before its answer was complete."
            self.error = GatewayError(errors.UPSTREAM_CUT, said)
        elif chunks.is_complaint(chunks.parse(self._sniffed)[1] or {}):
            self._fail(self._sniffed)
        else:
            self.error = failures.garbage(self._sniffed, provider=self.provider, secrets=self._secrets, sent=self._sent)

    def _check_size(self) -> None:
        if self._decoder.overflowed and not self._ended:
            said = f"{self.provider} sent an event of more than {self._max_event} bytes."
            self.error = GatewayError(errors.UPSTREAM_TOO_LARGE, said)
