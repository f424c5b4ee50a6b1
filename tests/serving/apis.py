"""The APIs as tests speak them at both ends of a call: a client's request and reading, and an upstream's words.

``APIS`` holds one object for each.  They say the same answers: text in pieces, and text with one tool call.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, NamedTuple

from headgate.wire.sse import Decoder
from tests.dialects.anthropic_messages import streams as messages
from tests.serving.calls import DONE, Answer, chunk_event, events_of

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ARGUMENTS = {"city": "Köln"}
PIECES = ('{"city": "K', 'öln"}')  # of the arguments


class Read(NamedTuple):
    """An answer, whichever API and form it came in.  ``usage``: prompt, cached and completion tokens."""

    text: str
    calls: list[tuple[str, str, Any]]
    reason: str
    usage: tuple[int, int, int]


class Chat:
    name = "openai_chat"
    messages = "messages"  # the member with the conversation
    trims = "no"
    fields: ClassVar[dict[str, str]] = {}
    usage: ClassVar[dict[str, Any]] = {
        "prompt_tokens": 18, "completion_tokens": 4, "total_tokens": 22, "prompt_tokens_details": {"cached_tokens": 5},
    }  # fmt: skip

    def path(self, model: str, stream: bool) -> str:
        return "/v1/chat/completions"

    def turn(self, text: str) -> Any:
        """A user's message as a client of this API sends it."""
        return {"role": "user", "content": text}

    def request(self, stream: bool, tools: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {"max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
        if stream:
            found["stream_options"] = {"include_usage": True}
        if tools:
            function = {"name": "weather", "parameters": SCHEMA}
            found |= {"tools": [{"type": "function", "function": function}], "tool_choice": "auto"}
        return found

    def asked(self, request: dict[str, Any]) -> tuple[list[Any], int, list[str]]:
        """The conversation that an upstream was sent, its limit of tokens, and its tools' names."""
        tools = [tool["function"]["name"] for tool in request.get("tools", ())]
        return request["messages"], request["max_tokens"], tools

    def said(self, role: str, text: str) -> Any:
        """A message as an upstream of this API is sent it."""
        return {"role": role, "content": text}

    def read(self, answer: Answer, stream: bool) -> Read:
        if not stream:
            return self._whole(answer.json)
        assert answer.events[-1] == DONE
        pieces: dict[int, list[Any]] = {}
        for chunk in answer.chunks:
            for choice in chunk["choices"]:
                for one in choice["delta"].get("tool_calls", ()):
                    call = pieces.setdefault(one["index"], ["", "", ""])
                    call[0] += one.get("id") or ""
                    call[1] += one["function"].get("name") or ""
                    call[2] += one["function"].get("arguments") or ""
        (reason,) = answer.finishes
        calls = [(a, b, json.loads(c)) for a, b, c in pieces.values()]
        return Read(answer.text, calls, reason, self._counts(answer.chunks[-1]["usage"]))

    def error(self, answer: Answer) -> dict[str, Any]:
        """The error that ends a stream."""
        found: dict[str, Any] = events_of(answer.raw)[-1]["error"]
        return found

    def _whole(self, found: dict[str, Any]) -> Read:
        message = found["choices"][0]["message"]
        calls = [
            (one["id"], one["function"]["name"], json.loads(one["function"]["arguments"]))
            for one in message.get("tool_calls", ())
        ]
        reason = found["choices"][0]["finish_reason"]
        return Read(message["content"] or "", calls, reason, self._counts(found["usage"]))

    def _counts(self, usage: dict[str, Any]) -> tuple[int, int, int]:
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return usage["prompt_tokens"], cached, usage["completion_tokens"]

    def fault(self, document: dict[str, Any]) -> dict[str, Any]:
        """The error of a refusal: type, message, param."""
        assert "type" not in document
        found: dict[str, Any] = document["error"]
        return found

    def takes(self, model: str, stream: bool) -> str:
        """The path below the base URL at which a provider is asked."""
        return self.path(model, stream).removeprefix("/v1")

    # ------------------------------------------------------------------------------- an upstream's words

    def pieces(self, *said: str) -> bytes:
        """The beginning of a stream."""
        head = chunk_event({"role": "assistant", "content": ""})
        return head + b"".join(chunk_event({"content": one}) for one in said)

    def stream(self, *said: str) -> bytes:
        return self.pieces(*said) + self._end("stop")

    def calling(self) -> bytes:
        """A stream of text and a tool call."""
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        rest = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in PIECES]
        deltas = b"".join(map(chunk_event, [{"tool_calls": [call]}, *rest]))
        return self.pieces("I look.") + deltas + self._end("tool_calls")

    def failing(self) -> bytes:
        """A stream that reports its failure before its first text."""
        return b'data: {"error":{"type":"overloaded_error","code":"overloaded","message":"Overloaded"}}\n\n'

    def document(self, said: str, called: bool) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if called:
            function = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if called else "stop"}
        found = {"id": "x", "object": "chat.completion", "created": 1, "model": "m-up", "choices": [choice]}
        return {**found, "usage": self.usage}

    def refusal(self, word: str, said: str) -> dict[str, Any]:
        return {"error": {"type": word, "message": said}}

    def _end(self, reason: str) -> bytes:
        last = b'data: {"choices":[],"usage":%b}\n\n' % json.dumps(self.usage).encode()
        return chunk_event({}, reason) + last + b"data: [DONE]\n\n"


class Messages:
    name = "anthropic_messages"
    messages = "messages"
    trims = "yes"
    fields: ClassVar[dict[str, str]] = {"anthropic-version": "2023-06-01"}
    usage: ClassVar[dict[str, Any]] = {"input_tokens": 13, "cache_read_input_tokens": 5, "output_tokens": 4}
    _reasons: ClassVar[dict[str, str]] = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}

    def path(self, model: str, stream: bool) -> str:
        return "/v1/messages"

    def turn(self, text: str) -> Any:
        """A user's message as a client of this API sends it."""
        return {"role": "user", "content": text}

    def request(self, stream: bool, tools: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {"max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
        if tools:
            found |= {"tools": [{"name": "weather", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"}}
        return found

    def asked(self, request: dict[str, Any]) -> tuple[list[Any], int, list[str]]:
        return request["messages"], request["max_tokens"], [tool["name"] for tool in request.get("tools", ())]

    def said(self, role: str, text: str) -> Any:
        return {"role": role, "content": text.rstrip() if role == "assistant" else text}

    def read(self, answer: Answer, stream: bool) -> Read:
        found = self._joined(answer) if stream else answer.json
        usage = found["usage"]
        cached, written = (usage.get(f"cache_{name}_input_tokens", 0) for name in ("read", "creation"))
        return Read(
            "".join(one["text"] for one in found["content"] if one["type"] == "text"),
            [(one["id"], one["name"], one["input"]) for one in found["content"] if one["type"] == "tool_use"],
            self._reasons[found["stop_reason"]],
            (usage["input_tokens"] + written + cached, cached, usage["output_tokens"]),
        )

    def error(self, answer: Answer) -> dict[str, Any]:
        last = messages.parse(answer.raw)[-1]
        assert last["type"] == "error" and last["request_id"] == answer.headers["x-headgate-stream-id"]
        assert last["error"]["type"] == "api_error"
        found: dict[str, Any] = last["error"]
        return found

    def _joined(self, answer: Answer) -> dict[str, Any]:
        """A stream's message, as an SDK accumulates it."""
        found = messages.parse(answer.raw)
        messages.check_order(found)
        assert found[-1] == {"type": "message_stop"} and found[0]["type"] == "message_start"
        message: dict[str, Any] = found[0]["message"]
        assert answer.headers["x-headgate-stream-id"] == message["id"]
        for event in found[1:]:
            match event["type"]:
                case "content_block_start":
                    message["content"].append({**event["content_block"], "json": ""})
                case "content_block_delta":
                    said = event["delta"]
                    one = message["content"][event["index"]]
                    one["text"] = one.get("text", "") + said.get("text", "")
                    one["json"] += said.get("partial_json", "")
                case "content_block_stop":
                    one = message["content"][event["index"]]
                    one["input"] = json.loads(one["json"] or "{}")
                case "message_delta":
                    message |= event["delta"]
                    message["usage"] |= event["usage"]
        return message

    def fault(self, document: dict[str, Any]) -> dict[str, Any]:
        """The error of a refusal: type, message, param."""
        assert document["type"] == "error"
        found: dict[str, Any] = document["error"]
        return found

    def takes(self, model: str, stream: bool) -> str:
        """The path below the base URL at which a provider is asked."""
        return self.path(model, stream).removeprefix("/v1")

    # ------------------------------------------------------------------------------- an upstream's words

    def pieces(self, *said: str) -> bytes:
        head = (messages.start(**self.usage), messages.block(0, type="text", text=""))
        return messages.events(*head, *(messages.text(0, one) for one in said))

    def stream(self, *said: str) -> bytes:
        return self.pieces(*said) + messages.events(messages.stop(0), messages.end("end_turn", 4), messages.DONE)

    def calling(self) -> bytes:
        return self.pieces("I ", "look.") + messages.events(
            messages.stop(0),
            messages.block(1, type="tool_use", id="call_1", name="weather", input={}),
            *(messages.delta(1, "input_json_delta", partial_json=part) for part in PIECES),
            messages.stop(1),
            messages.end("tool_use", 4),
            messages.DONE,
        )

    def failing(self) -> bytes:
        return messages.events(messages.start(**self.usage), self.refusal("overloaded_error", "Overloaded"))

    def document(self, said: str, called: bool) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": said}]
        if called:
            content.append({"type": "tool_use", "id": "call_1", "name": "weather", "input": ARGUMENTS})
        found = {"id": "x", "type": "message", "role": "assistant", "model": "m-up", "content": content}
        reason = "tool_use" if called else "end_turn"
        return {**found, "stop_reason": reason, "stop_sequence": None, "usage": self.usage}

    def refusal(self, word: str, said: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": word, "message": said}}


class Responses:
    name = "openai_responses"
    messages = "input"
    trims = "no"
    fields: ClassVar[dict[str, str]] = {}
    usage: ClassVar[dict[str, Any]] = {
        "input_tokens": 18, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 22,
    }  # fmt: skip

    def path(self, model: str, stream: bool) -> str:
        return "/v1/responses"

    def turn(self, text: str) -> Any:
        """A user's message as a client of this API sends it."""
        return {"role": "user", "content": text}

    def request(self, stream: bool, tools: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {"max_output_tokens": 50, "input": [{"role": "user", "content": "Hi"}]}
        if tools:
            found |= {"tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}], "tool_choice": "auto"}
        return found

    def asked(self, request: dict[str, Any]) -> tuple[list[Any], int, list[str]]:
        assert request["store"] is False
        items = [self._plain(item) for item in request["input"]]
        return items, request["max_output_tokens"], [tool["name"] for tool in request.get("tools", ())]

    def said(self, role: str, text: str) -> Any:
        return {"role": role, "content": text}

    def _plain(self, item: dict[str, Any]) -> dict[str, Any]:
        content = item["content"]
        return {"role": item["role"], "content": content if isinstance(content, str) else content[0]["text"]}

    def read(self, answer: Answer, stream: bool) -> Read:
        found = self._last(answer) if stream else answer.json
        reason = {"completed": "stop", "incomplete": "length"}[found["status"]]
        texts = [part["text"] for item in found["output"] if item["type"] == "message" for part in item["content"]]
        calls = [
            (item["call_id"], item["name"], json.loads(item["arguments"]))
            for item in found["output"]
            if item["type"] == "function_call"
        ]
        usage = found["usage"]
        counts = usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"], usage["output_tokens"]
        return Read("".join(texts), calls, "tool_calls" if calls else reason, counts)

    def error(self, answer: Answer) -> dict[str, Any]:
        failed, last = messages.parse(answer.raw)[-2:]
        assert failed["type"] == "response.failed" and failed["response"]["error"]["message"] == last["message"]
        assert last["type"] == "error" and last["code"] == last["error"]["code"]
        found: dict[str, Any] = last["error"]
        return found

    def _last(self, answer: Answer) -> dict[str, Any]:
        """The response that ends a stream.  Its parts are those that the events before it have told."""
        found = messages.parse(answer.raw)
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        assert found[0]["type"] == "response.created"
        assert answer.headers["x-headgate-stream-id"] == found[0]["response"]["id"]
        items: dict[int, dict[str, Any]] = {}
        pieces: dict[tuple[int, int], str] = {}
        for event in found:
            match event["type"]:
                case "response.output_item.added":
                    assert event["output_index"] == len(items)
                    items[len(items)] = {}
                case "response.output_item.done":
                    items[event["output_index"]] = event["item"]
                case "response.output_text.delta" | "response.function_call_arguments.delta":
                    place = event["output_index"], event.get("content_index", 0)
                    pieces[place] = pieces.get(place, "") + event["delta"]
        response: dict[str, Any] = found[-1]["response"]
        assert found[-1]["type"] == f"response.{response['status']}" and list(items.values()) == response["output"]
        for (index, content), text in pieces.items():
            item = items[index]
            assert text == (item["content"][content]["text"] if item["type"] == "message" else item["arguments"])
        return response

    def fault(self, document: dict[str, Any]) -> dict[str, Any]:
        """The error of a refusal: type, message, param."""
        assert "type" not in document
        found: dict[str, Any] = document["error"]
        return found

    def takes(self, model: str, stream: bool) -> str:
        """The path below the base URL at which a provider is asked."""
        return self.path(model, stream).removeprefix("/v1")

    # ------------------------------------------------------------------------------- an upstream's words

    def pieces(self, *said: str) -> bytes:
        item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": []}
        return self._events(
            {"type": "response.created", "response": self._response("in_progress", [])},
            {"type": "response.in_progress", "response": self._response("in_progress", [])},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **place, "part": part},
            *({"type": "response.output_text.delta", **place, "delta": one} for one in said),
        )

    def stream(self, *said: str) -> bytes:
        text = "".join(said)
        return self.pieces(*said) + self._events(*self._ended(text), self._completed([self._message(text)]))

    def calling(self) -> bytes:
        call = self._call("")
        place = {"item_id": "fc_1", "output_index": 1}
        arguments = "".join(PIECES)
        done = self._call(arguments)
        return self.pieces("I ", "look.") + self._events(
            *self._ended("I look."),
            {"type": "response.output_item.added", "output_index": 1, "item": call},
            *({"type": "response.function_call_arguments.delta", **place, "delta": part} for part in PIECES),
            {"type": "response.function_call_arguments.done", **place, "arguments": arguments},
            {"type": "response.output_item.done", "output_index": 1, "item": done},
            self._completed([self._message("I look."), done]),
        )

    def failing(self) -> bytes:
        error = {"code": "server_is_overloaded", "message": "Overloaded"}
        return self._events(
            {"type": "response.created", "response": self._response("in_progress", [])},
            {"type": "response.failed", "response": {**self._response("failed", []), "error": error}},
        )

    def document(self, said: str, called: bool) -> dict[str, Any]:
        output = [self._message(said)] + ([self._call(json.dumps(ARGUMENTS))] if called else [])
        return {**self._response("completed", output), "usage": self.usage}

    def refusal(self, word: str, said: str) -> dict[str, Any]:
        return {"error": {"type": word, "message": said, "param": None, "code": None}}

    def _events(self, *payloads: dict[str, Any]) -> bytes:
        return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in payloads).encode()

    def _response(self, status: str, output: list[Any]) -> dict[str, Any]:
        return {"id": "resp_up", "object": "response", "status": status, "model": "m-up", "output": output}

    def _message(self, text: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content}

    def _call(self, arguments: str) -> dict[str, Any]:
        found = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "weather"}
        return {**found, "arguments": arguments}

    def _ended(self, text: str) -> list[dict[str, Any]]:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return [
            {"type": "response.output_text.done", **place, "text": text},
            {"type": "response.content_part.done", **place, "part": {"type": "output_text", "text": text}},
            {"type": "response.output_item.done", "output_index": 0, "item": self._message(text)},
        ]

    def _completed(self, output: list[Any]) -> dict[str, Any]:
        return {
            "type": "response.completed",
            "response": {**self._response("completed", output), "usage": self.usage},
        }


class Gemini:
    name = "gemini"
    messages = "contents"
    trims = "no"
    fields: ClassVar[dict[str, str]] = {}
    usage: ClassVar[dict[str, Any]] = {
        "promptTokenCount": 18, "candidatesTokenCount": 4, "totalTokenCount": 22, "cachedContentTokenCount": 5,
    }  # fmt: skip
    _reasons: ClassVar[dict[str, str]] = {"STOP": "stop", "MAX_TOKENS": "length"}

    def path(self, model: str, stream: bool) -> str:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/{model}:{method}"

    def request(self, stream: bool, tools: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "generationConfig": {"maxOutputTokens": 50},
        }
        if tools:
            declared = [{"name": "weather", "parametersJsonSchema": SCHEMA}]
            found |= {"tools": [{"functionDeclarations": declared}]}
        return found

    def asked(self, request: dict[str, Any]) -> tuple[list[Any], int, list[str]]:
        items = [{"role": one["role"], "content": one["parts"][0]["text"]} for one in request["contents"]]
        tools = [one["name"] for group in request.get("tools", ()) for one in group["functionDeclarations"]]
        return items, request["generationConfig"]["maxOutputTokens"], tools

    def turn(self, text: str) -> Any:
        return {"role": "user", "parts": [{"text": text}]}

    def said(self, role: str, text: str) -> Any:
        return {"role": "model" if role == "assistant" else role, "content": text}

    def read(self, answer: Answer, stream: bool) -> Read:
        found = [json.loads(event.data) for event in Decoder().feed(answer.raw)] if stream else [answer.json]
        texts: list[str] = []
        calls: list[tuple[str, str, Any]] = []
        for one in found:
            for part in one["candidates"][0]["content"]["parts"]:
                call = part.get("functionCall")
                if call is not None:
                    calls.append((call["id"], call["name"], call["args"]))
                elif not part.get("thought"):
                    texts.append(part["text"])
        (reason,) = [one["candidates"][0]["finishReason"] for one in found if "finishReason" in one["candidates"][0]]
        usage = found[-1]["usageMetadata"]
        counts = usage["promptTokenCount"], usage.get("cachedContentTokenCount", 0), usage["candidatesTokenCount"]
        return Read("".join(texts), calls, "tool_calls" if calls else self._reasons[reason], counts)

    def error(self, answer: Answer) -> dict[str, Any]:
        last = json.loads(Decoder().feed(answer.raw)[-1].data)["error"]
        assert last["code"] >= 500
        info = last["details"][0]
        return {"code": info["reason"], "message": last["message"], **info["metadata"]}

    def fault(self, document: dict[str, Any]) -> dict[str, Any]:
        error = document["error"]
        assert error["status"] == "INVALID_ARGUMENT" and error["code"] == 400
        return {"param": None, **error["details"][0]["metadata"], "message": error["message"]}

    def takes(self, model: str, stream: bool) -> str:
        return self.path(model, stream).removeprefix("/v1beta").partition("?")[0]

    # ------------------------------------------------------------------------------- an upstream's words

    def pieces(self, *said: str) -> bytes:
        return b"".join(self._event([{"text": one}]) for one in said)

    def stream(self, *said: str) -> bytes:
        return self.pieces(*said) + self._event([], {"finishReason": "STOP"})

    def calling(self) -> bytes:
        call = {"functionCall": {"id": "call_1", "name": "weather", "args": ARGUMENTS}}
        return self.pieces("I ", "look.") + self._event([call], {"finishReason": "STOP"})

    def failing(self) -> bytes:
        error = {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}
        return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"

    def document(self, said: str, called: bool) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"text": said}]
        if called:
            parts.append({"functionCall": {"id": "call_1", "name": "weather", "args": ARGUMENTS}})
        return self._response(parts, {"finishReason": "STOP"})

    def refusal(self, word: str, said: str) -> dict[str, Any]:
        return {"error": {"code": 400, "message": said, "status": word.upper()}}

    def _event(self, parts: list[Any], end: dict[str, Any] | None = None) -> bytes:
        return b"data: " + json.dumps(self._response(parts, end or {})).encode() + b"\r\n\r\n"

    def _response(self, parts: list[Any], end: dict[str, Any]) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **end}
        found = {"candidates": [candidate], "modelVersion": "m-up", "responseId": "x"}
        return {**found, "usageMetadata": self.usage} if end else found


Api = Chat | Messages | Responses | Gemini
APIS: dict[str, Api] = {api.name: api for api in (Chat(), Messages(), Responses(), Gemini())}
CHAT, MESSAGES, RESPONSES, GEMINI = APIS
