"""``config check`` tells everything at once, and nothing that follows from what it told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.settings import ConfigError, load
from headgate.settings.pruning import Pruned

# Each line's own problem, by its words; lines without one are sound
EVERYTHING = """\
server: {prot: 4000, port: seventy, drain_s: -1}            # did you mean port|whole number|must not be negative
nonsense: 1                                                 # nonsense: unknown key
unpriced: maybe                                             # 'allow' or 'refuse'
database: mysql://x                                         # database: must be
providers:
  openai:
    keys:
      - ${NOT_SET_ONE}                                      # NOT_SET_ONE is not set
      - {key: "${NOT_SET_TWO}", label: a}                   # NOT_SET_TWO is not set
      - {key: sk-2, lable: b}                               # did you mean label
  grok: {preset: grok}                                      # did you mean groq
  up-a:
    base_url: htp://x                                       # base_url: must be
    models:
      big: {context_window: -5}                  # context_window: must be at least 1
      small: {}
  Bad_Name: {base_url: "http://x"}                          # may have a-z
  five: 5                                                   # five: must be a table
aliases:
  my/chat:
    strategy: fastet                                        # strategy: must be
    targets:
      - up-a/bgi                                            # targets.0: provider up-a declares no model 'bgi'
      - nowhere/x                                           # targets.1: 'nowhere/x' names no provider
      - {weight: 2}                                         # targets.2.target: is missing
      - openai/gpt-4o
      - five/any
      - grok/any
      - {target: up-b/x, weight: 99999}                     # targets.6.weight|targets.6: 'up-b/x' names no provider
  up-a/small: {targets: [up-a/small]}                       # also names a model
tokens:
  - {name: ci, secret: short}                               # tokens.0.secret
  - {secret: hg_test_0123456789abcdef0123}                  # tokens.1.name: is missing
  - {name: dup, secret: hg_test_0123456789abcdef0125}
  - {name: dup, secret: hg_test_0123456789abcdef0124}       # tokens.3.name: two tokens
default_model: my/caht                                      # did you mean my/chat
"""


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "headgate.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(file), {"HOME": str(folder)})
    return caught.value.problems


def test_every_problem_is_told_in_one_pass_and_no_other(tmp_path: Path) -> None:
    told = problems(tmp_path, EVERYTHING)
    wanted = [
        (number, words)
        for number, line in enumerate(EVERYTHING.splitlines(), 1)
        if "  # " in line
        for words in line.partition("  # ")[2].split("|")
    ]
    for number, words in wanted:
        mine = [one for one in told if words in one]
        assert len(mine) == 1, (words, told)
        assert re.search(rf"line {number}\b", mine[0]) or words.startswith("database")
    assert len(told) == len(wanted), told


@pytest.mark.parametrize(
    ("text", "count"),
    [
        # of what follows from a problem nothing is told
        ("providers: {openai: {keys: ['${NOPE}']}}\naliases: {a/b: {targets: [openai/gpt-4o]}}\n", 1),
        ("providers: {x: {preset: nope}}\naliases: {a/b: {targets: [x/any]}}\n", 1),
        ("providers: 7\naliases: {a/b: {targets: [x/any]}}\n", 2),
        ("aliases: {a/b: 7}\ndefault_model: a/b\n", 1),
        ("server: {port: '${NOPE}'}\ncontrol: {port: '${NOPE}'}\n", 2),
        ("state_dir: ${NOPE}/x\nserver: {port: x}\n", 2),
    ],
)
def test_what_follows_from_a_problem_is_none(tmp_path: Path, text: str, count: int) -> None:
    told = problems(tmp_path, text)
    assert len(told) == count, told


def test_places_after_items_were_taken_out() -> None:
    pruned = Pruned({"list": [{"x": 0}, {"x": 1}, {"x": 2}, {"x": 3}], "other": {"a": 1}})
    pruned.drop(("list", 2, "x"))
    assert pruned.root["list"] == [{"x": 0}, {"x": 1}, {}, {"x": 3}]
    for place in (("list", 0), ("list", 2), ("list", 2), ("other", "missing"), ("list", 2, "x")):
        pruned.drop(place)
    assert pruned.root == {"list": [{"x": 1}, {"x": 3}]}
    assert pruned.original(("list", 0, "x")) == ("list", 1, "x")
    assert pruned.original(("list", 1)) == ("list", 3)
    assert pruned.is_bad(("list", 2, "x")) and not pruned.is_bad(("list", 1))
    assert pruned.is_whole(("list", 1)) and not pruned.is_whole(("list",))


def test_settings_are_read_without_the_store() -> None:
    """The supervisor waits for them before anything answers, and so does ``config check``."""
    code = "import sys, headgate.settings; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "fastapi", "httpx2", "structlog", "rich", "genai_prices", "cryptography"} & set(modules)
