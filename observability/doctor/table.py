"""The doctor's report as text: a table for people, or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from observability.doctor.examination import Grade
from observability.doctor.examining import Result, worst_of

_WORDS: Final = {Grade.OK: "ok", Grade.SKIPPED: "-", Grade.WARNING: "warn", Grade.FAILED: "FAIL"}
_TITLE: Final = ("", "what", "seconds", "seen")
_LEAST_COLUMNS: Final = 40


def as_table(results: Sequence[Result], *, columns: int) -> str:
    """Return the results in lines of at most so many `columns`, each remedy under what it is for."""
    rows = [(_WORDS[result.grade], result.name, f"{result.seconds:.1f}", result) for result in results]
    name_wide = max(len(row[1]) for row in [*rows, _TITLE])
    margin = 4 + 2 + name_wide + 2 + len(_TITLE[2]) + 2
    lines = [f"{'':4}  {_TITLE[1]:{name_wide}}  {_TITLE[2]}  {_TITLE[3]}"]
    for word, name, seconds, result in rows:
        first, *more = _wrapped(result, columns=max(_LEAST_COLUMNS, columns - margin))
        lines.append(f"{word:4}  {name:{name_wide}}  {seconds:>{len(_TITLE[2])}}  {first}")
        lines += [f"{'':{margin}}{line}" for line in more]
    return "\n".join([*lines, "", in_a_sentence(results)])


def _wrapped(result: Result, *, columns: int) -> Iterator[str]:
    yield from textwrap.wrap(result.seen, columns) or [""]
    if result.remedy:
        yield from textwrap.wrap(f"→ {result.remedy}", columns, subsequent_indent="  ")


def in_a_sentence(results: Sequence[Result]) -> str:
    """Return how it stands in all."""
    failures = sum(result.grade is Grade.FAILED for result in results)
    warnings = sum(result.grade is Grade.WARNING for result in results)
    if worst_of(results) in (Grade.OK, Grade.SKIPPED):
        return "Nothing is wrong."
    return f"{failures} {'fault' if failures == 1 else 'faults'}, {warnings} {'warning' if warnings == 1 else 'warnings'}."


def as_json(results: Sequence[Result]) -> str:
    """Return the results for machines: `{"worst", "results": [{"name", "grade", "seen", "remedy", "seconds"}]}`."""
    listed = [asdict(result) | {"seconds": round(result.seconds, 3)} for result in results]
    return json.dumps({"worst": worst_of(results), "results": listed}, indent=2)
