"""What the doctor sees of a machine that has too little of something."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from chatbot_site import doctor
from observability.api import Grade


def test_more_processes_than_there_is_memory_for(settings: Any) -> None:
    settings.WEB_CONCURRENCY = 1_000_000
    [found] = doctor._look_at_memory()
    assert found.grade is Grade.WARNING
    assert "Lower WEB_CONCURRENCY" in found.remedy


@pytest.mark.parametrize(("free_mb", "grade"), [(50, Grade.FAILED), (500, Grade.WARNING), (5000, Grade.OK)])
def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch, free_mb: int, grade: Grade) -> None:
    usage = shutil.disk_usage("/")._replace(free=free_mb * 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert {found.grade for found in doctor._look_at_disk()} == {grade}


def test_any_host_name_is_answered(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert [found.grade for found in doctor._look_at_hosts()] == [Grade.WARNING]


def test_origins_may_be_patterns(settings: Any) -> None:
    settings.ALLOWED_HOSTS, settings.CSRF_TRUSTED_ORIGINS = [".example.com"], ["https://*.example.com", "https://admin.example.com:8443"]
    assert [found.grade for found in doctor._look_at_hosts()] == [Grade.OK]
