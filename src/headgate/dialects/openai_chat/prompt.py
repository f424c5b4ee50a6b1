"""A chat completion request as policy reads it: sizes, the features it uses, and the limits on its continuation.

Each property reads the request's members when it is asked for, so a call pays only for those that its plan depends on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from msgspec import Struct

from headgate.dialects.tally import estimate_tokens
from headgate.wire import codec
from headgate.wire.codec import EMPTY_TEXT, NULL, Object

BEGINNING = 4096  # bytes of a conversation's beginning that tell it from others
SCANNED = 16 << 10  # bytes, the newest of the messages: the current question decides, and the cost stays bounded
_LARGE = 16 << 10
_ATTACHED = re.compile(rb'"(?:data:[^"\\]{64,}|[A-Za-z0-9+/=]{1024,})"')  # images and sounds: no words to count
# Where a text can not stand: its quotes are escaped.  What is taken for an attachment is not counted by its length
_ATTACHMENT = re.compile(rb'"(?:url|data|file_data)"[ \t\r\n]*:[ \t\r\n]*"[^"\\]{1024,}"')
ATTACHED_TOKENS = 1600  # of an image or a sound, as the largest that providers count an ordinary one
_INSTRUCTING = frozenset(("tools", "functions", "response_format"))
_USER = codec.raw("user")

# Within a JSON string, a line begins after \n or the opening quote.
_CODE = re.compile(
    rb"```|Traceback \(most recent"
    rb'|(?:\\n|")(?:\\t| ){0,64}(?:def \w+\(|class \w+[(:{]|import [\w.]+(?:\\n|;|")|from [\w.]+ import '
    rb"|#include [<\\]|(?:const|let|var) \w+ =|(?:async )?func(?:tion)? \w+\(|(?:pub )?fn \w+[(<])"
)

# Members that make an answer more than its text: how it was sampled, or a state that only its engine has.
_STRUCTURED = frozenset(
    (
        "grammar", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "json_schema",
        "structured_outputs", "ebnf", "regex",
    )
)  # fmt: skip
_STATEFUL = frozenset(("audio", "previous_response_id", "conversation", "web_search_options", "plugins", "search"))
SHAPING = _STRUCTURED | _STATEFUL | {"response_format", "n", "logprobs", "tools", "modalities", "best_of"}
PENALTIES = ("presence_penalty", "frequency_penalty", "repetition_penalty")
_ABSENT = (b"null", b"false", b"0", b"0.0", b"[]", b"{}")


class ChatPrompt(Struct, gc=False):
    """``model.Prompt`` over the members of one request.  ``size``: bytes of its messages."""

    members: Object
    size: int

    @property
    def tokens(self) -> int:
        """Estimated tokens of the messages, the tools and the answer's schema.  Reads 16 KiB of the messages; all of
        them where images or sounds are attached, which have no words to count.
        """
        members = self.members
        messages = memoryview(members["messages"])
        tokens = estimate_tokens(messages) if len(messages) <= _LARGE else _large(messages)
        if _INSTRUCTING.isdisjoint(members):
            return tokens
        return tokens + sum(estimate_tokens(memoryview(members[name])) for name in _INSTRUCTING if name in members)

    @property
    def text_tokens(self) -> int:
        """Estimated tokens without attached images and sounds.  Reads all of the messages."""
        messages = memoryview(self.members["messages"])
        return estimate_tokens(_ATTACHED.sub(b'""', messages) if len(messages) > _LARGE else messages)

    def uses(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of the features ``names`` (model.FEATURES) that the request uses."""
        return tuple(name for name in names if _USES[name](self.members))

    @property
    def effort(self) -> str | None:
        return codec.as_text(self.members.get("reasoning_effort"))

    @property
    def cache_key(self) -> bytes:
        return _filled(self.members, "prompt_cache_key")

    @property
    def user(self) -> bytes:
        return _filled(self.members, "user")

    @property
    def beginning(self) -> bytes:
        """The messages up to the first of a user, at most 4 KiB: the same in every turn of a conversation."""
        beginning = b""
        for message in codec.as_objects(self.members["messages"]) or []:
            beginning += b"\0".join(bytes(message.get(key, EMPTY_TEXT)) for key in ("role", "content"))
            if len(beginning) > BEGINNING or message.get("role") == _USER:
                break
        return beginning[:BEGINNING]

    @property
    def has_code(self) -> bool:
        """True if the newest 16 KiB of the messages hold source code."""
        return _CODE.search(memoryview(self.members["messages"])[-SCANNED:]) is not None

    @property
    def stops(self) -> tuple[str, ...]:
        raw = self.members.get("stop")
        if raw is None or raw == NULL:
            return ()
        text = codec.as_text(raw)
        if text is not None:
            return (text,) if text else ()
        return tuple(stop for stop in codec.as_texts(raw) or () if stop)

    @property
    def choices(self) -> int:
        return codec.as_integer(self.members["n"]) or 1 if "n" in self.members else 1

    @property
    def obstacle(self) -> str | None:
        members = self.members
        if not members.keys() & SHAPING and not any(name in members for name in PENALTIES):
            return None
        if _has_any(members, _STRUCTURED) or _is_structured(members):
            return "structured"
        return "sampled" if self.choices > 1 or _is_sampled(members) else None

    @property
    def follows_result(self) -> bool:
        messages = codec.as_objects(self.members["messages"]) or [{}]
        return codec.as_text(messages[-1].get("role")) in ("tool", "function")


# ------------------------------------------------------------------------------------- features


def _has_tools(members: Object) -> bool:
    return any(members.get(key) and codec.as_objects(members.get(key)) for key in ("tools", "functions"))


def _has_schema(members: Object) -> bool:
    form = members.get("response_format")
    return form is not None and b'"json_schema"' in bytes(form)


# A member with a value: some clients send every member of a part, with null; a text may consist of such a name.
_IMAGE = re.compile(rb'"image_url"\s{0,64}:\s{0,64}["{]')
_AUDIO = re.compile(rb'"input_audio"\s{0,64}:\s{0,64}["{]')


def _has_images(members: Object) -> bool:
    return _IMAGE.search(members["messages"]) is not None


def _has_audio(members: Object) -> bool:
    return members.get("audio") not in (None, NULL) or _AUDIO.search(members["messages"]) is not None


_USES: dict[str, Callable[[Object], bool]] = {
    "tools": _has_tools,
    "json_schema": _has_schema,
    "vision": _has_images,
    "audio": _has_audio,
}


# ------------------------------------------------------------------------------------- members


def _large(messages: memoryview) -> int:
    """Estimated tokens of messages that may have images or sounds attached."""
    plain, attached = _ATTACHMENT.subn(b'""', messages)
    return estimate_tokens(plain) + attached * ATTACHED_TOKENS


def _filled(members: Object, name: str) -> bytes:
    raw = members.get(name)
    return b"" if raw is None or raw in (NULL, EMPTY_TEXT) else bytes(raw)


def _has_any(members: Object, names: frozenset[str]) -> bool:
    return any(bytes(members[name]) not in _ABSENT for name in names & members.keys())


def _is_structured(members: Object) -> bool:
    form = codec.as_object(members.get("response_format"))
    return form is not None and codec.as_text(form.get("type")) not in (None, "text")


def _is_sampled(members: Object) -> bool:
    """True if the answer depends on how its tokens were drawn, or on a state that only its provider has."""
    if _has_any(members, _STATEFUL) or _has_any(members, frozenset(("logprobs",))):
        return True
    if (codec.as_integer(members.get("best_of")) or 1) > 1:
        return True
    for name in PENALTIES:
        neutral = 1 if name == "repetition_penalty" else 0
        if not codec.is_null(members.get(name)) and codec.as_number(members[name]) != neutral:
            return True
    if "modalities" in members and b'"audio"' in bytes(members["modalities"]):
        return True
    return any(codec.as_text(tool.get("type")) != "function" for tool in codec.as_objects(members.get("tools")) or ())
