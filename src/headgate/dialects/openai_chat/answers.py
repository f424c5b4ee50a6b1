"""An upstream's whole answer, brought into the form that the client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from headgate import errors
from headgate.dialects.openai_chat import chunks, failures, finishes, shapes
from headgate.dialects.openai_chat.calls import complete_calls
from headgate.dialects.openai_chat.quotation import Quotable
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec
from headgate.wire.codec import NULL, ZERO, Object

_COMPLETION = Raw(b'"chat.completion"')
_ASSISTANT = Raw(b'"assistant"')


class Answer(Struct, gc=False):
    """A completion for the client, or the ``error`` that it is (``body`` is then empty).

    ``usage`` is None where the upstream reported none; ``text_bytes`` is what an estimate can be made from.
    ``hollow``: no text, no tool call, no refusal, and no reason for it: a failure, despite its status.
    ``model`` is the name in the body: the upstream's own.
    """

    body: bytes = b""
    usage: Usage | None = None
    text_bytes: int = 0
    hollow: bool = False
    finish: str = ""
    failed: str = ""  # the finish word of a choice that broke off
    error: GatewayError | None = None
    model: str = ""


def answer(
    body: bytes,
    *,
    id: str,
    created: int,
    model: str,
    extra: Callable[[Usage], bytes] | None = None,
    trace: Callable[[Usage], bytes] | None = None,
    provider: str = "The upstream",
    secrets: tuple[str, ...] = (),
    prompt_tokens: int = 0,
    sent: Quotable | None = None,
) -> Answer:
    """The client's answer made of an upstream's ``body`` of status 200.

    ``model`` is what stands in it where the upstream names none; ``extra`` makes the ``headgate`` object,
    ``trace`` the route trace, of the usage; ``prompt_tokens`` is the estimate for an upstream that reports none.
    """
    _, top = chunks.parse(body.removeprefix(b"\xef\xbb\xbf"))
    if top is None:
        return Answer(error=failures.garbage(body, provider=provider, secrets=secrets, sent=sent))
    if "error" in top and failures.is_error(top):
        return Answer(error=failures.stream_failure(body, provider=provider, secrets=secrets, sent=sent))
    result = Answer()
    choices: list[Object] | None = None  # where they had to be edited
    plain = _read_plain(body, result)
    if not plain:
        choices = codec.as_objects(top.get("choices"))
        if not choices:
            if failures.is_error(top):
                return Answer(error=failures.stream_failure(body, provider=provider, secrets=secrets, sent=sent))
            return Answer(error=failures.garbage(body, provider=provider))
        changed = seen = False
        if len(choices) > chunks.MOST_IN_ONE:
            said = f"{provider} sent {len(choices)} choices in one answer."
            return Answer(error=GatewayError(errors.UPSTREAM_GARBAGE, said))
        for position, choice in enumerate(choices):
            failure = chunks.failure_of(choice)
            if failure is not None:
                data = codec.encode({"error": failure})
                return Answer(error=failures.stream_failure(data, provider=provider, secrets=secrets, sent=sent))
            try:
                edited, visible = _normalise(position, choice, id, result)
            except GatewayError as found:  # more tool calls than an answer can have
                return Answer(error=found)
            changed = changed or edited
            seen = seen or visible
        if result.failed:
            return Answer(
                error=failures.stream_failure(body, provider=provider, secrets=secrets, sent=sent, finish=result.failed)
            )
        result.hollow = not seen and result.finish not in ("length", "content_filter")
        if not changed:
            choices = None
    result.model = codec.as_text(top.get("model")) or model
    whole: chunks.Members = top
    if choices is not None:
        whole["choices"] = choices
    whole["id"] = id
    whole["object"] = _COMPLETION
    whole["created"] = created
    whole["model"] = result.model
    if not plain:
        _settle_usage(whole, top.get("usage"), result, prompt_tokens)
    used = result.usage or Usage(prompt_tokens, result.text_bytes >> 2)
    if extra is not None:
        whole["headgate"] = Raw(extra(used))
    if trace is not None:
        whole["route_trace"] = Raw(trace(used))
    result.body = codec.encode(whole)
    return result


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["assistant"]
    content: Annotated[str, Meta(min_length=1)]
    refusal: None = None


class _Choice(Struct, forbid_unknown_fields=True, gc=False):
    index: Annotated[int, Meta(ge=0, le=0)]
    message: _Message
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


_Count = Annotated[int, Meta(ge=0, le=shapes.MOST_TOKENS)]


class _PromptDetails(Struct, frozen=True, gc=False):
    cached_tokens: _Count | None = None


class _CompletionDetails(Struct, frozen=True, gc=False):
    reasoning_tokens: _Count | None = None


class _PlainUsage(Struct, forbid_unknown_fields=True, gc=False):
    prompt_tokens: _Count
    completion_tokens: Annotated[int, Meta(ge=1, le=shapes.MOST_TOKENS)]
    total_tokens: int
    prompt_tokens_details: _PromptDetails = _PromptDetails()
    completion_tokens_details: _CompletionDetails = _CompletionDetails()


class _Plain(Struct, gc=False):
    choices: tuple[_Choice]
    usage: _PlainUsage


_plain = msgspec.json.Decoder(_Plain).decode


def _read_plain(body: bytes, result: Answer) -> bool:
    """Whether the answer is one choice of text, with its usage, already in the client's form: most are, and one look
    tells.  Fills ``result`` then.
    """
    try:
        read = _plain(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    choice, usage = read.choices[0], read.usage
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if usage.total_tokens != prompt + completion:
        return False
    result.text_bytes = len(choice.message.content)
    result.finish = choice.finish_reason
    result.usage = Usage(
        prompt, completion, usage.prompt_tokens_details.cached_tokens or 0, 0,
        usage.completion_tokens_details.reasoning_tokens or 0, "provider",
    )  # fmt: skip
    return True


def _normalise(position: int, choice: Object, ident: str, result: Answer) -> tuple[bool, bool]:
    """One choice, in place: (whether that changed it, whether there is an answer in it)."""
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
    if _normalise_message(message, ident, position) or edited:
        choice["message"] = codec.raw(message)
        edited = True
    seen = shapes.visible_keys(message)
    for key in seen:
        if key in shapes.TEXT_KEYS or key == "tool_calls":
            result.text_bytes += len(message[key]) - 2
    called = next((key for key in ("tool_calls", "function_call") if key in seen), "")
    finish = finishes.read(choice, called)
    if finish.reason == finishes.FAILED:
        result.failed = finish.word
    if finish.reason is None:
        finish = finishes.Finish(called or "stop")
    result.finish = result.finish or finish.reason or ""
    edited = finishes.spell(choice, finish) or edited
    return edited, not shapes.NO_ANSWER.issuperset(seen)


def _normalise_message(message: Object, ident: str, position: int) -> bool:
    """The message in its form, in place; whether that changed it."""
    edited = False
    role = message.get("role")
    if role is None or role != _ASSISTANT:
        message["role"] = _ASSISTANT
        edited = True
    content = message.get("content")
    if content is None:
        message["content"] = NULL
        edited = True
    elif memoryview(content)[0] == 0x5B:
        shapes.put_parts(message, content)
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


def _settle_usage(whole: chunks.Members, raw: Raw | None, result: Answer, prompt_tokens: int) -> None:
    usage, as_read = shapes.read_usage(raw) if raw is not None and raw != NULL else (None, False)
    result.usage = usage
    if usage is None:
        estimate = Usage(prompt_tokens, max(result.text_bytes >> 2, 1 if result.text_bytes else 0))
        whole["usage"] = shapes.usage_object(estimate, None)
    elif not as_read:
        whole["usage"] = shapes.usage_object(usage, raw)
