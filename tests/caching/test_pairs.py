"""Stored answers between the APIs: every client with every provider, with and without hooks."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from headgate.model import Closed
from tests.hooks.test_calls import MASK, SECRET, hooked, saying, says
from tests.serving.apis import APIS, CHAT, MESSAGES
from tests.serving.calls import Answer, last_closed
from tests.serving.test_api_pairs import CALLED, FINE, PAIRS, answers, ask, asked, chain, cut, read

WISH = {"headgate": {"cache": {}}}


def cache_of(answer: Answer) -> str | None:
    return answer.headers.get("x-headgate-cache")


@pytest.mark.parametrize(("first", "second"), list(itertools.product((True, False), repeat=2)))
@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_text_and_tools_in_both_forms(tmp_path: Path, client: str, backend: str, first: bool, second: bool) -> None:
    scripts = [answers(backend, first), answers(backend, first, called=True)]
    with chain(tmp_path / "s", (backend, scripts)) as (plane, (upstream,)):
        for expected, tools in ((FINE, False), (CALLED, True)):
            for stream, status in ((first, "miss"), (second, "hit"), (not second, "hit")):
                answer = ask(plane, client, stream, tools, **WISH)
                assert read(client, answer, stream) == expected and cache_of(answer) == status
        records = [one for one in plane.wait_for(Closed, 6) if isinstance(one, Closed)]
    assert [(one.prompt_tokens, one.completion_tokens, one.cached_tokens) for one in records] == [(18, 4, 5)] * 6
    assert [one.cost for one in records if one.cache == "hit"] == [0] * 4
    assert len(asked(upstream)) == 2


@pytest.mark.parametrize("backend", APIS)
def test_clients_of_two_apis_do_not_share_answers(tmp_path: Path, backend: str) -> None:
    with chain(tmp_path / "s", (backend, [answers(backend, False)] * 2)) as (plane, (upstream,)):
        assert [cache_of(ask(plane, client, False, **WISH)) for client in (CHAT, MESSAGES)] == ["miss", "miss"]
        assert len(asked(upstream)) == 2


@pytest.mark.parametrize("backend", APIS)
def test_a_stream_that_nobody_asked_for_is_stored_as_one(tmp_path: Path, backend: str) -> None:
    with chain(tmp_path / "s", (backend, [answers(backend, True)])) as (plane, (upstream,)):
        for stream, status in ((False, "miss"), (True, "hit"), (False, "hit")):
            answer = ask(plane, CHAT, stream, **WISH)
            assert read(CHAT, answer, stream) == FINE and cache_of(answer) == status
        assert len(asked(upstream)) == 1


@pytest.mark.parametrize("client", APIS)
def test_hooks_see_the_request_first_and_mask_a_hit(tmp_path: Path, client: str) -> None:
    """Two requests that differ in what is masked are one: the provider would be asked the same."""
    scripts = [says(CHAT, "Use ", SECRET, ".")]
    with hooked(tmp_path / "s", MASK, (CHAT, scripts)) as (plane, (upstream,)):
        for stream, secret, status in (
            (True, SECRET, "miss"),
            (True, SECRET[:-1] + "6", "hit"),
            (False, SECRET, "hit"),
        ):
            answer = ask(plane, client, stream, **saying(client, f"My key is {secret}"), **WISH)
            assert read(client, answer, stream).text == "Use [masked: API key]." and cache_of(answer) == status
        other = ask(plane, client, False, **saying(client, "My mail is a@example.org"), **WISH)
        assert cache_of(other) != "hit"
        plane.wait_for(Closed, 3)
        assert SECRET not in upstream.requests[0].body.decode()


@pytest.mark.parametrize("backend", APIS)
def test_a_stream_whose_end_was_lost_is_not_stored(tmp_path: Path, backend: str) -> None:
    once = {"headgate": {"cache": {}, "retries": 0, "on_midstream_failure": "error"}}
    with chain(tmp_path / "s", (backend, [cut(backend, "Hello "), answers(backend, True)])) as (plane, (upstream,)):
        assert [cache_of(ask(plane, backend, True, **once)) for _ in range(2)] == ["miss", "miss"]
        plane.wait_for(Closed, 2)
        assert last_closed(plane).cache == "miss" and len(asked(upstream)) == 2


def test_a_hit_names_what_its_target_was_not_sent(tmp_path: Path) -> None:
    with chain(tmp_path / "s", (MESSAGES, [answers(MESSAGES, False)])) as (plane, _):
        miss, hit = (ask(plane, CHAT, False, seed=5, **WISH) for _ in range(2))
    assert (cache_of(miss), cache_of(hit)) == ("miss", "hit")
    assert miss.headers["x-headgate-dropped"] == hit.headers["x-headgate-dropped"] == "seed"
