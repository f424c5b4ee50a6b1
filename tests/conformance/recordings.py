"""The recorded OpenAI-chat streams, answers and error bodies: which there are, and how their bytes are cut.

They lie beside the project, in ``../shared/streams``, and are never copied into it; where they are absent the tests
that need them are skipped with that sentence.
"""

from __future__ import annotations

import json
import random
import re
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests import proofs
from tests.paths import SHARED

STREAMS = SHARED / "streams"
SCHEMAS = SHARED / "openai_chat_schemas.json"
PRESENT = (STREAMS / "corpus.tar.gz").is_file()
ABSENT = pytest.mark.skipif(not PRESENT, reason="this file of ../shared is absent: streams/corpus.tar.gz")

# Whole; every event in a write of its own; the smallest pieces that time allows; and pieces of any size.
CUTTINGS = ("whole", "event", "tiny", "random")
USAGES = (True, False, True, False)  # asked for, by cutting
BYTEWISE_UP_TO = 4 << 10  # larger bodies are cut into pieces of a few bytes: a write per byte takes a second for 100 KB
_BLOCK = re.compile(rb"(?:\r\n|\n|\r){2,}")


def index(name: str) -> list[dict[str, Any]]:
    """``index.json``, ``errors.json`` or ``nonstream.json``; empty where the folder is absent."""
    if not PRESENT:
        return []
    entries: list[dict[str, Any]] = json.loads((STREAMS / name).read_text())
    return entries


def chats() -> list[str]:
    """The names of the OpenAI-chat streams."""
    return streams("openai-chat")


def streams(dialect: str) -> list[str]:
    """The names of one API's streams."""
    return [entry["file"] for entry in index("index.json") if entry["dialect"] == dialect]


def readings_of(position: int) -> list[tuple[str, bool]]:
    """(cutting, usage asked for) of the recording at that place: all four, or one after the other, with its usage."""
    if proofs.WHOLE:
        return list(zip(CUTTINGS, USAGES, strict=True))
    return [(CUTTINGS[position % len(CUTTINGS)], True)]


def unpack(folder: Path) -> Path:
    """The corpus below ``folder``: every chat stream, answer and error body."""
    wanted = {entry["file"] for name in ("index.json", "errors.json", "nonstream.json") for entry in index(name)}
    with tarfile.open(STREAMS / "corpus.tar.gz") as archive:
        members = [member for member in archive if member.name.removeprefix("./") in wanted]
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and later
        archive.extractall(folder, members=members, **safely)  # type: ignore[arg-type]
    return folder


def cut(body: bytes, cutting: str) -> list[bytes]:
    """The pieces that an upstream writes one by one; the same for the same body every time."""
    if cutting == "whole":
        return [body]
    if cutting == "event":
        edges = [match.end() for match in _BLOCK.finditer(body)]
    elif cutting == "tiny" and len(body) <= BYTEWISE_UP_TO:
        edges = list(range(1, len(body)))
    else:
        dice = random.Random(len(body))
        mean = max(1, len(body) // 4000) if cutting == "tiny" else max(7, len(body) // 50)
        edges = []
        at = 0
        while (at := at + dice.randint(1, 2 * mean)) < len(body):
            edges.append(at)
    return [body[a:b] for a, b in pairwise([0, *(edge for edge in edges if 0 < edge < len(body)), len(body)]) if a < b]
