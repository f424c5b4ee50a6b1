"""A real llama.cpp server whose stream is cut, gone on with by itself: the seam, on an engine not of ours.

Whether the text is what the uninterrupted run would have been depends on the engine (how it splits the prefill into
tokens, what its cache holds), so that is reported, beside how often the engine repeats itself at all; what is asserted
is what the client gets: one whole stream that begins with what it had.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from headgate.model import Closed, ModelRow
from tests.dataplane import TOKEN, DataPlane, upstream
from tests.engine.server import Engine

PROMPT = [{"role": "user", "content": "say anything"}]
TOKENS = 40
CUTS = (1, 5, 13, 27, 39)


class Cutter:
    """A TCP relay in front of the engine; ``cut`` closes the next connection behind so many events."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.cut: int | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._engine.host, self._engine.port))
                cut, self.cut = self.cut, None
                threading.Thread(target=self._pump, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, cut), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, cut: int | None) -> None:
        seen = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if cut is not None:
                    seen += data
                    ends = [at for at in range(len(seen)) if seen.startswith(b"\n\n", at)]
                    if len(ends) > cut:  # the role's chunk comes first
                        sink.sendall(data[: len(data) - (len(seen) - ends[cut] - 2)])
                        break
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cutter(engine: Engine) -> Iterator[Cutter]:
    relay = Cutter(engine)
    yield relay
    relay.close()


@pytest.mark.parametrize("prefill", ["trailing", "none"])
def test_a_cut_stream_of_a_real_engine_comes_whole(
    cutter: Cutter, tmp_path: Path, prefill: str, report: Callable[[str], None]
) -> None:
    rows = {"tiny": ModelRow("tiny", prefill=prefill)}
    with DataPlane(tmp_path / "s", upstream(cutter.url, name="llama", models=rows)) as plane:
        client = openai.OpenAI(base_url=f"{plane.url}/v1", api_key=TOKEN, max_retries=0, timeout=30)

        def say(cut: int | None) -> tuple[str, list[str], str]:
            cutter.cut = cut
            text, finishes, broke = "", [], ""
            try:
                for chunk in client.chat.completions.create(
                    model="llama/tiny", messages=PROMPT, stream=True, seed=7, temperature=0, max_tokens=TOKENS,
                    extra_body={"ignore_eos": True},
                ):  # fmt: skip
                    text += chunk.choices[0].delta.content or ""
                    finishes += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
            except openai.APIError as error:
                broke = str(error)
            return text, finishes, broke

        whole, finishes, _ = say(None)
        assert finishes == ["length"]
        again = [say(None)[0] == whole for _ in CUTS]
        equal = []
        for cut in CUTS:
            text, finishes, broke = say(cut)
            if broke:  # afresh, and the engine said something else: told, never hidden
                assert prefill == "none" and not finishes and whole.startswith(text)
            else:
                assert finishes == ["length"] and len(text) >= len(whole) // 2
            equal.append(text == whole)
        records = [record for record in plane.wait_for(Closed, 11) if isinstance(record, Closed)]
        assert [record.attempts[-1].why for record in records[6:]] == [
            "continue" if prefill == "trailing" else "restart"
        ] * len(CUTS)
    report(f"prefill {prefill}: {sum(equal)} of {len(CUTS)} equal; plain reruns {sum(again)} of {len(CUTS)}")
