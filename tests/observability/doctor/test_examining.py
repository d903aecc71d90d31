"""The doctor's round: side by side, with deadlines, whatever is raised, and without secrets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from observability.doctor import examination
from observability.doctor.examination import Examination, Finding, Grade, in_thread, register_examination
from observability.doctor.examining import Result, examine, worst_of
from observability.doctor.table import as_table


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_examinations", {})


def look(name: str, found: Callable[[], Any], **more: Any) -> None:
    async def run() -> Sequence[Finding]:
        result = found()
        return [await result if asyncio.iscoroutine(result) else result]

    register_examination(Examination(name=name, run=run, remedy=f"Mend the {name}.", **more))


def test_what_is_raised_is_a_finding_and_the_others_go_on() -> None:
    def broken() -> Finding:
        raise ValueError("somebody's own words")

    look("broken", broken)
    look("sound", lambda: Finding.ok("all is well"))
    found = asyncio.run(examine())
    assert [(result.name, result.grade, result.seen, result.remedy) for result in found] == [
        ("broken", Grade.FAILED, "ValueError", "Mend the broken."),
        ("sound", Grade.OK, "all is well", ""),
    ]
    assert worst_of(found) is Grade.FAILED


def test_what_hangs_ends_at_its_deadline_even_on_a_thread() -> None:
    released = threading.Event()

    def hang() -> Sequence[Finding]:
        released.wait()
        return [Finding.ok("at last")]

    register_examination(Examination(name="silent", run=in_thread(hang), remedy="Wake it.", deadline_s=0.2))
    look("endless", lambda: asyncio.sleep(3600), deadline_s=0.2)
    began_at = time.monotonic()
    try:
        found = asyncio.run(examine())
    finally:
        released.set()
    assert time.monotonic() - began_at < 20
    assert {(result.name, result.seen) for result in found} == {("silent", "no answer within 0.2 s"), ("endless", "no answer within 0.2 s")}


def test_what_needs_something_that_failed_is_not_looked_at() -> None:
    look("ground", lambda: Finding.failed("gone", "Bring it back."))
    look("house", lambda: Finding.ok("stands"), needs=("ground",))
    look("roof", lambda: Finding.ok("holds"), needs=("house",))
    told: list[Sequence[Result]] = []
    found = asyncio.run(examine(tell=told.append))
    assert [result.grade for result in found] == [Grade.FAILED, Grade.SKIPPED, Grade.SKIPPED]
    assert found[2].seen == "not looked at: it needs the house"
    assert len(told) == 3


def test_calls_are_left_out_where_nobody_wants_them() -> None:
    look("model", lambda: Finding.ok("it answered"), is_call=True)
    assert asyncio.run(examine(with_calls=False))[0].grade is Grade.SKIPPED
    assert asyncio.run(examine())[0].grade is Grade.OK


@pytest.fixture
def secrets(settings: Any) -> list[str]:
    settings.OPENAI_API_KEY, settings.REDIS_URL = "sk-very-secret", "redis://:hidden-word@127.0.0.1/0"
    settings.PROVIDER_KEYS = {"OTHER_API_KEY": "another-secret"}
    return ["sk-very-secret", "hidden-word", "another-secret", "unknown-word"]


def test_no_secret_is_told(secrets: list[str]) -> None:
    said = f"it said {' and '.join(secrets[:3])} of https://somebody:unknown-word@example.org/x"
    look("repeating", lambda: Finding.failed(said, said, about=said))
    table = as_table(asyncio.run(examine()), columns=100)
    assert [secret for secret in secrets if secret in table] == []
    assert "https://…@example.org/x" in " ".join(table.split())
