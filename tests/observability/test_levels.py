"""The log's level while the server runs: seen by every process within seconds, ended by itself, changed by those who may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from structlog.testing import capture_logs

from observability import levels
from observability.levels import change_level, keep_log_level, level_now, restore_level
from observability.models import LogLevel
from tests.factories import make_user
from tests.live_server import LiveServer
from tests.waiting import eventually


@pytest.mark.django_db
def test_the_newest_change_holds_until_its_end() -> None:
    assert level_now() == "INFO"
    with capture_logs() as lines:
        change_level("DEBUG", lasting=timedelta(hours=1), by="ada")
        change_level("ERROR", lasting=timedelta(days=400), by="ada")
    assert level_now() == "ERROR"
    assert [(line["to"], line["by"]) for line in lines] == [("DEBUG", "ada"), ("ERROR", "ada")]
    newest = LogLevel.objects.get(level="ERROR")
    assert newest.until - newest.set_at == levels.LONGEST
    LogLevel.objects.filter(pk=newest.pk).update(until=datetime.now(UTC))
    assert level_now() == "INFO"
    change_level("DEBUG", lasting=timedelta(hours=1), by="ada")
    assert restore_level(by="ada")
    assert not restore_level(by="ada")
    assert level_now() == "INFO"


def test_every_worker_takes_it_up_within_five_seconds_and_gives_it_up(start_server: Callable[..., LiveServer], live_db: None) -> None:
    server = start_server(workers=2)

    def pids_that_debug(since: int) -> bool:
        """Whether each worker writes the debug lines of probes: both are asked often enough to answer."""
        with server.client() as client:
            ids = [client.get("/health").headers["x-request-id"] for _ in range(20)]
        return all(each in server.log(since=since) for each in ids)

    assert not pids_that_debug(0)
    try:
        change_level("DEBUG", lasting=timedelta(minutes=5), by="a test")
        eventually(lambda: pids_that_debug(0), what="debug lines of every worker", timeout_s=20)  # five seconds, on a busy machine
    finally:
        restore_level(by="a test")

    def is_quiet() -> bool:
        since = server.log_path.stat().st_size
        with server.client() as client:
            ids = [client.get("/health").headers["x-request-id"] for _ in range(20)]
        return not any(each in server.log(since=since) for each in ids)

    eventually(is_quiet, what="no more debug lines", timeout_s=20)


def test_a_database_that_is_away_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    taken: list[str] = []
    said = iter(["DEBUG", OperationalError("gone"), "INFO"])

    def look() -> str:
        answer = next(said, "INFO")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run(look: Callable[[], str]) -> str:
        return look()

    async def watch() -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(keep_log_level(stopping))
        async with asyncio.timeout(60):
            while taken != ["DEBUG", "INFO"]:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        stopping.set()
        await task

    monkeypatch.setattr(levels, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(levels, "level_now", look)
    monkeypatch.setattr(levels, "run_burst", run)
    monkeypatch.setattr(levels, "set_level", taken.append)
    asyncio.run(watch())


@pytest.mark.django_db
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("loglevel")
    call_command("loglevel", "DEBUG", "--for", "15m")
    changed = LogLevel.objects.get()
    assert changed.until - changed.set_at == timedelta(minutes=15)
    assert changed.set_by.endswith("(manage.py)")
    call_command("loglevel")
    call_command("loglevel", "default")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown if not line.startswith("{")] == ["INFO", "DEBUG", "DEBUG", "INFO"]
    for wrong in (["LOUD"], ["DEBUG", "--for", "1y"], ["DEBUG", "--for", "0m"], ["DEBUG", "--for", "8d"]):
        with pytest.raises(CommandError):
            call_command("loglevel", *wrong)


@pytest.mark.django_db
def test_operators_change_it_in_the_admin_and_others_do_not() -> None:
    operator, editor = Client(headers={"accept": "text/html"}), Client()
    user = make_user(role="operator")
    operator.force_login(user)
    editor.force_login(make_user(role="editor"))
    page = "/admin/observability/loglevel/"
    assert operator.post(f"{page}add/", {"level": "DEBUG", "minutes": "15"}).status_code == 302
    changed = LogLevel.objects.get()
    assert (changed.level, changed.set_by) == ("DEBUG", user.get_username())
    shown = operator.get(page).content.decode()
    assert "DEBUG" in shown
    assert "Back to INFO now" in shown
    assert operator.get(f"{page}{changed.pk}/delete/").status_code == 403
    for client, status in ((editor, 403), (operator, 302)):
        assert client.post(f"{page}restore/").status_code == status
    assert level_now() == "INFO"
    assert operator.get(f"{page}restore/").status_code == 405
    assert editor.get(page).status_code == 403
