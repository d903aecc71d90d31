"""The worker's sign of life is there though nothing is to be done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from observability.api import Grade, roll_up
from observability.doctor.work import _look_at_worker
from observability.models import RollupState


@pytest.mark.django_db
def test_a_worker_without_work_is_seen() -> None:
    roll_up()
    RollupState.objects.update(rolled_up_at=datetime.now(UTC) - timedelta(hours=1))
    assert [found.grade for found in _look_at_worker()] == [Grade.FAILED]
    assert not roll_up()
    assert [found.grade for found in _look_at_worker()] == [Grade.OK]
