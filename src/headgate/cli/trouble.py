"""The error that ends a command: a sentence, the next step, an exit code."""

from __future__ import annotations


class Trouble(Exception):
    """The command cannot do its work: one sentence, the next step, an exit code (1 it failed, 2 it was asked wrongly).

    ``api_code`` is the API's own, where it was the API that refused.
    """

    def __init__(self, sentence: str, step: str = "", code: int = 1, api_code: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.step = step
        self.code = code
        self.api_code = api_code


class StoreTrouble(Trouble):
    """The store cannot be opened."""
