"""A Responses request: read from the client, written for an upstream.

A client's members are kept as they came (``Call.native``) beside their form in chat completions.  An upstream of this
API gets the native members: reasoning items are sealed for it, and the tools that it runs have no other form.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from headgate.dialects import saved_prompts
from headgate.dialects.openai_chat.prompt import ChatPrompt
from headgate.dialects.openai_chat.quirks import unfit
from headgate.dialects.openai_chat.request import (
    invalid,
    read_model,
    read_options,
    read_stream,
    read_trace,
    with_parameters,
)
from headgate.dialects.openai_responses import from_chat, to_chat
from headgate.dialects.openai_responses.to_chat import Special
from headgate.errors import NOT_YET_SUPPORTED, GatewayError
from headgate.model import Call, PromptMessage, Rendered, Target
from headgate.wire import codec
from headgate.wire.codec import EMPTY_ARRAY, NULL, TRUE, Object

NAME = "openai_responses"
PATH = "/responses"
# Members that refer to a state which this gateway does not keep.
_STATEFUL = ("previous_response_id", "conversation")


class ResponsesPrompt(ChatPrompt, gc=False):
    """A ``ChatPrompt`` that also holds what an answer repeats of its request: ``native``, the members as they came.

    ``special``: the tools, by name, that are more than functions.
    """

    native: Object
    special: dict[str, Special]


def read(body: bytes) -> Call:
    """Read a client's request.  Its ``prompt`` is a saved prompt of this gateway, as ``headgate.prompt`` is.

    Raises GatewayError (400) with ``param`` if a member is invalid or not supported.
    """
    native = codec.decode_object(body)
    trace, options = native.pop("include_route_trace", None), native.pop("headgate", None)
    model, stream = read_model(native), read_stream(native)
    for name in _STATEFUL:
        if not codec.is_null(native.get(name)):
            raise _unsupported(name, "send the whole conversation in 'input'")
    if native.get("background") == TRUE:
        raise _unsupported("background", "ask for a stream, which can be resumed")
    most = None
    if not codec.is_null(native.get("max_output_tokens")):
        most = codec.as_integer(native["max_output_tokens"])
        if most is None or most < 1:
            raise invalid("max_output_tokens", "must be an integer of at least 1")
    saved = saved_prompts.read_reference(native.pop("prompt", NULL), "prompt")
    named = saved is not None or saved_prompts.names_prompt(options)
    may_be_empty = named and saved_prompts.is_empty(native.get("input"))
    if may_be_empty:
        native["input"] = EMPTY_ARRAY
    members = to_chat.members(native, may_be_empty)
    prompt = ResponsesPrompt(members, len(members["messages"]), native, to_chat.special_tools(native))
    # A stream of this API always reports its usage.
    lost = to_chat.left_out(native)
    call = Call(members, model, stream, stream, prompt, most, dialect=NAME, native=native, lost=lost)
    if trace is not None:
        call.trace = read_trace(trace)
    if options is not None:
        read_options(options, call)
    if saved is not None:
        if call.saved_prompt is not None:
            raise invalid("prompt", "means the same as 'headgate.prompt': send one of the two")
        call.saved_prompt = saved
    return call


def with_prompt(call: Call, messages: Sequence[PromptMessage]) -> Call:
    """Return the call with a saved prompt's messages before its own.  Instructions go before its ``instructions``.

    An answer still repeats the request as the client sent it.
    """
    native = dict(call.native or {})
    instructions, turns = saved_prompts.parted(messages)
    if instructions:
        native["instructions"] = to_chat.with_instructions_before(native.get("instructions"), instructions)
    if turns:
        native["input"] = saved_prompts.with_messages_before(to_chat.as_items(native["input"]), turns)
    body = to_chat.members(native, may_be_empty=True)
    assert isinstance(call.prompt, ResponsesPrompt)
    prompt = replace(call.prompt, members=body, size=len(body["messages"]))
    # Instructions alone are a question, which only the canonical form can ask
    complete = None if saved_prompts.is_empty(native["input"]) else native
    return replace(call, body=body, native=complete, prompt=prompt)


def render(call: Call, target: Target, ask_usage: bool) -> Rendered:
    """The upstream's request, with its own id for the model.  The target's row sets, drops and renames parameters.

    ``store`` is always false: the gateway's client does not know the upstream's id of the answer.
    """
    dropped: tuple[str, ...] = ()
    if call.dialect == NAME and call.native is not None:
        members = call.native.copy()
    else:
        members = from_chat.members(call.body)
        dropped = tuple(dict.fromkeys((*call.lost, *from_chat.left_out(call.body), *unfit(call.thoughts))))
    members["model"] = codec.raw(target.upstream_model)
    members["store"] = codec.raw(False)
    row = target.row
    if row is not None and (row.param_defaults or row.param_drop or row.param_map):
        dropped += tuple(name for name in row.param_drop if name in members)
        members = with_parameters(members, row)
    return Rendered(PATH, codec.encode(members), dropped=dropped)


def _unsupported(param: str, instead: str) -> GatewayError:
    return GatewayError(NOT_YET_SUPPORTED, f"'{param}' is not supported by this version: {instead}.", param=param)
