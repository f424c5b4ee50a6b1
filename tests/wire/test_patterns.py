"""Every regular expression of the code base takes time in proportion to its text.

Foreign text goes through many of them: one that is quadratic lets an upstream, or a caller whom it quotes, hold the
loop.  Each is tried on texts made of its own literals; what is compared are two sizes within one run.
"""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Iterator
from pathlib import Path
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import headgate
from headgate.cli.display import generations
from headgate.hooks import secrets
from headgate.wire import http, proxies
from headgate.wire.bodies import coding

SHORT, FACTOR = 1000, 4
MOST_GROWTH = FACTOR * 2.2  # four times the text may take that much: sixteen times would be quadratic
FASTEST_S = 0.0004  # below it a measurement is noise, and no text of that length can do harm
SEPARATORS = ["", " ", "-", "0", "a", '"', "\\"]
ENDS = ["", "\x00", "!"]
Found = re.Pattern[Any]


def compiled() -> dict[str, Found]:
    """All patterns that modules hold, and all that are written where they are used."""
    found: dict[str, Found] = {}
    for module in pkgutil.walk_packages(headgate.__path__, "headgate."):
        if module.name.endswith("__main__") or ".migrations." in module.name:  # run as programs, by others
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            for index, one in enumerate(held(value)):
                found.setdefault(f"{one.flags}/{one.pattern!r}"[:200], one)
                found.setdefault(f"{module.name}.{name}[{index}]", one)
    for path in Path(headgate.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, (str, bytes)):
                    found.setdefault(f"{path.stem}:{node.lineno}", re.compile(first.value))
    return {name: one for name, one in found.items() if "/" not in name or name.split("/")[0].isdigit()}


def held(value: Any, depth: int = 0) -> Iterator[Found]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list)) and depth < 3:
        for one in value[:200]:
            yield from held(one, depth + 1)
    elif isinstance(value, dict) and depth < 3:
        for one in list(value.values())[:200]:
            yield from held(one, depth + 1)


def literals(pattern: Found) -> list[str]:
    """Strings that the pattern names, and one character of each class that it repeats."""
    source = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    atoms: dict[str, None] = {}

    def walk(tokens: Any, run: str = "") -> None:
        for kind, argument in tokens:
            if kind is _constants.LITERAL:
                run += chr(argument)
                continue
            if run:
                atoms.setdefault(run)
                run = ""
            if kind is _constants.IN:
                atoms.setdefault(sample(argument))
            elif kind is _constants.BRANCH:
                for branch in argument[1]:
                    walk(branch)
            elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
                walk(argument[2])
            elif kind is _constants.SUBPATTERN:
                walk(argument[3])
            elif kind in (_constants.ASSERT, _constants.ASSERT_NOT):
                walk(argument[1])
        if run:
            atoms.setdefault(run)

    walk(_parser.parse(source, pattern.flags & ~re.DEBUG if isinstance(pattern.pattern, str) else 0))
    return [atom for atom in atoms if atom][:16]


def sample(argument: Any) -> str:
    for kind, value in argument:
        if kind is _constants.LITERAL:
            return chr(value)
        if kind is _constants.RANGE:
            return chr(value[0])
    return "a"


def texts(pattern: Found) -> Iterator[tuple[str, str]]:
    """A unit to repeat, and an end that lets the match fail."""
    atoms = literals(pattern)
    for atom in atoms:
        for separator in SEPARATORS:
            yield atom + separator, ENDS[len(atom) % len(ENDS)]
    for first, second in itertools.pairwise(atoms):
        yield first + second, "!"
        yield f"{first} {second} ", "\x00"
    yield from ((separator or "a", "\x00") for separator in SEPARATORS)


def cost(pattern: Found, unit: str, end: str, size: int, times: int = 3) -> float:
    text: Any = (unit * (size // len(unit) + 1))[:size] + end
    if isinstance(pattern.pattern, bytes):
        text = text.encode(errors="replace")
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        if pattern.pattern not in ANCHORED:
            for _ in pattern.finditer(text):
                pass
        pattern.match(text)
        pattern.fullmatch(text)
        best = min(best, time.process_time() - began)
    return best


# Used with match or fullmatch alone: no second start is ever tried.
ANCHORED = {
    http._REQUEST_LINE.pattern,
    proxies._BRACKETED.pattern, proxies._WITH_PORT.pattern, coding._TEXT.pattern, generations._NUMBER.pattern,
    secrets._MIXED.pattern,
    r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::([^:]*))?",  # control.postgres
}  # fmt: skip
GROUPS = 24


@functools.cache  # not at import: every worker imports this file, one of them runs it
def patterns() -> list[Found]:
    return list({str(one.pattern) + str(one.flags): one for one in compiled().values()}.values())


def test_the_patterns_are_found() -> None:
    assert len(patterns()) >= 60


@pytest.mark.parametrize("group", range(GROUPS))
def test_time_grows_with_the_text_and_not_faster(group: int) -> None:
    for pattern in patterns()[group::GROUPS]:
        check_growth(pattern)


def check_growth(pattern: Found) -> None:
    for unit, end in texts(pattern):
        if cost(pattern, unit, end, FACTOR * SHORT, 1) < FASTEST_S:
            continue
        growth = [grown(pattern, unit, end)]
        while growth[-1] >= MOST_GROWTH and len(growth) < 4:  # a busy machine: measure again
            growth.append(grown(pattern, unit, end))
        assert min(growth) < MOST_GROWTH, (pattern.pattern, unit, end, growth)


def grown(pattern: Found, unit: str, end: str) -> float:
    return cost(pattern, unit, end, FACTOR * SHORT) / max(cost(pattern, unit, end, SHORT), 1e-7)
