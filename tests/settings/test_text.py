"""What was written is what is read: keys and strings in YAML, variables, and credentials at every door."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from headgate.catalog.presets import first_key
from headgate.resources.account import AccountWish
from headgate.settings import ConfigError, Settings, compile, load
from headgate.wire import credentials

Write = Callable[..., Settings]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str, environ: dict[str, str] | None = None) -> Settings:
        path = tmp_path / "headgate.yaml"
        path.write_text(text)
        return load(str(path), {"HOME": str(tmp_path), **(environ or {})})

    return make


def models(*ids: str) -> str:
    return f"providers: {{p: {{base_url: 'http://127.0.0.1:1/v1', auth: none, models: {{{', '.join(ids)}}}}}}}"


# ------------------------------------------------------------------------------------- keys and strings

ODD = ["no", "yes", "on", "off", "true", "null", "~", "4.10", "0125", "0o17", "0x10", "12:30", "1_000", "1e3", ".inf",
       "2024-01-02", "=", "y", "N", "-1", "+1"]  # fmt: skip


@pytest.mark.parametrize("key", ODD)
def test_keys_are_their_text(key: str, write: Write) -> None:
    found = write(models(f"{key}: {{context_window: 9}}")).file.providers["p"].models
    assert found is not None and list(found) == [key]


def test_keys_that_yaml_takes_for_one_stay_apart(write: Write) -> None:
    ids = ["on", "true", "yes", "True", "1", "1.0", "0x1", "01"]
    found = write(models(*(f"{key}: {{}}" for key in ids))).file.providers["p"].models
    assert found is not None and list(found) == ids


@pytest.mark.parametrize("name", ["no", "on", "1", "0x1"])
def test_a_providers_name_is_its_text(name: str, write: Write) -> None:
    assert list(write(f"providers: {{{name}: {{base_url: 'http://127.0.0.1:1/v1'}}}}").file.providers) == [name]


@pytest.mark.parametrize("text", ["no", "4.10", "0125", "12:30", "1_000", "2024-01-02", "1e3"])
def test_strings_are_their_text(text: str, write: Write) -> None:
    file = write(
        f"providers: {{p: {{base_url: 'http://x', keys: [{text}], headers: {{X-A: {text}}}, "
        f"models: {{m: {{upstream_model: {text}, params: {{drop: [{text}], map: {{a: {text}}}}}}}}}}}}}"
    ).file
    up = file.providers["p"]
    assert up.models is not None and up.models["m"] is not None
    row = up.models["m"]
    assert [key.key.get_secret_value() for key in up.keys] == [text]
    assert (up.headers["X-A"], row.upstream_model, row.params.drop) == (text, text, [text])
    assert row.params.map == {"a": text}


def test_numbers_and_switches_are_read_where_they_are_wanted(write: Write) -> None:
    file = write(
        "server: {port: 4100, drain_s: 1.5, public_catalog: off}\ndetect: {local_engines: No, environment: true}\n"
        "providers: {p: {base_url: 'http://x', prefill: yes, models: {m: {price: {input: 0.1}, prefill: false}}}}"
    ).file
    assert (file.server.port, file.server.drain_s, file.server.public_catalog) == (4100, 1.5, False)
    assert (file.detect.local_engines, file.detect.environment) == (False, True)
    assert file.providers["p"].prefill == "trailing"


def test_where_any_value_may_stand_it_is_what_yaml_reads(write: Write) -> None:
    settings = write(
        "providers: {p: {base_url: 'http://x', models: {m: {params: {default: "
        "{t: 0.5, n: 3, s: '3', b: true, z: ~, d: 2024-01-02, l: [1, x, {y: no}]}}}}}}"
    )
    world = compile(settings, b"k" * 32, "http://127.0.0.1:1/v1").world
    rows = world.providers["p"].models
    assert rows is not None
    assert {name: json.loads(value) for name, value in rows["m"].param_defaults.items()} == {
        "t": 0.5, "n": 3, "s": "3", "b": True, "z": None, "d": "2024-01-02", "l": [1, "x", {"y": False}],
    }  # fmt: skip


def test_merges_and_anchors_work_and_the_tables_own_wins(write: Write) -> None:
    file = write(
        "providers:\n  a: &a {base_url: 'http://x', prefill: prefix, headers: {X-A: no}}\n"
        "  b: {<<: *a, prefill: trailing}\n"
    ).file
    assert (file.providers["b"].prefill, file.providers["b"].headers) == ("trailing", {"X-A": "no"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (models("a: {}", "a: {}"), "providers.p.models.a: stands twice"),
        (models("on: {}", '"on": {}'), "providers.p.models.on: stands twice"),
        (models("'*': {}"), "no pattern"),
        (models("'gpt-*': {}"), "no pattern"),
        ("state_dir: !include other.yaml", "the tag !include means nothing here"),
        ("state_dir: !!binary aGk=", "the tag !!binary means nothing here"),
    ],
)
def test_what_is_refused(text: str, words: str, write: Write) -> None:
    with pytest.raises(ConfigError, match=words):
        write(text)


# ------------------------------------------------------------------------------------- variables

BASE = {"A": "aaa", "EMPTY": "", "DEEP": "ddd"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "aaa"),
        ("x${A}y${A}", "xaaayaaa"),
        ("${NONE:-abc}", "abc"),
        ("${EMPTY:-abc}", "abc"),
        ("${A:-abc}", "aaa"),
        ("${NONE:-${A}}", "aaa"),
        ("${NONE:-${NONE2:-abc}}", "abc"),
        ("${NONE:-x${NONE2:-${DEEP}}z}", "xdddz"),
        ("${A:-${NOT_NEEDED}}", "aaa"),
        ("${NONE:-{a}", "{a"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A costs $5", "$A costs $5"),
    ],
)
def test_variables(text: str, value: str, write: Write) -> None:
    found = write(models(f"m: {{canonical: '{text}'}}"), BASE).file.providers["p"].models
    assert found is not None and found["m"] is not None and found["m"].canonical == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NONE}", "the environment variable NONE is not set"),
        ("${NONE:-${NONE2}}", "the environment variable NONE2 is not set"),
        ("${A-abc}", r"\$\{A-…\} is not understood: write \$\{A\} or \$\{A:-default\}"),
        ("${A:?missing}", r"\$\{A:\?…\} is not understood"),
        ("${A:+x}", "is not understood"),
        ("${A%x}", "is not understood"),
        ("${env:A}", "is not understood"),
        ("${A", "is not closed"),
        ("${}", "no variable's name"),
        ("${1A}", "no variable's name"),
        ("${ A }", "no variable's name"),
        ("${A:-" * 20 + "x" + "}" * 20, None),
        ("${NONE:-" * 20 + "x" + "}" * 20, "nested deeper"),
    ],
)
def test_variables_that_are_not_understood(text: str, words: str | None, write: Write) -> None:
    document = models(f"m: {{canonical: '{text}'}}")
    if words is None:
        write(document, BASE)
        return
    with pytest.raises(ConfigError, match=words):
        write(document, BASE)


# ------------------------------------------------------------------------------------- credentials

KEY = "sk-abcdefgh1234"
AROUND = [KEY, f"{KEY}\n", f"{KEY}\r", f"{KEY}\r\n", f" {KEY}\t", f'"{KEY}"', f"'{KEY}'", f'"{KEY}"\n', f"\ufeff{KEY}"]


@pytest.mark.parametrize("given", AROUND, ids=repr)
def test_a_key_is_the_same_at_all_doors(given: str, write: Write) -> None:
    declared = write("providers: {p: {base_url: 'http://x', keys: ['${KEY}']}}", {"KEY": given}).file
    assert declared.providers["p"].keys[0].key.get_secret_value() == KEY
    [found] = write("{}", {"GROQ_API_KEY": given}).found.values()
    assert found.keys[0].key.get_secret_value() == KEY
    assert first_key(["GROQ_API_KEY"], {"GROQ_API_KEY": given}) == ("GROQ_API_KEY", KEY)
    assert AccountWish(provider="groq", key=SecretStr(given)).key.get_secret_value() == KEY


PLACEHOLDERS = {
    "$OPENAI_API_KEY": "OPENAI_API_KEY",
    "$openai_key": "openai_key",
    "${OPENAI_API_KEY}": "OPENAI_API_KEY",
    "${OPENAI_API_KEY-abc}": "OPENAI_API_KEY",
    "${OPENAI_API_KEY:?missing}": "OPENAI_API_KEY",
    "${A1:-${B1:-abc}}": "A1",
    "${env:OPENAI_API_KEY}": "OPENAI_API_KEY",
    "$env:OPENAI_API_KEY": "OPENAI_API_KEY",
    "os.environ/OPENAI_API_KEY": "OPENAI_API_KEY",
    "os.environ['OPENAI_API_KEY']": "OPENAI_API_KEY",
    "process.env.OPENAI_API_KEY": "OPENAI_API_KEY",
    "{{OPENAI_API_KEY}}": "OPENAI_API_KEY",
    "{{ .OPENAI_API_KEY }}": "OPENAI_API_KEY",
    "${{ secrets.OPENAI_API_KEY }}": "OPENAI_API_KEY",
    "%OPENAI_API_KEY%": "OPENAI_API_KEY",
    "{env:OPENAI_API_KEY}": "OPENAI_API_KEY",
}


@pytest.mark.parametrize("given", PLACEHOLDERS)
def test_a_placeholder_is_no_key_at_any_door(given: str, write: Write) -> None:
    spelling = f"write ${{{PLACEHOLDERS[given]}}}"
    assert spelling in str(credentials.problem(given))
    quoted = given.replace("${", "$${").replace("'", "''")  # so that it reaches the key as it stands
    with pytest.raises(ConfigError) as caught:
        write(f"providers: {{p: {{base_url: 'http://x', keys: ['{quoted}']}}}}")
    assert spelling in str(caught.value)
    settings = write("{}", {"GROQ_API_KEY": given})
    assert not settings.found and spelling in settings.tree.warnings[0] and "GROQ_API_KEY" in settings.tree.warnings[0]
    with pytest.raises(ValidationError, match="placeholder"):
        AccountWish(provider="groq", key=SecretStr(given))


@pytest.mark.parametrize("given", ["sk-a$b", "$2b$12$abcd", "a{b}c", "50%off%", "$ecret-with-dashes", "key=value=="])
def test_a_key_may_have_any_printable_character(given: str) -> None:
    assert credentials.problem(given) is None


@pytest.mark.parametrize("value", ["two words", "", "naïve", "a\x00b", "a\nb", '"open', "$OPENAI_API_KEY"])
def test_an_error_names_the_variable_and_never_its_value(value: str, write: Write) -> None:
    environ = {"MY_VAR": value}
    with pytest.raises(ConfigError) as caught:
        write("providers: {p: {base_url: 'http://x', keys: ['${MY_VAR}']}}", environ)
    texts = [str(caught.value)]
    with pytest.raises(ConfigError) as caught:
        write("providers: {p: {base_url: 'http://x', keys: [x]}}", {"HEADGATE_PROVIDERS__P__KEYS__0": value or " "})
    texts.append(str(caught.value))
    assert "MY_VAR" in texts[0]
    assert "HEADGATE_PROVIDERS__P__KEYS__0" in texts[1]
    if len(value) > 4 and not value.startswith("$"):
        assert not any(value in text for text in texts)


def test_a_preset_whose_variable_holds_no_key_is_said(write: Write) -> None:
    with pytest.raises(ConfigError, match="GROQ_API_KEY must be printable"):
        write("providers: {groq: }", {"GROQ_API_KEY": "two words"})
