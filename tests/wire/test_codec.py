"""The JSON boundary: what is refused, what passes untouched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import INVALID_JSON, GatewayError
from headgate.wire import codec


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b'{"a":1} x', "byte 9"),
        (b'{"a":NaN}', "byte 5"),
        (b'{"a":01}', "byte"),
        (b'{"a":"\x00"}', "byte 6"),
        (b'{"a":"\\q"}', "byte"),
        (b'{"a":"\xff"}', "not valid UTF-8 (byte 6)"),
        (b'{"\xff":1}', "not valid UTF-8 (byte 2)"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    ],
)
def test_malformed(body: bytes, says: str) -> None:
    with pytest.raises(GatewayError) as caught:
        codec.decode_object(body)
    assert caught.value.kind is INVALID_JSON
    assert says in caught.value.message


def test_values_keep_their_own_bytes() -> None:
    body = b'{"n":12345678901234567890123.50e+400,"s":"\\u00e9\\/","o":{"a" : [1, 2]},"a":1,"a":2}'
    members = codec.decode_object(body)
    assert codec.encode(members) == b'{"n":12345678901234567890123.50e+400,"s":"\\u00e9\\/","o":{"a" : [1, 2]},"a":2}'


def test_readers_give_none_for_another_type() -> None:
    members = codec.decode_object(b'{"t":"x","i":5,"f":5.0,"h":5.5,"b":true,"o":{},"l":[{}],"huge":1e999}')
    assert codec.as_text(members["t"]) == "x"
    assert codec.as_text(members["i"]) is None
    assert (codec.as_integer(members["i"]), codec.as_integer(members["f"]), codec.as_integer(members["h"])) == (
        5,
        5,
        None,
    )
    assert codec.as_integer(members["b"]) is None
    assert codec.as_number(members["huge"]) is None
    assert codec.as_boolean(members["b"]) is True
    assert codec.as_object(members["o"]) == {}
    assert codec.as_objects(members["l"]) == [{}]
    assert codec.as_objects(members["o"]) is None
    assert codec.as_text(None) is None


def test_repair_replaces_what_is_no_text() -> None:
    assert codec.repair(b'"a\xffb"') == '"a\ufffdb"'.encode()
    assert codec.repair(rb'"\ud83d\ude00 \ud83d. \\ud83d \ude00"') == rb'"\ud83d\ude00 \ufffd. \\ud83d \ufffd"'


@pytest.mark.parametrize("control", ["\t", "\r", "\0", "\x1b", "\x01\x02", "\t\n"])
def test_repair_escapes_control_characters_in_strings_alone(control: str) -> None:
    body = f'{{"a{control}":\t"x{control}\\"{control}y",\r\n"b": [NaN, "{control}"]}}'.encode()
    assert json.loads(codec.repair(body)) == {f"a{control}": f'x{control}"{control}y', "b": [None, control]}


def test_repair_takes_the_escape_of_an_apostrophe_out() -> None:
    text = b"a\\'b \\\\'c \\\\\\'d ' e"
    assert json.loads(codec.repair(b'{"a": "%b"}' % text)) == {"a": "a'b \\'c \\'d ' e"}


@given(st.text(alphabet=st.characters(), max_size=20))
def test_repair_of_escaped_text_is_readable(text: str) -> None:
    body = b'{"a":' + json.dumps(text).encode("utf-8", "surrogatepass") + b"}"
    read = codec.as_text(codec.decode_object(codec.repair(body))["a"])
    assert read is not None
    if text.isprintable():
        assert read == text
