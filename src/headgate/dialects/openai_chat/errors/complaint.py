"""Read a foreign error: one reader for every shape that servers give it.  ``classes`` decides about its meaning.

Bodies of errors have no common shape.  The text is under ``message``, ``msg``, ``detail``, …: a string, an object, a
list, or JSON within a string.  The whole may be an array, server-sent events, a web page, or binary data.  So the
reader does not know shapes: it knows the names of members, and looks for them from the outside in.  It quotes no raw
body: JSON, events, HTML and binary data give their message, or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from headgate.dialects.openai_chat.errors import limits, texts
from headgate.wire import sse

DEEPEST = 8
MOST_ITEMS = 20
_MOST_NAMED = 5  # messages of one list that the client gets
_LONGEST_CODE = 160
_LONGEST_TEXT = 64 << 10

TEXTS = (
    "message", "msg", "error_message", "error_msg", "errorMessage", "errorMsg", "Message", "ErrorMessage", "err_msg",
    "detail", "status_msg", "statusMessage", "error_description", "faultstring", "description", "Detail", "reason",
    "title", "Msg", "exception", "Error",
)  # fmt: skip
INNER = (
    "errors", "details", "response", "Response", "Error", "base_resp", "BaseResp", "header", "fault", "innererror",
    "data", "result", "output", "x_groq", "err", "exception", "fieldViolations", "violations", "source", "ErrorMsg",
)  # fmt: skip
CODES = (
    "code", "error_code", "errorCode", "err_code", "Code", "ErrorCode", "type", "error_type", "errorType", "__type",
    "reason", "errorcode", "errcode", "kind", "name", "native_finish_reason", ":exception-type",
)  # fmt: skip
STATUSES = ("status_code", "statusCode", "http_status", "status", "code", "Status")
_PARAMS = ("param", "parameter", "field", "pointer")
OWN_CODES = {
    "base_resp": "minimax",
    "BaseResp": "minimax",
    "header": "spark",
}  # owners of numbers without a general meaning
_NO_WORDS = ("null", "true", "false", "undefined", "None", "success", "Success", "ok", "OK", "[DONE]")
_PAGE = re.compile(r"<(?:!doctype|html|head|body|\?xml|!--|h1|center|title)", re.IGNORECASE)
_BROKEN_JSON = re.compile(r"\{\s{0,9}(?:[\"'}{]|$)|\[\s{0,9}(?:[\"{\[\]]|$)|\"")
EXCEPTIONS = ("Exception", "exception", "Fault")  # endings of members that are named after an error
_EVENTS = ("data:", "event:", "error:", "id:", ":", "retry:")


class Complaint(NamedTuple):
    """The content of an upstream's error.

    ``codes``: its codes, types and reasons, as spelled, from the outside in.  ``inner_codes``: those within a string,
    which may be a quotation.  ``status``: an HTTP status that the body itself names, else 0.  ``fields``: the request's
    fields that it names as such.  ``retry_s``: seconds until another try, from a member.  ``headers``: those of an
    inner answer that it passes on.  ``page``: true for a web page; ``title`` is then the page's.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    inner_codes: tuple[str, ...] = ()
    param: str | None = None
    status: int = 0
    fields: frozenset[str] = frozenset()
    retry_s: float | None = None
    headers: Mapping[bytes, bytes] = {}
    page: bool = False
    title: str = ""


def read(body: bytes) -> Complaint:
    """Read the body of an error, in any form.  Raises nothing."""
    reading = _Reading()
    message = reading.bytes(body.removeprefix(b"\xef\xbb\xbf").strip())
    return Complaint(
        message.strip(), tuple(reading.codes), tuple(reading.inner_codes), reading.param, reading.status,
        frozenset(reading.fields), reading.retry_s, reading.headers, reading.page, reading.title,
    )  # fmt: skip


class _Reading:
    """The state while one body is read."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.inner_codes: list[str] = []
        self.param: str | None = None
        self.status = 0
        self.fields: set[str] = set()
        self.retry_s: float | None = None
        self.headers: Mapping[bytes, bytes] = {}
        self.page = False
        self.title = ""
        self._inside = 0  # depth of strings within strings

    def bytes(self, body: bytes) -> str:
        value = texts.decoded(body)
        if value is not None:
            return self.value(value, 0)
        text = body[:_LONGEST_TEXT].decode(errors="replace")
        return self.text(text, 0, outer=True)

    def value(self, value: Any, depth: int) -> str:
        if depth > DEEPEST:
            return ""
        if isinstance(value, str):
            return self.text(value, depth)
        if isinstance(value, dict):
            return self.members(value, depth)
        return self.items(value, depth) if isinstance(value, list) else ""

    def items(self, items: list[Any], depth: int) -> str:
        found = [self.value(item, depth + 1) for item in items[:MOST_ITEMS]]
        return "; ".join(list(dict.fromkeys(one for one in found if one))[:_MOST_NAMED])

    def members(self, members: dict[str, Any], depth: int) -> str:
        own = self._note(members)
        where = self._place(members)
        error = members.get("error", members.get("errors") if isinstance(members.get("errors"), str) else None)
        message = ""
        if isinstance(error, (dict, list)):
            message = self.value(error, depth + 1)
        for key in TEXTS:
            if message:
                break
            message = self.value(members.get(key), depth + 1)
        if isinstance(error, str):
            message = self._beside(error, message, depth)
        for key in INNER:
            inner = members.get(key)
            if isinstance(inner, (dict, list)):
                found = self._named_fields(inner) if key == "errors" and isinstance(inner, dict) else ""
                if not found:
                    found = self.value(inner, depth + 1)
                message = message or found
        message = message or self._of_exceptions(members, depth)
        message = self._of_choices(members, depth) or message
        message = self._wrapped(members, depth) or message
        if own and not message:
            return ""
        return f"{where}: {message}" if where and message else message

    def _beside(self, error: str, message: str, depth: int) -> str:
        """``error`` as a string is the text, or the error's name if there is another text."""
        if not message:
            return self.text(error, depth + 1)
        if " " not in error.strip():
            self._code(error)
        return message

    def _named_fields(self, named: dict[str, Any]) -> str:
        """``errors: {"field": ["what is wrong"]}``."""
        if not named or not all(isinstance(one, (str, list)) for one in named.values()):
            return ""
        told = []
        for field, value in list(named.items())[:MOST_ITEMS]:
            texts = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
            if not texts:
                return ""
            self.fields.update(part for part in field.split(".") if part not in ("", "$", "body"))
            told.append(f"{field.removeprefix('$.')}: {texts[0]}" if field else texts[0])
        return "; ".join(told[:_MOST_NAMED])

    def _of_exceptions(self, members: dict[str, Any], depth: int) -> str:
        """``{"throttlingException": {"message": …}}``: an error under its own name, as Bedrock's streams have it."""
        found = ""
        for key in list(members)[:MOST_ITEMS]:
            if key.endswith(EXCEPTIONS) and key not in TEXTS and members[key]:
                self._code(key)
                found = found or self.value(members[key], depth + 1)
        return found

    def _of_choices(self, members: dict[str, Any], depth: int) -> str:
        """``choices[0].error``: a failure in one choice of an answer."""
        choices = members.get("choices")
        for choice in choices[:MOST_ITEMS] if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("error"):
                native = choice.get("native_finish_reason")
                if isinstance(native, str):
                    self._code(native)
                return self.value(choice["error"], depth + 1)
        return ""

    def _wrapped(self, members: dict[str, Any], depth: int) -> str:
        """OpenRouter says "Provider returned error" and puts the provider's own body into ``metadata.raw``."""
        wrapped = members.get("metadata")
        if not isinstance(wrapped, dict):
            return ""
        if "flagged_input" in wrapped or "reasons" in wrapped:
            self._code("moderation")
        error_type = wrapped.get("error_type")
        if isinstance(error_type, str):
            self._code(error_type)
        headers = wrapped.get("headers")
        if isinstance(headers, dict):
            self.headers = {str(key).lower().encode(): str(value).encode() for key, value in headers.items()}
        raw = wrapped.get("raw")
        return self.value(raw, depth + 1) if raw else ""

    def _note(self, members: dict[str, Any]) -> bool:
        """Note the codes, status, param and times of an object.  Return true if it reports a success."""
        for key in CODES:
            value = members.get(key)
            if isinstance(value, str):
                self._code(value)
            elif isinstance(value, int) and not isinstance(value, bool) and value:
                self._code(str(value))
        self._numbers(members)
        for key in ("status", "Status"):
            if isinstance(members.get(key), str):
                self._code(members[key])
        if not self._inside:
            for key in STATUSES:
                self._status(members.get(key))
        for key, owner in OWN_CODES.items():
            inner = members.get(key)
            if isinstance(inner, dict):
                number = inner.get("status_code", inner.get("code"))
                if number and str(number).isdigit():
                    self._code(f"{owner} {number}")
        for key in _PARAMS:
            value = members.get(key)
            if isinstance(value, str) and value:
                self._named(value)
        self._time(members)
        number = members.get("status_code")
        return number == 0

    def _numbers(self, members: dict[str, Any]) -> None:
        """Note numbers whose place shows their provider: small numbers mean something else at each one."""
        number = members.get("error_code")
        if isinstance(number, (int, str)) and str(number).isdigit():
            self._code(f"baidu {number}")
        if "sid" in members and isinstance(members.get("code"), int):
            self._code(f"spark {members['code']}")
        error = members.get("error")
        number = error.get("code") if isinstance(error, dict) else None
        if isinstance(number, str) and len(number) == 4 and number.isdigit():
            self._code(f"zhipu {number}")

    def _time(self, members: dict[str, Any]) -> None:
        if self.retry_s is not None or self._inside:
            return
        for key in ("retryDelay", "retry_after", "retry_after_seconds", "retryAfter"):
            value = members.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.retry_s = limits.sane(float(value))
            elif isinstance(value, str):
                self.retry_s = limits.span(value.encode())

    def _place(self, members: dict[str, Any]) -> str:
        """Return the place of a fault in the request: ``loc`` of a validator's entry."""
        loc = members.get("loc")
        if not isinstance(loc, list):
            return ""
        steps = [str(step) for step in loc if isinstance(step, (str, int))]
        self.fields.update(step for step in loc if isinstance(step, str))
        path = ".".join(steps[1:] if steps[:1] in (["body"], ["query"]) else steps)
        if path and self.param is None:
            self.param = path
        return path

    def _named(self, field: str) -> None:
        if self.param is None:
            self.param = field  # unchanged, so that a secret in it is still found
        self.fields.update(part for part in field.replace("/", ".").split(".") if part)

    def _code(self, code: str) -> None:
        code = code.strip()
        if 0 < len(code) <= _LONGEST_CODE:
            (self.inner_codes if self._inside else self.codes).append(code)

    def _status(self, value: Any) -> None:
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if not self.status and isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            self.status = value

    # ----------------------------------------------------------------------------------- text

    def text(self, text: str, depth: int, *, outer: bool = False) -> str:
        """Return the message in a string, or the string itself."""
        text = text.strip()
        start = text[:512].lower()
        if not text or depth > DEEPEST or text in _NO_WORDS:
            return ""
        if _PAGE.match(start):
            return self._of_page(text)
        if start.startswith(_EVENTS) and (found := self._events(text, depth, outer)) is not None:
            return found
        if text[0] in '{["':
            return self._json(text, depth, outer)
        if texts.is_binary(text):
            return ""
        at = text.find("[{" if text.endswith("]") else "{")
        if text.endswith(("}", "]")) and at >= 0:
            value = texts.decoded(text[at:].encode(errors="replace"))
            if (code := texts.SDK.match(text)) is not None:
                self.inner_codes.append(code[0])
            found = self._within(value, depth) if isinstance(value, (dict, list)) else ""
            if found or (isinstance(value, dict) and text[at + 1] != "'"):
                return found or text[:at].rstrip(" :-–,")
            return text  # the refused value
        if (named := texts.EXCEPTION.search(text[:512])) is not None:
            self.inner_codes.append(named[1])
        return text

    def _within(self, value: Any, depth: int) -> str:
        self._inside += 1
        found = self.value(value, depth + 1)
        self._inside -= 1
        return found

    def _json(self, text: str, depth: int, outer: bool) -> str:
        """Read JSON in a string, also several documents in a row.  Text that only resembles JSON is skipped."""
        value = texts.decoded(text.encode(errors="replace"))
        if value is not None and value != text:
            return self._within(value, depth) if depth or not outer else self.value(value, depth)
        lines = text.splitlines()
        if len(lines) > 1 and (first := texts.decoded(lines[0].encode(errors="replace"))) is not None:
            return self.value(first, depth + 1) if outer else self._within(first, depth)
        if text.startswith("[{'") and (entries := texts.entries(text)):
            return self.items([{"loc": re.findall(r"\w+", loc), "msg": msg} for loc, msg in entries], depth + 1)
        return "" if _BROKEN_JSON.match(text) or texts.is_binary(text) else text

    def _events(self, text: str, depth: int, outer: bool) -> str | None:
        """Read server-sent events in place of an error; None if the text is none."""
        decoder = sse.Decoder()
        events = decoder.feed(text.encode(errors="replace") + b"\n\n")
        found = ""
        for event in events[:MOST_ITEMS]:
            data = (event.error or event.data).decode(errors="replace")
            if data and data != "[DONE]" and not found:
                value = texts.decoded(data.encode())
                if value is not None:
                    found = self.value(value, depth + 1) if outer else self._within(value, depth)
                else:
                    found = self.text(data, depth + 1)
        return found if events else None

    def _of_page(self, text: str) -> str:
        """Return the message in an API's XML.  A web page has none for programs."""
        if "<message>" in text[:4096].lower():
            code, message = texts.tag(text, "Code"), texts.tag(text, "Message")
            if code:
                self._code(code)
            return message
        self.page = True
        self.title = (texts.tag(text, "title") or text[:256]).lower()
        return ""
