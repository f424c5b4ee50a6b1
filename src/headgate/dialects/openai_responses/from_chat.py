"""The members of a chat completion → those of a Responses request.

The conversation becomes ``input``, with system and developer messages in their places.  ``left_out`` names the members
that have no form in this API: stop strings, several choices, penalties, a seed, and members of a single provider.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from headgate.wire import codec
from headgate.wire.codec import NULL, Object

_AS_THEY_ARE = (
    "stream", "temperature", "top_p", "parallel_tool_calls", "metadata", "user", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention", "service_tier",
)  # fmt: skip
_LENGTHS = ("max_completion_tokens", "max_tokens")
_TRANSLATED = (
    "messages", "model", "reasoning_effort", "verbosity", "response_format", "tools", "tool_choice", "stream_options",
    "store", *_LENGTHS,
)  # fmt: skip
_OF_FUNCTION = ("name", "description", "parameters", "strict")
_OF_SCHEMA = ("name", "description", "schema", "strict")
_MESSAGE = codec.raw("message")
_NO_PARAMETERS = codec.raw({"type": "object", "properties": {}})


def members(body: Object) -> Object:
    """Return an upstream request's members, without the model."""
    found: Object = {key: body[key] for key in _AS_THEY_ARE if not codec.is_null(body.get(key))}
    found["input"] = codec.raw(_items(codec.as_objects(body["messages"]) or []))
    for name in _LENGTHS:
        most = codec.as_integer(body.get(name))
        if most is not None and most > 0:
            found["max_output_tokens"] = codec.raw(most)
            break
    if not codec.is_null(body.get("reasoning_effort")):
        found["reasoning"] = codec.raw({"effort": body["reasoning_effort"]})
    text: Object = {}
    if not codec.is_null(body.get("verbosity")):
        text["verbosity"] = body["verbosity"]
    form = codec.as_object(body.get("response_format"))
    if form is not None:
        text["format"] = _format(form, body["response_format"])
    if text:
        found["text"] = codec.raw(text)
    tools = codec.as_objects(body.get("tools"))
    if tools:
        found["tools"] = codec.raw([_tool(tool) for tool in tools])
        if not codec.is_null(body.get("tool_choice")):
            found["tool_choice"] = _tool_choice(body["tool_choice"])
    return found


def left_out(body: Object) -> tuple[str, ...]:
    """Return the members of ``body`` that have a value and no form in this API."""
    return tuple(
        name for name in body
        if name not in _TRANSLATED and name not in _AS_THEY_ARE and not _is_neutral(name, body[name])
    )  # fmt: skip


def _is_neutral(name: str, raw: Raw) -> bool:
    if codec.is_null(raw) or bytes(raw) in (b"false", b"[]", b"{}", b'""'):
        return True
    number = codec.as_number(raw)
    return number == 1 if name == "n" else number == 0


# ------------------------------------------------------------------------------------- messages


def _items(messages: list[Object]) -> list[Object]:
    found: list[Object] = []
    for message in messages:
        role = codec.as_text(message.get("role")) or ""
        if role in ("tool", "function"):
            found.append(_result(message))
            continue
        parts = _parts(message.get("content"), role)
        refusal = codec.as_text(message.get("refusal"))
        if refusal:
            parts.append({"type": codec.raw("refusal"), "refusal": message["refusal"]})
        calls = codec.as_objects(message.get("tool_calls")) or ()
        if parts or not calls:
            found.append({"type": _MESSAGE, "role": message.get("role", NULL), "content": codec.raw(parts)})
        found += map(_call, calls)
    return found


def _parts(raw: Raw | None, role: str) -> list[Object]:
    kind = codec.raw("output_text" if role == "assistant" else "input_text")
    text = codec.as_text(raw)
    if text is not None:
        return [{"type": kind, "text": codec.raw(text)}] if text else []
    found: list[Object] = []
    for part in codec.as_objects(raw) or ():
        word = codec.as_text(part.get("type")) or ""
        if word == "text":
            found.append({"type": kind, "text": part.get("text", codec.raw(""))})
        else:
            make = _PARTS.get(word)
            found.append(make(part) if make is not None else part)
    return found


def _image(part: Object) -> Object:
    image = codec.as_object(part.get("image_url")) or {"url": part.get("image_url", NULL)}
    found: Object = {"type": codec.raw("input_image"), "image_url": image.get("url", NULL)}
    if not codec.is_null(image.get("detail")):
        found["detail"] = image["detail"]
    return found


def _file(part: Object) -> Object:
    return {"type": codec.raw("input_file"), **(codec.as_object(part.get("file")) or {})}


_PARTS: dict[str, Callable[[Object], Object]] = {"image_url": _image, "file": _file}


def _result(message: Object) -> Object:
    ident = message.get("tool_call_id", message.get("name", NULL))
    output = message.get("content", NULL)
    if codec.as_text(output) is None:
        output = codec.raw(_parts(output, "tool"))
    return {"type": codec.raw("function_call_output"), "call_id": ident, "output": output}


def _call(call: Object) -> Object:
    custom = codec.as_object(call.get("custom"))
    if custom is not None:
        kept = {key: custom.get(key, NULL) for key in ("name", "input")}
        return {"type": codec.raw("custom_tool_call"), "call_id": call.get("id", NULL), **kept}
    function = codec.as_object(call.get("function")) or {}
    kept = {key: function.get(key, NULL) for key in ("name", "arguments")}
    return {"type": codec.raw("function_call"), "call_id": call.get("id", NULL), **kept}


# ------------------------------------------------------------------------------------- the form of the answer, tools


def _format(form: Object, raw: Raw) -> Raw:
    schema = codec.as_object(form.get("json_schema"))
    if schema is None:
        return raw
    kept = {key: schema[key] for key in _OF_SCHEMA if not codec.is_null(schema.get(key))}
    return codec.raw({"type": "json_schema", **kept})


def _tool(tool: Object) -> Object:
    for kind in ("function", "custom"):
        inner = codec.as_object(tool.get(kind))
        if inner is None:
            continue
        if kind == "custom":
            return {"type": codec.raw(kind), **inner}
        function = {key: inner[key] for key in _OF_FUNCTION if not codec.is_null(inner.get(key))}
        # This API's functions are strict unless they say otherwise; those of chat completions are not.
        return {"type": codec.raw(kind), "parameters": _NO_PARAMETERS, "strict": codec.raw(False), **function}
    return tool


def _tool_choice(raw: Raw) -> Raw:
    choice = codec.as_object(raw)
    if choice is None:
        return raw
    for kind in ("function", "custom"):
        inner = codec.as_object(choice.get(kind))
        if inner is not None:
            return codec.raw({"type": kind, "name": inner.get("name", NULL)})
    allowed = codec.as_object(choice.get("allowed_tools"))
    if allowed is None:
        return raw
    tools = [_tool_choice(codec.raw(tool)) for tool in codec.as_objects(allowed.get("tools")) or ()]
    return codec.raw({"type": "allowed_tools", "mode": allowed.get("mode", codec.raw("auto")), "tools": tools})
