"""Reports of the doctor that are kept: the newest few, for the admin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from observability.doctor.examination import Grade
from observability.doctor.examining import Result
from observability.models import DoctorReport

_MOST_REPORTS: Final = 20


def keep_report(results: Sequence[Result], *, by: str, with_calls: bool, seconds: float) -> DoctorReport:
    """Store what was found, and forget the oldest reports. Runs inside a transaction that the caller began."""
    report = DoctorReport.objects.create(
        examined_at=datetime.now(UTC),
        examined_by=by,
        with_calls=with_calls,
        seconds=seconds,
        results=[asdict(result) for result in results],
    )
    kept = list(DoctorReport.objects.values_list("id", flat=True)[:_MOST_REPORTS])
    DoctorReport.objects.exclude(id__in=kept).delete()
    return report


def last_report() -> DoctorReport | None:
    """Return the newest report; None where there is none."""
    return DoctorReport.objects.first()


def results_of(report: DoctorReport) -> list[Result]:
    """Return what a report holds, the worst first."""
    order = [Grade.FAILED, Grade.WARNING, Grade.OK, Grade.SKIPPED]
    results = [Result(**{**result, "grade": Grade(result["grade"])}) for result in report.results]
    return sorted(results, key=lambda result: order.index(result.grade))
