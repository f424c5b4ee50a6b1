"""The request for the rest of an answer, and the probes for how a target continues a text.

Engines continue a text where the last message is the assistant's, each in its own spelling: ``trailing`` needs nothing
else (llama.cpp), ``continue_final_message`` two members beside the messages (vLLM: docs.vllm.ai, Chat API, extra
parameters; SGLang), ``prefix`` a member of the message
(DeepSeek: api-docs.deepseek.com, Chat Prefix Completion; Mistral).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from headgate.dialects.openai_chat import usage as usages
from headgate.dialects.openai_chat.prompt import PENALTIES, SHAPING, ChatPrompt
from headgate.model import Call, ModelRow, Usage
from headgate.wire import codec
from headgate.wire.codec import TRUE, Object

_PROBED = "One, two,"
_PROBED_SPACE = " \n\n\n"  # no tokenizer makes one token of a comma and these

_LENGTHS = ("max_tokens", "max_completion_tokens")
_NATIVE_LENGTHS = ("max_tokens", "max_output_tokens")  # of other APIs
_FELT = SHAPING | {*PENALTIES, *_LENGTHS, "stop"}


def as_asked(call: Call, row: ModelRow | None) -> Call:
    """The call as a target with this ``row`` was asked it: with its defaults, as far as an answer's form and length
    depend on them.  The rest of that answer is asked for in the same way, wherever.
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
    """The request for what follows ``said``, which the client has (about ``tokens`` tokens): the same one with the text
    as the assistant's last message, exactly, and as much less to say.
    """
    body = call.body.copy()
    messages = codec.as_objects(body["messages"]) or []
    message: Object = {"role": codec.raw("assistant")}
    if messages and codec.as_text(messages[-1].get("role")) == "assistant":  # the client itself gave the beginning
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
        found.native, found.dialect = {**call.native, **dict.fromkeys(named, limit)}, call.dialect
    return found


def probes(model: str, spelling: str) -> tuple[Call, Call]:
    """Two requests for one token, with prefills that differ only in trailing white space, the second one's.  Where both
    have the same number of prompt tokens, the target drops it.
    """
    question: Object = {"role": codec.raw("user"), "content": codec.raw("Count to three.")}
    body: Object = {"model": codec.raw(model), "messages": codec.raw([question]), "max_tokens": codec.raw(1)}
    prompt = ChatPrompt(body, len(body["messages"]))
    call = Call(body, model, stream=False, include_usage=False, prompt=prompt, max_tokens=1)
    return continued(call, _PROBED, 0, spelling), continued(call, _PROBED + _PROBED_SPACE, 0, spelling)


def trims(plain: tuple[int, bytes], spaced: tuple[int, bytes], read: Callable[[bytes], Usage | None]) -> bool | None:
    """What the answers (status, body) to both probes say; None: nothing.  ``read`` finds the usage in a body.

    A target that refuses trailing white space is given none either.
    """
    if plain[0] != 200:
        return None
    if spaced[0] in (400, 422):
        return True
    counts = [usage.prompt if (usage := read(body)) is not None else 0 for _, body in (plain, spaced)]
    return counts[0] == counts[1] if spaced[0] == 200 and all(counts) else None


def probed(body: bytes) -> Usage | None:
    """What the answer to a probe says that it used; None: it does not say."""
    raw = usages.find(codec.as_object(body) or {})
    nothing = Usage()
    usage, _ = usages.read(raw, nothing)
    return None if usage is nothing else usage


def _text(message: Object) -> str:
    """A message's text, whichever way it is written."""
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
        call.trace,
    )  # fmt: skip


def exhausted(call: Call, tokens: int) -> bool:
    """Whether ``tokens`` are all that the request allows: the answer is complete as it is, by its length."""
    return call.max_tokens is not None and tokens >= call.max_tokens > 0
