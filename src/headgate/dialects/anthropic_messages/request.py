"""A Messages request: read from the client, written for an upstream.

A client's members are kept as they came (``Call.native``) beside their form in chat completions.  An upstream of this
API gets the native members, because signatures of thinking are bound to the exact bytes of a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from headgate.dialects import saved_prompts
from headgate.dialects.anthropic_messages import from_chat, seals
from headgate.dialects.anthropic_messages.to_chat import ChatConversion, with_system_before
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
from headgate.model import Call, ModelRow, PromptMessage, Rendered, Target
from headgate.wire import codec
from headgate.wire.codec import EMPTY_ARRAY, Object

NAME = "anthropic_messages"
PATH = "/messages"
COUNT_PATH = "/messages/count_tokens"
FIELDS = b"anthropic-version: 2023-06-01\r\n"
OWN_FIELDS = b"anthropic-"  # how header names of this API begin: the client's version and betas belong to its body
# Members that decide how the answer is made; the question for a count refuses them
_UNCOUNTED = frozenset(
    (
        "max_tokens", "stream", "metadata", "stop_sequences", "temperature", "top_p", "top_k", "service_tier",
        "inference_geo", "container",
    )
)  # fmt: skip
_MAX_TOKENS = 4096  # for a model without a known limit: the API requires one


def read(body: bytes) -> Call:
    """Read a client's request.  Raises GatewayError (400) with ``param`` if a member is invalid."""
    native = codec.decode_object(body)
    most = codec.as_integer(native.get("max_tokens"))
    if most is None or most < 1:
        raise invalid("max_tokens", "must be an integer of at least 1")
    return _read(native, most)


def read_count(body: bytes) -> Call:
    """Read a request whose tokens are to be counted: it needs no limit."""
    return _read(codec.decode_object(body), None)


def _read(native: Object, most: int | None) -> Call:
    trace, options = native.pop("include_route_trace", None), native.pop("headgate", None)
    model, stream = read_model(native), read_stream(native)
    may_be_empty = saved_prompts.names_prompt(options) and saved_prompts.is_empty(native.get("messages"))
    if may_be_empty:
        native["messages"] = EMPTY_ARRAY
    chat = ChatConversion(native, may_be_empty)
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


def with_prompt(call: Call, messages: Sequence[PromptMessage]) -> Call:
    """Return the call with a saved prompt's messages before its own.  Instructions go before its ``system``."""
    native = dict(call.native or {})
    system, turns = saved_prompts.parted(messages)
    if system:
        native["system"] = with_system_before(native.get("system"), system)
    if turns:
        native["messages"] = saved_prompts.with_messages_before(native["messages"], turns)
    chat = ChatConversion(native, may_be_empty=True)
    prompt = ChatPrompt(chat.members, len(chat.members["messages"]))
    # Instructions alone are a question, which only the canonical form can ask
    complete = None if saved_prompts.is_empty(native["messages"]) else native
    thoughts = tuple(chat.thoughts)
    return replace(call, body=chat.members, native=complete, prompt=prompt, lost=chat.lost, thoughts=thoughts)


def render(call: Call, target: Target, ask_usage: bool) -> Rendered:
    """The upstream's request, with its own id for the model.  The target's row sets, drops and renames parameters."""
    members, passes, dropped = _members(call, target)
    row = target.row
    if row is not None and (row.param_defaults or row.param_drop or row.param_map):
        dropped += tuple(name for name in row.param_drop if name in members)
        members = with_parameters(members, row)
    if codec.is_null(members.get("max_tokens")):
        members["max_tokens"] = codec.raw(most_output(row))
    return Rendered(PATH, codec.encode(members), FIELDS, passes, dropped)


def render_count(call: Call, target: Target) -> Rendered:
    """The question how many tokens a request has.  It takes only what is part of the prompt."""
    members, passes, _ = _members(call, target)
    counted = {name: value for name, value in members.items() if name not in _UNCOUNTED}
    return Rendered(COUNT_PATH, codec.encode(counted), FIELDS, passes)


def _members(call: Call, target: Target) -> tuple[Object, bytes, tuple[str, ...]]:
    """Return a request's members for a target, the client's header fields that belong to them (see ``Rendered``), and
    the names of the members that are not among them.
    """
    if call.dialect == NAME and call.native is not None:
        members = call.native.copy()
        dropped = seals.unseal(members, target.provider.family)
        passes = OWN_FIELDS
    else:
        members, lost = from_chat.members(call.body, target)
        dropped = tuple(dict.fromkeys((*call.lost, *lost, *unfit(call.thoughts))))
        passes = b""
    members["model"] = codec.raw(target.upstream_model)
    return members, passes, dropped


def most_output(row: ModelRow | None) -> int:
    """Return the limit of an answer whose request names none."""
    return row.max_output if row is not None and row.max_output else _MAX_TOKENS
