"""A turn's trace as its page shows it: a waterfall, decisions in words, calls with their cost, and the messages as they were sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from memory.models import Turn
from observability.api import calls_of_turn, usd

_STEPS: Final = {
    "open": "Stored the question, checked limits, looked for a kept answer",
    "budget": "Waited for room in a budget",
    "flight": "Waited for an answer to the same question",
    "similar": "Looked for similar questions",
    "classify": "Asked which model is enough",
    "recall": "Recalled memories",
    "prompt": "Built the prompt",
}
_CACHE: Final = {
    "off": "No kept answer was looked for: the version keeps none, or this one would depend on more than the question.",
    "fresh": "The caller wanted a fresh answer, so no kept one was looked for.",
    "miss": "No answer was kept for this question.",
    "shared": "Somebody else asked the same at that moment and got this answer; no model was called again.",
    "similar": "A similar question had been answered; its answer was given again.",
}
_RECALL: Final = {
    "off": "The version has no long-term memory.",
    "ok": "Memories were found and sent along.",
    "empty": "Nothing that is remembered helped to answer.",
    "slow": "Recall took too long, so the answer went without memory.",
    "failed": "Recall failed, so the answer went without memory; the log says why.",
}
_TICKS: Final = 4
_LEAST_SHARE: Final = 0.4
"""Of the chart's width in percent: what is shorter would not be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Something that took its time, in milliseconds since the question, and its bar, in percent of the chart's width.

    Attributes:
        words_x: where, within a call, the first words came; None: they never did. `after_words`: how wide the rest of it is.
    """

    what: str
    at_ms: float
    took_ms: float
    x: float
    width: float
    is_call: bool = False
    is_failure: bool = False
    words_x: float | None = None
    words_ms: int | None = None
    after_words: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a model as the ledger has it, in words."""

    what: str
    kind: str
    ended: str
    error_code: str
    tokens: str
    price: str
    cost: str
    saved: str
    url_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message of the prompt, and how it was sent."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceShown:
    """Everything that a turn's page shows of its trace."""

    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, float]]
    """(percent of the chart's width, milliseconds)"""
    total_ms: float
    decisions: Sequence[str]
    calls: Sequence[Call]
    said: Sequence[Said]
    settings: Sequence[tuple[str, str]]
    """What else the request said."""
    is_kept: bool
    was_cached: bool


def trace_of(turn: Turn) -> TraceShown:
    """Lay out what is known of how `turn` was answered."""
    trace, rows = turn.trace or {}, calls_of_turn(turn.pk)
    spans = sorted([*_steps(trace), *_calls(turn, trace, rows)], key=lambda span: (span["at_ms"], span["took_ms"]))
    total = max([1.0, float(trace.get("end", 0)), *(span["at_ms"] + span["took_ms"] for span in spans)])
    said, settings = _sent(turn.sent)
    return TraceShown(
        bars=[_bar(span, total) for span in spans],
        ticks=[(100 * place / _TICKS, total * place / _TICKS) for place in range(_TICKS + 1)],
        total_ms=total,
        decisions=list(_decisions(trace)),
        calls=[_call(row) for row in rows],
        said=said,
        settings=settings,
        is_kept=bool(trace),
        was_cached=any(row.outcome == "cached" for row in rows),
    )


def _steps(trace: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    before = 0.0
    for step, until in trace.get("steps", ()):
        yield {"what": _STEPS.get(step, step), "at_ms": before, "took_ms": max(0.0, until - before)}
        before = until


def _calls(turn: Turn, trace: Mapping[str, Any], rows: Sequence[Any]) -> Iterator[dict[str, Any]]:
    begun: Mapping[str, float] = trace.get("calls", {})
    for row in rows:
        was_called = str(row.pk) in begun or (row.latency_ms is not None and row.outcome != "cached")
        if was_called:
            at_ms = begun.get(str(row.pk), max(0.0, (row.started_at - turn.created_at).total_seconds() * 1000))
            yield {
                "what": f"{row.model} at {row.provider}",
                "at_ms": at_ms,
                "took_ms": float(row.latency_ms or 0),
                "is_call": True,
                "is_failure": row.outcome in ("failed", "interrupted", "orphaned"),
                "words_ms": row.first_token_ms,
                "detail": f"{row.outcome}{f', {row.error_code}' if row.error_code else ''}",
            }


def _bar(span: dict[str, Any], total: float) -> Bar:
    x, width = span["at_ms"] / total * 100, max(span["took_ms"] / total * 100, _LEAST_SHARE)
    words_ms = span.get("words_ms")
    words_x = None if words_ms is None else min(max(words_ms / total * 100, x), x + width)
    return Bar(
        **span,
        x=round(x, 2),
        width=round(width, 2),
        words_x=None if words_x is None else round(words_x, 2),
        after_words=0.0 if words_x is None else round(x + width - words_x, 2),
    )


def _decisions(trace: Mapping[str, Any]) -> Iterator[str]:
    if route := trace.get("route"):
        yield str(route)
    for words, name in ((_CACHE, "cache"), (_RECALL, "recall")):
        if said := words.get(trace.get(name, "")):
            yield said
    for provider, model, code, at_ms in trace.get("passed_over", ()):
        yield f"{model} at {provider} was not called, {at_ms:,.0f} ms after the question: {code}."


def _call(row: Any) -> Call:
    prices = (
        None
        if row.input_usd is None or row.output_usd is None
        else f"${row.input_usd.normalize():f} in, ${row.output_usd.normalize():f} out"
    )
    cached = f" ({row.cached_tokens:,} of them cached by the vendor)" if row.cached_tokens else ""
    used = None if row.prompt_tokens is None else f"{row.prompt_tokens:,}{cached} + {row.completion_tokens or 0:,}"
    unknown = "not known" if row.prompt_tokens else "nothing used"
    return Call(
        what=f"{row.model} at {row.provider}",
        kind=row.get_kind_display().partition(":")[0],
        ended=row.get_outcome_display().partition(":")[0],
        error_code=row.error_code,
        tokens="none" if used is None else f"{used}{', estimated' if row.is_estimated else ''}",
        price=prices or "not known",
        cost=unknown if row.cost_usd is None else usd(row.cost_usd),
        saved=f"{usd(row.saved_usd)}, by {row.get_saved_by_display()}" if row.saved_by else "",
        url_id=str(row.pk),
    )


def _sent(body: str | None) -> tuple[list[Said], list[tuple[str, str]]]:
    if not body:
        return [], []
    sent = json.loads(body)
    said = [Said(role=message["role"], content=message["content"]) for message in sent.pop("messages")]
    return said, [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in sent.items()]
