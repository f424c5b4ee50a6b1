"""``${NAME}`` in the file's values: find the variables, and insert their values.

Knows ``${NAME}``, ``${NAME:-default}`` with further variables in the default, and ``$${…}`` for a literal ``${…}``.
Refuses every other form that begins with ``${``: passed on as it stands it would be sent somewhere as a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

MAX_DEPTH = 16

_OPEN = re.compile(r"\$?\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-=?+]|[#%/^,@]|:")

Complain = Callable[[str], None]


class _Malformed(ValueError):
    """The message is a sentence."""


def expand(text: str, environ: Mapping[str, str], complain: Complain, used: Callable[[str], None]) -> str:
    """The text with its variables' values.  ``complain`` hears what is wrong, ``used`` the names."""
    if "${" not in text:
        return text
    try:
        return "".join(_pieces(text, environ, complain, used, 0))
    except _Malformed as error:
        complain(str(error))
        return ""


def _pieces(
    text: str, environ: Mapping[str, str], complain: Complain, used: Callable[[str], None], depth: int
) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise _Malformed(f"defaults are nested deeper than {MAX_DEPTH} levels")
    at = 0
    while opening := _OPEN.search(text, at):
        yield text[at : opening.start()]
        at = opening.end()
        if opening[0] == "$${":  # a literal, up to where it ends or to the next one
            yield "${"
            continue
        end = _end_of(text, at)
        name, default = _read(text[at:end])
        used(name)
        if value := environ.get(name):
            yield value
        elif default is not None:
            yield from _pieces(default, environ, complain, used, depth + 1)
        elif name not in environ:
            complain(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        at = end + 1
    yield text[at:]


def _end_of(text: str, start: int) -> int:
    """Where the brace closes that was opened before ``start``."""
    depth, at = 0, start
    while at < len(text):
        if text.startswith("${", at):
            depth += 1
            at += 1
        elif text[at] == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    raise _Malformed("a ${ is not closed: write ${NAME}, ${NAME:-default}, or $${ for the characters ${")


def _read(inside: str) -> tuple[str, str | None]:
    name = _NAME.match(inside)
    if name is None:
        raise _Malformed("what stands in ${…} is no variable's name: write ${NAME}, or $${ for the characters ${")
    rest = inside[name.end() :]
    if not rest:
        return name[0], None
    if rest.startswith(":-"):
        return name[0], rest[2:]
    operator = _OPERATOR.match(rest)
    what = f"${{{name[0]}{operator[0] if operator else '…'}…}}"
    raise _Malformed(f"{what} is not understood: write ${{{name[0]}}} or ${{{name[0]}:-default}}")
