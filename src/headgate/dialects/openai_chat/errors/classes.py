"""Classify a foreign error: one pure decision over its status, its codes and, last, its words.

A status and a code decide if they are specific.  Words decide only if those are not, and there are two kinds of words:

- Words that would harm others than the caller: a dead key, an empty account, a limit, a broken server.  They count only
  if the request does not contain them.  An upstream quotes its caller.  A caller could otherwise disable a key with
  one sentence.
- Words that concern the request alone: its length, its content, its model.  They count outside of quotations of the
  request.
"""

from __future__ import annotations

import unicodedata
from re import Match

from headgate import errors
from headgate.dialects.openai_chat.errors import codes, words
from headgate.dialects.openai_chat.errors.complaint import Complaint
from headgate.dialects.openai_chat.errors.quotation import Quotations
from headgate.errors import Kind

_MARKS = "\"'`“”‘’«»"
_MOST_WORDS, _MOST_FINDS = 2048, 5
_UNSAID = (errors.UPSTREAM_FAILED, errors.UPSTREAM_GARBAGE)

_STATUSES = {
    401: errors.UPSTREAM_AUTH,
    402: errors.UPSTREAM_UNPAID,
    403: errors.UPSTREAM_DENIED,
    408: errors.UPSTREAM_TIMEOUT,
    413: errors.PAYLOAD_TOO_LARGE,
    422: errors.UPSTREAM_UNPROCESSABLE,
    424: errors.UPSTREAM_FAILED,
    425: errors.UPSTREAM_OVERLOADED,
    429: errors.RATE_LIMITED,
    498: errors.UPSTREAM_AUTH,
    499: errors.UPSTREAM_FAILED,
    500: errors.UPSTREAM_FAILED,
    502: errors.UPSTREAM_FAILED,
    503: errors.UPSTREAM_OVERLOADED,
    504: errors.UPSTREAM_TIMEOUT,
    522: errors.UPSTREAM_TIMEOUT,
    524: errors.UPSTREAM_TIMEOUT,
    529: errors.UPSTREAM_OVERLOADED,
}
_MISSING = (404, 405, 407, 410)


class Evidence:
    """One error, and the request that it answers."""

    def __init__(self, complaint: Complaint, quotations: Quotations) -> None:
        self.complaint = complaint
        self._quotations = quotations
        text = complaint.message[:_MOST_WORDS]
        self._words = text if text.isascii() else unicodedata.normalize("NFKC", text)
        self.code = codes.meaning(complaint.codes)
        if self.code is None or self.code in (codes.INVALID, codes.FAILED):
            inner = [code for code in complaint.inner_codes if not quotations.hold(code)]
            self.code = codes.meaning(inner) or self.code

    def says(self, pattern: words.Pattern) -> bool:
        """True if a sentence matches outside of quotations of the request."""
        return any(not self._quotations.cover(self._words, *found.span()) for found in self._finds(pattern))

    def proves(self, pattern: words.Pattern) -> bool:
        """True if a sentence matches in words that the request does not contain."""
        for found in self._finds(pattern):
            if pattern in _SAID_BY_ANY and self._is_of_another(found):
                continue
            nouns = [noun for noun in found.groups() if noun]
            around = self._words[found.start() - 1 : found.start()] + self._words[found.end() : found.end() + 1]
            if any(mark in around for mark in _MARKS):
                continue  # a quotation, though not of the request
            if not self._quotations.hold(found[0], *nouns):
                return True
        return False

    def _is_of_another(self, found: Match[str]) -> bool:
        """True if the words are those of another server, from which the upstream fetched something."""
        begin, end = self._sentence(found.start(), found.end())
        passed_on = words.PASSED_ON.search(self._words, begin, end)
        return words.ELSEWHERE.search(self._words, begin, end) is not None or passed_on is not None

    def _sentence(self, start: int, stop: int) -> tuple[int, int]:
        begin, end = 0, len(self._words)
        for mark in words.SENTENCE.finditer(self._words):
            if mark.start() >= stop:
                return begin, mark.start()
            if mark.end() <= start:
                begin = mark.end()
        return begin, end

    @property
    def begins_with_another(self) -> bool:
        """True if the first sentence is about a fetch by the upstream: the code may be the other server's."""
        return words.ELSEWHERE.search(self._words, *self._sentence(0, 1)) is not None

    @property
    def too_long(self) -> bool:
        """True if the request is longer than the model can read."""
        return self.says(words.CONTEXT) and words.NO_CONTEXT.search(self._words) is None

    @property
    def filtered(self) -> bool:
        """True if the request's content is refused, rather than its sender."""
        return self.says(words.FILTERED) and not self.proves(words.SUSPENDED)

    @property
    def is_of_a_key(self) -> bool:
        """True if a 400 is about the key: it has Google's or xAI's code for that, and words about the key.

        Words alone disable no key, because too many errors about requests contain them.
        """
        said = self.complaint
        wrong = said.param is None and not said.fields and any(code in words.KEY_CODES for code in said.codes)
        return wrong and self.proves(words.WRONG_KEY)

    @property
    def of_the_request(self) -> bool:
        """True if the error names a field of the request, or its code means a wrong request."""
        said = self.complaint
        return said.param is not None or bool(said.fields) or self.code is codes.INVALID

    def names(self, field: str) -> bool:
        """True if a sentence names this field of the request, outside of a longer quotation."""
        at = -1
        while (at := self._words.find(field, at + 1)) >= 0:
            if not self._quotations.go_on(self._words, at, at + len(field)):
                return True
        return False

    def _finds(self, pattern: words.Pattern) -> list[Match[str]]:
        return [found for found, _ in zip(pattern.finditer(self._words), range(_MOST_FINDS), strict=False)]

    @property
    def over_its_limit(self) -> bool:
        """True if this request alone exceeds the account's limit per minute: a wait does not help."""
        found = words.OWN_LIMIT.search(self._words)
        return found is not None and int(found[2]) > int(found[1])


def of_status(status: int, evidence: Evidence) -> Kind:
    """The class of an answer with ``status``."""
    decide = _DECISIONS.get(status)
    if decide is not None:
        return decide(evidence)
    if 400 <= status < 500 and status not in _STATUSES:
        return _of_missing(evidence) if status in _MISSING else _of_request(evidence, errors.UPSTREAM_REFUSED)
    if status in _STATUSES and status < 500:
        return _of_rare(status, evidence)
    return _of_fault(status, evidence)


def of_stream(evidence: Evidence) -> Kind:
    """The class of an error that came under status 200."""
    status = evidence.complaint.status
    if 400 <= status < 600:
        kind = of_status(status, evidence)
    else:
        kind = _of_code(evidence) or _of_words(evidence, errors.UPSTREAM_ERROR_EVENT)
    return errors.UPSTREAM_ERROR_EVENT if kind in _UNSAID else kind


def _of_code(evidence: Evidence) -> Kind | None:
    if evidence.code is codes.KEY and evidence.begins_with_another:
        return None
    return evidence.code if evidence.code not in (codes.INVALID, codes.FAILED) else None


def _of_words(evidence: Evidence, otherwise: Kind) -> Kind:
    """Return the class of an error without a status and without a known code."""
    if evidence.filtered:
        return errors.CONTENT_FILTER
    if evidence.too_long:
        return errors.CONTEXT_LENGTH
    return _of_others(evidence, _HARMFUL) or otherwise


def _of_others(evidence: Evidence, patterns: tuple[tuple[words.Pattern, Kind], ...]) -> Kind | None:
    """Return the class that words prove for the key, the account or the server; None for errors of the request."""
    if not evidence.of_the_request:
        return next((kind for pattern, kind in patterns if evidence.proves(pattern)), None)
    return None


def _of_401(evidence: Evidence) -> Kind:
    """Return the key's class, unless the answer is about something else."""
    code = evidence.code
    if code in (codes.LIMITED, codes.UNPAID, codes.FILTERED, codes.CONTEXT, codes.DENIED, codes.BLOCKED):
        return code
    if code is codes.NO_MODEL:
        return errors.UPSTREAM_MODEL_DENIED
    if evidence.complaint.page:
        title = evidence.complaint.title
        return (
            errors.UPSTREAM_DENIED if words.BLOCK_PAGE.search(title) and not words.KEY_PAGE.search(title) else codes.KEY
        )
    if code is None:
        if evidence.says(words.OF_A_HEADER) or evidence.proves(words.BLOCKED):
            return errors.UPSTREAM_DENIED
        if evidence.proves(words.DENIED):
            return errors.UPSTREAM_MODEL_DENIED
        if evidence.proves(words.UNPAID):
            return errors.UPSTREAM_UNPAID
    return errors.UPSTREAM_AUTH


def _of_402(evidence: Evidence) -> Kind:
    """Return the class for too little money: for anything, for a request of this size, or for this model."""
    if evidence.code in (codes.FILTERED, codes.CONTEXT, codes.DENIED):
        return evidence.code
    if evidence.says(words.UNAFFORDABLE):
        return errors.UNAFFORDABLE
    if evidence.code is not codes.UNPAID and evidence.proves(words.DENIED) and not evidence.proves(words.UNPAID):
        return errors.UPSTREAM_MODEL_DENIED
    return errors.UPSTREAM_UNPAID


def _of_403(evidence: Evidence) -> Kind:
    """Decide between the request, the model and the key.  It is the key only if the answer says so."""
    code = evidence.code
    if code is codes.NO_MODEL:
        return errors.UPSTREAM_MODEL_DENIED
    if code in (codes.FILTERED, codes.CONTEXT, codes.DENIED, codes.BLOCKED, codes.UNPAID, codes.LIMITED, codes.LARGE):
        return code
    if evidence.complaint.page:
        return errors.UPSTREAM_DENIED
    if evidence.filtered:
        return errors.CONTENT_FILTER
    if evidence.too_long:
        return errors.CONTEXT_LENGTH
    if evidence.proves(words.DENIED):
        return errors.UPSTREAM_MODEL_DENIED
    if code is codes.KEY or evidence.proves(words.BAD_KEY) or evidence.proves(words.UNAUTHORIZED):
        return errors.UPSTREAM_AUTH
    if evidence.proves(words.UNPAID):
        return errors.UPSTREAM_UNPAID
    return errors.RATE_LIMITED if evidence.proves(words.LIMITED) else errors.UPSTREAM_DENIED


def _of_413(evidence: Evidence) -> Kind:
    """Return the class for too large: in bytes, for the model's context, or for a limit of the account."""
    if evidence.code is codes.LIMITED or (evidence.code is not codes.CONTEXT and evidence.proves(words.LIMITED)):
        return errors.OVER_ITS_LIMIT if evidence.over_its_limit else errors.RATE_LIMITED
    return _of_request(evidence, errors.PAYLOAD_TOO_LARGE)


def _of_429(evidence: Evidence) -> Kind:
    if evidence.code is codes.UNPAID or (evidence.code is None and evidence.proves(words.UNPAID)):
        return errors.QUOTA_SPENT
    return errors.OVER_ITS_LIMIT if evidence.over_its_limit else errors.RATE_LIMITED


def _of_rare(status: int, evidence: Evidence) -> Kind:
    """Classify 408, 424, 425, 498 and 499.  Servers use them differently, so the code comes first."""
    code = _of_code(evidence)
    if code is not None:
        return code
    if status == 498 and evidence.proves(words.BUSY):
        return errors.UPSTREAM_OVERLOADED
    return _STATUSES[status]


def _of_missing(evidence: Evidence) -> Kind:
    """Classify 404 and similar ones: the model, or the address."""
    if evidence.code in (codes.NO_MODEL, codes.DENIED, codes.FILTERED, codes.CONTEXT):
        return evidence.code
    missing = evidence.complaint.param == "model" or evidence.says(words.NO_MODEL)
    return errors.UPSTREAM_MODEL_NOT_FOUND if missing else errors.UPSTREAM_GARBAGE


def _of_request(evidence: Evidence, otherwise: Kind) -> Kind:
    """Classify 400, 413, 422 and others: the request, but Google answers 400 to a wrong key."""
    code = _of_code(evidence)
    if code is codes.LARGE and evidence.too_long:
        return errors.CONTEXT_LENGTH
    if code is not None:
        return errors.OVER_ITS_LIMIT if code is codes.LIMITED and evidence.over_its_limit else code
    if evidence.filtered:
        return errors.CONTENT_FILTER
    if evidence.too_long:
        return errors.CONTEXT_LENGTH
    if evidence.says(words.NO_MODEL_400):
        return errors.UPSTREAM_MODEL_NOT_FOUND
    if evidence.is_of_a_key:
        return errors.UPSTREAM_AUTH
    return _of_others(evidence, _HARMFUL_400) or otherwise


def _of_fault(status: int, evidence: Evidence) -> Kind:
    """Classify 5xx, and statuses that mean no error.  A prompt that is too long is not the server's failure."""
    if status < 400:
        return errors.UPSTREAM_GARBAGE
    if evidence.code in (codes.FILTERED, codes.CONTEXT, codes.LIMITED):
        return evidence.code
    if status == 500 and evidence.code is codes.BUSY:
        return codes.BUSY
    if evidence.too_long:
        return errors.CONTEXT_LENGTH
    return _STATUSES.get(status, errors.UPSTREAM_FAILED)


# Words that may come from another server, from which the upstream fetched something.
_SAID_BY_ANY = (words.BAD_KEY, words.WRONG_KEY, words.UNAUTHORIZED, words.LIMITED, words.BUSY, words.LATE)
_HARMFUL: tuple[tuple[words.Pattern, Kind], ...] = (
    (words.SUSPENDED, errors.UPSTREAM_DENIED),
    (words.UNPAID, errors.UPSTREAM_UNPAID),
    (words.LIMITED, errors.RATE_LIMITED),
    (words.BUSY, errors.UPSTREAM_OVERLOADED),
    (words.LATE, errors.UPSTREAM_TIMEOUT),
)
_HARMFUL_400 = (*_HARMFUL[:3], (words.REGION, errors.UPSTREAM_MODEL_DENIED))
_DECISIONS = {
    401: _of_401,
    402: _of_402,
    403: _of_403,
    413: _of_413,
    422: lambda evidence: _of_request(evidence, errors.UPSTREAM_UNPROCESSABLE),
    429: _of_429,
    451: _of_403,
}
