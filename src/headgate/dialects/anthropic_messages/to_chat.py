"""The members of a Messages request → those of a chat completion.

A block or a tool without a form in chat completions stays as it is.  If an upstream does not know it, its refusal is
the honest answer.  Members that only guide the provider are left out, and named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from msgspec import Raw

from headgate.dialects.anthropic_messages import seals
from headgate.dialects.openai_chat.request import invalid
from headgate.model import Thought
from headgate.wire import codec
from headgate.wire.codec import EMPTY_OBJECT, NULL, TRUE, Object

_AS_THEY_ARE = ("model", "max_tokens", "temperature", "top_p", "stream")
_TRANSLATED = frozenset(
    (
        *_AS_THEY_ARE, "messages", "system", "stop_sequences", "metadata", "tools", "tool_choice", "thinking",
        "output_config", "output_format", "service_tier",
    )
)  # fmt: skip
_BETWEEN = "\n\n"  # blocks of a system prompt, or of a tool's result
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_LONGEST_USER = 64  # characters, at OpenAI
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
# Tokens of a thinking budget below which an effort is low or medium (docs.anthropic.com, Extended thinking)
_BUDGETS = ((4096, "low"), (16384, "medium"))


def with_system_before(raw: Raw | None, texts: list[str]) -> Raw:
    """Return a ``system`` with further texts before its own, in the form that it has: a string or blocks."""
    if codec.is_null(raw):
        return codec.raw(_BETWEEN.join(texts))
    own = codec.as_text(raw)
    if own is not None:
        return codec.raw(_BETWEEN.join([*texts, own]))
    blocks = [{"type": codec.raw("text"), "text": codec.raw(text)} for text in texts]
    return codec.raw([*blocks, *(codec.as_objects(raw) or ())])


class ChatConversion:
    """One request's.  ``lost``: the names of what has no form in chat completions.  ``thoughts``: the reasoning in the
    conversation, for the family that made it.
    """

    def __init__(self, native: Object, may_be_empty: bool = False) -> None:
        """Convert a request's members.  ``may_be_empty``: it needs no message.

        Raises GatewayError (400) with ``param`` if one is invalid.
        """
        self._lost: dict[str, None] = {}
        self.thoughts: list[Thought] = []
        found: Object = {key: native[key] for key in _AS_THEY_ARE if key in native}
        found["messages"] = codec.raw(self._messages(native, may_be_empty))
        if not codec.is_null(native.get("stop_sequences")):
            if codec.as_texts(native["stop_sequences"]) is None:
                raise invalid("stop_sequences", "must be an array of strings")
            found["stop"] = native["stop_sequences"]
        user = codec.as_text((codec.as_object(native.get("metadata")) or {}).get("user_id"))
        if user:
            found["user"] = codec.raw(_short(user))
        if not codec.is_null(native.get("tools")):
            tools = codec.as_objects(native["tools"])
            if tools is None:
                raise invalid("tools", "must be an array of objects")
            if tools:
                found["tools"] = codec.raw([self._tool(tool) for tool in tools])
        if not codec.is_null(native.get("tool_choice")):
            found |= _tool_choice(native["tool_choice"])
        self.members = found | self._reasoning(native) | self._format(native) | self._tier(native)
        for name, value in native.items():
            if name not in _TRANSLATED and value != NULL:
                self._lose(name)

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(self._lost)

    def _lose(self, name: str) -> None:
        self._lost[name] = None

    # ------------------------------------------------------------------------------- members

    def _reasoning(self, native: Object) -> Object:
        """The effort that ``thinking`` and ``output_config`` ask for."""
        thinking = codec.as_object(native.get("thinking")) or {}
        config = codec.as_object(native.get("output_config")) or {}
        effort = _EFFORTS.get(codec.as_text(config.get("effort")) or "")
        match codec.as_text(thinking.get("type")):
            case "enabled":
                budget = codec.as_integer(thinking.get("budget_tokens")) or 0
                effort = effort or next((word for most, word in _BUDGETS if budget < most), "high")
            case "disabled":
                effort = None
        return {"reasoning_effort": codec.raw(effort)} if effort else {}

    def _format(self, native: Object) -> Object:
        """The schema of the answer: ``output_config.format``, which was ``output_format``."""
        config = codec.as_object(native.get("output_config")) or {}
        form = codec.as_object(config.get("format")) or codec.as_object(native.get("output_format"))
        if form is None:
            return {}
        if codec.as_text(form.get("type")) != "json_schema":
            self._lose("output_config.format")
            return {}
        schema = {"name": "answer", "schema": form.get("schema", EMPTY_OBJECT), "strict": True}
        return {"response_format": codec.raw({"type": "json_schema", "json_schema": schema})}

    def _tier(self, native: Object) -> Object:
        tier = codec.as_text(native.get("service_tier"))
        return {"service_tier": codec.raw("default")} if tier == "standard_only" else {}

    def _tool(self, tool: Object) -> Object:
        if codec.as_text(tool.get("type")) not in (None, "custom"):
            return tool  # the provider itself runs it
        self._note_marker(tool)
        function: Object = {key: tool[key] for key in ("name", "description", "strict") if key in tool}
        function["parameters"] = tool.get("input_schema", EMPTY_OBJECT)
        return {"type": codec.raw("function"), "function": codec.raw(function)}

    def _note_marker(self, block: Object) -> None:
        if not codec.is_null(block.get("cache_control")):
            self._lose("cache_control")

    # ------------------------------------------------------------------------------- messages

    def _messages(self, native: Object, may_be_empty: bool) -> list[Object]:
        messages = codec.as_objects(native.get("messages"))
        if messages is None or not (messages or may_be_empty):
            raise invalid("messages", "must be an array of at least one message, and a message is an object")
        found: list[Object] = []
        if not codec.is_null(native.get("system")):
            blocks = _blocks(native["system"], "system")
            for block in blocks:
                self._note_marker(block)
            system = _joined(blocks, _BETWEEN)
            if system:
                found.append({"role": codec.raw("system"), "content": codec.raw(system)})
        for i, message in enumerate(messages):
            role = codec.as_text(message.get("role"))
            if not role:
                raise invalid(f"messages[{i}].role", "must be user or assistant")
            blocks = _blocks(message.get("content"), f"messages[{i}].content")
            if role == "assistant":
                found += self._of_assistant(blocks, len(found))
            elif role == "system":
                found.append({"role": codec.raw("system"), "content": codec.raw(_joined(blocks, _BETWEEN))})
            else:
                found += self._of_user(role, blocks, f"messages[{i}].content")
        return found

    def _of_assistant(self, blocks: list[Object], position: int) -> list[Object]:
        texts: list[Object] = []
        calls: list[Object] = []
        thoughts: list[Thought] = []
        for block in blocks:
            self._note_marker(block)
            kind = _kind(block)
            if kind == "tool_use":
                calls.append(_call(block))
            elif seals.member_of(kind):
                maker = seals.maker_of(codec.as_text(block.get("signature")) or "")
                thoughts.append(Thought(position, maker, codec.as_text(block.get("thinking")) or ""))
            else:
                texts.append(block)
        if not texts and not calls:
            thoughts = []
        self.thoughts += thoughts
        if not texts and not calls:
            return []
        message: Object = {"role": codec.raw("assistant"), "content": NULL}
        if all(_kind(block) == "text" for block in texts):
            if texts:
                message["content"] = codec.raw(_joined(texts))
        else:
            message["content"] = codec.raw([self._part(block) for block in texts])
        if calls:
            message["tool_calls"] = codec.raw(calls)
        return [message]

    def _of_user(self, role: str, blocks: list[Object], param: str) -> list[Object]:
        """Tool results come first, each as one message: chat completions require them right after the calls."""
        results: list[Object] = []
        parts: list[Object] = []
        for i, block in enumerate(blocks):
            self._note_marker(block)
            if _kind(block) == "tool_result":
                text, rest = self._result(block, f"{param}[{i}].content")
                ident = block.get("tool_use_id", NULL)
                results.append({"role": codec.raw("tool"), "tool_call_id": ident, "content": codec.raw(text)})
                parts += rest
            else:
                parts += self._parts(block, f"{param}[{i}]")
        if not parts and results:
            return results
        content = parts[0]["text"] if len(parts) == 1 and _kind(parts[0]) == "text" else codec.raw(parts)
        return [*results, {"role": codec.raw(role), "content": content}]

    def _result(self, block: Object, param: str) -> tuple[str, list[Object]]:
        """Return a result's text, and the parts that a tool's message cannot contain."""
        blocks = [] if codec.is_null(block.get("content")) else _blocks(block["content"], param)
        text = _joined([inner for inner in blocks if _kind(inner) == "text"], _BETWEEN)
        if block.get("is_error") == TRUE and not text.lower().lstrip("<").startswith(("error", "tool_use_error")):
            text = f"Error: {text}"
        rest = [part for inner in blocks if _kind(inner) != "text" for part in self._parts(inner, param)]
        return text, rest

    def _parts(self, block: Object, param: str) -> list[Object]:
        """Return a block as parts of a message."""
        if _kind(block) == "document":
            source = codec.as_object(block.get("source")) or {}
            if codec.as_text(source.get("type")) == "content":
                inner = _blocks(source.get("content"), f"{param}.source.content")
                return [self._part(one) for one in inner]
        return [self._part(block)]

    def _part(self, block: Object) -> Object:
        if not codec.is_null(block.get("citations")):
            self._lose("citations")
        make = _PARTS.get(_kind(block))
        return (make(block) if make is not None else None) or block


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


def _call(block: Object) -> Object:
    function = {"name": block.get("name", NULL), "arguments": bytes(block.get("input", EMPTY_OBJECT)).decode()}
    return {"id": block.get("id", NULL), "type": codec.raw("function"), "function": codec.raw(function)}


# ------------------------------------------------------------------------------------- parts of a message


def _of_text(block: Object) -> Object:
    return {"type": block["type"], "text": block["text"]}


def _of_image(block: Object) -> Object | None:
    source = codec.as_object(block.get("source")) or {}
    match codec.as_text(source.get("type")):
        case "base64":
            url = _data_url(source)
        case "url":
            url = codec.as_text(source.get("url")) or ""
        case _:
            return None
    return {"type": codec.raw("image_url"), "image_url": codec.raw({"url": url})}


def _of_document(block: Object) -> Object | None:
    source = codec.as_object(block.get("source")) or {}
    title = codec.as_text(block.get("title")) or ""
    match codec.as_text(source.get("type")):
        case "base64":
            file = {"filename": title or "document.pdf", "file_data": _data_url(source)}
            return {"type": codec.raw("file"), "file": codec.raw(file)}
        case "text":
            return _text_part(title, codec.as_text(source.get("data")) or "")
        case _:
            return None


def _of_search_result(block: Object) -> Object:
    names = (codec.as_text(block.get(name)) or "" for name in ("title", "source"))
    return _text_part(*names, _joined(codec.as_objects(block.get("content")) or [], _BETWEEN))


def _text_part(*texts: str) -> Object:
    return {"type": codec.raw("text"), "text": codec.raw(_BETWEEN.join(text for text in texts if text))}


def _data_url(source: Object) -> str:
    media, data = codec.as_text(source.get("media_type")) or "", codec.as_text(source.get("data")) or ""
    return f"data:{media};base64,{data}"


_PARTS: dict[str, Callable[[Object], Object | None]] = {
    "text": _of_text, "image": _of_image, "document": _of_document, "search_result": _of_search_result,
}  # fmt: skip


def _kind(block: Object) -> str:
    return codec.as_text(block.get("type")) or ""


def _joined(blocks: list[Object], between: str = "") -> str:
    return between.join(text for block in blocks if (text := codec.as_text(block.get("text"))))


def _short(user: str) -> str:
    """Return the client's name for its user, as short as chat servers take it."""
    return user if len(user) <= _LONGEST_USER else hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest()


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
