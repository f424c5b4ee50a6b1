"""The members of a Messages request → those of a chat completion.

A block or a tool without a form in chat completions stays as it is.  If an upstream does not know it, its refusal is
the honest answer.  Thinking is left out: its signature is bound to its own model.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from headgate.dialects.openai_chat.request import invalid
from headgate.wire import codec
from headgate.wire.codec import EMPTY_OBJECT, NULL, TRUE, Object

_AS_THEY_ARE = ("model", "max_tokens", "temperature", "top_p", "stream")
_THOUGHTS = ("thinking", "redacted_thinking")
_BETWEEN = "\n\n"  # blocks of a system prompt, or of a tool's result
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def members(native: Object, may_be_empty: bool = False) -> Object:
    """Convert a request's members.  ``may_be_empty``: it needs no message.  Raises GatewayError (400) with ``param`` if
    one is invalid.
    """
    found: Object = {key: native[key] for key in _AS_THEY_ARE if key in native}
    found["messages"] = codec.raw(_messages(native, may_be_empty))
    if not codec.is_null(native.get("stop_sequences")):
        if codec.as_texts(native["stop_sequences"]) is None:
            raise invalid("stop_sequences", "must be an array of strings")
        found["stop"] = native["stop_sequences"]
    user = (codec.as_object(native.get("metadata")) or {}).get("user_id")
    if user is not None and user != NULL:
        found["user"] = user
    if not codec.is_null(native.get("tools")):
        tools = codec.as_objects(native["tools"])
        if tools is None:
            raise invalid("tools", "must be an array of objects")
        if tools:
            found["tools"] = codec.raw([_tool(tool) for tool in tools])
    if not codec.is_null(native.get("tool_choice")):
        found |= _tool_choice(native["tool_choice"])
    return found


# ------------------------------------------------------------------------------------- messages


def with_system_before(raw: Raw | None, texts: list[str]) -> Raw:
    """Return a ``system`` with further texts before its own, in the form that it has: a string or blocks."""
    if codec.is_null(raw):
        return codec.raw(_BETWEEN.join(texts))
    own = codec.as_text(raw)
    if own is not None:
        return codec.raw(_BETWEEN.join([*texts, own]))
    blocks = [{"type": codec.raw("text"), "text": codec.raw(text)} for text in texts]
    return codec.raw([*blocks, *(codec.as_objects(raw) or ())])


def _messages(native: Object, may_be_empty: bool) -> list[Object]:
    messages = codec.as_objects(native.get("messages"))
    if messages is None or not (messages or may_be_empty):
        raise invalid("messages", "must be an array of at least one message, and a message is an object")
    found: list[Object] = []
    if not codec.is_null(native.get("system")):
        system = _joined(_blocks(native["system"], "system"), _BETWEEN)
        if system:
            found.append({"role": codec.raw("system"), "content": codec.raw(system)})
    for i, message in enumerate(messages):
        role = codec.as_text(message.get("role"))
        if not role:
            raise invalid(f"messages[{i}].role", "must be user or assistant")
        blocks = _blocks(message.get("content"), f"messages[{i}].content")
        if role == "assistant":
            found += _of_assistant(blocks)
        else:
            found += _of_user(role, blocks, f"messages[{i}].content")
    return found


def _blocks(raw: Raw | None, param: str) -> list[Object]:
    """Return a content's blocks; a string is one block of text."""
    if raw is not None and memoryview(raw)[0] == 0x22 and codec.as_text(raw) is not None:
        return [{"type": codec.raw("text"), "text": raw}]
    blocks = codec.as_objects(raw)
    if blocks is None:
        raise invalid(param, "must be a string or an array of content blocks")
    for i, block in enumerate(blocks):
        kind = codec.as_text(block.get("type"))
        if not kind:
            raise invalid(f"{param}[{i}].type", "must be a string")
        if kind == "text" and codec.as_text(block.get("text")) is None:
            raise invalid(f"{param}[{i}].text", "must be a string")
    return blocks


def _of_assistant(blocks: list[Object]) -> list[Object]:
    said: list[Object] = []
    calls: list[Object] = []
    for block in blocks:
        kind = _kind(block)
        if kind == "tool_use":
            function = {"name": block.get("name", NULL), "arguments": _text_of(block.get("input", EMPTY_OBJECT))}
            calls.append({"id": block.get("id", NULL), "type": codec.raw("function"), "function": codec.raw(function)})
        elif kind not in _THOUGHTS:
            said.append(block)
    if not said and not calls:
        return []
    message: Object = {"role": codec.raw("assistant"), "content": NULL}
    if all(_kind(block) == "text" for block in said):
        if said:
            message["content"] = codec.raw(_joined(said))
    else:
        message["content"] = codec.raw([_part(block) for block in said])
    if calls:
        message["tool_calls"] = codec.raw(calls)
    return [message]


def _of_user(role: str, blocks: list[Object], param: str) -> list[Object]:
    """Tool results come first, each as one message: chat completions require them right after the calls."""
    results: list[Object] = []
    parts: list[Object] = []
    for i, block in enumerate(blocks):
        if _kind(block) == "tool_result":
            text, rest = _result(block, f"{param}[{i}].content")
            ident = block.get("tool_use_id", NULL)
            results.append({"role": codec.raw("tool"), "tool_call_id": ident, "content": codec.raw(text)})
            parts += rest
        else:
            parts.append(_part(block))
    if not parts and results:
        return results
    content = parts[0]["text"] if len(parts) == 1 and _kind(parts[0]) == "text" else codec.raw(parts)
    return [*results, {"role": codec.raw(role), "content": content}]


def _result(block: Object, param: str) -> tuple[str, list[Object]]:
    """Return a result's text, and the parts that a tool's message cannot contain."""
    if codec.is_null(block.get("content")):
        return "", []
    blocks = _blocks(block["content"], param)
    texts = [inner for inner in blocks if _kind(inner) == "text"]
    return _joined(texts, _BETWEEN), [_part(inner) for inner in blocks if _kind(inner) != "text"]


def _part(block: Object) -> Object:
    make = _PARTS.get(_kind(block))
    return (make(block) if make is not None else None) or block


def _of_text(block: Object) -> Object:
    return {"type": block["type"], "text": block["text"]}


def _of_image(block: Object) -> Object | None:
    source = codec.as_object(block.get("source")) or {}
    match codec.as_text(source.get("type")):
        case "base64":
            media, data = codec.as_text(source.get("media_type")) or "", codec.as_text(source.get("data")) or ""
            url = f"data:{media};base64,{data}"
        case "url":
            url = codec.as_text(source.get("url")) or ""
        case _:
            return None
    return {"type": codec.raw("image_url"), "image_url": codec.raw({"url": url})}


_PARTS: dict[str, Callable[[Object], Object | None]] = {"text": _of_text, "image": _of_image}


def _kind(block: Object) -> str:
    return codec.as_text(block.get("type")) or ""


def _joined(blocks: list[Object], between: str = "") -> str:
    return between.join(text for block in blocks if (text := codec.as_text(block.get("text"))))


def _text_of(raw: Raw) -> str:
    return bytes(raw).decode()


# ------------------------------------------------------------------------------------- tools


def _tool(tool: Object) -> Object:
    if codec.as_text(tool.get("type")) not in (None, "custom"):
        return tool  # the provider itself runs it
    function: Object = {key: tool[key] for key in ("name", "description", "strict") if key in tool}
    function["parameters"] = tool.get("input_schema", EMPTY_OBJECT)
    return {"type": codec.raw("function"), "function": codec.raw(function)}


def _tool_choice(raw: Raw) -> Object:
    choice = codec.as_object(raw)
    kind = codec.as_text((choice or {}).get("type"))
    if choice is None or kind is None:
        raise invalid("tool_choice", "must be an object with a type")
    found: Object = {}
    if kind == "tool":
        function = {"name": choice.get("name", NULL)}
        found["tool_choice"] = codec.raw({"type": "function", "function": function})
    else:
        found["tool_choice"] = codec.raw(_CHOICES[kind]) if kind in _CHOICES else raw
    if choice.get("disable_parallel_tool_use") == TRUE:
        found["parallel_tool_calls"] = codec.raw(False)
    return found
