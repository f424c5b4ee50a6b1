"""``headgate chat`` without a message: a conversation in the terminal.

Owns the prompt, its commands and what was said so far.  Ctrl+C stops an answer, Ctrl+D leaves.  A conversation is not
written to disk.  The arrow keys recall its lines while it lasts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from headgate.catalog.names import nearest
from headgate.cli.display.terminal import say
from headgate.cli.reach.completions import Send, Transcript
from headgate.cli.trouble import Trouble

PROMPT, MORE = "> ", ". "
HELP = """\
/model NAME    ask this model or alias from now on; without a name: say which is asked
/system TEXT   a system message for the whole conversation; without a text: none
/new           forget what was said
/retry         ask the last question again
/help          this list
/exit          leave, as Ctrl+D does
A line that ends with \\ goes on in the next one; // begins a message with a slash.  Ctrl+C stops an answer."""


class Conversation:
    """The messages, and the model.  Mutable: ``model``, ``system``, ``said``."""

    def __init__(self, send: Send, model: str, system: str | None) -> None:
        self._send = send
        self.model = model
        self.system = system
        self.said: list[dict[str, str]] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "model": self._choose,
            "system": self._instruct,
            "new": self._forget,
            "retry": self._retry,
            "help": lambda _: say(HELP),
        }

    def hold(self) -> None:
        """Until Ctrl+D or /exit."""
        _line_editing()
        say(f"asking {self.model}; /help lists the commands, Ctrl+D leaves")
        while (line := _read()) is not None:
            word, _, rest = line.strip().partition(" ")
            if word in ("/exit", "/quit", "/bye"):
                return
            if word.startswith("/") and not word.startswith("//"):
                self._obey(word[1:], rest.strip())
            elif line.strip():
                self.ask(line.strip().removeprefix("/") if word.startswith("//") else line.strip())
        print()

    def ask(self, text: str) -> None:
        """One question and its answer.  A question that was not answered at all is forgotten again."""
        self.said.append({"role": "user", "content": text})
        first = [{"role": "system", "content": self.system}] if self.system else []
        transcript = Transcript()
        try:
            self._send({"model": self.model, "messages": [*first, *self.said]}, live=True, transcript=transcript)
            print(transcript.summary(), file=sys.stderr)
        except Trouble as trouble:
            say(f"headgate: {trouble.sentence}")
            if trouble.step:
                say(f"  → {trouble.step}")
        except KeyboardInterrupt:
            say("stopped")
        if answer := "".join(transcript.text):
            self.said.append({"role": "assistant", "content": answer})
        else:
            self.said.pop()

    # ------------------------------------------------------------------------------------- commands

    def _obey(self, word: str, rest: str) -> None:
        command = self._commands.get(word)
        if command is None:
            close = nearest(word, [*self._commands, "exit"]).replace("mean ", "mean /")
            say(f"there is no command /{word}{close or '; /help lists them'}")
        else:
            command(rest)

    def _choose(self, name: str) -> None:
        self.model = name or self.model
        say(f"asking {self.model}")

    def _instruct(self, text: str) -> None:
        self.system = text or None
        say("the system message is set" if text else "no system message")

    def _forget(self, _rest: str) -> None:
        self.said.clear()
        say("a new conversation")

    def _retry(self, _rest: str) -> None:
        while self.said and self.said[-1]["role"] == "assistant":
            self.said.pop()
        if self.said:
            self.ask(self.said.pop()["content"])
        else:
            say("nothing was asked yet")


def _read() -> str | None:
    """A message, of several lines where they end with a backslash; None at Ctrl+D.  Ctrl+C takes it back."""
    lines: list[str] = []
    while True:
        try:
            line = input(MORE if lines else PROMPT)
        except EOFError:
            return None
        except KeyboardInterrupt:
            say("\nCtrl+D leaves")
            lines = []
            continue
        except UnicodeDecodeError as error:
            say(f"that is no text ({error})")
            continue
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            return "\n".join(lines)


def _line_editing() -> None:
    """Arrow keys and history, where this Python has them."""
    try:
        import readline  # noqa: F401, PLC0415 - its import is what changes input()
    except ImportError:
        pass
