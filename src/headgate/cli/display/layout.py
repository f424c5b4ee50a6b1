"""How answers are laid out: tables, records, frames.  Values in, lines out; no terminal is looked at.

Owns every width.  No text is ever cut off.  Prose is wrapped between words.  If the columns that must stay whole
(ids, figures) do not fit, a table first loses its optional columns, then becomes a record per row.  ``width`` is in
columns of a terminal; None is a pipe or a file, where every row is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from unicodedata import category

GAP = 2
MIN_PROSE = 16  # columns: prose in less than that is a tower of single words
MIN_FOLD = 28  # columns that may break words (``Column.folds``) do so from this length on
_JOINERS = "\n\u200c\u200d"
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
# The drawn characters, and their replacements for outputs that cannot show them.  Each is one column wide.
GLYPHS = str.maketrans(
    {
        **dict.fromkeys("─├┤", "-"), "│": "|", **dict.fromkeys("╭╮╰╯", "+"), **dict.fromkeys("▏▎▍▌▋▊▉█", "#"),
        "→": ">", "–": "-", "…": "~", "·": ".", "✓": "+", "✗": "x",
    }
)  # fmt: skip


class Text:
    """Characters with colours: runs of one style each.  Control characters are shown as ``\\x1b``, never sent."""

    __slots__ = ("runs",)

    def __init__(self, text: str = "", style: str = "") -> None:
        self.runs: list[tuple[str, str]] = [(visible(text), style)] if text else []

    @classmethod
    def assemble(cls, *parts: str | Text | tuple[str, str]) -> Text:
        whole = cls()
        for part in parts:
            whole.append(*part) if isinstance(part, tuple) else whole.append(part)
        return whole

    def append(self, part: str | Text, style: str = "") -> Text:
        self.runs += (part if isinstance(part, Text) else Text(part, style)).runs
        return self

    def join(self, parts: Iterable[Text]) -> Text:
        whole = Text()
        for index, part in enumerate(parts):
            whole.append(self if index else "").append(part)
        return whole

    @property
    def plain(self) -> str:
        return "".join(text for text, _ in self.runs)

    def rendered(self, colours: bool) -> str:
        if not colours:
            return self.plain
        return "".join(f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style else text for text, style in self.runs)

    def between(self, start: int, end: int) -> Text:
        """The characters from ``start`` to ``end``, in their colours."""
        part = Text()
        at = 0
        for text, style in self.runs:
            if piece := text[max(0, start - at) : max(0, end - at)]:
                part.runs.append((piece, style))
            at += len(text)
        return part

    def lines(self, width: int | None) -> Iterator[Text]:
        return _prose(self, width)


Value = str | Text


class Drawing(Protocol):
    """Something that can be laid out in any width."""

    def lines(self, width: int | None) -> Iterator[Text]: ...


# ------------------------------------------------------------------------------------- characters


def visible(text: str, but: str = "") -> str:
    """``text`` with what a terminal would act upon written out: control characters, changes of direction.  Line ends,
    the joiners of emoji and the characters in ``but`` stay.
    """
    if text.isprintable():
        return text
    return "".join(one if _harmless(one) or one in but else one.encode("unicode_escape").decode() for one in text)


def _harmless(one: str) -> bool:
    return one.isprintable() or one in _JOINERS or category(one) == "Zs"


def columns_of(text: str) -> int:
    """How many columns a terminal takes for ``text``: wide characters take two, combining ones none."""
    if text.isascii() or (text := text.translate(GLYPHS)).isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - late: few outputs need its tables

    return cell_len(text)


def _wrapped(text: Text, width: int) -> Iterator[Text]:
    """Lines of at most ``width`` columns, broken between words; a word that is longer than a line is broken."""
    plain = text.plain
    begin = 0
    for part in plain.split("\n"):
        yield from _wrapped_line(text, begin, begin + len(part), plain, width)
        begin += len(part) + 1


def _wrapped_line(text: Text, begin: int, end: int, plain: str, width: int) -> Iterator[Text]:
    """The lines after the first are indented as it is."""
    if columns_of(plain[begin:end]) <= width:
        yield text.between(begin, end)
        return
    indent = " " * min(len(plain[begin:end]) - len(plain[begin:end].lstrip(" ")), width // 2)
    begin += len(indent)
    room = max(1, width - len(indent))
    while columns_of(plain[begin:end]) > room:
        # The longest beginning that fits; wide characters make it shorter than ``room``
        fits = begin + room
        while fits > begin + 1 and columns_of(plain[begin:fits]) > room:
            fits -= 1
        space = plain.rfind(" ", begin, min(fits + 1, end))
        cut = space if space > begin else fits
        yield Text(indent).append(text.between(begin, cut))
        begin = cut + (space > begin)
    yield Text(indent).append(text.between(begin, end))


# ------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Column:
    """``whole``: an id or a figure, never wrapped.  ``folds``: its words may be broken; others wrap between words.
    ``optional``: above 0 it is left out where there is no room, the highest first, those of one number together.
    """

    name: str
    right: bool = False
    whole: bool = False
    optional: int = 0
    folds: bool = False

    @classmethod
    def named(cls, heading: str) -> Column:
        """``>NAME`` is a figure (aligned to the right), ``!NAME`` an id, ``~NAME`` folds; each ``?`` in front makes it
        more optional.
        """
        name = heading.lstrip("?>!~")
        marks = heading[: len(heading) - len(name)]
        return cls(name, ">" in marks, ">" in marks or "!" in marks, marks.count("?"), "~" in marks)


class Table:
    """Rows under headings; ``empty`` where there is none."""

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Value | None]], empty: str) -> None:
        self._columns = columns
        self._rows = [[_text(cell) for cell in row] for row in rows]
        self._empty = empty

    def lines(self, width: int | None) -> Iterator[Text]:
        if not self._rows:
            yield from _prose(Text(self._empty), width)
            return
        # An optional column with nothing in it says nothing
        named = [bool(column.name) and not column.optional for column in self._columns]
        shown = [index for index in range(len(self._columns)) if named[index] or self._filled(index)]
        natural = {index: self._natural(index) for index in shown}
        while True:
            widths = self._fitted(natural, shown, width)
            if widths is not None:
                yield from self._grid(shown, widths)
                return
            least = max(self._columns[index].optional for index in shown)
            if not least:
                break
            shown = [index for index in shown if self._columns[index].optional != least]
        yield from self._records(width)

    def _filled(self, index: int) -> bool:
        return any(row[index].runs for row in self._rows)

    def _natural(self, index: int) -> int:
        cells = (columns_of(line) for row in self._rows for line in row[index].plain.split("\n"))
        return max(columns_of(self._columns[index].name), *cells)

    def _least(self, index: int, natural: int) -> int:
        """The fewest columns in which a column can still be read."""
        if self._columns[index].whole:
            return natural
        words = (columns_of(word) for row in self._rows for word in row[index].plain.split())
        longest = max((columns_of(self._columns[index].name), *words))
        return min(natural, max(MIN_PROSE, min(longest, MIN_FOLD) if self._columns[index].folds else longest))

    def _fitted(self, natural: dict[int, int], shown: list[int], width: int | None) -> dict[int, int] | None:
        """The columns' widths; None where they cannot fit."""
        widths = {index: natural[index] for index in shown}
        over = 0 if width is None else sum(widths.values()) + GAP * (len(shown) - 1) - width
        least = {index: self._least(index, widths[index]) for index in shown} if over > 0 else {}
        while over > 0:
            index = max(shown, key=lambda index: widths[index] - least[index])
            room = widths[index] - least[index]
            if not room:
                return None
            # Step by step, so that several columns of prose shrink alike
            step = min(over, max(1, room // 4))
            widths[index] -= step
            over -= step
        return widths

    def _grid(self, shown: list[int], widths: dict[int, int]) -> Iterator[Text]:
        columns = [(self._columns[index], widths[index]) for index in shown]
        yield _joined([Text(column.name, "bold") for column, _ in columns], columns)
        yield Text("─" * (sum(widths.values()) + GAP * (len(columns) - 1)), "dim")
        for row in self._rows:
            cells = [list(_wrapped(row[index], widths[index])) for index in shown]
            for level in range(max(map(len, cells))):
                yield _joined([cell[level] if level < len(cell) else Text() for cell in cells], columns)

    def _records(self, width: int | None) -> Iterator[Text]:
        for number, row in enumerate(self._rows):
            if number:
                yield Text()
            cells = zip(self._columns, row, strict=True)
            yield from _pairs(
                [(column.name.lower(), cell) for column, cell in cells if column.name and cell.plain], width
            )


def _joined(cells: Sequence[Text], columns: Sequence[tuple[Column, int]]) -> Text:
    line = Text()
    last = max((index for index, cell in enumerate(cells) if cell.plain), default=-1)
    for index, (cell, (column, width)) in enumerate(zip(cells[: last + 1], columns, strict=False)):
        room = " " * max(0, width - columns_of(cell.plain))
        line.append(" " * GAP if index else "")
        line.append(room).append(cell) if column.right else line.append(cell).append("" if index == last else room)
    return line


# ------------------------------------------------------------------------------------- one object


class PropertyTable:
    """One object: names and values, in a frame where there is a terminal that is wide enough for one."""

    def __init__(self, title: str, rows: Iterable[tuple[str, Value | None]]) -> None:
        self._title = Text(title, "bold")
        self._rows = [(name, _text(value)) for name, value in rows if value is not None]

    def lines(self, width: int | None) -> Iterator[Text]:
        if width is None or not self._rows or columns_of(self._title.plain) + 6 > width:
            yield self._title
            yield from (Text("  ").append(line) for line in _pairs(self._rows, None if width is None else width - 2))
            return
        inner = list(_pairs(self._rows, width - 4))
        room = max(columns_of(self._title.plain) + 1, *(columns_of(line.plain) for line in inner))
        if room > width - 4:
            yield self._title
            yield from inner
            return
        head = Text("╭─ ").append(self._title)
        yield head.append(f" {'─' * (room - columns_of(self._title.plain) - 1)}╮")
        for line in inner:
            yield Text("│ ").append(line).append(" " * (room - columns_of(line.plain)) + " │")
        yield Text(f"╰{'─' * (room + 2)}╯")


def _pairs(rows: Sequence[tuple[str, Text]], width: int | None) -> Iterator[Text]:
    """``name  value`` lines, aligned; values are wrapped beside their names."""
    left = max((columns_of(name) for name, _ in rows), default=0) + GAP
    for name, value in rows:
        label = name + " " * (left - columns_of(name))
        for level, line in enumerate(_prose(value, None if width is None else max(MIN_FOLD, width - left))):
            yield Text("" if level else label, "dim").append(" " * left if level else "").append(line)


def _prose(text: Text, width: int | None) -> Iterator[Text]:
    """Lines that are broken between words only: a long id stays whole, and a terminal that copies it as one."""
    if width is None:
        yield from _wrapped(text, 1 << 30)
        return
    plain = text.plain
    longest = max((columns_of(word) for word in plain.split()), default=0)
    yield from _wrapped(text, max(width, longest))


class Group:
    """Drawings below each other."""

    def __init__(self, *parts: Value | Drawing) -> None:
        self._parts = parts

    def lines(self, width: int | None) -> Iterator[Text]:
        for part in self._parts:
            yield from lines_of(part, width)


class Hanging:
    """A sentence whose further lines are indented.  ``folds``: its words may be broken."""

    def __init__(self, text: Text, indent: int = 2, *, folds: bool = False) -> None:
        self._text = text
        self._indent = indent
        self._folds = folds

    def lines(self, width: int | None) -> Iterator[Text]:
        room = None if width is None else max(MIN_FOLD, width - self._indent)
        lines = _prose(self._text, room) if room is None or not self._folds else _wrapped(self._text, room)
        for level, line in enumerate(lines):
            yield Text(" " * self._indent if level else "").append(line)


class Flexible:
    """A drawing that is made for the width that there is."""

    def __init__(self, draw: Callable[[int | None], Drawing]) -> None:
        self._draw = draw

    def lines(self, width: int | None) -> Iterator[Text]:
        yield from self._draw(width).lines(width)


def lines_of(value: Value | Drawing, width: int | None) -> Iterator[Text]:
    """The lines of anything that can be shown."""
    return (Text(value) if isinstance(value, str) else value).lines(width)


def _text(value: Value | None) -> Text:
    return value if isinstance(value, Text) else Text(value or "")
