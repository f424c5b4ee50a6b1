"""The members of a Responses request → those of a chat completion.

Reasoning items are left out: only the provider that sealed them can read them.  Tools that a provider runs have no form
in chat completions and are left out as well; ``left_out`` names both.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw, Struct

from headgate.dialects.openai_chat.request import invalid
from headgate.wire import codec
from headgate.wire.codec import NULL, Object

CUSTOM_INPUT = "input"  # the only parameter of a function that stands for a custom tool
_AS_THEY_ARE = (
    "model", "stream", "temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "service_tier", "presence_penalty", "frequency_penalty",
)  # fmt: skip
_RENAMED = {"max_output_tokens": "max_tokens"}
_LOGPROBS = "message.output_text.logprobs"
# Members that are translated, or that the gateway answers itself
_TAKEN = frozenset(
    (
        *_AS_THEY_ARE, *_RENAMED, "input", "instructions", "reasoning", "text", "tools", "tool_choice", "include",
        "top_logprobs", "metadata", "store", "background", "stream_options",
    )
)  # fmt: skip
_NEUTRAL = {"truncation": codec.raw("disabled")}
_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
_ROLES = ("user", "assistant", "system", "developer")
_FUNCTIONS = ("function", "custom")
_OF_FUNCTION = ("name", "description", "parameters", "strict")
_OF_FILE = ("file_data", "filename", "file_id", "file_url")
_BETWEEN = "\n\n"  # instructions
_TEXT = codec.raw("text")
_FUNCTION = codec.raw("function")


class Special(Struct, frozen=True, gc=False):
    """A tool that chat completions know only as a function.  ``custom``: its input is free text.  ``namespace``: the
    group of tools that it belongs to, or empty.
    """

    custom: bool = False
    namespace: str = ""


def members(native: Object, may_be_empty: bool = False) -> Object:
    """Convert a request's members.  ``may_be_empty``: it needs no input.  Raises GatewayError (400) with ``param`` if
    one is invalid.
    """
    found: Object = {key: native[key] for key in _AS_THEY_ARE if key in native}
    for name, chat in _RENAMED.items():
        if not codec.is_null(native.get(name)):
            found[chat] = native[name]
    found["messages"] = codec.raw(_messages(native, may_be_empty))
    effort = (_object(native, "reasoning") or {}).get("effort")
    if not codec.is_null(effort) and effort is not None:
        found["reasoning_effort"] = effort
    found |= _text_form(native)
    tools = _tools(native)
    choice, allowed = _tool_choice(native)
    if allowed is not None:
        tools = [tool for tool in tools if _name(tool) in allowed]
    if tools:
        found["tools"] = codec.raw(tools)
        if choice is not None:
            found["tool_choice"] = choice
    else:
        found.pop("parallel_tool_calls", None)
    top = codec.as_integer(native.get("top_logprobs"))
    if _LOGPROBS in (codec.as_texts(native.get("include")) or ()):
        found["logprobs"] = codec.raw(True)
        if top:
            found["top_logprobs"] = native["top_logprobs"]
    return found


def special_tools(native: Object) -> dict[str, Special]:
    """Return the tools whose calls are more than a name and arguments, by name."""
    return {
        codec.as_text(tool.get("name")) or "": Special(_kind(tool) == "custom", namespace)
        for tool, namespace in _tools_of(native)
        if namespace or _kind(tool) == "custom"
    }


def left_out(native: Object) -> tuple[str, ...]:
    """Return the members that have no form in chat completions, as an operator reads them."""
    found = [f"tools.{_kind(tool)}" for tool, _ in _tools_of(native) if _kind(tool) not in _FUNCTIONS]
    found += [
        name
        for name, raw in native.items()
        if name not in _TAKEN and not codec.is_null(raw) and raw != _NEUTRAL.get(name)
    ]
    reasoning = codec.as_object(native.get("reasoning")) or {}
    found += [f"reasoning.{name}" for name, raw in reasoning.items() if name != "effort" and not codec.is_null(raw)]
    found += [f"include.{name}" for name in codec.as_texts(native.get("include")) or () if name != _LOGPROBS]
    items = codec.as_objects(native.get("input")) or ()
    found += [f"input.{kind}" for item in items if (kind := _kind(item)) not in ("message", "", *_CALLS, *_RESULTS)]
    return tuple(dict.fromkeys(found))


# ------------------------------------------------------------------------------------- messages


def with_instructions_before(raw: Raw | None, texts: list[str]) -> Raw:
    """Return ``instructions`` with further texts before their own."""
    own = codec.as_text(raw)
    return codec.raw(_BETWEEN.join([*texts, own] if own else texts))


def as_items(raw: Raw) -> Raw:
    """Return an ``input`` as an array of items: a string is a user's message."""
    text = codec.as_text(raw)
    return raw if text is None else codec.raw([{"role": "user", "content": text}])


def _messages(native: Object, may_be_empty: bool) -> list[Object]:
    found: list[Object] = []
    instructions = native.get("instructions")
    if instructions is not None and instructions != NULL:
        text = codec.as_text(instructions)
        if text is None:
            raise invalid("instructions", "must be a string")
        if text:
            found.append({"role": codec.raw("system"), "content": instructions})
    given = native.get("input")
    if codec.is_null(given) or given is None:
        raise invalid("input", "must be a string or an array of items")
    if codec.as_text(given) is not None:
        found.append({"role": codec.raw("user"), "content": given})
        return found
    items = codec.as_objects(given)
    if items is None or not (items or may_be_empty):
        raise invalid("input", "must be a string or an array of at least one item, and an item is an object")
    turns = _Turns(found)
    for i, item in enumerate(items):
        _add(item, f"input[{i}]", turns)
    turns.end_results()
    if not found and not may_be_empty:
        raise invalid("input", "has no message and no tool call that a model could answer")
    return found


class _Turns:
    """Messages under construction.  Items of one assistant's turn are one message in chat completions."""

    def __init__(self, messages: list[Object]) -> None:
        self.messages = messages
        self._calls: list[Object] = []  # of the last message, if that is an assistant's
        self._shown: list[Object] = []  # what results show beside their text: behind all results of a turn

    def add(self, message: Object) -> None:
        self.end_results()
        self._calls = []
        self.messages.append(message)

    def result(self, message: Object, shown: list[Object]) -> None:
        self._calls = []
        self.messages.append(message)
        self._shown += shown

    def end_results(self) -> None:
        """The results of a turn are over: they follow its calls without anything between."""
        if self._shown:
            self.messages.append({"role": codec.raw("user"), "content": codec.raw(self._shown)})
            self._shown = []

    def answer(self, content: Raw) -> None:
        """Add an assistant's text: to the message with its calls, where that has no text yet."""
        last = self.messages[-1] if self.messages else {}
        if self._calls and last.get("content") == NULL:
            last["content"] = content
            return
        self.add({"role": codec.raw("assistant"), "content": content})

    def call(self, call: Object) -> None:
        last = self.messages[-1] if self.messages else {}
        if codec.as_text(last.get("role")) != "assistant":
            last = {"role": codec.raw("assistant"), "content": NULL}
            self.add(last)
        self._calls.append(call)
        last["tool_calls"] = codec.raw(self._calls)


def _add(item: Object, param: str, turns: _Turns) -> None:
    kind = _kind(item) or "message"
    if kind == "message":
        _message(item, param, turns)
    elif kind in _CALLS:
        ident = codec.as_text(item.get("call_id"))
        if not ident:
            raise invalid(f"{param}.call_id", "must be a string")
        arguments = codec.as_text(item.get("arguments" if kind == "function_call" else "input")) or ""
        if kind == "custom_tool_call":
            arguments = codec.encode({CUSTOM_INPUT: arguments}).decode()
        function = {"name": item.get("name", NULL), "arguments": arguments}
        turns.call({"id": item["call_id"], "type": _FUNCTION, "function": codec.raw(function)})
    elif kind in _RESULTS:
        if not codec.as_text(item.get("call_id")):
            raise invalid(f"{param}.call_id", "must be a string")
        _result(item, param, turns)
    elif kind == "item_reference":
        raise invalid(f"{param}.type", "is item_reference, which needs stored answers: send the item itself")


def _message(item: Object, param: str, turns: _Turns) -> None:
    role = codec.as_text(item.get("role"))
    if role not in _ROLES:
        raise invalid(f"{param}.role", f"must be one of {', '.join(_ROLES)}")
    content = item.get("content")
    if content is not None and codec.as_text(content) is not None:
        parts: list[Object] = [{"type": _TEXT, "text": content}]
    else:
        given = codec.as_objects(content)
        if given is None:
            raise invalid(f"{param}.content", "must be a string or an array of content parts")
        parts = [_part(part, f"{param}.content[{i}]") for i, part in enumerate(given)]
    if role == "assistant":
        turns.answer(_joined(parts))
    else:
        turns.add({"role": item["role"], "content": _content(parts)})


def _result(item: Object, param: str, turns: _Turns) -> None:
    """Add a tool's result.  A tool's message holds text; images follow it as a user's."""
    output = item.get("output", NULL)
    rest: list[Object] = []
    content = output
    if codec.as_text(output) is None:
        parts = codec.as_objects(output)
        if parts is None:
            content = codec.raw("" if output == NULL else bytes(output).decode())
        else:
            made = [_part(part, f"{param}.output[{i}]") for i, part in enumerate(parts)]
            content = _joined([part for part in made if _kind(part) == "text"])
            rest = [part for part in made if _kind(part) != "text"]
    turns.result({"role": codec.raw("tool"), "tool_call_id": item["call_id"], "content": content}, rest)


def _part(part: Object, param: str) -> Object:
    kind = _kind(part)
    if not kind:
        raise invalid(f"{param}.type", "must be a string")
    make = _PARTS.get(kind)
    return make(part) if make is not None else part


def _of_text(part: Object) -> Object:
    return {"type": _TEXT, "text": part.get("text", codec.raw(""))}


def _of_refusal(part: Object) -> Object:
    return {"type": _TEXT, "text": part.get("refusal", codec.raw(""))}


def _of_image(part: Object) -> Object:
    url = {"url": part.get("image_url", NULL)}
    if not codec.is_null(part.get("detail")):
        url["detail"] = part["detail"]
    return {"type": codec.raw("image_url"), "image_url": codec.raw(url)}


def _of_file(part: Object) -> Object:
    kept = {key: part[key] for key in _OF_FILE if not codec.is_null(part.get(key))}
    return {"type": codec.raw("file"), "file": codec.raw(kept)}


_PARTS: dict[str, Callable[[Object], Object]] = {
    "input_text": _of_text,
    "output_text": _of_text,
    "text": _of_text,
    "refusal": _of_refusal,
    "input_image": _of_image,
    "input_file": _of_file,
}


def _content(parts: list[Object]) -> Raw:
    """One text as a string, which every server takes."""
    return parts[0]["text"] if len(parts) == 1 and _kind(parts[0]) == "text" else codec.raw(parts)


def _joined(parts: list[Object]) -> Raw:
    return codec.raw("".join(codec.as_text(part.get("text")) or "" for part in parts))


def _kind(item: Object) -> str:
    return codec.as_text(item.get("type")) or ""


def _name(tool: Object) -> str:
    return codec.as_text((codec.as_object(tool.get("function")) or {}).get("name")) or ""


def _object(native: Object, name: str) -> Object | None:
    if codec.is_null(native.get(name)):
        return None
    found = codec.as_object(native[name])
    if found is None:
        raise invalid(name, "must be an object")
    return found


# ------------------------------------------------------------------------------------- the form of the answer


def _text_form(native: Object) -> Object:
    text = _object(native, "text")
    found: Object = {}
    if text is None:
        return found
    if not codec.is_null(text.get("verbosity")):
        found["verbosity"] = text["verbosity"]
    form = codec.as_object(text.get("format"))
    kind = codec.as_text((form or {}).get("type"))
    if form is None or kind in (None, "text"):
        return found
    if kind == "json_schema":
        schema = {key: form[key] for key in ("name", "description", "schema", "strict") if key in form}
        found["response_format"] = codec.raw({"type": form["type"], "json_schema": schema})
    else:
        found["response_format"] = text["format"]
    return found


# ------------------------------------------------------------------------------------- tools


def _tools_of(native: Object) -> list[tuple[Object, str]]:
    """The tools with their namespaces (empty: none)."""
    if codec.is_null(native.get("tools")):
        return []
    tools = codec.as_objects(native["tools"])
    if tools is None:
        raise invalid("tools", "must be an array of objects")
    found: list[tuple[Object, str]] = []
    for tool in tools:
        inner = codec.as_objects(tool.get("tools")) if _kind(tool) == "namespace" else None
        if inner is None:
            found.append((tool, ""))
        else:
            found += [(one, codec.as_text(tool.get("name")) or "") for one in inner]
    return found


def _tools(native: Object) -> list[Object]:
    found: list[Object] = []
    for tool, _ in _tools_of(native):
        kind = _kind(tool)
        if kind == "function":
            function = {key: tool[key] for key in _OF_FUNCTION if not codec.is_null(tool.get(key))}
            found.append({"type": _FUNCTION, "function": codec.raw(function)})
        elif kind == "custom":
            found.append({"type": _FUNCTION, "function": codec.raw(_of_custom(tool))})
    return found


def _of_custom(tool: Object) -> dict[str, object]:
    """A tool with free text as its input, as a function with one parameter.  Its grammar, if any, is told in words."""
    description = codec.as_text(tool.get("description")) or ""
    form = codec.as_object(tool.get("format")) or {}
    if codec.as_text(form.get("type")) == "grammar":
        syntax, definition = codec.as_text(form.get("syntax")) or "", codec.as_text(form.get("definition")) or ""
        description = f"{description}\n\nThe input must follow this grammar ({syntax}):\n{definition}".strip()
    schema = {
        "type": "object",
        "properties": {CUSTOM_INPUT: {"type": "string", "description": "The tool's whole input, as free text."}},
        "required": [CUSTOM_INPUT],
    }
    return {"name": tool.get("name", NULL), "description": description, "parameters": schema}


def _tool_choice(native: Object) -> tuple[Raw | None, frozenset[str] | None]:
    """Return the choice, and the names of the only tools that it allows (None: all)."""
    raw = native.get("tool_choice")
    if codec.is_null(raw) or raw is None:
        return None, None
    if codec.as_text(raw) is not None:
        return raw, None
    choice = codec.as_object(raw)
    if choice is None:
        raise invalid("tool_choice", "must be a string or an object")
    match _kind(choice):
        case "function" | "custom":
            return codec.raw({"type": "function", "function": {"name": choice.get("name", NULL)}}), None
        case "allowed_tools":
            tools = codec.as_objects(choice.get("tools")) or []
            return choice.get("mode", codec.raw("auto")), frozenset(codec.as_text(t.get("name")) or "" for t in tools)
        case _:
            return None, None  # a tool that the provider runs
