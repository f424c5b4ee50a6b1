"""The output of the commands, in one place: JSON, tables, marks, figures, progress.

Owns every word for "not known", and the character set of each output.  Answers go to standard output, everything said
about them to standard error; progress is shown to terminals only.  Refuses to print an unknown figure as 0.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TextIO

from headgate.cli.display.layout import GLYPHS, Column, Drawing, PropertyTable, Table, Text, Value, lines_of, visible

UNKNOWN = "unknown"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def width() -> int | None:
    """The columns of standard output; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def draw(drawing: Value | Drawing) -> None:
    """To standard output, in the width and the colours that it has."""
    colours = _coloured(sys.stdout)
    for line in lines_of(drawing, width()):
        _write(line.rendered(colours), sys.stdout)


def _coloured(out: TextIO) -> bool:
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write(line: str, out: TextIO) -> None:
    """One line.  Characters that the output's encoding does not have are drawn in ASCII, or written out."""
    encoding = out.encoding or "utf-8"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        line = line.translate(GLYPHS).encode(encoding, "backslashreplace").decode(encoding)
    print(line, file=out)


def print_json(answer: Any) -> None:
    """Print one line.  Control characters, and characters that the output's encoding lacks, are escaped as in JSON."""
    text = json.dumps(answer, ensure_ascii=False)
    try:
        whole = visible(text) == text and bool(text.encode(sys.stdout.encoding or "utf-8"))
    except UnicodeEncodeError:
        whole = False
    print(text if whole else json.dumps(answer))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a heading and a line per row.  All rows have the members of the first; without rows nothing is printed."""
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in rows)


def _csv_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | bool) else value


def show(answer: Any, as_json: bool, human: Callable[[], Value | Drawing]) -> None:
    """The answer as JSON, or what ``human`` makes of it."""
    if as_json:
        print_json(answer)
    else:
        draw(human())


def say(sentence: str) -> None:
    """One line on standard error."""
    _write(Text(sentence).plain, sys.stderr)


def changed(answer: dict[str, Any], sentence: str, as_json: bool) -> None:
    """The answer to a change, and a word where it does not hold yet."""
    if as_json:
        print_json(answer)
    else:
        _write(Text(sentence).plain, sys.stdout)
    if answer.get("effective") is False:
        say("not yet in effect: the data process has not confirmed it within a second")


def table(*columns: str, rows: Iterable[Sequence[Value | None]], empty: str) -> Drawing:
    """Rows under headings; ``empty`` where there is none.  See ``Column.named`` for the marks of a heading."""
    return Table([Column.named(column) for column in columns], rows, empty)


def facts(title: str, rows: Iterable[tuple[str, Value | None]]) -> Drawing:
    """One object: names and values in a frame.  Values that are None are left out."""
    return PropertyTable(title, rows)


# ------------------------------------------------------------------------------------- figures


def usd(amount: float | None) -> str:
    """Dollars: cents where there are many, three digits that mean something where there are not."""
    if amount is None:
        return UNKNOWN
    if amount == 0 or amount >= 10:
        return f"${amount:,.2f}"
    digits = 4 if amount >= 0.01 else 2 - math.floor(math.log10(amount))
    return f"${amount:.{min(digits, 9)}f}"


def number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def count(value: float | None, noun: str) -> str:
    """``1 model``, ``2 models``."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def short(value: float | None) -> str:
    """``128k``, ``1.05M``: three digits at most."""
    if value is None:
        return UNKNOWN
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def milliseconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def moment(at: float | None, otherwise: str = "") -> str:
    """Unix seconds as this machine's clock shows them."""
    if at is None:
        return otherwise
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # beyond what a calendar here has
        return "after the year 9999"


def yes(value: object) -> str:
    return "yes" if value else "no"


def bar(share: float, width: int) -> str:
    """Return a bar of at most ``width`` characters, in eighths; a value above 0 is always visible."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


# ------------------------------------------------------------------------------------- progress


@contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on standard error during slow work; the yielded function changes its text."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console  # noqa: PLC0415 - late: an answer that comes at once does not wait for it

    with Console(stderr=True).status(text) as status:
        yield status.update


@contextmanager
def counting(text: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error; call the yielded function with a word after each of ``total`` steps."""
    if not sys.stderr.isatty():
        yield lambda word: None
        return
    from rich.console import Console  # noqa: PLC0415 - late: as above
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda word: progress.update(task, advance=1, description=f"{text} {word}".strip())
