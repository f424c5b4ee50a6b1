"""What the commands print, in one place: JSON, tables, marks, figures, progress.

Owns every width and every word for "not known".  Answers go to standard output, everything said about them to standard
error; progress is shown to terminals only.  Refuses to print an unknown figure as 0.  Rich is imported by what draws
with it: a command's help and completion do not wait for it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

UNKNOWN = "unknown"
PIPED_WIDTH = 200  # piped output must not be folded to a terminal's width that nobody has
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def console() -> Console:
    """Standard output.  Nothing is highlighted by guess: what the gateway says is shown as it is."""
    from rich.console import Console  # noqa: PLC0415 - see above

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, soft_wrap=False)


def show(answer: Any, as_json: bool, human: Callable[[], RenderableType]) -> None:
    """The answer as JSON, or what ``human`` makes of it."""
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        console().print(human())


def say(sentence: str) -> None:
    """One line on standard error."""
    print(sentence, file=sys.stderr)


def changed(answer: dict[str, Any], sentence: str, as_json: bool) -> None:
    """The answer to a change, and a word where it does not hold yet."""
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print(sentence)
    if answer.get("effective") is False:
        say("not yet in effect: the data process has not confirmed it within a second")


def table(*columns: str, rows: Iterable[Sequence[RenderableType | None]], empty: str) -> RenderableType:
    """Rows under headings; ``empty`` where there is none.  A heading that begins with ``>`` is aligned to the right;
    one that begins with ``!`` is what people copy: it stays whole, the others are folded.
    """
    from rich import box  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in columns:
        name = column.lstrip(">!")
        drawn.add_column(
            name, justify="right" if ">" in column else "left", overflow="fold", no_wrap=column[:1] in ">!"
        )
    count = 0
    for row in rows:
        drawn.add_row(*("" if cell is None else _cell(cell) for cell in row))
        count += 1
    return drawn if count else Text(empty)


def facts(title: str, rows: Iterable[tuple[str, RenderableType | None]]) -> RenderableType:
    """One object: names and values in a frame.  Values that are None are left out."""
    from rich import box  # noqa: PLC0415 - see above
    from rich.panel import Panel  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            grid.add_row(name, _cell(value))
    return Panel(grid, title=Text(title), title_align="left", expand=False, box=box.ROUNDED)


def _cell(value: RenderableType) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - see above

    # Text, so that a bracket in a name is no markup
    return Text(value) if isinstance(value, str) else value


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
    """A bar of at most ``width`` characters, in eighths; whatever is more than nothing can be seen."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


# ------------------------------------------------------------------------------------- progress


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner on standard error while something takes its time."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - see above

    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield
        return
    with screen.status(text):
        yield


@contextmanager
def counting(text: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error; what it gives is called with a word after each of ``total`` steps."""
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415

    screen = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with progress:
        task = progress.add_task(text, total=total)

        def step(word: str) -> None:
            progress.update(task, advance=1, description=f"{text} {word}".strip())

        yield step
