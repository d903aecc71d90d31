"""The doctor's round: all examinations side by side, each within its deadline. No exception ends it, and no secret leaves it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from observability.doctor.examination import Examination, Finding, Grade, examinations
from observability.logs import in_words

_SECRETS: Final = (
    "SECRET_KEY",
    "OPENAI_API_KEY",
    "EMBEDDING_API_KEY",
    "EMBEDDING_NEXT_API_KEY",
    "METRICS_TOKEN",
    "ALERT_WEBHOOK_URL",
    "EMAIL_URL",
    "SENTRY_DSN",
)
_ADDRESSES: Final = ("REDIS_URL", "DIRECT_DATABASE_URL", "EMAIL_URL", "OPENAI_BASE_URL", "EMBEDDING_BASE_URL")
_SHORTEST_SECRET_CHARS: Final = 4
_PASSWORD_IN_URL: Final = re.compile(r"(?<=://)[^\s/@]*@")
_MOST_CHARS: Final = 600


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an examination, or of one of the things that it looked at. `seconds` it took in all."""

    name: str
    grade: Grade
    seen: str
    remedy: str
    seconds: float


async def examine(*, with_calls: bool = True, tell: Callable[[Sequence[Result]], None] = lambda results: None) -> list[Result]:
    """Look at everything, and return what was found in the order of the examinations.

    Args:
        with_calls: also make the calls that may cost money.
        tell: called with the results of each examination as soon as it ends.
    """
    tasks: dict[str, asyncio.Task[list[Result]]] = {}

    async def take_turn(examination: Examination) -> list[Result]:
        lacks = [name for name in examination.needs if name in tasks and _is_in_the_way(await tasks[name])]
        if lacks:
            results = [Result(examination.name, Grade.SKIPPED, f"not looked at: it needs the {lacks[0]}", "", 0.0)]
        elif examination.is_call and not with_calls:
            results = [Result(examination.name, Grade.SKIPPED, "not looked at: no calls were wanted", "", 0.0)]
        else:
            results = await _look(examination)
        tell(results)
        return results

    async with asyncio.TaskGroup() as group:
        for examination in examinations():
            tasks[examination.name] = group.create_task(take_turn(examination))
    return [result for task in tasks.values() for result in task.result()]


def worst_of(results: Sequence[Result]) -> Grade:
    """Return the worst grade of all."""
    order = list(Grade)
    return max((result.grade for result in results), key=order.index, default=Grade.OK)


def _is_in_the_way(results: Sequence[Result]) -> bool:
    return all(result.grade is Grade.SKIPPED for result in results) or any(result.grade is Grade.FAILED for result in results)


async def _look(examination: Examination) -> list[Result]:
    began_at = time.monotonic()
    try:
        async with asyncio.timeout(examination.deadline_s):
            findings = await examination.run()
    except TimeoutError:
        findings = [Finding.failed(f"no answer within {examination.deadline_s:g} s", examination.remedy)]
    except ImproperlyConfigured as error:  # says what to do
        seen, _, remedy = str(error).partition(". ")
        findings = [Finding.failed(seen, remedy or examination.remedy)]
    except Exception as error:
        findings = [Finding.failed(in_words(error), examination.remedy)]
    seconds = time.monotonic() - began_at
    secrets = sorted(_secrets(), key=len, reverse=True)
    return [_result(examination.name, finding, seconds=seconds, secrets=secrets) for finding in findings]


def _result(name: str, finding: Finding, *, seconds: float, secrets: Sequence[str]) -> Result:
    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "…")
        return " ".join(_PASSWORD_IN_URL.sub("…@", text).split())[:_MOST_CHARS]

    name = f"{name}: {finding.about}" if finding.about else name
    return Result(clean(name), finding.grade, clean(finding.seen), clean(finding.remedy), seconds)


def _secrets() -> Iterator[str]:
    """Yield what must stand in no report, should somebody's error message repeat it."""
    values = [getattr(settings, name, "") for name in _SECRETS]
    values += [*settings.SECRET_KEY_FALLBACKS, *settings.PROVIDER_KEYS.values()]
    values += [database.get("PASSWORD", "") for database in settings.DATABASES.values()]
    values += [unquote(urlsplit(getattr(settings, name, "") or "").password or "") for name in _ADDRESSES]
    yield from (str(value) for value in values if value and len(str(value)) >= _SHORTEST_SECRET_CHARS)
