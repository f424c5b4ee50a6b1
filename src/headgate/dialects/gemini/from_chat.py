"""The members of a chat completion → those of a Gemini request.

Members without a form in this API are left out, and named: ``logit_bias``, ``n``, members of a single provider.
"""

from __future__ import annotations

from msgspec import Raw

from headgate.dialects.translation.arguments import object_from
from headgate.model import Target
from headgate.wire import codec
from headgate.wire.codec import EMPTY_OBJECT, NULL, Object

_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_TRANSLATED = frozenset(
    (
        *_PARAMETERS, "messages", "model", "stream", "stream_options", "stop", "tools", "tool_choice",
        "parallel_tool_calls", "response_format", "reasoning_effort", "store", "user",
    )
)  # fmt: skip
_BUDGETS = {"none": 0, "minimal": 0, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
_LEVELS = {"none": "low", "minimal": "low", "medium": "medium", "xhigh": "high"}
_LEVELLED = "gemini-3"  # models that take a level in place of a budget, and require signatures of calls
# Of calls that another model made (ai.google.dev/gemini-api/docs/thought-signatures)
_NO_SIGNATURE = codec.raw("skip_thought_signature_validator")
_CHOICES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_BETWEEN = "\n\n"


def members(body: Object, target: Target) -> tuple[Object, tuple[str, ...]]:
    """Return an upstream request's members, and the names of the client's members that it does not have."""
    levelled = is_levelled(target)
    system, contents = _contents(codec.as_objects(body["messages"]) or [], signed=levelled)
    found: Object = {"contents": codec.raw(contents)}
    if system:
        found["systemInstruction"] = codec.raw({"parts": [{"text": system}]})
    config = _config(body, levelled)
    if config:
        found["generationConfig"] = codec.raw(config)
    return found | _tools(body), _left_out(body)


def is_levelled(target: Target) -> bool:
    """True if the model takes a level of thinking, and requires signatures of calls."""
    return target.upstream_model.rpartition("/")[2].startswith(_LEVELLED)


def signed(contents: list[Object]) -> list[Object]:
    """Return a client's own contents with a signature on the first call of each turn: another model's calls have
    none.
    """
    return [_signed(content) for content in contents]


def _signed(content: Object) -> Object:
    parts = codec.as_objects(content.get("parts")) or []
    first = next((part for part in parts if not part.keys().isdisjoint(("functionCall", "function_call"))), None)
    if first is None or not first.keys().isdisjoint(("thoughtSignature", "thought_signature")):
        return content
    first["thoughtSignature"] = _NO_SIGNATURE
    return {**content, "parts": codec.raw(parts)}


def _left_out(body: Object) -> tuple[str, ...]:
    return tuple(name for name, raw in body.items() if name not in _TRANSLATED and not _is_neutral(name, raw))


def _is_neutral(name: str, raw: Raw) -> bool:
    if codec.is_null(raw) or bytes(raw) in (b"false", b"[]", b"{}", b'""'):
        return True
    return name == "n" and codec.as_number(raw) == 1


# ------------------------------------------------------------------------------------- contents


def _contents(messages: list[Object], *, signed: bool) -> tuple[str, list[Object]]:
    """The system prompt, and contents whose roles take turns."""
    system: list[str] = []
    turns: list[tuple[str, list[Object]]] = []
    names: dict[str, Raw] = {}
    for message in messages:
        role = codec.as_text(message.get("role")) or ""
        if role in ("system", "developer"):
            system.append(_text(message.get("content")))
            continue
        if role == "assistant":
            speaker, parts = "model", _parts(message.get("content")) + _calls(message, names, signed=signed)
        elif role in ("tool", "function"):
            speaker, parts = "user", [_result(message, names)]
        else:
            speaker, parts = "user", _parts(message.get("content"))
        if turns and turns[-1][0] == speaker:
            turns[-1][1].extend(parts)
        elif parts:
            turns.append((speaker, parts))
    prompt = _BETWEEN.join(text for text in system if text)
    if not turns and prompt:  # a system prompt alone is a question here
        return "", [{"role": codec.raw("user"), "parts": codec.raw([{"text": prompt}])}]
    return prompt, [{"role": codec.raw(role), "parts": codec.raw(parts)} for role, parts in turns]


def _parts(raw: Raw | None) -> list[Object]:
    text = codec.as_text(raw)
    if text is not None:
        return [{"text": codec.raw(text)}] if text else []
    found: list[Object] = []
    for part in codec.as_objects(raw) or ():
        match codec.as_text(part.get("type")):
            case "text" | "refusal" as kind:
                if codec.as_text(part.get(kind)):
                    found.append({"text": part[kind]})
            case "image_url":
                image = codec.as_object(part.get("image_url")) or {"url": part.get("image_url", NULL)}
                found.append(_attachment(codec.as_text(image.get("url")) or ""))
            case "input_audio":
                sound = codec.as_object(part.get("input_audio")) or {}
                media = f"audio/{codec.as_text(sound.get('format')) or 'wav'}"
                inline = {"mimeType": media, "data": sound.get("data", NULL)}
                found.append({"inlineData": codec.raw(inline)})
            case "file":
                file = codec.as_object(part.get("file")) or {}
                url = codec.as_text(file.get("file_data")) or codec.as_text(file.get("file_url")) or ""
                found.append(_attachment(url))
            case _:
                found.append(part)
    return found


def _attachment(url: str) -> Object:
    if url.startswith("data:"):
        head, _, data = url.removeprefix("data:").partition(",")
        return {"inlineData": codec.raw({"mimeType": head.partition(";")[0], "data": data})}
    return {"fileData": codec.raw({"fileUri": url})}


def _calls(message: Object, names: dict[str, Raw], *, signed: bool) -> list[Object]:
    found: list[Object] = []
    for call in codec.as_objects(message.get("tool_calls")) or ():
        function = codec.as_object(call.get("function")) or {}
        name, ident = function.get("name", NULL), codec.as_text(call.get("id")) or ""
        names[ident] = name
        given = object_from(codec.as_text(function.get("arguments")) or "")
        part: Object = {"functionCall": codec.raw({"name": name, "args": given})}
        if signed and not found:  # only the first call of a step has one
            part["thoughtSignature"] = _NO_SIGNATURE
        found.append(part)
    return found


def _result(message: Object, names: dict[str, Raw]) -> Object:
    ident = codec.as_text(message.get("tool_call_id")) or ""
    text = _text(message.get("content"))
    data = text.encode()
    response = Raw(data) if codec.as_object(data) is not None else codec.raw({"output": text})
    name = names.get(ident, message.get("name", codec.raw(ident)))
    return {"functionResponse": codec.raw({"name": name, "response": response})}


def _text(raw: Raw | None) -> str:
    text = codec.as_text(raw)
    if text is not None:
        return text
    return _BETWEEN.join(codec.as_text(part.get("text")) or "" for part in codec.as_objects(raw) or ())


# ------------------------------------------------------------------------------------- parameters


def _config(body: Object, levelled: bool) -> Object:
    found: Object = {own: body[name] for name, own in _PARAMETERS.items() if not codec.is_null(body.get(name))}
    if codec.as_boolean(found.get("responseLogprobs")) is not True:
        found.pop("responseLogprobs", None)
        found.pop("logprobs", None)
    most = codec.as_integer(found.get("maxOutputTokens"))
    if most is not None and most < 1:
        del found["maxOutputTokens"]
    stop = codec.as_text(body.get("stop"))
    stops = [stop] if stop is not None else codec.as_texts(body.get("stop")) or []
    if any(stops):
        found["stopSequences"] = codec.raw([stop for stop in stops if stop])
    form = codec.as_object(body.get("response_format"))
    if form is not None and codec.as_text(form.get("type")) in ("json_object", "json_schema"):
        found["responseMimeType"] = codec.raw("application/json")
        schema = (codec.as_object(form.get("json_schema")) or {}).get("schema")
        if not codec.is_null(schema) and schema is not None:
            found["responseJsonSchema"] = schema
    effort = codec.as_text(body.get("reasoning_effort"))
    if effort:
        found["thinkingConfig"] = codec.raw(_thinking(effort, levelled))
    return found


def _thinking(effort: str, levelled: bool) -> dict[str, object]:
    if levelled:
        return {"thinkingLevel": _LEVELS.get(effort, effort), "includeThoughts": True}
    budget = _BUDGETS.get(effort, _BUDGETS["high"])
    return {"thinkingBudget": budget, "includeThoughts": budget > 0}


# ------------------------------------------------------------------------------------- tools


def _tools(body: Object) -> Object:
    tools = codec.as_objects(body.get("tools"))
    if not tools:
        return {}
    declared: list[Object] = []
    others: list[Object] = []
    for tool in tools:
        function = codec.as_object(tool.get("function"))
        if function is None:
            others.append(tool)
            continue
        one: Object = {key: function[key] for key in ("name", "description") if not codec.is_null(function.get(key))}
        schema = function.get("parameters")
        if schema is not None and schema not in (NULL, EMPTY_OBJECT):
            one["parametersJsonSchema"] = schema
        declared.append(one)
    groups: list[object] = [{"functionDeclarations": declared}] if declared else []
    found: Object = {"tools": codec.raw(groups + others)}
    calling = _calling(body.get("tool_choice"))
    if calling:
        found["toolConfig"] = codec.raw({"functionCallingConfig": calling})
    return found


def _calling(raw: Raw | None) -> dict[str, object]:
    word = codec.as_text(raw)
    if word is not None:
        return {"mode": _CHOICES.get(word, "AUTO")}
    function = codec.as_object((codec.as_object(raw) or {}).get("function"))
    return {"mode": "ANY", "allowedFunctionNames": [function.get("name", NULL)]} if function is not None else {}
