"""A Messages request: read from the client, written for an upstream.

A client's members are kept as they came (``Call.native``) beside their form in chat completions.  An upstream of this
API gets the native members, because signatures of thinking are bound to the exact bytes of a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from headgate.dialects import saved_prompts
from headgate.dialects.anthropic_messages import from_chat, to_chat
from headgate.dialects.openai_chat.prompt import ChatPrompt
from headgate.dialects.openai_chat.request import (
    invalid,
    read_model,
    read_options,
    read_stream,
    read_trace,
    with_parameters,
)
from headgate.model import Call, ModelRow, PromptMessage, Rendered, Target
from headgate.wire import codec
from headgate.wire.codec import EMPTY_ARRAY

NAME = "anthropic_messages"
PATH = "/messages"
FIELDS = b"anthropic-version: 2023-06-01\r\n"
_MAX_TOKENS = 4096  # for a model without a known limit: the API requires one


def read(body: bytes) -> Call:
    """Read a client's request.  Raises GatewayError (400) with ``param`` if a member is invalid."""
    native = codec.decode_object(body)
    trace, options = native.pop("include_route_trace", None), native.pop("headgate", None)
    model, stream = read_model(native), read_stream(native)
    most = codec.as_integer(native.get("max_tokens"))
    if most is None or most < 1:
        raise invalid("max_tokens", "must be an integer of at least 1")
    may_be_empty = saved_prompts.names_prompt(options) and saved_prompts.is_empty(native.get("messages"))
    if may_be_empty:
        native["messages"] = EMPTY_ARRAY
    members = to_chat.members(native, may_be_empty)
    prompt = ChatPrompt(members, len(members["messages"]))
    # A stream of this API always reports its usage.
    call = Call(members, model, stream, stream, prompt, most, dialect=NAME, native=native)
    if trace is not None:
        call.trace = read_trace(trace)
    if options is not None:
        read_options(options, call)
    return call


def with_prompt(call: Call, messages: Sequence[PromptMessage]) -> Call:
    """Return the call with a saved prompt's messages before its own.  Instructions go before its ``system``."""
    native = dict(call.native or {})
    system, turns = saved_prompts.parted(messages)
    if system:
        native["system"] = to_chat.with_system_before(native.get("system"), system)
    if turns:
        native["messages"] = saved_prompts.with_messages_before(native["messages"], turns)
    body = to_chat.members(native, may_be_empty=True)
    prompt = ChatPrompt(body, len(body["messages"]))
    # Instructions alone are a question, which only the canonical form can ask
    return replace(
        call, body=body, native=None if saved_prompts.is_empty(native["messages"]) else native, prompt=prompt
    )


def render(call: Call, target: Target, ask_usage: bool) -> Rendered:
    """The upstream's request, with its own id for the model.  The target's row sets, drops and renames parameters."""
    if call.dialect == NAME and call.native is not None:
        members = call.native.copy()
    else:
        members = from_chat.members(call.body)
    members["model"] = codec.raw(target.upstream_model)
    row = target.row
    if row is not None and (row.param_defaults or row.param_drop or row.param_map):
        members = with_parameters(members, row)
    if codec.is_null(members.get("max_tokens")):
        members["max_tokens"] = codec.raw(_limit(row))
    return Rendered(PATH, codec.encode(members), FIELDS)


def _limit(row: ModelRow | None) -> int:
    return row.max_output if row is not None and row.max_output else _MAX_TOKENS
