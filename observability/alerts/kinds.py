"""What is watched: the nine kinds of trouble, each with its measure, its defaults, its remedy, and the words that tell of it.

Each has one rule, a row that the admin changes. A row that is missing is made after every migration, as Django does for permissions,
so that a kind that comes with an update has its rule as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from observability.alerts import finding
from observability.alerts.finding import Asked, Seen
from observability.models import AlertKind, AlertRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of trouble. `docs/runbooks/<kind>.md` says more on what to do.

    Attributes:
        measure: what the threshold counts, after "at least 20".
        about: when it is told, for who sets the rule.
        example: how it reads, for test messages.
        remedy: what to look at first.
        over: what is told once it is over, after the name.
        window_s: how far back it looks; 0: it looks at the present only.
    """

    find: Callable[[Asked], list[Seen]]
    measure: str
    about: str
    example: str
    remedy: str
    over: str
    threshold: float
    window_s: int = 0
    holds_s: int = 0
    clears_s: int = 0
    is_critical: bool = False


KINDS: Final[dict[AlertKind, Kind]] = {
    AlertKind.ERROR_RATE: Kind(
        find=finding.find_errors,
        measure="% of an agent's turns failed",
        about="Of at least five turns of an agent. A turn that a fallback model answered has not failed.",
        example="Agent helper: 12 of 40 turns failed (30 %) in the last 5 minutes.",
        remedy="Look at the provider's status and key, and at “Calls that failed” in the cost overview.",
        over="turns are answered again",
        threshold=20,
        window_s=300,
        clears_s=300,
        is_critical=True,
    ),
    AlertKind.UPSTREAM_DOWN: Kind(
        find=finding.find_providers_down,
        measure="turns or jobs failed at a provider, and none was answered",
        about="Chat goes on where agents have fallback models at another provider.",
        example="Provider openai: all 14 calls in the last 3 minutes failed, most with upstream-timed-out.",
        remedy="Use “Test the connection” on the provider's page, and look at its status page.",
        over="calls are answered, or none is made any more",
        threshold=3,
        window_s=180,
        clears_s=60,
        is_critical=True,
    ),
    AlertKind.BREAKER_OPEN: Kind(
        find=finding.find_open_breakers,
        measure="minutes since a model is no longer called",
        about="A model that keeps failing is left alone for a while, and its fallbacks answer at once.",
        example="gpt-6-luna at openai is not called since 14:05 UTC (5 failures in a row).",
        remedy="Nothing, where fallbacks answer: it is tried again by itself. Otherwise look at the provider.",
        over="the model is called again",
        threshold=0,
        window_s=900,
        clears_s=120,
    ),
    AlertKind.LATENCY: Kind(
        find=finding.find_slowness,
        measure="seconds until the first words, for one answer in twenty",
        about="Of at least twenty answers of an agent.",
        example="Agent helper: one in twenty of 85 answers began after 14.2 s or more, in the last 10 minutes.",
        remedy="Compare the models in the ledger. A fallback, a smaller model or a shorter timeout helps.",
        over="answers begin in time again",
        threshold=10,
        window_s=600,
        holds_s=60,
        clears_s=300,
    ),
    AlertKind.BUDGET: Kind(
        find=finding.find_spent_budgets,
        measure="% of a budget is spent",
        about="Told at 50, 80 and 100 %, the steps from here on. A budget that refuses a call counts as spent.",
        example="Budget “Web shop”: 80 % is spent (8.00 of 10.00 USD). It resets on 01 Dec 2026, 00:00 (UTC).",
        remedy="Raise the budget if the spending is wanted; the cost overview says where it comes from.",
        over="has begun anew, or its limit was changed",
        threshold=50,
        is_critical=True,
    ),
    AlertKind.QUEUE_AGE: Kind(
        find=finding.find_late_queues,
        measure="minutes that background work has waited",
        about="What is to be remembered, read or summarised. Chat goes on without it.",
        example="Queue memory: the oldest of 210 jobs has waited since 22 Nov, 14:05 UTC (17 min).",
        remedy="See that the worker runs, and what its log says. Start another one where it only lags behind.",
        over="the worker has caught up",
        threshold=15,
        holds_s=60,
        clears_s=60,
    ),
    AlertKind.HIGH_TRAFFIC: Kind(
        find=finding.find_traffic,
        measure="turns a minute",
        about="Of all agents together.",
        example="640 turns a minute in the last 5 minutes.",
        remedy="See in the cost overview which agent and key it is. Limits and budgets hold back what is not wanted.",
        over="traffic is lower again",
        threshold=300,
        window_s=300,
        clears_s=300,
    ),
    AlertKind.FAILED_JOBS: Kind(
        find=finding.find_failed_jobs,
        measure="failures of the same background work",
        about="The worker tries again by itself; nothing is lost meanwhile.",
        example="Background work “memory” failed 6 times in the last 15 minutes, mostly with EmbeddingFailed.",
        remedy="The worker's log names the reason at each failure.",
        over="it has not failed for a while",
        threshold=5,
        window_s=900,
        clears_s=60,
    ),
    AlertKind.EVALUATION_FAILURES: Kind(
        find=finding.find_failed_evaluations,
        measure="failed evaluations",
        about="Calls made to evaluate an agent, or the work itself.",
        example="Evaluations of agent helper failed 3 times in the last 60 minutes.",
        remedy="Look at the attempts of the kind “evaluation” in the ledger.",
        over="none has failed for a while",
        threshold=1,
        window_s=3600,
        clears_s=60,
    ),
}


def add_absent_rules(**_: Any) -> None:
    """Make the rules that there are none of yet, as the defaults say. Safe to repeat, also by several processes at once."""
    AlertRule.objects.bulk_create(
        [
            AlertRule(
                kind=name,
                threshold=kind.threshold,
                window_s=kind.window_s,
                holds_s=kind.holds_s,
                clears_s=kind.clears_s,
                is_critical=kind.is_critical,
            )
            for name, kind in KINDS.items()
        ],
        ignore_conflicts=True,
    )


def runbook_of(kind: str) -> str:
    """Return where it is written what to do, within the project."""
    return f"docs/runbooks/{kind}.md"
