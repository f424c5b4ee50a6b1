"""How answers are laid out, at every width and piped: nothing is cut off, ids and figures stay whole."""

from __future__ import annotations

import itertools

import pytest

from headgate.cli.display.layout import Column, Drawing, Hanging, PropertyTable, Table, Text, columns_of, lines_of
from headgate.cli.display.timeline import steps_of, timeline

WIDTHS = [40, 60, 80, 100, 120, 200, None]
IDENT = "chatcmpl-1a2220f4781e81c255000006"
ROWS = [
    ["laptop", IDENT, "1,234,567", "groq/openai/gpt-oss-120b, openai/gpt-4o-mini, anthropic/claude-sonnet-4-5"],
    ["日本語の名前", IDENT, "0.000000001", "a sentence of a provider that says at some length why it did not answer"],
    ["👩‍💻 Zoë", IDENT, "7", ""],
    ["a-name-that-is-itself-rather-long-for-a-column-of-names", IDENT, "9", "short"],
]


def drawn(drawing: Drawing, width: int | None) -> list[str]:
    return [line.plain for line in drawing.lines(width)]


def rows_table(*columns: str) -> Table:
    return Table([Column.named(column) for column in columns], ROWS, "nothing")


@pytest.mark.parametrize("width", WIDTHS)
def test_ids_and_figures_are_whole_and_no_word_is_lost(width: int | None) -> None:
    lines = drawn(rows_table("NAME", "!ID", ">COST", "WHY"), width)
    for _name, ident, figure, why in ROWS:
        assert any(ident in line for line in lines) and any(figure in line for line in lines)
        for word in why.split():
            assert any(word in line for line in lines), (width, word)


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_fit_the_terminal(width: int | None) -> None:
    longest = max(columns_of(line) for line in drawn(rows_table("NAME", "!ID", ">COST", "WHY"), width))
    assert width is None or longest <= max(width, 62)  # a record's longest word may be longer than the terminal


def test_a_pipe_has_one_line_per_row() -> None:
    assert len(drawn(rows_table("NAME", "!ID", ">COST", "WHY"), None)) == len(ROWS) + 2


def test_columns_stay_below_their_headings() -> None:
    lines = drawn(rows_table("NAME", "!ID", ">COST", "WHY"), 200)
    at = columns_of(lines[0][: lines[0].index("ID")])
    for line in lines[2:]:
        assert columns_of(line[: line.index(IDENT)]) == at  # in columns: wide characters take two


def test_optional_columns_are_dropped_in_order() -> None:
    table = rows_table("!NAME", "!ID", "?>COST", "??WHY")
    headings = {
        width: {name for name in ("NAME", "ID", "COST", "WHY") if name in drawn(table, width)[0]}
        for width in range(30, 200)
    }
    seen = [names for names, _ in itertools.groupby(headings.values())]
    assert seen == [set(), {"NAME", "ID"}, {"NAME", "ID", "COST"}, {"NAME", "ID", "COST", "WHY"}]
    assert drawn(table, 40)[:2] == ["name  laptop", f"id    {IDENT}"]


def test_a_record_leaves_out_what_is_empty() -> None:
    table = Table([Column.named("!ID"), Column.named("WHY")], [["i" * 50, ""]], "nothing")
    assert drawn(table, 40) == ["id  " + "i" * 50]


def test_an_optional_column_with_nothing_in_it_is_left_out() -> None:
    rows = [["a", "", ""], ["b", "", ""]]
    lines = drawn(Table([Column.named(name) for name in ("!NAME", "??>USES", "WHY")], rows, "nothing"), 80)
    assert "USES" not in lines[0] and "WHY" in lines[0]


def test_words_are_broken_only_where_the_column_says_so() -> None:
    rows = [["key", "/a/path/" * 12]]
    folded = drawn(Table([Column.named(name) for name in ("!KEY", "~VALUE")], rows, "nothing"), 60)
    whole = drawn(Table([Column.named(name) for name in ("!KEY", "VALUE")], rows, "nothing"), 60)
    assert "KEY" in folded[0] and len(folded) > 3
    assert whole == ["key    key", "value  " + "/a/path/" * 12]


def test_an_empty_table_is_a_sentence() -> None:
    assert drawn(Table([Column("NAME")], [], "no names"), 80) == ["no names"]


@pytest.mark.parametrize("width", WIDTHS)
def test_frames_hold_what_is_in_them(width: int | None) -> None:
    facts = PropertyTable(IDENT, [("why", ROWS[1][3]), ("id", IDENT), ("left out", None), ("name", "日本語の名前")])
    lines = drawn(facts, width)
    assert sum(IDENT in line for line in lines) == 2 and not any("left out" in line for line in lines)
    assert width is None or {columns_of(line) for line in lines if line[:1] in "│╭╰"} <= {columns_of(lines[0])}
    assert (lines[0][0] == "╭") == (width is not None and width > 40)


def test_a_frame_without_rows_is_its_title() -> None:
    assert drawn(PropertyTable("auto", [("why", None)]), 80) == ["auto"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("up/\x1b[31mred", "up/\\x1b[31mred"),
        ("\x9b32m", "\\x9b32m"),
        ("a\x00b\rc\td", "a\\x00b\\rc\\td"),
        ("\u202eevil", "\\u202eevil"),
        ("two\nlines", "two\nlines"),
        ("日本\u3000語 👩‍💻", "日本\u3000語 👩‍💻"),
    ],
)
def test_what_a_terminal_would_act_upon_is_written_out(text: str, shown: str) -> None:
    assert Text(text).plain == shown


def test_further_lines_are_indented() -> None:
    assert drawn(Hanging(Text("! subject: " + "word " * 12)), 44)[1].startswith("  word")
    assert drawn(Text("    " + "word " * 12), 40)[1].startswith("    word")


# ------------------------------------------------------------------------------------- the time axis


def call(*attempts: tuple[float, float, int | None, str | None], **timings: float | None) -> dict[str, object]:
    return {
        "outcome": "delivered",
        "timings_ms": {"total": None, "queue": None, "connect": None, "ttfb": None, "ttft": None} | timings,
        "attempts": [
            {"provider": "groq", "model": "openai/gpt-oss-120b", "status": status, "code": code,
             "started_ms": start, "ended_ms": end}
            for start, end, status, code in attempts
        ],
    }  # fmt: skip


def test_phases_follow_each_other_on_one_axis() -> None:
    row = call((1, 100, 200, None), total=101, queue=2, connect=7.8, ttfb=0.9, ttft=50)
    steps = [(step.name.strip(), round(step.start, 3), round(step.end, 3)) for step in steps_of(row)]
    assert steps == [
        ("groq/openai/gpt-oss-120b", 1, 100), ("queue", 1, 3), ("connect", 3, 10.8), ("headers", 10.8, 11.7),
        ("first token", 11.7, 50), ("text", 50, 100), ("whole call", 0, 101),
    ]  # fmt: skip


def test_the_wait_in_a_queue_comes_before_the_first_attempt() -> None:
    row = call((501, 520, None, "x"), (521, 600, 200, None), total=601, queue=500, connect=0, ttfb=10, ttft=540)
    steps = [(step.name.strip(), step.start, step.end) for step in steps_of(row)]
    assert ("queue", 1, 501) in steps and ("headers", 521, 531) in steps


def test_phases_belong_to_the_last_attempt_that_answered() -> None:
    row = call((1, 30, None, "upstream_unreachable"), (30, 90, 200, None), (90, 95, None, "x"),
               total=96, queue=0, connect=5, ttfb=5, ttft=60)  # fmt: skip
    steps = [(step.name.strip(), step.start, step.end) for step in steps_of(row)]
    assert [name[0] for name, *_ in steps] == ["1", "2", "c", "h", "f", "t", "3", "w"]
    assert all(0 <= start <= end <= 96 for _, start, end in steps)
    assert steps[2] == ("connect", 30, 35)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_axis_fits_and_every_step_has_a_bar_on_it(width: int | None) -> None:
    row = call((1, 100, 200, None), (2, 4000, 200, None), total=60_000, queue=2, connect=7.8, ttfb=0.9, ttft=3000)
    lines = drawn(timeline(row), width)
    assert width is None or all(columns_of(line) <= max(width, 60) for line in lines)
    assert width == 40 or width == 60 or all("█" in line for line in lines[2:])


def test_a_call_without_attempts_says_so() -> None:
    assert drawn(timeline(call(total=1)), 80) == ["no provider was asked"]
    assert drawn(timeline(call() | {"outcome": None}), 80) == ["it still runs: no timings yet"]


def test_text_and_drawings_are_both_laid_out() -> None:
    assert [line.plain for line in lines_of("a sentence", 80)] == ["a sentence"]
