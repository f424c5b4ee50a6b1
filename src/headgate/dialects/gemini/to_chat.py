"""The members of a Gemini request → those of a chat completion.

The API is Protocol Buffers in JSON: each member may be spelled in either case (``maxOutputTokens``,
``max_output_tokens``).  Thoughts and their signatures are left out, as are tools that Google runs; ``lost`` names them.
"""

from __future__ import annotations

from msgspec import Raw

from headgate.dialects.gemini.schema import as_json_schema
from headgate.dialects.openai_chat.request import invalid
from headgate.wire import codec
from headgate.wire.codec import EMPTY_OBJECT, NULL, Object

_BETWEEN = "\n\n"
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_tokens",
    "stop_sequences": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "response_logprobs": "logprobs",
    "logprobs": "top_logprobs",
}
_CONFIG = frozenset(  # of generationConfig
    (
        *_PARAMETERS,
        "response_mime_type",
        "response_schema",
        "response_json_schema",
        "thinking_config",
        "candidate_count",
    )
)
_TOP = frozenset(("contents", "system_instruction", "tools", "tool_config", "generation_config", "model"))
_MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
# Tokens of a thinking budget up to which an effort is low or medium (ai.google.dev/gemini-api/docs/openai)
_BUDGETS = ((0, "none"), (1024, "low"), (8192, "medium"))
_TEXT = codec.raw("text")


class GeminiConversion:
    """One request.  ``members``: those of a chat completion.  ``lost``: the client's members without a form there.
    ``may_be_empty``: it needs no contents.

    Raises GatewayError (400) with ``param`` if a member is invalid.
    """

    def __init__(self, native: Object, may_be_empty: bool = False) -> None:
        given = _spelled(native)
        self._lost: dict[str, None] = {camel(name): None for name in given if name not in _TOP}
        self._asked: list[tuple[str, str]] = []  # ids and names of the calls whose results have not come yet
        self._calls = 0
        self.members: Object = {"messages": codec.raw(self._messages(given, may_be_empty))}
        self._add_config(given.get("generation_config"))
        self._add_tools(given)

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(self._lost)

    # ------------------------------------------------------------------------------- contents

    def _messages(self, given: Object, may_be_empty: bool) -> list[Object]:
        found: list[Object] = []
        if not codec.is_null(given.get("system_instruction")):
            text = _joined(parts_of(given["system_instruction"], "systemInstruction"))
            if text:
                found.append({"role": codec.raw("system"), "content": codec.raw(text)})
        contents = as_contents(given.get("contents"))
        if contents is None or not (contents or may_be_empty):
            raise invalid("contents", "must be an array of at least one content")
        for i, content in enumerate(contents):
            parts = parts_of(codec.raw(content), f"contents[{i}]")
            if codec.as_text(content.get("role")) == "model":
                found += self._of_model(parts)
            else:
                found += self._of_user(parts)
        return found

    def _of_model(self, parts: list[Object]) -> list[Object]:
        texts: list[str] = []
        calls: list[Object] = []
        for part in parts:
            call = codec.as_object(part.get("function_call"))
            if codec.as_boolean(part.get("thought")) is True:
                self._lost["contents.thought"] = None
            elif call is not None:
                calls.append(self._call(call))
            elif (text := codec.as_text(part.get("text"))) is not None:
                texts.append(text)
            else:
                self._lost[_name_of(part)] = None
        if not texts and not calls:
            return []
        message: Object = {"role": codec.raw("assistant"), "content": codec.raw("".join(texts)) if texts else NULL}
        if calls:
            message["tool_calls"] = codec.raw(calls)
        return [message]

    def _call(self, call: Object) -> Object:
        name = codec.as_text(call.get("name")) or ""
        ident = codec.as_text(call.get("id")) or f"call_{self._calls}"
        self._calls += 1
        self._asked.append((ident, name))
        function = {"name": name, "arguments": bytes(call.get("args", EMPTY_OBJECT)).decode()}
        return {"id": codec.raw(ident), "type": codec.raw("function"), "function": codec.raw(function)}

    def _of_user(self, parts: list[Object]) -> list[Object]:
        """Results come first, each as one message: chat completions require them right after the calls."""
        results: list[Object] = []
        said: list[Object] = []
        for part in parts:
            result = codec.as_object(part.get("function_response"))
            if result is not None:
                results.append(self._result(result))
            elif (made := self._part(part)) is not None:
                said.append(made)
        if not said:
            return results
        only = len(said) == 1 and said[0]["type"] == _TEXT
        return [*results, {"role": codec.raw("user"), "content": said[0]["text"] if only else codec.raw(said)}]

    def _result(self, result: Object) -> Object:
        name, ident = codec.as_text(result.get("name")) or "", codec.as_text(result.get("id")) or ""
        for asked in self._asked:
            if asked[0] == ident or (not ident and asked[1] == name):
                ident = asked[0]
                self._asked.remove(asked)
                break
        given = codec.as_object(result.get("response")) or {}
        text = codec.as_text(given.get("output")) if len(given) == 1 else None
        content = text if text is not None else bytes(result.get("response", EMPTY_OBJECT)).decode()
        return {"role": codec.raw("tool"), "tool_call_id": codec.raw(ident or name), "content": codec.raw(content)}

    def _part(self, part: Object) -> Object | None:
        text = codec.as_text(part.get("text"))
        if text is not None:
            return {"type": _TEXT, "text": part["text"]}
        inline = _spelled(codec.as_object(part.get("inline_data")) or {})
        if inline:
            media, data = codec.as_text(inline.get("mime_type")) or "", codec.as_text(inline.get("data")) or ""
            return _attachment(media, f"data:{media};base64,{data}", data)
        file = _spelled(codec.as_object(part.get("file_data")) or {})
        if file:
            return _attachment(
                codec.as_text(file.get("mime_type")) or "", codec.as_text(file.get("file_uri")) or "", ""
            )
        self._lost[_name_of(part)] = None
        return None

    # ------------------------------------------------------------------------------- parameters

    def _add_config(self, raw: Raw | None) -> None:
        if codec.is_null(raw):
            return
        given = codec.as_object(raw)
        if given is None:
            raise invalid("generationConfig", "must be an object")
        config = _spelled(given)
        for name, chat in _PARAMETERS.items():
            if not codec.is_null(config.get(name)):
                self.members[chat] = config[name]
        for name in config:
            if name not in _CONFIG:
                self._lost[f"generationConfig.{camel(name)}"] = None
        if (codec.as_integer(config.get("candidate_count")) or 1) > 1:
            raise invalid("generationConfig.candidateCount", "must be 1: an answer has one candidate here")
        self._add_form(config)
        self._add_effort(codec.as_object(config.get("thinking_config")))

    def _add_form(self, config: Object) -> None:
        schema = config.get("response_json_schema")
        if codec.is_null(schema) and not codec.is_null(config.get("response_schema")):
            schema = as_json_schema(config["response_schema"])
        if schema is not None and schema != NULL:
            form: dict[str, object] = {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}
        elif codec.as_text(config.get("response_mime_type")) == "application/json":
            form = {"type": "json_object"}
        else:
            return
        self.members["response_format"] = codec.raw(form)

    def _add_effort(self, given: Object | None) -> None:
        if given is None:
            return
        thinking = _spelled(given)
        level = codec.as_text(thinking.get("thinking_level"))
        budget = codec.as_integer(thinking.get("thinking_budget"))
        effort = level.lower() if level else None
        if effort is None and budget is not None and budget >= 0:  # -1: the model decides
            effort = next((word for most, word in _BUDGETS if budget <= most), "high")
        if effort:
            self.members["reasoning_effort"] = codec.raw(effort)

    # ------------------------------------------------------------------------------- tools

    def _add_tools(self, given: Object) -> None:
        if codec.is_null(given.get("tools")):
            return
        groups = codec.as_objects(given["tools"])
        if groups is None:
            raise invalid("tools", "must be an array of objects")
        tools: list[Object] = []
        for group in map(_spelled, groups):
            for name, value in group.items():
                if name == "function_declarations":
                    tools += map(_function, codec.as_objects(value) or ())
                else:
                    self._lost[f"tools.{camel(name)}"] = None
        config = _spelled(codec.as_object(given.get("tool_config")) or {})
        calling = _spelled(codec.as_object(config.get("function_calling_config")) or {})
        allowed = codec.as_texts(calling.get("allowed_function_names"))
        if allowed:
            tools = [tool for tool in tools if _tool_name(tool) in allowed]
        if not tools:
            return
        self.members["tools"] = codec.raw(tools)
        mode = _MODES.get(codec.as_text(calling.get("mode")) or "")
        if mode is not None:
            self.members["tool_choice"] = codec.raw(mode)


def _function(declaration: Object) -> Object:
    given = _spelled(declaration)
    function: Object = {key: given[key] for key in ("name", "description") if key in given}
    if not codec.is_null(given.get("parameters_json_schema")):
        function["parameters"] = given["parameters_json_schema"]
    elif not codec.is_null(given.get("parameters")):
        function["parameters"] = as_json_schema(given["parameters"])
    else:
        function["parameters"] = codec.raw({"type": "object", "properties": {}})
    return {"type": codec.raw("function"), "function": codec.raw(function)}


def _tool_name(tool: Object) -> str:
    return codec.as_text((codec.as_object(tool["function"]) or {}).get("name")) or ""


# ------------------------------------------------------------------------------------- spellings


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _spelled(members: Object) -> Object:
    """Return the members by their names with underscores."""
    return {snake(name): value for name, value in members.items()}


def as_contents(raw: Raw | None) -> list[Object] | None:
    """Return a request's contents; one alone is an array of it.  None if they are not contents."""
    one = codec.as_object(raw)
    return codec.as_objects(raw) if one is None else [one]


def parts_of(raw: Raw, param: str) -> list[Object]:
    """Return a content's parts.  A text, or a part alone, is a content too."""
    text = codec.as_text(raw)
    if text is not None:
        return [{"text": raw}]
    content = codec.as_object(raw)
    given = (content or {}).get("parts")
    if content is None or given is None:
        raise invalid(f"{param}.parts", "must be an array of parts")
    parts = codec.as_objects(given)
    if parts is None:
        one = codec.as_object(given)
        if one is None:
            raise invalid(f"{param}.parts", "must be an array of parts")
        parts = [one]
    return [_spelled(part) for part in parts]


def _joined(parts: list[Object]) -> str:
    return _BETWEEN.join(text for part in parts if (text := codec.as_text(part.get("text"))))


def _attachment(media: str, url: str, data: str) -> Object:
    if media.startswith("audio/") and data:
        sound = {"data": data, "format": media.removeprefix("audio/").removeprefix("x-")}
        return {"type": codec.raw("input_audio"), "input_audio": codec.raw(sound)}
    if media.startswith("image/") or not media:
        return {"type": codec.raw("image_url"), "image_url": codec.raw({"url": url})}
    file = {"filename": f"file.{media.rpartition('/')[2]}", "file_data" if data else "file_url": url}
    return {"type": codec.raw("file"), "file": codec.raw(file)}


def _name_of(part: Object) -> str:
    """Return the name of a part without a form in chat completions, as an operator reads it."""
    names = [camel(name) for name in part if name not in ("thought_signature", "thought")]
    return f"contents.{names[0] if names else 'parts'}"
