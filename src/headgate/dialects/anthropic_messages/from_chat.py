"""The members of a chat completion → those of a Messages request.

Members without a form in this API are left out, and named: sampling (seed, penalties, logprobs) and members of a single
provider.
"""

from __future__ import annotations

import re

from msgspec import Raw

from headgate.dialects.translation.arguments import object_from
from headgate.model import Target
from headgate.wire import codec
from headgate.wire.codec import EMPTY_OBJECT, NULL, Object

_AS_THEY_ARE = ("top_p", "top_k", "stream")
_LIMITS = ("max_completion_tokens", "max_tokens")
_TRANSLATED = frozenset(
    (
        *_AS_THEY_ARE, *_LIMITS, "model", "messages", "temperature", "stop", "user", "tools", "tool_choice",
        "parallel_tool_calls", "stream_options", "reasoning_effort", "response_format", "service_tier",
    )
)  # fmt: skip
# Values that ask for nothing
_ABSENT = (b"null", b"false", b"{}", b"[]")
_NEUTRAL = {"n": b"1", "presence_penalty": b"0", "frequency_penalty": b"0"}
_HOTTEST = 1  # chat's temperature goes to 2
_SYSTEM = ("system", "developer")
_BETWEEN = "\n\n"  # system messages
_MARK = "cache_control"  # chat clients set it on parts, messages, calls and tools
_NO_PARAMETERS = codec.raw({"type": "object", "properties": {}})
_TYPE_TEXT = codec.raw("text")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 32000}  # tokens of thinking
_LEAST_BUDGET = 1024
_DEFAULT_MOST = 4096
# Models that choose their own budget; newer ones of them refuse another (docs.anthropic.com, Adaptive thinking)
_ADAPTIVE = re.compile(r"claude-(?:[a-z]+-)?(?:4[-.](?:[6-9]|[1-9][0-9])|[5-9])(?![0-9])")
# Models that refuse a temperature together with top_p: Opus 4.1, Sonnet and Haiku 4.5, and newer ones
_ONE_SAMPLER = re.compile(r"claude-(?:[a-z]+-)?(?:4[-.][1-9][0-9]?|[5-9])(?![0-9])")
_TIERS = {"auto": "auto", "default": "standard_only"}


def members(body: Object, target: Target) -> tuple[Object, tuple[str, ...]]:
    """Return an upstream request's members, without the model; without ``max_tokens`` if ``body`` sets no limit.  And
    the names of the members of ``body`` that are not in it.
    """
    messages = codec.as_objects(body["messages"]) or []
    system, turns = _messages(messages)
    found: Object = {"messages": codec.raw(turns)}
    lost = [name for name, value in body.items() if name not in _TRANSLATED and not _asks_nothing(name, value)]
    if any("reasoning_content" in message for message in messages):
        lost.append("messages.reasoning_content")
    if system is not None:
        found["system"] = system
    for name in _LIMITS:
        most = codec.as_integer(body.get(name))
        if most is not None and most > 0:
            found["max_tokens"] = codec.raw(most)
            break
    for key in _AS_THEY_ARE:
        if not codec.is_null(body.get(key)):
            found[key] = body[key]
    temperature = codec.as_number(body.get("temperature"))
    if temperature is not None:
        found["temperature"] = codec.raw(_HOTTEST) if temperature > _HOTTEST else body["temperature"]
    if "temperature" in found and "top_p" in found and _ONE_SAMPLER.search(target.upstream_model):
        if temperature == _HOTTEST:  # the default
            del found["temperature"]
        else:
            del found["top_p"]
            lost.append("top_p")
    stop = codec.as_text(body.get("stop"))
    stops = [stop] if stop is not None else codec.as_texts(body.get("stop")) or []
    if any(stops):
        found["stop_sequences"] = codec.raw([stop for stop in stops if stop])
    user = codec.as_text(body.get("user"))
    if user:
        found["metadata"] = codec.raw({"user_id": user})
    tier = codec.as_text(body.get("service_tier"))
    if tier in _TIERS:
        found["service_tier"] = codec.raw(_TIERS[tier])
    elif tier is not None:
        lost.append("service_tier")
    found |= _tools(body)
    _add_format(body, found, lost)
    _add_thinking(body, found, lost, target, codec.as_text(messages[-1].get("role")) if messages else None)
    return found, tuple(lost)


def _asks_nothing(name: str, value: Raw) -> bool:
    return bytes(value) in _ABSENT or _NEUTRAL.get(name) == bytes(value)


def _add_format(body: Object, found: Object, lost: list[str]) -> None:
    """Ask for the answer's schema (docs.anthropic.com, Structured outputs)."""
    form = codec.as_object(body.get("response_format")) or {}
    kind = codec.as_text(form.get("type"))
    if kind == "json_schema":
        schema = (codec.as_object(form.get("json_schema")) or {}).get("schema", EMPTY_OBJECT)
        found["output_config"] = codec.raw({"format": {"type": "json_schema", "schema": schema}})
    elif kind not in (None, "text"):
        lost.append("response_format")


def _add_thinking(body: Object, found: Object, lost: list[str], target: Target, last: str | None) -> None:
    """Ask for reasoning.  It cannot be combined with a forced tool, a prefill or a temperature, and needs room.

    ``last`` is the role of the last message.  With a budget, a turn that called tools must begin with its reasoning,
    which chat completions do not return.
    """
    effort = codec.as_text(body.get("reasoning_effort"))
    if effort in (None, "none"):
        return
    known = target.row.capabilities if target.row is not None else ()
    choice = codec.as_object(found.get("tool_choice")) or {}
    forced = last == "assistant" or codec.as_text(choice.get("type")) in ("any", "tool")
    most = codec.as_integer(found.get("max_tokens")) or (target.row and target.row.max_output) or _DEFAULT_MOST
    budget = min(_BUDGETS.get(effort or "", _BUDGETS["high"]), most - 1)
    if forced or (known and "reasoning" not in known):
        lost.append("reasoning_effort")
    elif _ADAPTIVE.search(target.upstream_model):
        config = codec.as_object(found.get("output_config")) or {}
        word = {"minimal": "low", "xhigh": "high"}.get(effort or "", effort)
        found["output_config"] = codec.raw({**config, "effort": word})
        found["thinking"] = codec.raw({"type": "adaptive"})
    elif budget >= _LEAST_BUDGET and last != "tool":
        found["thinking"] = codec.raw({"type": "enabled", "budget_tokens": budget})
    else:
        lost.append("reasoning_effort")
    if "thinking" in found:
        for name in ("temperature", "top_k"):
            if found.pop(name, None) is not None:
                lost.append(name)


# ------------------------------------------------------------------------------------- messages


def _marked(block: Object, source: Object) -> Object:
    """Return a block with the prompt cache's mark of ``source``: the part, message or call that it stands for."""
    if not codec.is_null(source.get(_MARK)):
        block[_MARK] = source[_MARK]
    return block


def _messages(given: list[Object]) -> tuple[Raw | None, list[Object]]:
    """The system prompt, and messages whose roles take turns."""
    system: list[Object] = []
    turns: list[tuple[str, list[Object]]] = []
    for message in given:
        role = codec.as_text(message.get("role")) or ""
        if role in _SYSTEM:
            blocks = [block for block in _blocks(message.get("content")) if _kind(block) == "text"]
            if blocks:
                _marked(blocks[-1], message)
            system += blocks
            continue
        speaker = "assistant" if role == "assistant" else "user"
        blocks = [_result(message)] if role == "tool" else _blocks(message.get("content"))
        if role == "assistant":
            blocks += map(_tool_use, codec.as_objects(message.get("tool_calls")) or ())
        if blocks:
            _marked(blocks[-1], message)
        if turns and turns[-1][0] == speaker:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((speaker, blocks))
    prompt = _system(system)
    if not turns and prompt is not None:  # a system prompt alone is a question here
        return None, [{"role": codec.raw("user"), "content": prompt}]
    if turns and turns[-1][0] == "assistant":
        _trim(turns)
    return prompt, [{"role": codec.raw(role), "content": _content(blocks)} for role, blocks in turns]


def _system(blocks: list[Object]) -> Raw | None:
    """Return the system prompt: one text, or blocks where the prompt cache has marks in it."""
    if any(_MARK in block for block in blocks):
        return codec.raw(blocks)
    text = _BETWEEN.join(codec.as_text(block.get("text")) or "" for block in blocks)
    return codec.raw(text) if text else None


def _trim(turns: list[tuple[str, list[Object]]]) -> None:
    """Remove the white space at the end of a prefill, which the API refuses."""
    blocks = turns[-1][1]
    text = codec.as_text(blocks[-1].get("text")) if _kind(blocks[-1]) == "text" else None
    if text is None:
        return
    if text.rstrip():
        blocks[-1] = _marked(_text_block(text.rstrip()), blocks[-1])
        return
    blocks.pop()
    if blocks:
        _trim(turns)
    else:
        turns.pop()


def _content(blocks: list[Object]) -> Raw:
    alone = len(blocks) == 1 and _kind(blocks[0]) == "text" and _MARK not in blocks[0]
    return blocks[0]["text"] if alone else codec.raw(blocks)


def _blocks(raw: Raw | None) -> list[Object]:
    """Return a content's parts as blocks, without empty texts: the API refuses those."""
    text = codec.as_text(raw)
    if text is not None:
        return [_text_block(text)] if text else []
    found: list[Object] = []
    for part in codec.as_objects(raw) or ():
        kind = _kind(part)
        if kind in ("text", "refusal"):
            inner = codec.as_text(part.get(kind))
            if inner:
                found.append(_marked(_text_block(inner), part))
        elif kind == "image_url":
            found.append(_marked(_image(part), part))
        elif kind == "file":
            found.append(_marked(_document(part) or part, part))
        else:
            found.append(part)
    return found


def _text_block(text: str) -> Object:
    return {"type": _TYPE_TEXT, "text": codec.raw(text)}


def _image(part: Object) -> Object:
    image = codec.as_object(part.get("image_url")) or {"url": part.get("image_url", NULL)}
    url = codec.as_text(image.get("url")) or ""
    source = {"type": "url", "url": url}
    if url.startswith("data:"):
        head, _, data = url.removeprefix("data:").partition(",")
        source = {"type": "base64", "media_type": head.partition(";")[0], "data": data}
    return {"type": codec.raw("image"), "source": codec.raw(source)}


def _document(part: Object) -> Object | None:
    """Return a file as a document; None if it is named by an id."""
    file = codec.as_object(part.get("file")) or {}
    data = codec.as_text(file.get("file_data")) or ""
    if data.startswith(("http://", "https://")):
        source = {"type": "url", "url": data}
    elif data:
        head, found, rest = data.removeprefix("data:").partition(",")
        media = head.partition(";")[0] if found else "application/pdf"
        source = {"type": "base64", "media_type": media, "data": rest if found else data}
    else:
        return None
    title = {"title": file["filename"]} if codec.as_text(file.get("filename")) else {}
    return {"type": codec.raw("document"), "source": codec.raw(source), **title}


def _result(message: Object) -> Object:
    found: Object = {"type": codec.raw("tool_result"), "tool_use_id": message.get("tool_call_id", NULL)}
    blocks = _blocks(message.get("content"))
    if blocks:
        found["content"] = _content(blocks)
    return found


def _tool_use(call: Object) -> Object:
    function = codec.as_object(call.get("function")) or {}
    block = {
        "type": codec.raw("tool_use"),
        "id": call.get("id", NULL),
        "name": function.get("name", NULL),
        "input": object_from(codec.as_text(function.get("arguments")) or ""),
    }
    return _marked(block, call)


def _kind(part: Object) -> str:
    return codec.as_text(part.get("type")) or ""


# ------------------------------------------------------------------------------------- tools


def _tools(body: Object) -> Object:
    tools = codec.as_objects(body.get("tools"))
    if not tools:
        return {}
    found: Object = {"tools": codec.raw([_tool(tool) for tool in tools])}
    choice = _tool_choice(body.get("tool_choice"))
    if codec.as_boolean(body.get("parallel_tool_calls")) is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    if choice:
        found["tool_choice"] = codec.raw(choice)
    return found


def _tool(tool: Object) -> Object:
    function = codec.as_object(tool.get("function"))
    if function is None:
        return tool
    found = {key: function[key] for key in ("name", "description") if not codec.is_null(function.get(key))}
    schema = function.get("parameters")
    found["input_schema"] = _NO_PARAMETERS if schema is None or schema in (NULL, EMPTY_OBJECT) else schema
    return _marked(_marked(found, function), tool)


def _tool_choice(raw: Raw | None) -> dict[str, object]:
    word = codec.as_text(raw)
    if word is not None:
        return {"type": "any" if word == "required" else word}
    function = codec.as_object((codec.as_object(raw) or {}).get("function"))
    return {"type": "tool", "name": function.get("name", NULL)} if function is not None else {}
