"""A Gemini request: read from the client, written for an upstream.

The path names the model and the form of the answer, so a client of this API is made for each request (``dialect``).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote

from msgspec.structs import replace

from headgate.dialects import saved_prompts
from headgate.dialects.gemini import from_chat
from headgate.dialects.gemini.to_chat import GeminiConversion, as_contents, parts_of, snake
from headgate.dialects.openai_chat.prompt import ChatPrompt
from headgate.dialects.openai_chat.quirks import unfit
from headgate.dialects.openai_chat.request import invalid, read_model, read_options, read_trace, with_parameters
from headgate.model import Call, PromptMessage, Rendered, Target
from headgate.wire import codec
from headgate.wire.codec import EMPTY_ARRAY, NULL, Object

NAME = "gemini"
MODELS = "/models/"
STREAM, WHOLE, COUNT = "streamGenerateContent", "generateContent", "countTokens"


def parted(path: bytes) -> tuple[str, str]:
    """Return the model and the method that a path names.  Ids of models may have slashes and colons."""
    model, _, method = unquote(path.decode("latin-1").partition(MODELS)[2]).rpartition(":")
    return model, method


def read(body: bytes, model: str, stream: bool) -> Call:
    """Read a client's request.  Raises GatewayError (400) with ``param`` if a member is invalid."""
    native = codec.decode_object(body)
    trace, options = native.pop("include_route_trace", None), native.pop("headgate", None)
    may_be_empty = saved_prompts.names_prompt(options) and saved_prompts.is_empty(native.get("contents"))
    if may_be_empty:
        native["contents"] = EMPTY_ARRAY
    chat = GeminiConversion(native, may_be_empty)
    chat.members["model"] = codec.raw(model)
    if stream:
        chat.members["stream"] = codec.raw(True)
    most = None
    if not codec.is_null(chat.members.get("max_tokens")):
        most = codec.as_integer(chat.members["max_tokens"])
        if most is None or most < 1:
            raise invalid("generationConfig.maxOutputTokens", "must be an integer of at least 1")
    prompt = ChatPrompt(chat.members, len(chat.members["messages"]))
    # A stream of this API always reports its usage.
    call = Call(
        chat.members, read_model(chat.members), stream, stream, prompt, most, dialect=NAME, native=native,
        lost=chat.lost,
    )  # fmt: skip
    if trace is not None:
        call.trace = read_trace(trace)
    if options is not None:
        read_options(options, call)
    return call


def with_prompt(call: Call, messages: Sequence[PromptMessage]) -> Call:
    """Return the call with a saved prompt's messages before its own.  Instructions go before its own ones."""
    native: Object = {}
    for name, value in (call.native or {}).items():
        native["systemInstruction" if snake(name) == "system_instruction" else name] = value
    instructions, turns = saved_prompts.parted(messages)
    if instructions:
        own = native.get("systemInstruction", NULL)
        parts: list[object] = [{"text": text} for text in instructions]
        native["systemInstruction"] = codec.raw(
            {"parts": parts + ([] if own == NULL else parts_of(own, "systemInstruction"))}
        )
    said: list[object] = [
        {"role": "model" if one.role == "assistant" else "user", "parts": [{"text": one.text}]} for one in turns
    ]
    contents = as_contents(native["contents"]) or []
    native["contents"] = codec.raw([*said, *contents])
    chat = GeminiConversion(native, may_be_empty=True)
    body = chat.members | {name: call.body[name] for name in ("model", "stream") if name in call.body}
    # Instructions alone are a question, which only the canonical form can ask
    complete = native if said or contents else None
    return replace(call, body=body, native=complete, prompt=ChatPrompt(body, len(body["messages"])))


def _content(message: PromptMessage) -> dict[str, object]:
    return {"role": "model" if message.role == "assistant" else "user", "parts": [{"text": message.text}]}


def read_count(body: bytes, model: str) -> Call:
    """Read the question for a request's tokens: contents, or a whole request as ``generateContentRequest``."""
    native = codec.decode_object(body)
    inner = codec.as_object(native.get("generateContentRequest"))
    return read(codec.encode(inner if inner is not None else native), model, stream=False)


def render(call: Call, target: Target, ask_usage: bool) -> Rendered:
    """The upstream's request.  The path names the model.  The target's row sets, drops and renames parameters of the
    generation's configuration.
    """
    members, dropped = _members(call, target)
    method = f"{STREAM}?alt=sse" if call.stream else WHOLE
    return Rendered(_path(target, method), codec.encode(members), dropped=dropped)


def render_count(call: Call, target: Target) -> Rendered:
    members, _ = _members(call, target)
    whole = {**members, "model": codec.raw(f"models/{target.upstream_model}")}
    return Rendered(_path(target, COUNT), codec.encode({"generateContentRequest": whole}))


def _members(call: Call, target: Target) -> tuple[Object, tuple[str, ...]]:
    dropped: tuple[str, ...] = ()
    if call.dialect == NAME and call.native is not None:
        members = call.native.copy()
        if from_chat.is_levelled(target):
            members["contents"] = codec.raw(from_chat.signed(as_contents(members["contents"]) or []))
    else:
        members, lost = from_chat.members(call.body, target)
        dropped = tuple(dict.fromkeys((*call.lost, *lost, *unfit(call.thoughts))))
    row = target.row
    if row is not None and (row.param_defaults or row.param_drop or row.param_map):
        members = {
            ("generationConfig" if snake(name) == "generation_config" else name): members[name] for name in members
        }
        config = codec.as_object(members.get("generationConfig")) or {}
        dropped += tuple(name for name in row.param_drop if name in config)
        members["generationConfig"] = codec.raw(with_parameters(config, row))
    return members, dropped


def _path(target: Target, method: str) -> str:
    return f"/models/{quote(target.upstream_model, safe='/.-_~')}:{method}"
