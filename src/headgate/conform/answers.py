"""Checks of an answer that was not streamed."""

from __future__ import annotations

import json

from headgate.conform.probe import EndpointProbe
from headgate.conform.streams import COUNTS, REASONS, fault_of_usage
from headgate.conform.table import CheckVerdict, check, failed, judged


@check("answer.type", "200 with Content-Type application/json", "clients choose their parser by it")
def content_type(probe: EndpointProbe) -> CheckVerdict:
    kind = probe.whole.headers.get("content-type", "none")
    if probe.whole.status != 200 or not probe.whole.complete:
        return failed(probe.whole.summary)
    return judged(None if kind.lower().startswith("application/json") else kind, kind)


@check(
    "answer.shape",
    "id, object, created, model, choices[0].message, finish_reason",
    "typed clients fail where one lacks",
)
def shape(probe: EndpointProbe) -> CheckVerdict:
    answer = probe.whole.json
    if not isinstance(answer, dict):
        return failed("no JSON object")
    types = {"id": str, "created": int, "model": str, "choices": list}
    wrong = [key for key, kind in types.items() if not isinstance(answer.get(key), kind)]
    if wrong or answer.get("object") != "chat.completion":
        return failed(f"{', '.join(wrong) or 'object'} missing or of another type")
    choice = answer["choices"][0] if answer["choices"] else {}
    message = choice.get("message")
    if not isinstance(message, dict) or message.get("role") != "assistant" or "content" not in message:
        return failed("choices[0].message has no role assistant, or no content")
    reason = choice.get("finish_reason")
    return judged(None if reason in REASONS else f"finish_reason {reason!r}", f"finish_reason {reason}")


@check("answer.usage", "usage with three counts that add up", "bills and budgets read it")
def usage(probe: EndpointProbe) -> CheckVerdict:
    answer = probe.whole.json
    given = answer.get("usage") if isinstance(answer, dict) else None
    fault = fault_of_usage(given)
    return judged(fault, json.dumps({key: given[key] for key in COUNTS}) if given and not fault else "")


@check(
    "answer.same-text",
    "streamed or not, the answer is one of the same kind",
    "one of the two paths drops or garbles text",
)
def same_text(probe: EndpointProbe) -> CheckVerdict:
    answer = probe.whole.json
    try:
        text = answer["choices"][0]["message"]["content"] or ""
    except (TypeError, KeyError, IndexError):
        return failed("no message")
    both = bool(text) == bool(probe.plain.text) and "�" not in text
    return judged(
        None if both else f"{len(text)} characters, streamed {len(probe.plain.text)}", f"{len(text)} characters"
    )
