"""Presets, keys in the environment, detection's switches, and where a value comes from."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headgate.catalog.presets import BadRow, rows
from headgate.control.snapshot.compose import compose
from headgate.model import Account, DataBoot, TargetRef
from headgate.process.boot import ControlBoot, receive, send
from headgate.settings import ConfigError, Settings, compile, data_settings, explained, load, masked

KEY = b"k" * 32


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(text: str, environ: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None) -> Any:
        path = tmp_path / "headgate.yaml"
        path.write_text(text)
        return load(str(path), {"HOME": str(tmp_path), **(environ or {})}, overrides)

    return make


def compiled(settings: Settings) -> Any:
    return compile(settings, KEY, "http://127.0.0.1:1/v1")


def whence(settings: Settings) -> dict[str, str]:
    return {origin.key: origin.whence for origin in explained(settings)}


def test_a_provider_without_anything_is_its_preset(write: Any) -> None:
    made = compiled(write("providers: {groq: , mistral: {keys: [k], training: never}}", {"GROQ_API_KEY": "gsk-1"}))
    groq, mistral = made.world.providers["groq"], made.world.providers["mistral"]
    assert (groq.base_url, groq.preset, groq.title, groq.origin) == (
        "https://api.groq.com/openai/v1", "groq", "Groq", "file",
    )  # fmt: skip
    assert groq.accounts == (Account("groq/GROQ_API_KEY", "GROQ_API_KEY"),)
    assert made.secrets == {"groq/GROQ_API_KEY": "gsk-1", "mistral/0": "k"}
    assert "max_tokens" in mistral.quirks
    assert mistral.training == "never"  # the file's, not the row's
    assert made.rows["groq"].title == "Groq"
    assert made.detect_engines


def test_everything_of_a_preset_may_be_replaced(write: Any) -> None:
    made = compiled(
        write(
            """
providers:
  mine:
    preset: openai
    base_url: https://mine.example.com/v1
    auth: x-api-key
    keys: [{key: k, label: a, priority: 7, free: true}]
    quirks: []
    headers: {X-Team: blue}
    models: {gpt-4o: {price: {input: 1}}}
"""
        )
    )
    mine = made.world.providers["mine"]
    assert (mine.base_url, mine.auth, mine.quirks) == ("https://mine.example.com/v1", "x-api-key", ())
    assert (mine.preset, mine.training, mine.headers) == ("openai", "never", {"X-Team": ""})
    assert mine.accounts == (Account("mine/a", "a", 7, True),)
    assert mine.models["gpt-4o"].price.source == "file"


def test_a_name_with_a_base_url_is_not_a_preset(write: Any) -> None:
    openai = compiled(write("providers: {openai: {base_url: 'http://127.0.0.1:9/v1'}}")).world.providers["openai"]
    assert (openai.preset, openai.quirks, openai.title) == (None, (), None)


def test_placeholders_are_filled_from_the_environment(write: Any) -> None:
    settings = write("providers: {azure: {keys: [k]}}", {"AZURE_RESOURCE_NAME": "acme"})
    azure = compiled(settings).world.providers["azure"]
    assert (azure.base_url, azure.auth) == ("https://acme.openai.azure.com/openai/v1", "api-key")
    text = "providers: {azure: {keys: [k], preset: azure, base_url: 'https://${R}.openai.azure.com/openai/v1'}}"
    written = write(text, {"R": "other"})
    assert compiled(written).world.providers["azure"].base_url == "https://other.openai.azure.com/openai/v1"


def test_keys_in_the_environment_are_providers(write: Any) -> None:
    environ = {"OPENAI_API_KEY": "sk-1", "GEMINI_API_KEY": "g", "GOOGLE_API_KEY": "g2", "AZURE_OPENAI_API_KEY": "a"}
    made = compiled(write("providers: {up: {base_url: 'http://x', models: {m: }}}", environ))
    assert list(made.world.providers) == ["up", "gemini", "openai", "builtin"]  # azure: nobody said which resource
    openai = made.world.providers["openai"]
    assert (openai.origin, openai.preset, openai.models) == ("environment", "openai", None)
    assert openai.accounts == (Account("openai/OPENAI_API_KEY", "OPENAI_API_KEY"),)
    assert made.secrets == {"openai/OPENAI_API_KEY": "sk-1", "gemini/GEMINI_API_KEY": "g"}
    assert made.world.aliases["auto"].targets[0] == TargetRef("gemini/gemini-3.5-flash")
    assert made.world.aliases["headgate/chat"].why.startswith("gemini (key in GEMINI_API_KEY): gemini-3.5-flash")
    assert "sk-1" not in repr(made)


@pytest.mark.parametrize("resource", ["a:b", "a..b", "a" * 64, "a b", "a@b"])
def test_an_odd_variable_stops_no_start(write: Any, resource: str) -> None:
    environ = {"AZURE_OPENAI_API_KEY": "k", "AZURE_RESOURCE_NAME": resource}
    assert "azure" not in compiled(write("", environ)).world.providers
    with pytest.raises(ConfigError, match="AZURE_RESOURCE_NAME"):
        write("providers: {azure: }", environ)


@pytest.mark.parametrize("text", ["detect: {environment: false}", "providers: {mine: {preset: groq, keys: [k]}}"])
def test_keys_in_the_environment_are_left_alone(write: Any, text: str) -> None:
    made = compiled(write(text, {"GROQ_API_KEY": "gsk-1"}))
    assert "groq" not in made.world.providers
    assert "gsk-1" not in made.secrets.values()


def test_a_mentioned_provider_takes_no_key_where_that_is_off(write: Any) -> None:
    made = compiled(
        write("detect: {environment: false, local_engines: false}\nproviders: {groq: }", {"GROQ_API_KEY": "k"})
    )
    assert made.world.providers["groq"].accounts == ()
    assert not made.detect_engines


def test_an_alias_may_name_what_the_environment_brings(write: Any) -> None:
    text = "aliases: {quick: {targets: [groq/m]}}"
    assert compiled(write(text, {"GROQ_API_KEY": "k"})).world.aliases["quick"].targets == (TargetRef("groq/m"),)
    with pytest.raises(ConfigError, match="names no provider of this file"):
        write(text)


def test_shipped_aliases_may_be_the_default_and_may_be_replaced(write: Any) -> None:
    assert compiled(write("default_model: headgate/fast\nunpriced: refuse")).world.unpriced == "refuse"
    text = "providers: {up: {base_url: 'http://x', keys: [k], models: {m: }}}\naliases:"
    world = compiled(write(f"{text} {{headgate/fast: {{targets: [up/m]}}, auto: {{timeouts: {{total: 5}}}}}}")).world
    assert (world.aliases["headgate/fast"].origin, world.aliases["headgate/fast"].why) == ("file", None)
    auto = world.aliases["auto"]
    assert (auto.targets, auto.timeouts, auto.origin) == ((TargetRef("up/m"),), {"total": 5.0}, "file")


def test_rows_beside_the_file_and_in_the_state_directory(write: Any, tmp_path: Path) -> None:
    for folder, name in (("providers", "near"), ("state/providers", "far")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.toml").write_text(
            f'title = "{name}"\nbase_url = "https://{name}.example.com/v1"\ndocs = "https://example.com"\n'
            f'key_env = ["{name.upper()}_KEY"]\n'
        )
    made = compiled(write(f"state_dir: {tmp_path}/state\nproviders: {{near: {{keys: [k]}}}}", {"FAR_KEY": "f"}))
    assert made.world.providers["near"].base_url == "https://near.example.com/v1"
    assert made.world.providers["far"].origin == "environment"
    (tmp_path / "providers" / "near.toml").write_text("title = 1")
    with pytest.raises(ConfigError, match=r"near\.toml: title: Expected `str`, got `int`"):
        write("")


def test_where_every_value_comes_from(write: Any) -> None:
    settings = write(
        "server:\n  port: 4100\nproviders:\n  groq:\n    training: unknown\n  up:\n    base_url: ${URL}\n"
        "    keys: [k]\n    models:\n      m: {price: {input: 1}}\n",
        {"GROQ_API_KEY": "gsk-secret", "OPENAI_API_KEY": "sk-secret", "URL": "http://x/v1",
         "HEADGATE_SERVER__DRAIN_S": "3"},
        {"control.port": "4201"},
    )  # fmt: skip
    found = whence(settings)
    assert found["server.port"] == "headgate.yaml, line 2"
    assert found["server.host"] == "default"
    assert found["server.drain_s"] == "environment variable HEADGATE_SERVER__DRAIN_S"
    assert found["control.port"] == "command line --control-port"
    assert found["providers.groq.training"] == "headgate.yaml, line 5"
    assert found["providers.groq.base_url"] == "preset groq"
    assert found["providers.groq.keys.0.key"] == "environment variable GROQ_API_KEY"
    assert found["providers.groq.max_connections"] == "default"
    assert found["providers.up.base_url"] == "headgate.yaml, line 7 (${URL})"
    assert found["providers.up.keys.0.key"] == "headgate.yaml, line 8"
    assert found["providers.up.models.m.price.input"] == "headgate.yaml, line 10"
    assert found["providers.up.models.m.price.output"] == "default"
    assert found["providers.openai.base_url"] == "preset openai"
    assert found["providers.openai.keys.0.key"] == "environment variable OPENAI_API_KEY"
    text = repr(explained(settings)) + repr(masked(settings)) + repr(settings)
    assert "secret" not in text


def test_no_file_no_origin_but_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = whence(load(None, {"HOME": str(tmp_path)}))
    assert set(found.values()) == {"default"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db.example.com/gate", "postgresql://db.example.com/gate"),
        ("postgresql://me:s3cret@db:5432/gate", "postgresql://me:**********@db:5432/gate"),
        ("postgres+asyncpg://me:s3:cret@/gate?host=/run/pg", "postgres+asyncpg://me:**********@/gate?host=/run/pg"),
        (
            "postgresql:///gate?user=me&password=s3cret&sslmode=allow",
            "postgresql:///gate?user=me&password=**********&sslmode=allow",
        ),
    ],
)
def test_postgresql_without_its_password_showing(write: Any, url: str, shown: str) -> None:
    settings = write("", {"HEADGATE_DATABASE": url})
    assert settings.database == url
    assert masked(settings)["database"] == shown
    assert "cret" not in repr(settings) + repr(explained(settings))


def test_whatever_a_row_says_reaches_the_processes(write: Any) -> None:
    """Over the boot socket, as MessagePack, to the data process and to control."""
    settings = write(
        """
providers:
  p:
    base_url: http://127.0.0.1:1/v1
    auth: none
    models:
      m:
        params: {default: {temperature: 0.2, stop: [a, b], metadata: {k: v}}, drop: [user], map: {a: b}}
        price: {input: 1, output: 2}
        timeouts: {total: 5}
        max_output: 100
aliases: {x: {targets: [p/m], on_midstream_failure: error, timeouts: {stall: 3}}}
tokens: [{name: t, secret: hg_test_0123456789abcdef}]
"""
    )
    snapshot = compose(1, compiled(settings), {})
    ours, theirs = socket.socketpair()
    data = DataBoot(data_settings(settings, "w0"), snapshot, {})
    for message in (data, ControlBoot("s", "d", "h", 1, "a", None, "u")):
        told = msgspec.structs.replace(message, declared=snapshot) if isinstance(message, ControlBoot) else message
        threading.Thread(target=send, args=(ours, told)).start()
        assert receive(theirs, type(told))[0] == told
    ours.close()
    theirs.close()


def test_words_that_yaml_or_the_environment_spell_otherwise(write: Any) -> None:
    text = "providers: {p: {base_url: 'http://127.0.0.1:1/v1', auth: none, training: yes, models: {m: {}, n: {}}}}"
    environ = {"HEADGATE_PROVIDERS__P__PREFILL": "true", "HEADGATE_PROVIDERS__P__MODELS__N__PREFILL": "false"}
    provider = compiled(write(text, environ)).world.providers["p"]
    assert (provider.training, provider.prefill, provider.models["n"].prefill) == ("yes", "trailing", "none")


@pytest.mark.parametrize("key", ["context_window", "max_output"])
def test_impossible_token_count_is_refused(write: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=f"providers.p.models.m.{key}"):
        write(f"providers: {{p: {{base_url: 'http://x', models: {{m: {{{key}: 99999999999999999999999}}}}}}}}")


def test_a_broken_row_takes_no_other_along(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(
        'base_url = "http://127.0.0.1:1/v1"\ntitle = "Acme"\ndocs = "https://acme.example/keys"\n'
    )
    (tmp_path / "bad.toml").write_text("bogus = 1")
    with pytest.raises(BadRow):
        rows([tmp_path])
    assert {"acme", "openai"} <= rows([tmp_path], lenient=True).keys()
