"""Examinations of what is done in the background: whether a worker is there, what waits, and what models cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from observability.catalogue import unpriced_models
from observability.doctor.examination import READING_TABLES, Examination, Finding, in_thread, register_examination
from observability.models import JobFailure, RollupState
from observability.queues import jobs_waiting

_GONE_AFTER: Final = timedelta(minutes=2)
_LATE_AFTER: Final = timedelta(minutes=5)
_START: Final = "Run `manage.py worker` as a process of its own; where one runs, its log says what is in the way."


def register_work_examinations() -> None:
    """Register them; observability's `ready()` calls it."""
    register_examination(Examination(name="worker", run=in_thread(_look_at_worker), needs=READING_TABLES, remedy=_START))
    register_examination(Examination(name="queues", run=in_thread(_look_at_queues), needs=READING_TABLES, remedy=_START))
    register_examination(Examination(name="prices", run=in_thread(_look_at_prices), needs=READING_TABLES, remedy="Run `manage.py prices`."))


def _look_at_worker() -> Sequence[Finding]:
    """Each worker sums the ledger every ten seconds and notes when: the sign of life that is there anyway."""
    seen_at = RollupState.objects.values_list("rolled_up_at", flat=True).first()
    if seen_at is None:
        return [Finding.failed("none was ever seen", _START)]
    ago = datetime.now(UTC) - seen_at
    if ago > _GONE_AFTER:
        return [Finding.failed(f"none was seen since {seen_at:%Y-%m-%d %H:%M} UTC", _START)]
    return [Finding.ok(f"one was seen {max(0, ago.total_seconds()):.0f} s ago")]


def _look_at_queues() -> Sequence[Finding]:
    now, findings = datetime.now(UTC), []
    for waiting in jobs_waiting():
        age = now - waiting.since if waiting.since else timedelta()
        seen = f"{waiting.jobs} waiting, the oldest for {age.total_seconds():.0f} s" if waiting.jobs else "nothing waits"
        if age > _LATE_AFTER:
            remedy = f"{_START} If it cannot keep up, run more of them (docs/runbooks/queue_age.md)."
            findings.append(Finding.failed(seen, remedy, about=waiting.queue))
        elif waiting.jobs:
            findings.append(Finding.ok(seen, about=waiting.queue))
    if failures := JobFailure.objects.filter(at__gt=now - timedelta(hours=1)).count():
        findings.append(Finding.warning(f"{failures} tries failed in the last hour", "See docs/runbooks/failed_jobs.md.", about="failures"))
    return findings or [Finding.ok("nothing waits")]


def _look_at_prices() -> Sequence[Finding]:
    remedy = "Run `manage.py prices`; what the catalogue does not know is entered in the admin, under Prices."
    unpriced = [
        Finding.warning("its price is unknown: no budget in money counts it", remedy, about=f"{m.model} at {m.provider}")
        for m in unpriced_models()
    ]
    return unpriced or [Finding.ok("those of all models in use are known")]


def look_at_work() -> list[tuple[str, Finding]]:
    """Return what the doctor says now of the worker and of what waits for it, each finding with what it is about."""
    findings = [("worker", finding) for finding in _look_at_worker()]
    return findings + [(f"queue {finding.about}" if finding.about else "queues", finding) for finding in _look_at_queues()]
