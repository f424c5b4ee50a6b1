"""Requests that name a saved prompt, over real sockets: what providers are asked, and what is refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from headgate.model import (
    Alias,
    Grant,
    HookSettings,
    ModelRow,
    Opened,
    PromptVersion,
    Provider,
    SavedPrompt,
    Snapshot,
    TargetRef,
    TemplateMessage,
)
from headgate.policy.auth import digest
from headgate.testing.provider.scripted import Script, ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane, post
from tests.hooks.installed import HookedPlane
from tests.serving.apis import APIS, CHAT, MESSAGES, RESPONSES
from tests.serving.calls import Answer, opened, whole_stream
from tests.serving.calls import scripted_in_thread as running
from tests.serving.test_api_pairs import CLOSES, answers, asked, cut, read, refuses
from tests.serving.test_failed_attempts import KEY

ACME_TOKEN = "hg_test_acme_0123456789abcdef0123456789"
HI = {"role": "user", "content": "Hi"}
PROVIDERS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}
SECRET = "sk-proj-abcdefghijklmnopqrstuvwx12345"


def version(number: int, *messages: tuple[str, str], **variables: str | None) -> PromptVersion:
    return PromptVersion(number, tuple(TemplateMessage.of(*message) for message in messages), variables)


SUPPORT = SavedPrompt(
    "support",
    (
        version(1, ("system", "Help users of {{product}}."), product=None),
        version(2, ("system", "Help users of {{product}}, {{tone}}."), ("user", "Q"), ("assistant", "A"),
                product=None, tone="kindly"),
    ),
    labels={"production": 1},
)  # fmt: skip
OWN = SavedPrompt("own", (version(1, ("system", "acme's")),), tenant="acme")
LONG = SavedPrompt("long", (version(1, ("system", "word " * 4000)),))
PROMPTS = {one.key: one for one in (SUPPORT, OWN, LONG)}
SHOTS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


class Gate(NamedTuple):
    plane: DataPlane
    upstreams: dict[str, ScriptedUpstream]

    def last(self, name: str) -> dict[str, Any]:
        """The newest request that this provider got."""
        return asked(self.upstreams[name])[-1]

    def tags(self) -> dict[str, str] | None:
        """Of the newest admitted call."""
        return self.admitted()[-1].tags  # type: ignore[return-value]

    def admitted(self) -> list[Opened]:
        return [record for record in self.plane.records() if isinstance(record, Opened) and record.provider]


@contextlib.contextmanager
def gate_of(state: Path, hooks: tuple[HookSettings, ...] = (), **scripts: tuple[str, list[Script]]) -> Iterator[Gate]:
    """Providers by name, each with a model ``m``; the alias ``both`` leads to ``cut`` and then to ``rest``."""
    with contextlib.ExitStack() as stack:
        ups = {name: stack.enter_context(running(*lines)) for name, (_, lines) in scripts.items()}
        providers = {
            name: Provider(name, ups[name].url, dialect=backend, auth="none", models={"m": _row(backend)})
            for name, (backend, _) in scripts.items()
        }
        world = Snapshot(
            tokens={
                digest(KEY, TOKEN.encode()): Grant("t0", "test"),
                digest(KEY, ACME_TOKEN.encode()): Grant("t1", "acme's", tenant="acme"),
            },
            providers=providers,
            aliases={"both": Alias("both", (TargetRef("cut/m"), TargetRef("rest/m")))},
            prompts=PROMPTS,
        )
        state.mkdir(exist_ok=True)
        (state / "instance.key").write_bytes(KEY)
        plane = HookedPlane(state, snapshot=world, hooks=hooks) if hooks else DataPlane(state, snapshot=world)
        yield Gate(stack.enter_context(plane), ups)


def _row(backend: str) -> ModelRow:
    return ModelRow("m", upstream_model="m-up", prefill="trailing", prefill_trims=APIS[backend].trims)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    scripts = {name: (backend, [answers(backend, False)]) for name, backend in PROVIDERS.items()}
    with gate_of(tmp_path_factory.mktemp("prompts") / "s", **scripts) as one:
        yield one


def conversation(request: dict[str, Any]) -> tuple[str, list[str]]:
    """The instructions and the other texts that a provider of any API was asked with."""
    items = request.get("messages") or request["input"]
    texts = [(one["role"], one["content"]) for one in items]
    texts = [(role, text if isinstance(text, str) else text[0]["text"]) for role, text in texts]
    system = [request.get("system") or request.get("instructions"), *(text for role, text in texts if role == "system")]
    return "".join(filter(None, system)), [text.strip() for role, text in texts if role != "system"]


def ask(gate: Gate, client: str, model: str, prompt: Any, *fields: str, token: str = TOKEN, **more: Any) -> Answer:
    api = APIS[client]
    options = {"prompt": prompt, **more.pop("options", {})}
    members = {"model": model, **api.request(bool(more.get("stream"))), "headgate": options, **more}
    with opened(
        gate.plane, post(api.path(model, bool(more.get("stream"))), json.dumps(members).encode(), *fields, token=token)
    ) as one:
        return one.rest()


# ------------------------------------------------------------------------------------- every client and provider


def test_openai_sdk(gate: Gate) -> None:
    with openai.OpenAI(base_url=f"{gate.plane.url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
        prompt = {"id": "support", "variables": {"product": "Gears {{tone}}"}}
        found = client.chat.completions.create(
            model="chat/m", messages=[{"role": "user", "content": "Hi"}],
            extra_body={"headgate": {"prompt": prompt, "metadata": {"job": "x"}}},
        )  # fmt: skip
        assert found.choices[0].message.content == "Hello world"
        sent = gate.last("chat")
        assert sent["messages"] == [
            {"role": "system", "content": "Help users of Gears {{tone}}, kindly."}, *SHOTS, HI
        ]  # fmt: skip
        assert "headgate" not in sent
        assert gate.tags() == {"job": "x", "prompt": "support", "prompt_version": "support@2"}
        without = {"headgate": {"prompt": {"id": "support", "version": 1}}}
        with pytest.raises(openai.BadRequestError) as missing:
            client.chat.completions.create(model="chat/m", messages=[], extra_body=without)
        assert missing.value.param == "headgate.prompt.variables.product"
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(
                model="chat/m", messages=[], extra_body={"headgate": {"prompt": {"id": "own"}}}
            )
        assert (unknown.value.code, unknown.value.param) == ("prompt_not_found", "headgate.prompt.id")


def test_messages_client_loses_nothing_of_its_own(gate: Gate) -> None:
    with anthropic.Anthropic(base_url=gate.plane.url, api_key=TOKEN, max_retries=0, timeout=30) as client:
        prompt = {"id": "support", "variables": {"product": "Gears", "tone": "briefly"}}
        more: dict[str, Any] = {"model": "messages/m", "max_tokens": 50, "system": "Mine.", "messages": [HI]}
        found = client.messages.create(**more, extra_body={"headgate": {"prompt": prompt}, "top_k": 4})
        assert [block.text for block in found.content if block.type == "text"] == ["Hello world"]
        sent = gate.last("messages")
        assert sent["system"] == "Help users of Gears, briefly.\n\nMine."
        assert sent["messages"] == [*SHOTS, HI] and sent["top_k"] == 4
        with pytest.raises(anthropic.NotFoundError) as unknown:
            client.messages.create(**more, extra_body={"headgate": {"prompt": {"id": "none"}}})
        assert unknown.value.body["error"]["code"] == "prompt_not_found"  # type: ignore[index]
        counted: dict[str, Any] = {"model": "chat/m", "messages": [HI]}
        plain = client.messages.count_tokens(**counted).input_tokens
        options = {"headgate": {"prompt": {"id": "long"}}}
        assert client.messages.count_tokens(**counted, extra_body=options).input_tokens > plain + 4000


def test_responses_client_loses_nothing_of_its_own(gate: Gate) -> None:
    """Also with the SDK's own ``prompt``, which has the same members."""
    with openai.OpenAI(base_url=f"{gate.plane.url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
        found = client.responses.create(
            model="responses/m", input="Hi", instructions="Mine.", include=["reasoning.encrypted_content"],
            prompt={"id": "support", "version": "2", "variables": {"product": "Gears"}},
        )  # fmt: skip
        assert (found.output_text, found.instructions) == ("Hello world", "Mine.")  # what the client itself has sent
        sent = gate.last("responses")
        assert sent["instructions"] == "Help users of Gears, kindly.\n\nMine." and "prompt" not in sent
        assert sent["input"] == [*SHOTS, HI] and sent["include"] == ["reasoning.encrypted_content"]
        with pytest.raises(openai.BadRequestError) as missing:
            client.responses.create(model="responses/m", prompt={"id": "support"})
        assert missing.value.param == "prompt.variables.product"
        with pytest.raises(openai.NotFoundError) as unknown:
            client.responses.create(model="responses/m", prompt={"id": "none"})
        assert (unknown.value.code, unknown.value.param) == ("prompt_not_found", "prompt.id")
        with pytest.raises(openai.BadRequestError) as both:
            client.responses.create(
                model="responses/m", prompt={"id": "long"}, extra_body={"headgate": {"prompt": {"id": "long"}}}
            )
        assert both.value.param == "prompt"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("client", APIS)
def test_every_pair_of_apis(gate: Gate, client: str, provider: str) -> None:
    prompt = {"id": "support", "variables": {"product": "X"}}
    answer = ask(gate, client, f"{provider}/m", prompt, **{APIS[client].messages: []})
    assert read(client, answer, False).text == "Hello world"
    assert conversation(gate.last(provider)) == ("Help users of X, kindly.", ["Q", "A"])


def test_a_label_and_a_tenants_own_prompt(gate: Gate) -> None:
    ask(gate, CHAT, "chat/m", {"id": "support", "version": "production", "variables": {"product": "X"}})
    assert gate.last("chat")["messages"] == [{"role": "system", "content": "Help users of X."}, HI]
    assert gate.tags() == {"prompt": "support", "prompt_version": "support@1"}
    assert ask(gate, CHAT, "chat/m", {"id": "own"}, token=ACME_TOKEN).status == 200
    assert gate.last("chat")["messages"][0]["content"] == "acme's"
    for client in APIS:
        foreign, absent = (ask(gate, client, "chat/m", {"id": ident}) for ident in ("own", "owm"))
        assert foreign.status == absent.status == 404
        assert foreign.raw.replace(b"own", b"owm") == absent.raw
        assert ask(gate, client, "chat/m", {"id": "acme/own"}).status == 404


def test_estimates_count_the_prompt(gate: Gate) -> None:
    ask(gate, CHAT, "chat/m", None)
    ask(gate, CHAT, "chat/m", {"id": "long"})
    plain, long = gate.admitted()[-2:]
    assert plain.prompt_tokens < 100 and long.prompt_tokens > 4000


def test_refused_calls_reach_no_provider(gate: Gate) -> None:
    before = len(gate.upstreams["chat"].requests)
    for prompt, options, param in (
        ({"id": "support"}, {}, "headgate.prompt.variables.product"),
        ({"id": "support", "variables": {"product": "x", "x": 1}}, {}, "headgate.prompt.variables.x"),
        ({"id": "long"}, {"metadata": {"prompt": "mine"}}, "headgate.metadata"),
        ({"id": "long", "vars": {}}, {}, "headgate.prompt.vars"),
    ):
        answer = ask(gate, CHAT, "chat/m", prompt, options=options)
        assert (answer.status, answer.error["param"]) == (400, param)
    assert len(gate.upstreams["chat"].requests) == before


def test_idempotency_key_stands_for_the_request_as_it_was_sent(gate: Gate) -> None:
    """A repeat has the first answer; other variables are another request."""
    before = len(gate.upstreams["chat"].requests)
    prompt = {"id": "support", "variables": {"product": "X"}}
    first, repeat = (ask(gate, CHAT, "chat/m", prompt, "Idempotency-Key: once") for _ in range(2))
    assert first.raw == repeat.raw and repeat.headers["x-headgate-idempotent-replay"] == "true"
    other = {"id": "support", "variables": {"product": "Y"}}
    assert ask(gate, CHAT, "chat/m", other, "Idempotency-Key: once").status == 409
    assert len(gate.upstreams["chat"].requests) == before + 1


# ------------------------------------------------------------------------------------- attempts and hooks


@pytest.mark.parametrize(
    ("first", "second"),
    [(CHAT, CHAT), (MESSAGES, CHAT), (CHAT, MESSAGES), (RESPONSES, MESSAGES), (MESSAGES, RESPONSES)],
)
def test_failover_and_continuation_keep_the_prompt(tmp_path: Path, first: str, second: str) -> None:
    said = " world" if APIS[second].trims == "yes" else "world"
    goes_on: Script = [("expect_request",), ("send", whole_stream(APIS[second].stream(said), CLOSES))]
    busy = refuses(first, b"529 Overloaded", "overloaded_error", "Overloaded")
    scripts = {"cut": (first, [busy, cut(first, "Hel", "lo ")]), "rest": (second, [answers(second, False), goes_on])}
    prompt = {"id": "support", "variables": {"product": "X"}}
    with gate_of(tmp_path / "s", **scripts) as gate:
        assert read(CHAT, ask(gate, CHAT, "both", prompt, options={"retries": 0}), False).text == "Hello world"
        assert read(CHAT, ask(gate, CHAT, "both", prompt, stream=True), True).text == "Hello world"
        failed_over, continued = asked(gate.upstreams["rest"])
    assert conversation(failed_over) == ("Help users of X, kindly.", ["Q", "A", "Hi"])
    assert conversation(continued) == ("Help users of X, kindly.", ["Q", "A", "Hi", "Hello"])


def test_hooks_see_the_whole_request(tmp_path: Path) -> None:
    hooks = (HookSettings("mask-secrets"),)
    with gate_of(tmp_path / "s", hooks, chat=(CHAT, [answers(CHAT, False)])) as gate:
        answer = ask(gate, CHAT, "chat/m", {"id": "support", "variables": {"product": SECRET}})
        assert answer.status == 200
        assert gate.last("chat")["messages"][0]["content"] == "Help users of [masked: API key], kindly."
        assert gate.tags() == {"prompt": "support", "prompt_version": "support@2"}
        assert ask(gate, CHAT, "chat/m", {"id": "none"}).status == 404
