"""The configuration file: what it may say, what is refused and with which sentence."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from headgate.model import FREE, Account, Alias, Price, Spend, TargetRef, Timeouts
from headgate.policy.auth import digest
from headgate.process.boot import MasterKey
from headgate.settings import ConfigError, File, Settings, compile, data_settings, fixed, load, masked, needs_restart
from headgate.settings.file import find
from tests.paths import ROOT

PROVIDER = "providers: {up-a: {base_url: 'http://127.0.0.1:9000/v1/', keys: [sk-1], models: {big: , org/small: }}}\n"
PROMPT = "prompts: [{name: p, versions: [{version: 1, messages: [{role: user, content: x}]}], "
TOKEN = "tokens: [{name: a, secret: 0123456789abcdef, "
KEY = b"k" * 32


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(
        text: str, environ: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None
    ) -> Settings:
        path = tmp_path / "headgate.yaml"
        path.write_text(text)
        return load(str(path), {"HOME": str(tmp_path), **(environ or {})}, overrides)

    return make


def problems(write: Any, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        write(text, environ)
    assert isinstance(caught.value, ValueError)
    return caught.value.problems


def test_no_file_means_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(None, {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "xdg")})
    assert settings.path is None
    assert settings.state_dir == tmp_path / "xdg" / "headgate"
    assert settings.database == f"sqlite+aiosqlite:///{tmp_path}/xdg/headgate/headgate.db"
    assert settings.data_url == "http://127.0.0.1:4000"
    compiled = compile(settings, KEY, "http://127.0.0.1:1/v1")
    assert list(compiled.world.providers) == ["builtin"]
    builtin = compiled.world.providers["builtin"]
    assert (builtin.auth, builtin.accounts, builtin.models, builtin.price) == ("none", (), None, FREE)
    assert (builtin.origin, builtin.base_url) == ("builtin", "http://127.0.0.1:1/v1")
    assert compiled.world.aliases["auto"].targets == ()
    assert (compiled.tokens, compiled.secrets) == ({}, {})


def test_a_full_file_compiles(write: Any, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    settings = write(
        """
server: {host: 0.0.0.0, port: 4100, max_body_mb: 1.5, max_head_kb: 16, drain_s: 7, keep_alive_s: 3,
         cors_origins: ['https://app.example.com'], public_catalog: false}
control: {host: "::1", port: 4101}
state_dir: ~/here
default_model: headgate/chat
defaults: {timeouts: {connect: 1, stall: 9}}
providers:
  up-a:
    base_url: https://up.example.com/v1/
    keys: [sk-1, {key: "${K2}", label: team}]
    ca_file: ca.pem
    max_connections: 12
    pool: {idle_s: 5}
    headers: {X-Team: "${TEAM:-blue}"}
    forward_headers: [OpenAI-Organization]
    training: never
    models:
      big:
        upstream_model: big-2026
        canonical: meta/big
        context_window: 32000
        max_output: 8192
        capabilities: [tools, vision]
        price: {input: 1.0, output: 0.1, cached_input: 0.000000001}
        timeouts: {first_token: 120}
      org/small:
  local: {base_url: "http://127.0.0.1:8080/v1", auth: none, models: {llama: {price: {input: 0}}}}
  keyless: {base_url: "http://127.0.0.1:8081/v1", models: {m: }}
aliases:
  headgate/chat: {use_case: chat, targets: [up-a/org/small, {target: builtin/echo}], timeouts: {first_token: 10}}
tokens:
  - {name: ci, secret: hg_test_0123456789abcdef, scopes: [gate:chat], models: [headgate/chat], expires: 2030-01-01}
""",
        {"K2": "sk-two"},
    )
    assert settings.state_dir == Path("~/here").expanduser()
    assert settings.data_url == "http://127.0.0.1:4100"
    told = data_settings(settings, "w0")
    assert (told.limits.max_body, told.limits.max_head, told.limits.drain) == (3 << 19, 16 << 10, 7)
    assert (told.cors_origins, told.public_catalog, told.worker) == (("https://app.example.com",), False, "w0")

    compiled = compile(settings, KEY, "http://127.0.0.1:1/v1")
    world = compiled.world
    up = world.providers["up-a"]
    assert [(account.id, account.label) for account in up.accounts] == [("up-a/0", None), ("up-a/team", "team")]
    assert compiled.secrets == {"up-a/0": "sk-1", "up-a/team": "sk-two", "up-a/header:x-team": "blue"}
    assert (up.base_url, up.ca_file) == ("https://up.example.com/v1", str(tmp_path / "ca.pem"))
    assert (up.pool.max_connections, up.pool.idle_s, up.pool.max_age_s) == (12, 5, 600)
    assert (up.headers, up.forward_headers, up.training) == ({"X-Team": ""}, ("openai-organization",), "never")
    assert up.models is not None
    big = up.models["big"]
    assert big.price == Price(10**9, 10**8, 1, None, source="file")
    assert (big.upstream_model, big.canonical, big.context_window) == ("big-2026", "meta/big", 32000)
    assert (big.timeouts, up.models["org/small"].price) == ({"first_token": 120.0}, Price())
    alias = world.aliases["headgate/chat"]
    assert alias.targets == (TargetRef("up-a/org/small"), TargetRef("builtin/echo"))
    assert (alias.timeouts, world.default_model) == ({"first_token": 10.0}, "headgate/chat")
    # The first model of every provider that can be used; never the built-in one, never one without its key.
    # the one whose price is known; an unknown price is not a free one
    assert world.aliases["auto"].targets == (TargetRef("up-a/big"),)
    assert (world.timeouts.connect, world.timeouts.stall, world.timeouts.total) == (1, 9, 600)
    grant = compiled.tokens[digest(KEY, b"hg_test_0123456789abcdef")]
    assert (grant.id, grant.scopes, grant.models) == ("file-ci", ("gate:chat",), ("headgate/chat",))
    assert (grant.expires, grant.origin) == (1893456000.0, "file")
    shown = str(masked(settings)) + repr(settings) + repr(compiled)
    assert not any(secret in shown for secret in ("sk-1", "sk-two", "hg_test"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {prot: 1}", "server.prot: unknown key; did you mean port? (headgate.yaml, line 1)"),
        ("\nsevrer: {}", "sevrer: unknown key; did you mean server? (headgate.yaml, line 2)"),
        ("server: {port: 70000}", "server.port: must be at most 65535 (headgate.yaml, line 1)"),
        ("server: {port: x}", "server.port: must be a whole number"),
        ("server: {drain_s: .inf}", "server.drain_s: must be"),
        ("server: [1]", "server: must be a table: its keys on lines of their own, or {key: value} (headgate.yaml, line 1)"),
        ("aliases: {a/b: {drain: }}", "aliases.a/b.drain: must be a table"),
        ("aliases: {a/b: {resumable_s: true}}", "aliases.a/b.resumable_s: must be a number (headgate.yaml, line 1)"),
        ("aliases: {a/b: {early_commit_s: yes}}", "aliases.a/b.early_commit_s: must be a number"),
        ("replay: {max_mb: on}", "replay.max_mb: must be a number"),
        ("server: {host: 'http://x'}", "server.host: must be a host name"),
        ("server: {cors_origins: [x]}", "server.cors_origins: 'x' is not an origin"),
        ("server: {workers: 1}", "server.workers: not supported in this version (it comes with step 9); remove the key"),
        ("hosters: {}", "hosters: not supported in this version (it comes with step 8)"),
        ("detect: {engines: true}", "detect.engines: unknown key"),
        ("unpriced: maybe", "unpriced: must be 'allow' or 'refuse'"),
        ("control: {port: 4000}", "control.port: is the data plane's port too (4000)"),
        ("database: postgresql://secret@x", "database: names no database: postgresql://USER@HOST/NAME"),
        ("database: /tmp/x", "database: must be sqlite:///PATH"),
        ("admin_token: short", "admin_token: is too short to be a secret: at least 16"),
        ("providers: {Up: {base_url: 'http://x'}}", "providers.Up: a provider's name may have a-z, 0-9 and - only"),
        (f"providers: {{{'a' * 65}: {{base_url: 'http://x'}}}}", "a-z, 0-9 and - only, at most 64 of them"),
        ("providers: {builtin: {base_url: 'http://x'}}", "providers.builtin: the name builtin is reserved"),
        ("providers: {p: {}}", "providers.p.base_url: is missing"),
        ("providers: {p: {base_url: 'ftp://x'}}", "providers.p.base_url: must be http://"),
        ("providers: {p: {base_url: 'http://u:p@x'}}", "providers.p.base_url: must be http://"),
        (
            "providers: {p: {base_url: 'http://x', quirks: [max_token]}}",
            "providers.p.quirks: there is no quirk 'max_token'; did you mean max_tokens?",
        ),
        ("providers: {p: {preset: grok}}", "providers.p.preset: there is no preset 'grok'; did you mean groq?"),
        ("providers: {p: }", "providers.p.base_url: is missing; write it, or preset:"),
        ("providers: {headgate: {base_url: 'http://x'}}", "providers.headgate: the name headgate is reserved"),
        (
            "providers: {azure: {keys: [k]}}",
            "providers.azure.base_url: preset azure needs to know AZURE_RESOURCE_NAME: set the environment variable, "
            "or write base_url: https://<AZURE_RESOURCE_NAME>.openai.azure.com/openai/v1",
        ),
        ("providers: {p: {base_url: 'http://x', dialect: cohere}}", "providers.p.dialect: must be 'openai_chat'"),
        ("providers: {p: {base_url: 'http://x', auth: none, keys: [a]}}", "providers.p.keys: auth is none"),
        ("providers: {p: {base_url: 'http://x', keys: ['a b']}}", "providers.p.keys.0.key: must be printable ASCII"),
        ("providers: {p: {base_url: 'http://x', keys: ['']}}", "providers.p.keys.0.key: is empty"),
        (
            "providers: {p: {base_url: 'http://x', keys: [{key: a, label: '1'}, b]}}",
            "providers.p.keys.1: two keys would both be called p/1",
        ),
        (
            "providers: {p: {base_url: 'http://x', keys: [{key: a, priority: 2000}]}}",
            "providers.p.keys.0.priority: must be at most 1000",
        ),
        ("providers: {p: {base_url: 'http://x', ca_file: no.pem}}", "providers.p.ca_file: no.pem does not exist"),
        ("providers: {p: {base_url: 'http://x', headers: {Host: x}}}", "providers.p.headers: 'Host' cannot be set here"),
        *(
            (f"providers: {{p: {{base_url: 'http://x', headers: {{{name}: x}}}}}}", f"headers: '{name}' cannot be set")
            for name in ("content-type", "Accept", "Accept-Encoding")
        ),
        ("providers: {p: {base_url: 'http://x', headers: {X-A: a, x-a: b}}}", "headers: 'x-a' is there twice"),
        ("providers: {p: {base_url: 'http://x', headers: {a: \"b\\r\\nc: d\"}}}", "providers.p.headers: the value of 'a'"),
        (
            "providers: {p: {base_url: 'http://x', forward_headers: [Authorization]}}",
            "providers.p.forward_headers: 'Authorization' cannot be set here: the gateway sets it",
        ),
        (
            "providers:\n  p:\n    base_url: http://x\n    models:\n      m:\n        price: {inputt: 1}",
            "providers.p.models.m.price.inputt: unknown key; did you mean input? (headgate.yaml, line 6)",
        ),
        (
            "providers: {p: {base_url: 'http://x', models: {m: {price: {input: -1}}}}}",
            "providers.p.models.m.price.input: must not be negative",
        ),
        (
            "providers: {p: {base_url: 'http://x', models: {m: {price: {input: 0.0000000001}}}}}",
            "providers.p.models.m.price.input: has more than nine decimals",
        ),
        (PROVIDER + "aliases: {a: {targets: [up-b/big]}}", "aliases.a.targets.0: 'up-b/big' names no provider of this file; did you mean up-a?"),
        (PROVIDER + "aliases: {a: {targets: [up-a/bgi]}}", "provider up-a declares no model 'bgi'; did you mean big?"),
        (PROVIDER + "aliases: {a: {targets: [big]}}", "'big' must be written provider/model; did you mean up-a/big?"),
        (PROVIDER + "aliases: {big: {targets: []}}", "aliases.big: is also the id of a model of provider up-a"),
        ("aliases: {a: {targets: []}}", "aliases.a.targets: names no target"),
        ("aliases: {a: {}}", "aliases.a: names no target; name one (provider/model), or remove the alias"),
        ("aliases: {headgate/chat: {strategy: fastest}}", "aliases.headgate/chat: names no target"),
        (PROVIDER + "aliases: {org/small: {}}", "aliases.org/small: is also the id of a model"),
        (PROVIDER + "aliases: {up-a/big: {}}", "aliases.up-a/big: also names a model of provider up-a"),
        ("aliases: {builtin/echo: {}}", "aliases.builtin/echo: also names a model of provider builtin"),
        ("aliases: {a: {cache: {ttl_s: 59}}}", "aliases.a.cache.ttl_s: must be at least 60"),
        ("aliases: {a: {queue: {size: -1}}}", "aliases.a.queue.size: must not be negative"),
        ("aliases: {a: {queue: {wait: 1}}}", "aliases.a.queue.wait: unknown key; did you mean wait_s?"),
        ("aliases: {a: {strategy: random}}", "aliases.a.strategy: must be 'priority', 'weighted', 'cheapest', 'fastest' or 'balanced'"),
        ("aliases: {a: {targets: [{target: builtin/echo, weight: 0}]}}", "aliases.a.targets.0.weight: must be at least 1"),
        ("aliases: {a: {retries: 3}}", "aliases.a.retries: must be at most 2"),
        ("defaults: {retries: -1}", "defaults.retries: must not be negative"),
        ("aliases: {a: {on_midstream_failure: retry}}", "aliases.a.on_midstream_failure: must be 'continue' or 'error'"),
        ("aliases: {a: {on_disconnect: stay}}", "aliases.a.on_disconnect: must be 'cancel', 'drain' or 'detach'"),
        ("aliases: {a: {drain: {max_s: 0}}}", "aliases.a.drain.max_s: must be more than 0"),
        ("aliases: {a: {drain: {max_tokens: 0}}}", "aliases.a.drain.max_tokens: must be at least 1"),
        ("aliases: {a: {drain: {tokens: 1}}}", "aliases.a.drain.tokens: unknown key; did you mean max_tokens?"),
        ("aliases: {a: {resumable_s: 3601}}", "aliases.a.resumable_s: must be at most 3600"),
        ("aliases: {a: {early_commit_s: 0}}", "aliases.a.early_commit_s: must be more than 0"),
        ("aliases: {a: {tool_calls: buffer}}", "aliases.a.tool_calls: must be 'stream' or 'hold'"),
        ("aliases: {a: {structured: hold}}", "aliases.a.structured: must be 'error' or 'buffer'"),
        ("aliases: {a: {affinity: user}}", "aliases.a.affinity: must be 'none', 'prompt_cache' or 'session'"),
        ("aliases: {a: {privacy: mine}}", "aliases.a.privacy: must be 'any', 'no_train', 'trusted' or 'own'"),
        ("replay: {max_mb: 0}", "replay.max_mb: must be more than 0"),
        ("replay: {per_stream_kb: 1}", "replay.per_stream_kb: must be at least 16"),
        ("replay: {ttl_s: 0}", "replay.ttl_s: must be at least 1"),
        ("replay: {per_stream_kb: 2048, max_mb: 1}", "replay.per_stream_kb: one stream may take more (2048 KB) than all of them together (1 MB)"),
        ("server: {public_url: gate.example.com}", "server.public_url: must be http://"),
        (
            "providers: {p: {base_url: 'http://x', models: {m: {prefill: suffix}}}}",
            "providers.p.models.m.prefill: must be 'none', 'trailing', 'continue_final_message' or 'prefix'",
        ),
        (
            "providers: {p: {base_url: 'http://x', models: {m: {params: {default: {model: x}}}}}}",
            "providers.p.models.m.params.default: 'model' is the gateway's own to set",
        ),
        (
            "providers: {p: {base_url: 'http://x', models: {m: {params: {drop: [stream]}}}}}",
            "providers.p.models.m.params.drop: 'stream' is the gateway's own to set",
        ),
        (
            "providers: {p: {base_url: 'http://x', models: {m: {params: {map: {max_tokens: messages}}}}}}",
            "providers.p.models.m.params.map: 'messages' is the gateway's own to set",
        ),
        (PROVIDER + "default_model: up-a/bif", "default_model: 'up-a/bif' is no alias and no model of this file; did you"),
        ("tokens: [{name: a, secret: short}]", "tokens.0.secret: is too short"),
        ("tokens: [{name: a}]", "tokens.0.secret: is missing"),
        (TOKEN + "tier: fastest}]", "tokens.0.tier: must be 'slow', 'medium', 'fast' or 'ludicrous'"),
        (TOKEN + "limits: {rpn: 5}}]", "tokens.0.limits.rpn: unknown key; did you mean rpm?"),
        (TOKEN + "limits: {rpm: 0}}]", "tokens.0.limits.rpm: must be at least 1"),
        (TOKEN + "budget: {usd: 5, zone: Europe/Berlim}}]", "there is no time zone 'Europe/Berlim'; did you mean Europe/Berlin?"),
        (TOKEN + "budget: {usd: 0.0000000001}}]", "tokens.0.budget.usd: has more than nine decimals"),
        (TOKEN + "budget: {usd: 5, period: week}}]", "tokens.0.budget.period: must be"),
        (TOKEN + "over_budget: cheaper}]", "tokens.0.over_budget: must be refuse, or {alias: NAME}"),
        (TOKEN + "over_budget: {alias: cheaper}}]", "tokens.0.over_budget.alias: 'cheaper' is no alias and no model"),
        (TOKEN + "tenant: acme}]", "tokens.0.tenant: there is no tenant acme; declare it under tenants:"),
        ("tenants: {acme: {bugdet: {usd: 1}}}", "tenants.acme.bugdet: unknown key; did you mean budget?"),
        ("budgets: [{match: {}, usd: 5}]", "budgets.0: `match` is empty"),
        ("budgets: [{match: {model: m}}]", "budgets.0: limits nothing"),
        ("budgets: [{match: {user: u}, usd: 1}, {match: {user: u}, usd: 2}]", "budgets.1: two budgets are called user:u"),
        (PROMPT + "tenant: acme}]", "prompts.0.tenant: there is no tenant acme; declare it under tenants:"),
        (PROMPT + "labels: {production: 2}}]", "prompts.0: the label production names version 2, which is not there"),
        (PROMPT + "labels: {latest: 1}}]", "latest always means the highest version"),
        (PROMPT[:-2] + f"}}, {PROMPT.partition('[')[2][:-2]}}}]", "prompts.1.name: two prompts are called p"),
        ("prompts: [{name: p, versions: [{version: 1, messages: [{role: user, content: '{{a}}'}]}]}]", "{{a}} is not among its variables"),
        (PROVIDER + "aliases: {'client:acme/x': {targets: [up-a/big]}}", "names no tenant; add the tenant first"),
        (
            PROVIDER + f"tenants: {{acme: {{}}}}\naliases: {{'client:acme/x': {{targets: [{', '.join(['up-a/big'] * 17)}]}}}}",
            "has 17 targets; a tenant's alias has at most 16",
        ),
        ("tokens: [{name: a, secret: 0123456789abcdef, expires: soon}]", "tokens.0.expires: must be a date"),
        ("tokens: [{name: a, secret: x123456789abcdef, scopes: [all]}]", "tokens.0.scopes.0: must be"),
        ("a: 1\na: 2", "a: stands twice (line 2)"),
        ("a: &x [*x]", "a.0: refers to itself"),
        ("a: [", "headgate.yaml, line 2, column 1: not YAML"),
        ("- 1", "headgate.yaml: the top level must be keys and values"),
        ("a: \x01", "headgate.yaml: not YAML"),
        ("default_model: ${NOT_THERE}", "default_model: the environment variable NOT_THERE is not set"),
    ],
)  # fmt: skip
def test_refusals(write: Any, text: str, expected: str) -> None:
    found = problems(write, text)
    assert any(expected in problem for problem in found), found


STEP_4 = """
server: {public_url: https://gate.example.com/}
defaults: {retries: 1}
replay: {max_mb: 32, per_stream_kb: 64, ttl_s: 30}
providers:
  up-a:
    base_url: http://127.0.0.1:9000/v1
    auth: none
    models:
      big:
        prefill: true
        params: {default: {temperature: 0.2, stop: [a, b]}, drop: [user], map: {max_tokens: max_completion_tokens}}
      small: {prefill: continue_final_message}
      none: {prefill: false}
  vllm: {models: {c: , d: {prefill: none}}}
aliases:
  a:
    targets: [up-a/big, {target: up-a/small, weight: 3}]
    strategy: weighted
    retries: 0
    on_midstream_failure: error
    on_disconnect: drain
    drain: {max_s: 10, max_tokens: 100}
    resumable_s: 60
    early_commit_s: 2.5
    tool_calls: hold
    structured: buffer
    affinity: session
    privacy: no_train
  b: {targets: [up-a/big]}
"""


def test_the_keys_of_routing_continuation_and_resumption_compile(write: Any) -> None:
    settings = write(STEP_4)
    told = data_settings(settings, "w0")
    assert told.public_url == "https://gate.example.com"
    assert (told.limits.replay_max, told.limits.replay_per_stream, told.limits.replay_ttl) == (32 << 20, 64 << 10, 30)
    world = compile(settings, KEY, "").world
    assert world.retries == 1
    models = world.providers["up-a"].models
    assert models is not None
    assert [models[name].prefill for name in ("big", "small", "none")] == [
        "trailing", "continue_final_message", "none",
    ]  # fmt: skip
    vllm = world.providers["vllm"]
    assert vllm.prefill == "continue_final_message" and vllm.models is not None
    assert [vllm.models[name].prefill for name in ("c", "d")] == [None, "none"]
    big = models["big"]
    assert {name: bytes(value) for name, value in big.param_defaults.items()} == {
        "temperature": b"0.2", "stop": b'["a","b"]',
    }  # fmt: skip
    assert (big.param_drop, big.param_map) == (("user",), {"max_tokens": "max_completion_tokens"})
    assert world.aliases["a"] == Alias(
        "a", (TargetRef("up-a/big"), TargetRef("up-a/small", 3)), retries=0, strategy="weighted",
        on_midstream_failure="error", on_disconnect="drain", drain_s=10, drain_tokens=100, resumable_s=60,
        early_commit_s=2.5, tool_calls="hold", structured="buffer", affinity="session", privacy="no_train",
    )  # fmt: skip
    assert world.aliases["b"] == Alias("b", (TargetRef("up-a/big"),))


def test_what_replay_may_keep_is_told_at_birth(write: Any) -> None:
    assert needs_restart(fixed(write("")), write("replay: {ttl_s: 30}")) == ("replay.ttl_s",)


def test_every_problem_of_a_kind_is_named_at_once(write: Any) -> None:
    assert len(problems(write, "server: {prot: 1}\nbrand: x\nfoo: 1\n")) == 3


def test_a_secret_is_never_quoted(write: Any) -> None:
    found = problems(write, "admin_token: [do-not-show-me]\ntokens: [{name: a, secret: s3cr3t}]\n")
    assert not any("do-not-show-me" in problem or "s3cr3t" in problem for problem in found)


def test_environment_overrides_scalars(write: Any) -> None:
    environ = {
        "HEADGATE_SERVER__PORT": "4200",
        "HEADGATE_SERVER__PUBLIC_CATALOG": "false",
        "HEADGATE_PROVIDERS__UP_A__BASE_URL": "http://other/v1",
        "HEADGATE_PROVIDERS__UP_A__MODELS__ORG_SMALL__CONTEXT_WINDOW": "10",
        "HEADGATE_DEFAULT_MODEL": "big",
        "HEADGATE_DATABASE": "",  # as Compose writes what is not set
        "HEADGATE_PORT": "tcp://10.0.0.1:4000",  # as Kubernetes writes for a service of that name
        "HEADGATE_SERVICE_HOST": "10.0.0.1",
    }
    settings = write(PROVIDER, environ, {"server.host": "0.0.0.0"})
    server = settings.file.server
    assert (server.port, server.public_catalog, server.host) == (4200, False, "0.0.0.0")
    row = settings.file.providers["up-a"]
    assert row.base_url == "http://other/v1" and row.models["org/small"].context_window == 10
    assert settings.file.default_model == "big" and settings.database.startswith("sqlite")


def test_the_command_line_beats_the_environment(write: Any) -> None:
    assert write("", {"HEADGATE_SERVER__PORT": "4200"}, {"server.port": "4300"}).file.server.port == 4300


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HEADGATE_SERVER__PROT", "1", "server.prot: unknown key; did you mean port? (HEADGATE_SERVER__PROT)"),
        ("HEADGATE_SERVER__PORT", "x", "(HEADGATE_SERVER__PORT)"),
        ("HEADGATE_PROVIDERS__UP_A__KEYS", "x", "HEADGATE_PROVIDERS__UP_A__KEYS: providers.up-a.keys is not a plain value"),
        ("HEADGATE_PROVIDERS__UP_A__KEYS__7", "x", "names no entry of the file's list"),
        ("HEADGATE_PROVIDERS__UP_A__BASE_URL__X", "x", "is below a plain value"),
    ],
)  # fmt: skip
def test_wrong_overrides_name_their_variable(write: Any, name: str, value: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(write, PROVIDER, {name: value}))


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("a-${A}-${B:-c}", {"A": "x"}, "a-x-c"),
        ("${A:-d}", {"A": ""}, "d"),
        ("$${A}", {}, "${A}"),
        ("${A:-http://h/p}", {}, "http://h/p"),
        ("$A {A}", {}, "$A {A}"),
    ],
)
def test_substitution(write: Any, text: str, environ: dict[str, str], expected: str) -> None:
    row = f"aliases: {{a: {{targets: [builtin/echo], use_case: '{text}'}}}}"
    assert write(row, environ).file.aliases["a"].use_case == expected


def test_substituted_numbers_are_numbers(write: Any) -> None:
    assert write("server: {port: '${P:-4005}'}").file.server.port == 4005


def test_json_is_yaml_and_empty_is_fine(write: Any) -> None:
    assert write('{"server": {"port": 4010}}').file.server.port == 4010
    assert write("").file.server.port == 4000
    assert write("# nothing\nproviders:\nserver:\ntokens:\n").file.providers == {}


def test_anchors_and_merges(write: Any) -> None:
    settings = write("providers:\n  a: &a {base_url: 'http://a', keys: [k]}\n  b: {<<: *a, base_url: 'http://b'}\n")
    assert settings.file.providers["b"].base_url == "http://b" and len(settings.file.providers["b"].keys) == 1


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, named = tmp_path / "headgate.yaml", tmp_path / "named.yaml"
    user = tmp_path / "config" / "headgate" / "headgate.yaml"
    monkeypatch.chdir(tmp_path)
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert find(None, environ) is None
    user.parent.mkdir(parents=True)
    user.write_text("")
    assert find(None, environ) == user
    here.write_text("")
    assert find(None, environ) == here
    named.write_text("")
    assert find(None, {**environ, "HEADGATE_CONFIG": str(named)}) == named
    assert find(str(user), {**environ, "HEADGATE_CONFIG": str(named)}) == user
    with pytest.raises(ConfigError, match="--config: there is no file"):
        find("absent.yaml", environ)
    with pytest.raises(ConfigError, match="HEADGATE_CONFIG: there is no file"):
        find(None, {"HEADGATE_CONFIG": "absent.yaml"})


def test_unreadable_file_is_a_problem_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: not YAML"):
        load(str(path), os.environ)


def test_needs_restart(write: Any) -> None:
    old = fixed(write(""))
    new = write("server: {port: 4050, drain_s: 3}\ncontrol: {port: 4051}\ndefault_model: builtin/echo\n")
    assert needs_restart(old, new) == ("server.port", "server.drain_s", "control.port")
    assert needs_restart(old, write("state_dir: ~/x")) == ("state_dir",)
    assert needs_restart(old, write("database: sqlite:///x.db")) == ("database",)
    assert needs_restart(old, write("admin_token: 0123456789abcdefg")) == ("admin_token",)
    assert needs_restart(old, write(PROVIDER)) == ()
    assert "0123456789abcdefg" not in repr(fixed(write("admin_token: 0123456789abcdefg")))
    assert needs_restart(old, write(f"master_key: {'ab' * 32}")) == ("master_key",)
    assert needs_restart(old, write("control: {public_url: https://gate.example.com}")) == ("control.public_url",)


def test_the_master_key(write: Any, tmp_path: Path) -> None:
    assert write("").master_key == MasterKey()
    assert write(f"master_key: {'ab' * 32}").master_key == MasterKey("ab" * 32)
    assert write("", {"HEADGATE_MASTER_KEY": "cd" * 32}).master_key == MasterKey("cd" * 32)
    assert "ab" * 32 not in repr(write(f"master_key: {'ab' * 32}")) + str(masked(write(f"master_key: {'ab' * 32}")))
    key = tmp_path / "master"
    key.write_bytes(b"k" * 32)
    assert write("", {"HEADGATE_MASTER_KEY_FILE": str(key)}).master_key == MasterKey(file=str(key))
    for text, words in (
        ("master_key: too-short", "master_key: must be 32 random bytes"),
        ("master_key_file: /nowhere/at/all", "master_key_file: /nowhere/at/all cannot be read"),
        (f"master_key: {'ab' * 32}\nmaster_key_file: {key}", "master_key_file: master_key is set too"),
    ):
        with pytest.raises(ConfigError, match=words):
            write(text)


def test_the_terms_of_an_account_compile(write: Any) -> None:
    terms = "owner: acme, share: true, minute_limit: 3, daily_limit: 9, expires: 2099-01-31"
    key = f"{{key: sk-1, label: a, {terms}, spend_limit: {{usd: 2.5, period: day, action: warn}}}}"
    provider = compile(write(f"providers: {{p: {{base_url: 'http://x', keys: [{key}]}}}}"), KEY, "").world.providers[
        "p"
    ]
    spend = Spend(2_500_000_000, "day", "warn")
    assert provider.accounts == (Account("p/a", "a", 0, False, "acme", True, 3, 9, 4_073_500_800.0, spend),)


@given(st.decimals(min_value=0, max_value=1_000_000, places=9))
def test_prices_are_exact(tmp_path_factory: pytest.TempPathFactory, usd: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "price.yaml"
    path.write_text(f"providers: {{p: {{base_url: 'http://x', models: {{m: {{price: {{input: '{usd}'}}}}}}}}}}")
    models = compile(load(str(path), {"HOME": "/"}), KEY, "").world.providers["p"].models
    assert models is not None and models["m"].price.input == int(usd * 10**9)


def test_plain_decimal_prices_are_their_digits(write: Any) -> None:
    for text, nano in (("0.1", 10**8), ("0.000001", 1000), ("2.675", 2_675_000_000), ("15", 15 * 10**9)):
        settings = write(f"providers: {{p: {{base_url: 'http://x', models: {{m: {{price: {{input: {text}}}}}}}}}}}")
        models = compile(settings, KEY, "").world.providers["p"].models
        assert models is not None and models["m"].price.input == nano


DOCS = ROOT


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md"])
def test_documented_files_hold(write: Any, page: str) -> None:
    blocks = (DOCS / page).read_text().split("```yaml\n")[1:]
    assert blocks
    for block in blocks:
        write(block.split("```")[0], {"OPENAI_API_KEY": "sk-x", "GROQ_API_KEY": "sk-y"})


def test_every_key_is_documented() -> None:
    documented = (DOCS / "docs/configuration.md").read_text().split("```yaml\n")[1].split("```")[0]

    def keys(schema: dict[str, Any]) -> set[str]:
        return set(schema.get("properties", ())) | {
            key for part in schema.get("$defs", {}).values() for key in keys(part)
        }

    missing = {key for key in keys(File.model_json_schema()) if f"{key}:" not in documented} - {"target"}
    assert not missing


def test_documented_defaults_are_the_defaults(write: Any) -> None:
    documented = (DOCS / "docs/configuration.md").read_text().split("```yaml\n")[1].split("```")[0]
    shown, plain = write(documented).file, write("").file
    for table in ("server", "control", "state_dir", "database", "admin_token", "default_model", "replay"):
        assert getattr(shown, table) == getattr(plain, table)
    assert compile(write(documented), KEY, "").world.timeouts == Timeouts()
