"""An upstream's whole answer, brought into the form that the client reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from headgate.dialects.base import Answer, Reply
from headgate.dialects.openai_chat import normalise
from headgate.dialects.openai_chat.errors import failures
from headgate.dialects.openai_chat.stream import chunks, finishes
from headgate.dialects.openai_chat.stream.calls import complete_calls
from headgate.dialects.tally import TELLING, THOUGHTS
from headgate.dialects.usage import reading as usages
from headgate.errors import UPSTREAM_GARBAGE, GatewayError
from headgate.model import NOTHING, Usage, Used
from headgate.wire import codec
from headgate.wire.codec import NULL, ZERO, Object

_COMPLETION = Raw(b'"chat.completion"')
_ASSISTANT = Raw(b'"assistant"')


def answer(body: bytes, reply: Reply) -> Answer:
    """Return the client's answer, made from an upstream's ``body`` of status 200."""
    try:
        top = codec.decode_object(body)
    except GatewayError:
        mended = chunks.parse(body)[1]
        if mended is None:
            return Answer(error=failures.garbage(body, provider=reply.provider, secrets=reply.secrets, sent=reply.sent))
        top = mended
    if "error" in top and failures.is_error(top):
        return Answer(
            error=failures.stream_failure(body, provider=reply.provider, secrets=reply.secrets, sent=reply.sent)
        )
    result = Answer()
    plain = _read_plain(body, result)
    if not plain:
        failing = partial(failures.stream_failure, provider=reply.provider, secrets=reply.secrets, sent=reply.sent)
        fault = _edit(top, body, reply.ident, result, reply.provider, failing)
        if fault is not None:
            return Answer(error=fault)
        if result.hollow and reply.may_be_empty:
            result.hollow = False
    result.model = codec.as_text(top.get("model")) or reply.model
    whole: chunks.Members = top
    whole["id"] = reply.ident
    whole["object"] = _COMPLETION
    whole["created"] = reply.created
    whole["model"] = result.model
    if not plain:
        _settle_usage(whole, result, reply.prompt_tokens)
    result.write = partial(_write, whole)
    return result


def _write(whole: chunks.Members, extra: bytes | None, trace: bytes | None) -> bytes:
    if extra is not None:
        whole["headgate"] = Raw(extra)
    if trace is not None:
        whole["route_trace"] = Raw(trace)
    return codec.encode(whole)


def _edit(
    top: Object, body: bytes, ident: str, result: Answer, provider: str, failing: Callable[..., GatewayError]
) -> GatewayError | None:
    """Bring the choices in ``top`` into their form; return the error that the answer is instead, if it is one.

    ``failing`` makes an error of the JSON in which it stands.
    """
    choices = codec.as_objects(top.get("choices"))
    if not choices:
        return failing(body) if failures.is_error(top) else failures.garbage(body, provider=provider)
    if len(choices) > chunks.MOST_IN_ONE:
        return GatewayError(UPSTREAM_GARBAGE, f"{provider} sent {len(choices)} choices in one answer.")
    changed = seen = False
    usage = usages.find(top)
    for position, choice in enumerate(choices):
        failure = chunks.failure_of(choice)
        if failure is not None:
            return failing(codec.encode({"error": failure}))
        try:
            edited, visible = _normalise(position, choice, ident, result)
        except GatewayError as found:  # more tool calls than an answer may contain
            return found
        changed = changed or edited
        seen = seen or visible
    if result.failed:
        return failing(body, finish=result.failed)
    result.hollow = not seen and result.finish not in TELLING
    if changed:
        top["choices"] = codec.raw(choices)
    if usage is not None:
        top["usage"] = usage
    return None


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["assistant"]
    content: Annotated[str, Meta(min_length=1)]
    refusal: None = None


class _PlainChoice(Struct, forbid_unknown_fields=True, gc=False):
    index: Annotated[int, Meta(ge=0, le=0)]
    message: _Message
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class _Plain(Struct, gc=False):
    choices: tuple[_PlainChoice]
    usage: usages.PlainUsage


_plain = msgspec.json.Decoder(_Plain).decode


def _read_plain(body: bytes, result: Answer) -> bool:
    """Fill ``result`` and return True if the answer is one choice of text with usage, already in the client's form.

    Most answers are, and one typed decode shows it.
    """
    try:
        read = _plain(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    usage = usages.read_plain(read.usage)
    if usage is None:
        return False
    choice = read.choices[0]
    result.text_bytes = len(choice.message.content)
    result.finish = choice.finish_reason
    result.used = Used(usage, usage)
    return True


def _normalise(position: int, choice: Object, ident: str, result: Answer) -> tuple[bool, bool]:
    """Normalise a choice in place.  Return (true if it was changed, true if it contains an answer)."""
    edited = False
    index = choice.get("index")
    if index is None or (index != ZERO and codec.as_integer(index) is None):
        choice["index"] = codec.raw(position)
        edited = True
    message = codec.as_object(choice.get("message"))
    if message is None:
        message = codec.as_object(choice.pop("delta", None)) or {}
        if "text" in choice and not message:
            message["content"] = choice["text"]
        edited = True
    if "finish_reason" in message:
        edited = finishes.lift(choice, message) or edited
    if _normalise_message(message, ident, position) or edited:
        choice["message"] = codec.raw(message)
        edited = True
    seen = normalise.visible_keys(message)
    seen = [key for key in seen if key not in normalise.FORMS or normalise.says_something(message[key])]
    for key in seen:
        if key in normalise.TEXT_KEYS or key == "tool_calls":
            result.text_bytes += len(message[key]) - 2
    called = next((key for key in ("tool_calls", "function_call") if key in seen), "")
    finish = finishes.read(choice, called)
    if finish.reason == finishes.FAILED:
        result.failed = finish.word
    if finish.reason is None:
        finish = finishes.FinishReason(called or "stop")
    result.finish = result.finish or finish.reason or ""
    edited = finishes.spell(choice, finish) or edited
    return edited, not THOUGHTS.issuperset(seen)


def _normalise_message(message: Object, ident: str, position: int) -> bool:
    """Normalise a message in place.  Return true if it was changed."""
    edited = False
    role = message.get("role")
    if role is None or role != _ASSISTANT:
        message["role"] = _ASSISTANT
        edited = True
    content = message.get("content")
    if content is None:
        message["content"] = NULL
        edited = True
    elif memoryview(content)[0] != 0x22 and content != NULL:
        normalise.put_parts(message, content)
        message.setdefault("content", NULL)
        edited = True
    for key in ("tool_calls", "function_call"):
        if key in message and message[key] == NULL:
            del message[key]
            edited = True
    calls = message.get("tool_calls")
    if calls is not None and complete_calls(message, calls, f"{ident}/{position}"):
        edited = True
    return edited


def _settle_usage(whole: chunks.Members, result: Answer, prompt_tokens: int) -> None:
    raw: Raw | None = whole.get("usage")
    estimate = Usage(prompt_tokens, max(result.text_bytes >> 2, 1 if result.text_bytes else 0))
    usage, as_read = usages.read(raw, estimate)
    reported = usage is not estimate
    if not as_read:
        whole["usage"] = usages.write(usage, raw if reported else None)
    if result.hollow:
        result.used = Used(NOTHING.delivered, usage if reported else NOTHING.billed)
    else:
        result.used = Used(usage, usage)
