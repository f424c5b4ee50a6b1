"""The results of a run, for people and for scripts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

from headgate.conform.table import GROUPS, Check, CheckVerdict

MARKS = {"pass": "✓", "fail": "✗", "warn": "!", "skip": "–"}
COLOURS = {"pass": "green", "fail": "red", "warn": "yellow", "skip": "dim"}


@dataclass(frozen=True)
class ScorecardLine:
    """One line of the scorecard."""

    check: Check
    verdict: CheckVerdict
    seconds: float


@dataclass(frozen=True)
class Scorecard:
    """All lines, in the order of the table."""

    url: str
    model: str
    results: list[ScorecardLine]

    @property
    def exit_code(self) -> int:
        """0 if no check failed, else 1."""
        return int(any(result.verdict.state == "fail" for result in self.results))

    def counts(self) -> Counter[str]:
        return Counter(result.verdict.state for result in self.results)

    def as_json(self) -> str:
        rows = [
            {
                "id": result.check.id,
                "what": result.check.what,
                "why": result.check.why,
                **asdict(result.verdict),
                "seconds": round(result.seconds, 3),
            }
            for result in self.results
        ]
        counts = {state: self.counts()[state] for state in MARKS}
        return json.dumps({"url": self.url, "model": self.model, "counts": counts, "checks": rows}, ensure_ascii=False)

    def lines(self) -> list[tuple[str, str]]:
        """(text, colour) of each line for a terminal.  A check that did not pass is followed by its reason."""
        out = [(f"{self.url} · {self.model}", "bold")]
        for group, title in GROUPS.items():
            rows = [result for result in self.results if result.check.group == group]
            if rows:
                out += [("", ""), (title, "bold")]
            for check, verdict, _ in ((row.check, row.verdict, row.seconds) for row in rows):
                colour = COLOURS[verdict.state]
                out.append((f"  {MARKS[verdict.state]} {check.id.partition('.')[2]:<18} {check.what}", colour))
                if verdict.state != "pass":
                    out.append((f"      {verdict.evidence}", colour))
                if verdict.state == "fail":
                    out.append((f"      why: {check.why}", "dim"))
        counts = self.counts()
        named = {"pass": "passed", "fail": "failed", "warn": "warnings", "skip": "skipped"}
        out += [("", ""), (" · ".join(f"{counts[state]} {word}" for state, word in named.items()), "bold")]
        return out
