"""The doctor's report where the settings cannot even be read, so that nothing else can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from observability.doctor.examination import Grade
from observability.doctor.examining import Result
from observability.doctor.table import as_json, as_table

_REMEDY: Final = ". Set it to "
_COLUMNS: Final = 120


def report_unconfigured(error: Exception, *, arguments: Sequence[str]) -> str:
    """Return the report of an ImproperlyConfigured, as `manage.py doctor` with these arguments prints it."""
    results = [_result(line) for line in str(error).splitlines() if line.strip()]
    results.append(Result("everything else", Grade.SKIPPED, "not looked at: it needs the settings", "", 0.0))
    return as_json(results) if "--json" in arguments else as_table(results, columns=_COLUMNS)


def _result(line: str) -> Result:
    seen, found, remedy = line.partition(_REMEDY)
    return Result("settings", Grade.FAILED, seen, f"{_REMEDY.removeprefix('. ')}{remedy}" if found else "See docs/settings.md.", 0.0)
