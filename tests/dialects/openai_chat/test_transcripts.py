"""Our own transcripts, one for each rule of a stream and each oddity of a real server: what came, what went out.

A case is a folder of ``tests/transcripts/openai_chat``: the client's request, the upstream's bytes, the client's
bytes, and the verdict (usage, error code, whether anything was visible).
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.dialects.openai_chat import read
from tests.dialects.openai_chat.streams import bytewise, check_contract, parse, run, split
from tests.paths import ROOT, SHARED

CASES = sorted((ROOT / "tests" / "transcripts" / "openai_chat").iterdir())
SCHEMAS = SHARED / "openai_chat_schemas.json"
BODIES = [(case / "upstream.sse").read_bytes() for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_transcript(case: Path) -> None:
    usage = read((case / "request.json").read_bytes()).include_usage
    body = (case / "upstream.sse").read_bytes()
    expected = (case / "client.sse").read_bytes()
    out, stream = run([body], usage=usage)
    assert out.decode() == expected.decode()
    check_contract(out, stream, usage=usage)
    verdict = json.loads((case / "usage.json").read_text())
    assert verdict == {
        "usage": {key: getattr(stream.used.billed, key) for key in verdict["usage"]},
        "visible": stream.visible,
        "error": stream.error.kind.code if stream.error else None,
        "skipped": stream.skipped,
    }
    for pieces in (bytewise(body), *(split(body, seed) for seed in range(20))):
        assert run(pieces, usage=usage)[0] == expected


@pytest.mark.skipif(not SCHEMAS.is_file(), reason="this file of ../shared is absent: openai_chat_schemas.json")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_client_gets_satisfies_the_schema_strictly(case: Path) -> None:
    schema = json.loads(SCHEMAS.read_text()) | {"$ref": "#/$defs/CreateChatCompletionStreamResponse"}
    validator = jsonschema.Draft202012Validator(schema)
    for chunk in parse((case / "client.sse").read_bytes()):
        if "error" not in chunk and case.name != "extras-kept":  # there null is what the upstream sent
            validator.validate(chunk)


@given(
    st.lists(st.sampled_from(BODIES), min_size=1, max_size=2),
    st.lists(st.integers(0, 3000), max_size=25),
    st.booleans(),
)
def test_any_cut_of_any_transcripts_gives_the_same(bodies: list[bytes], cuts: list[int], usage: bool) -> None:
    body = b"".join(bodies).replace(b"data: [DONE]\n\n", b"", len(bodies) - 1)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    expected, stream = run([body], usage=usage)
    again, other = run([body[a:b] for a, b in pairwise(edges)], usage=usage)
    assert again == expected
    assert (other.used.billed, other.progress, other.events, other.skipped) == (
        stream.used.billed,
        stream.progress,
        stream.events,
        stream.skipped,
    )
    check_contract(expected, stream, usage=usage)
