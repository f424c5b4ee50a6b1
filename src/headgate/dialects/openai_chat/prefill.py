"""The request for the rest of an answer, and the probes for how a target continues a text.

Engines continue a text if the last message is the assistant's, each in its own spelling:

- ``trailing`` needs nothing else (llama.cpp).
- ``continue_final_message`` needs two members beside the messages (SGLang; vLLM: docs.vllm.ai, Chat API, extra
  parameters).
- ``prefix`` is a member of the message (Mistral; DeepSeek: api-docs.deepseek.com, Chat Prefix Completion).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from headgate.dialects.openai_chat.prompt import PENALTIES, SHAPING, ChatPrompt
from headgate.dialects.usage import reading as usages
from headgate.model import Call, ModelRow, Usage
from headgate.wire import codec
from headgate.wire.codec import TRUE, Object

_PROBED = "One, two,"
_PROBED_SPACE = " \n\n\n"  # no tokenizer makes one token of a comma and these

_LENGTHS = ("max_tokens", "max_completion_tokens")
_NATIVE_LENGTHS = ("max_tokens", "max_output_tokens")  # of other APIs
_FELT = SHAPING | {*PENALTIES, *_LENGTHS, "stop"}


def as_asked(call: Call, row: ModelRow | None) -> Call:
    """Return the call with those defaults of a target's ``row`` that shape an answer or bound its length.  The rest of
    that answer is requested in the same way at any target.
    """
    given = {
        name: Raw(value)
        for name, value in (row.param_defaults if row is not None else {}).items()
        if name in _FELT and name not in call.body
    }
    if not given:
        return call
    most = call.max_tokens
    for name in _LENGTHS:
        most = codec.as_integer(given.get(name)) or most
    return _copied(call, {**call.body, **given}, most)


def continued(call: Call, said: str, tokens: int, spelling: str) -> Call:
    """Return the request for the text after ``said``, which the client has (about ``tokens`` tokens).

    It ends with exactly that text as the assistant's last message, and its limit is lower by ``tokens``.
    """
    body = call.body.copy()
    messages = codec.as_objects(body["messages"]) or []
    message: Object = {"role": codec.raw("assistant")}
    if messages and codec.as_text(messages[-1].get("role")) == "assistant":  # the client itself sent the beginning
        message = messages.pop()
        said = _text(message) + said
    message["content"] = codec.raw(said)
    if spelling == "prefix":
        message["prefix"] = TRUE
    elif spelling == "continue_final_message":
        body["add_generation_prompt"] = codec.raw(False)
        body["continue_final_message"] = TRUE
    body["messages"] = codec.raw([*messages, message])
    return _with_less_to_say(call, body, tokens)


def capped(call: Call, most: int) -> Call:
    """The request for an answer of at most ``most`` tokens, under the name that the client used for that limit."""
    names = [name for name in _LENGTHS if codec.as_integer(call.body.get(name)) is not None] or [_LENGTHS[0]]
    limit = codec.raw(most)
    found = _copied(call, {**call.body, **dict.fromkeys(names, limit)}, most)
    if call.native is not None and (named := [name for name in _NATIVE_LENGTHS if name in call.native]):
        found.native = {**call.native, **dict.fromkeys(named, limit)}
    return found


def probes(model: str, spelling: str) -> tuple[Call, Call]:
    """Return two requests for one token.  Only the second one's prefill ends in white space.  If both have the same
    number of prompt tokens, the target drops it.
    """
    question: Object = {"role": codec.raw("user"), "content": codec.raw("Count to three.")}
    body: Object = {"model": codec.raw(model), "messages": codec.raw([question]), "max_tokens": codec.raw(1)}
    prompt = ChatPrompt(body, len(body["messages"]))
    call = Call(body, model, stream=False, include_usage=False, prompt=prompt, max_tokens=1)
    return continued(call, _PROBED, 0, spelling), continued(call, _PROBED + _PROBED_SPACE, 0, spelling)


def trims(plain: tuple[int, bytes], spaced: tuple[int, bytes], read: Callable[[bytes], Usage | None]) -> bool | None:
    """Return the result of both probes' answers (status, body); None: unknown.  ``read`` finds the usage in a body.

    A target that refuses trailing white space is given none either.
    """
    if plain[0] != 200:
        return None
    if spaced[0] in (400, 422):
        return True
    counts = [usage.prompt if (usage := read(body)) is not None else 0 for _, body in (plain, spaced)]
    return counts[0] == counts[1] if spaced[0] == 200 and all(counts) else None


def probed(body: bytes) -> Usage | None:
    """Return the usage that the answer to a probe reports; None if it reports none."""
    raw = usages.find(codec.as_object(body) or {})
    nothing = Usage()
    usage, _ = usages.read(raw, nothing)
    return None if usage is nothing else usage


def _text(message: Object) -> str:
    """Return a message's text, from a string or from parts."""
    whole = codec.as_text(message.get("content"))
    if whole is not None:
        return whole
    return "".join(codec.as_text(part.get("text")) or "" for part in codec.as_objects(message.get("content")) or ())


def _with_less_to_say(call: Call, body: Object, tokens: int) -> Call:
    for name in _LENGTHS:
        most = codec.as_integer(body.get(name))
        if most is not None and most >= 0:
            body[name] = codec.raw(max(1, most - tokens))
    return _copied(call, body, None if call.max_tokens is None else max(1, call.max_tokens - tokens))


def _copied(call: Call, body: Object, most: int | None) -> Call:
    prompt = ChatPrompt(body, len(body["messages"]))
    return Call(
        body, call.model, call.stream, call.include_usage, prompt, most, call.timeout_ms, call.metadata, call.options,
        call.trace, dialect=call.dialect, lost=call.lost, thoughts=call.thoughts,
    )  # fmt: skip


def exhausted(call: Call, tokens: int) -> bool:
    """True if ``tokens`` reach the request's limit.  The answer is then complete, with finish reason ``length``."""
    return call.max_tokens is not None and tokens >= call.max_tokens > 0
