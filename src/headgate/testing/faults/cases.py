"""The sixteen provider faults: the primary's behaviour, and the gateway's expected reaction.

After the public Failover Bench catalogue (facts restated).  A case is judged by the providers' own logs (requests and
times) and by the client's events.  The gateway's own figures are trusted only for the cost of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from headgate.testing.faults.client import Heard
from headgate.testing.provider import lorem
from headgate.testing.provider.server import Seen

TOKENS = 60
TEXT = lorem.text(TOKENS)
PROMPT = "say something please"
PROMPT_TOKENS = len(PROMPT.split())
FALLBACK = f"lorem?rate=0&ttft=0&tokens={TOKENS}"
ON_SCREEN_S = 0.05


class Profile(Struct, frozen=True):
    """Seconds.  ``timeouts`` are the alias's; the rest is how long the providers misbehave."""

    name: str
    timeouts: dict[str, float]
    late: float
    stall: float
    silence: float
    outage: float
    every: float
    patience: float  # for an answer, all in all

    @property
    def first_token(self) -> float:
        return self.timeouts["first_token"]

    @property
    def headers(self) -> float:
        return self.timeouts.get("headers", 60.0)


FAST = Profile("fast", {"headers": 1, "first_token": 1, "stall": 1}, 6, 6, 12, 5, 0.5, 20)
FULL = Profile("full", {"first_token": 10, "stall": 10}, 20, 30, 120, 60, 4, 100)
PROFILES = {profile.name: profile for profile in (FAST, FULL)}


class TimingComplaint(str):
    """A failure that a short pause of the machine can cause.  The case is played again."""


class CaseEvidence(Struct):
    """The evidence: the client's answers, the providers' logs, and the cost of the first answer (USD)."""

    heard: list[Heard]
    primary: list[Seen]
    fallback: list[Seen]
    cost: float | None
    profile: Profile
    models: tuple[str, str]

    def within(self, seconds: float) -> int:
        """Return the number of requests to the primary in its first ``seconds``."""
        return sum(seen.at - self.primary[0].at < seconds for seen in self.primary)


Judge = Callable[[CaseEvidence], Iterator[str]]
"""Yields what is wrong, a sentence each."""


class Case(Struct, frozen=True):
    """One row.  ``primary`` may name the profile's seconds: ``fault/stall?for={stall}``."""

    number: int
    title: str
    primary: str
    judge: Judge
    fallback: str = FALLBACK
    requests: int = 1
    every: bool = False  # one request each ``every`` seconds, instead of one after the other

    def models(self, profile: Profile) -> tuple[str, str]:
        return self.primary.format(**msgspec.structs.asdict(profile)), self.fallback


CASES: list[Case] = []


def case(number: int, title: str, primary: str, **more: object) -> Callable[[Judge], Judge]:
    def enter(judge: Judge) -> Judge:
        CASES.append(Case(number, title, primary, judge, **more))  # type: ignore[arg-type]
        return judge

    return enter


# ------------------------------------------------------------------------------------- what all have in common


def whole(heard: Heard) -> Iterator[str]:
    """The whole answer, once, with its figures."""
    if heard.broken or heard.error is not None or heard.status != 200:
        yield f"no answer: {heard.summary}" + (f" ({heard.error['message']})" if heard.error else "")
        return
    if heard.text != TEXT:
        yield f"the text is not the answer: {len(heard.text)} characters of {len(TEXT)}"
    if heard.finishes != ["stop"] or heard.done != 1:
        yield f"finish reasons {heard.finishes}, [DONE] {heard.done} times"
    if heard.roles != 1 or len(heard.ids) != 1 or len(heard.models) != 1:
        yield f"{heard.roles} role chunks, {len(heard.ids)} ids, {len(heard.models)} models in one stream"
    usage = heard.usage or {}
    figures = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if figures != (PROMPT_TOKENS, TOKENS):
        yield f"usage is {figures}, not {(PROMPT_TOKENS, TOKENS)}"


def answered(found: CaseEvidence, by: str) -> Iterator[str]:
    """Check that all answers are whole, and that the expected provider gave them."""
    for heard in found.heard:
        yield from whole(heard)
    if by == "primary" and found.fallback:
        yield f"the fallback was asked {len(found.fallback)} times"
    if by == "fallback" and not found.fallback:
        yield "the fallback was not asked"


def attempts(found: CaseEvidence, least: int, most: int) -> Iterator[str]:
    if not least <= len(found.primary) <= most:
        yield f"the primary was asked {len(found.primary)} times, not {least} to {most}"


def bounded(found: CaseEvidence, seconds: float) -> Iterator[str]:
    if found.heard[0].seconds > seconds:
        yield f"it took {found.heard[0].seconds:.1f} s, more than {seconds:g} s"


def on_screen(found: CaseEvidence) -> Iterator[str]:
    """Check that the client had each of the primary's tokens at once, before the primary failed."""
    heard, seen = found.heard[0], found.primary[0]
    sent = (seen.sent or [])[1 : seen.tokens + 1]  # after the role chunk
    slowest = max((came - went for came, went in zip(heard.at, sent, strict=False)), default=99.0)
    failed = seen.ended_at or heard.ended
    due = sum(went < failed - ON_SCREEN_S for went in sent)
    before = sum(came < failed for came in heard.at)
    if slowest > ON_SCREEN_S:
        yield TimingComplaint(f"a token came {slowest * 1e3:.0f} ms after it was sent")
    if before < due:
        yield TimingComplaint(f"{before} of {due} tokens were there before the failure")


# ------------------------------------------------------------------------------------- the sixteen


@case(1, "429 once with Retry-After: 2, then fine", "fault/429-once?retry_after=2")
def limited_once(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "primary")
    yield from attempts(found, 2, 3)
    if found.within(1.5) > 2:
        yield f"{found.within(1.5)} attempts within 1.5 s"
    if len(found.primary) > 1 and (gap := found.primary[1].at - found.primary[0].at) < 1.8:
        yield f"asked again after {gap:.2f} s, before Retry-After"


@case(2, "429 always, no header", "fault/429-always")
def limited(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "fallback")
    yield from attempts(found, 1, 6)
    if found.within(3) > 4:
        yield f"{found.within(3)} attempts within 3 s"


@case(3, "500 once, then fine", "fault/500-once")
def failed_once(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "primary")
    yield from attempts(found, 2, 2)


@case(4, "503 always", "fault/503-always")
def overloaded(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "fallback")
    yield from attempts(found, 1, 6)


@case(5, "TCP reset before the head, once", "fault/reset-once")
def reset_once(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "anyone")
    yield from attempts(found, 1, 3)


@case(6, "accepts, never answers", "fault/accept-silence?for={silence}")
def silent(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "fallback")
    yield from attempts(found, 1, 1)
    yield from bounded(found, found.profile.headers + 3)


@case(7, "head at once, first token late", "fault/late-first-token?after={late}")
def late(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "fallback")
    yield from attempts(found, 1, 1)
    yield from bounded(found, found.profile.first_token + 3)


@case(8, "cut after 40 of 60 tokens", "fault/cut?after=40&rate=100")
def cut(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "anyone")
    yield from on_screen(found)


@case(9, "silence after 20 tokens", "fault/stall?after=20&rate=100&for={stall}", requests=2)
def stall(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "anyone")
    yield from on_screen(found)
    yield from bounded(found, found.profile.timeouts["stall"] + 3)


@case(10, "one event is invalid JSON", "fault/bad-json-event?rate=100")
def bad_json(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "primary")
    yield from attempts(found, 1, 1)
    yield from on_screen(found)


@case(11, "complete, but no [DONE]", "fault/no-done?rate=100")
def no_done(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "primary")
    yield from attempts(found, 1, 1)
    heard = found.heard[0]
    if heard.at and heard.ended - heard.at[-1] > 1:
        yield f"the end came {heard.ended - heard.at[-1]:.1f} s after the last token"


@case(12, "400 context_length_exceeded", "fault/context-length")
def context_length(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "fallback")
    yield from attempts(found, 1, 1)


@case(13, "400 content filter", "fault/content-filter")
def content_filter(found: CaseEvidence) -> Iterator[str]:
    heard = found.heard[0]
    yield from attempts(found, 1, 1)
    if found.fallback:
        yield f"the fallback was asked {len(found.fallback)} times"
    error = heard.error or {}
    if heard.status != 400 or "content management policy" not in error.get("message", "") or heard.text:
        yield f"the client does not learn the provider's reason: {heard.summary}"


@case(14, "cut, and the fallback rejects a prefill", "fault/cut?after=40&rate=100", fallback="fault/prefill-rejected")
def cut_without_prefill(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "fallback")
    yield from on_screen(found)


@case(15, "an outage, then healthy", "fault/outage?for={outage}", requests=20, every=True)
def outage(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "anyone")
    began, long = found.primary[0].at, found.profile.outage
    during = [seen for seen in found.primary if seen.at - began < long]
    after = [seen for seen in found.primary if seen.at - began >= long]
    if len(during) > 4 + long / 5:
        yield f"{len(during)} probes while it was down"
    if not after or after[0].at - began - long > 30:
        yield "the primary was not used again within 30 s"


@case(16, "503 always: whose model, whose usage, whose cost", "fault/503-priced")
def priced(found: CaseEvidence) -> Iterator[str]:
    yield from answered(found, "fallback")
    if found.heard[0].models != {found.models[1].partition("?")[0]}:
        yield f"the stream's model is {found.heard[0].models}"
    due = PROMPT_TOKENS * PRICE["input"] / 1e6 + TOKENS * PRICE["output"] / 1e6
    if found.cost is None or abs(found.cost - due) > 1e-9:
        yield f"it cost {found.cost} USD, not the fallback's {due}"


PRICE = {"input": 1.0, "output": 2.0}  # the fallback's, USD per million tokens
DEAR = {"input": 100.0, "output": 200.0}  # the primary's
