"""The rows of ``providers/``: each of them, what is refused, and what they make of a configuration file."""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headgate.catalog.presets import (
    SHIPPED,
    TASKS,
    BadRow,
    Row,
    Unfilled,
    base_url,
    catalog,
    fields,
    key_in,
    parse,
    placeholders,
    rows,
)
from headgate.catalog.prices import enrich
from headgate.dialects.openai_chat.quirks import QUIRKS
from headgate.model import Provider
from headgate.settings import load
from tests.paths import ROOT

ROWS = rows()
MINE = 'title = "Mine"\nbase_url = "https://mine.example.com/v1"\ndocs = "https://mine.example.com"\n'
LOOPBACK_ENGINES = {"ollama": 11434, "lm-studio": 1234, "vllm": 8000, "llama-cpp": 8080, "sglang": 30000, "jan": 1337}

GOES_ON = {
    "vllm": "continue_final_message", "sglang": "continue_final_message", "llama-cpp": "trailing", "mistral": "prefix",
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=str)
def test_a_row_holds(row: Row) -> None:
    assert (SHIPPED / f"{row.name}.toml").is_file()
    url = urlsplit(base_url(row, dict.fromkeys(placeholders(row), "filled")))
    assert url.hostname and not url.query and not url.username
    if row.local:
        assert (url.scheme, url.hostname, row.auth, row.engine is not None) == ("http", "127.0.0.1", "none", True)
        assert url.port == row.engine.port if row.engine else False
        assert row.training == "never"
    else:
        assert row.key_env and row.auth != "none"
        assert url.scheme == "https" or placeholders(row)  # a proxy of one's own
    assert set(row.quirks) <= QUIRKS.keys()
    assert set(row.tasks) <= set(TASKS)
    assert set(row.capabilities) <= {"tools", "json_schema", "vision", "reasoning"}
    pattern = re.compile(row.ids or ".+")
    assert all(pattern.fullmatch(model) for model in (*row.tasks.values(), *row.models))
    assert row.prefill == GOES_ON.get(row.name, "none")  # what is known, and nothing guessed
    if row.training != "unknown" and not row.local:  # who says so stands beside it
        assert re.search(r"^training = .*# https://", (SHIPPED / f"{row.name}.toml").read_text(), re.M)
    for name, facts in row.models.items():
        assert set(facts.capabilities) <= {"tools", "json_schema", "vision", "reasoning"}, name


def test_there_are_enough_of_them_and_they_do_not_share_keys() -> None:
    assert len(ROWS) >= 36
    assert {name: row.engine.port for name, row in ROWS.items() if row.engine} == LOOPBACK_ENGINES
    counted = Counter(name for row in ROWS.values() for name in row.key_env)
    assert [name for name, count in counted.items() if count > 1] == []
    assert "GITHUB_TOKEN" not in counted  # it stands in many environments for other reasons
    urls = Counter(row.base_url for row in ROWS.values())
    assert [url for url, count in urls.items() if count > 1] == []


def test_models_that_a_row_retires_are_marked_under_each_of_their_names() -> None:
    provider = Provider("groq", "https://api.groq.com/openai/v1", preset="groq")
    catalog = enrich({"groq": provider}, ROWS, date.today())["groq"].catalog or {}
    known = {model: row.retired for model, row in catalog.items()}
    assert known["llama-3.3-70b-versatile"] and known["gemma2-9b-it"] and known["gemma2-9b"]
    assert not known["openai/gpt-oss-120b"] and not known["openai/gpt-oss-20b"]


def test_price_lists_exist_and_know_the_recommended_models() -> None:
    from genai_prices.data import providers

    lists = {provider.id: provider for provider in providers}
    for row in ROWS.values():
        if row.prices:
            known = lists[row.prices]
            unknown = [model for model in row.tasks.values() if known.find_model(model) is None]
            # Alibaba's list has none; what a list does not know may be renamed or gone
            assert not unknown, (row.name, unknown)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title = ", "is not TOML"),
        (MINE + "colour = 1", "colour: unknown key"),
        (MINE + "titel = 'x'", "titel: unknown key; did you mean title?"),
        (MINE + "name = 'x'", "name: unknown key"),
        (MINE + "prefill = 'suffix'", "prefill: Invalid enum value 'suffix'"),
        (MINE + "auth = 'magic'", "auth: Invalid enum value 'magic'"),
        (MINE + "quirks = ['max_token']", "quirks: there is no quirk 'max_token'; did you mean max_tokens?"),
        (MINE + "[tasks]\nchatt = 'm'", "tasks: there is no task 'chatt'; did you mean chat?"),
        (MINE + "key_env = ['lower']", "key_env[0]: Expected `str` matching regex"),
        (MINE + "auth = 'none'\nkey_env = ['K1']", "key_env: auth is none"),
        (MINE + "ids = '('", "ids: is not a regular expression"),
        (MINE + "[models.m]\ncolour = 1", "models[...]: Object contains unknown field `colour`"),
        (MINE + "[models.m.price]\ninput = -1", "models.m.price.input: must be 0 to 1,000,000"),
        (MINE + "[models.m.price]\ninput = 0.0000000001", "models.m.price.input: must be 0 to 1,000,000"),
        (MINE + "[models.m]\nprice = {input = nan}", "models.m.price.input: must be 0 to 1,000,000"),
        (MINE + "[models.m]\nprice = {output = -inf}", "models.m.price.output: must be 0 to 1,000,000"),
        (MINE + f"[models.m]\nmax_output = {'9' * 5001}", "is not TOML: Exceeds the limit"),
        (MINE + f"quirks = {'[' * 5000}{']' * 5000}", "is not TOML: maximum recursion depth"),
        (MINE + "ids = 'a{99999999999999999999}'", "ids: is not a regular expression"),
        (MINE.replace("https://mine.example.com/v1", "mine.example.com"), "base_url: must be https://HOST"),
        (MINE.replace("/v1", "/v1/"), "base_url: must not end with /"),
        ("title = 'x'", "the row: Object missing required field `base_url`"),
    ],
)
def test_what_a_row_may_not_say(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(BadRow) as caught:
        rows([tmp_path])
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'}: {sentence}")
    assert "mine" not in rows([tmp_path], lenient=True)


@pytest.mark.parametrize("name", ["Mine", "builtin", "headgate", "a.b", "x" * 65])
def test_names_that_no_file_may_have(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.toml").write_text(MINE)
    with pytest.raises(BadRow):
        rows([tmp_path])


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE + "#" * (64 << 10))
    with pytest.raises(BadRow, match="is the limit"):
        rows([tmp_path])


def test_the_last_folder_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "groq.toml").write_text(MINE.replace("Mine", folder.name))
    found = rows([one, two, tmp_path / "absent"])
    assert (found["groq"].title, found["openai"], len(found)) == ("two", ROWS["openai"], len(ROWS))


def test_what_a_row_says() -> None:
    row = parse(
        "mine",
        MINE.replace("mine.example.com/v1", "{MINE_HOST}/v1") + "key_env = ['A_KEY', 'B_KEY']\n"
        "[models.m]\ncontext_window = 9\nprice = {input = 1, output = 0.5}",
    )
    with pytest.raises(Unfilled, match=r"set the environment variable, or write base_url: https://<MINE_HOST>/v1"):
        base_url(row, {})
    with pytest.raises(Unfilled, match="base_url must be http"):
        base_url(row, {"MINE_HOST": "a b"})
    assert base_url(row, {"MINE_HOST": "h:1"}) == "https://h:1/v1"
    assert key_in(row, {"A_KEY": "", "B_KEY": "k\n"}) == ("B_KEY", "k")
    assert key_in(row, {"A_KEY": "two words", "B_KEY": "ключ"}) is None
    assert "base_url" not in fields(row) and fields(row)["preset"] == "mine"
    facts = catalog(row)["m"]
    assert (facts.context_window, facts.price.input, facts.price.output) == (9, 10**9, 5 * 10**8)
    assert (facts.price.cached_input, facts.price.source) == (None, "providers/mine.toml")


def test_the_documentation_names_all_of_them(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "providers.md").read_text()
    for row in ROWS.values():
        assert f"`{row.name}`" in page and row.title in page, row.name
        assert all(f"`{name}`" in page for name in (*row.key_env, *placeholders(row))), row.name
    table = page.split("## Prefill: continuing a text")[1].split("## Quirks")[0]
    assert dict(re.findall(r"^\| `(\S+)` \| `(\S+)` \|", table, re.M)) == GOES_ON
    assert all(f"| `{name}` | {quirk.what} |" in page for name, quirk in QUIRKS.items())
    assert all(f"`{task}`" in page or f"`headgate/{task}`" in page for task in TASKS)
    assert f"{len(ROWS)} services and engines" in page
    for block in page.split("```toml\n")[1:]:
        parse("acme", block.split("```")[0])
    for block in page.split("```yaml\n")[1:]:
        (tmp_path / "headgate.yaml").write_text(block.split("```")[0])
        load(str(tmp_path / "headgate.yaml"), {"HOME": str(tmp_path)})
