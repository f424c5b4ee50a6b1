"""A Messages request: read from the client, written for an upstream.

A client's members are kept as they came (``Call.native``) beside their form in chat completions.  An upstream of this
API gets the native members, because signatures of thinking are bound to the exact bytes of a conversation.
"""

from __future__ import annotations

from headgate.dialects.anthropic_messages import from_chat, seals
from headgate.dialects.anthropic_messages.to_chat import ChatConversion
from headgate.dialects.openai_chat import fitting
from headgate.dialects.openai_chat.prompt import ChatPrompt
from headgate.dialects.openai_chat.request import (
    invalid,
    read_model,
    read_options,
    read_stream,
    read_trace,
    with_parameters,
)
from headgate.model import Call, ModelRow, Rendered, Target
from headgate.wire import codec

NAME = "anthropic_messages"
PATH = "/messages"
FIELDS = b"anthropic-version: 2023-06-01\r\n"
OWN_FIELDS = b"anthropic-"  # how header names of this API begin: the client's version and betas belong to its body
_MAX_TOKENS = 4096  # for a model without a known limit: the API requires one


def read(body: bytes) -> Call:
    """Read a client's request.  Raises GatewayError (400) with ``param`` if a member is invalid."""
    native = codec.decode_object(body)
    trace, options = native.pop("include_route_trace", None), native.pop("headgate", None)
    model, stream = read_model(native), read_stream(native)
    most = codec.as_integer(native.get("max_tokens"))
    if most is None or most < 1:
        raise invalid("max_tokens", "must be an integer of at least 1")
    chat = ChatConversion(native)
    prompt = ChatPrompt(chat.members, len(chat.members["messages"]))
    # A stream of this API always reports its usage.
    call = Call(
        chat.members, model, stream, stream, prompt, most, dialect=NAME, native=native, lost=chat.lost,
        thoughts=tuple(chat.thoughts),
    )  # fmt: skip
    if trace is not None:
        call.trace = read_trace(trace)
    if options is not None:
        read_options(options, call)
    return call


def render(call: Call, target: Target, ask_usage: bool) -> Rendered:
    """The upstream's request, with its own id for the model.  The target's row sets, drops and renames parameters."""
    row = target.row
    if call.dialect == NAME and call.native is not None:
        members = call.native.copy()
        dropped = seals.unseal(members, target.provider.family)
        passes = OWN_FIELDS
    else:
        members, lost = from_chat.members(call.body, target)
        dropped = tuple(dict.fromkeys((*call.lost, *lost, *fitting.unfit(call.thoughts))))
        passes = b""
    members["model"] = codec.raw(target.upstream_model)
    if row is not None and (row.param_defaults or row.param_drop or row.param_map):
        dropped += tuple(name for name in row.param_drop if name in members)
        members = with_parameters(members, row)
    if codec.is_null(members.get("max_tokens")):
        members["max_tokens"] = codec.raw(most_output(row))
    return Rendered(PATH, codec.encode(members), FIELDS, passes, dropped)


def most_output(row: ModelRow | None) -> int:
    """Return the limit of an answer whose request names none."""
    return row.max_output if row is not None and row.max_output else _MAX_TOKENS
