"""Background work that fails leaves a row: which work, the error's kind, nothing else."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError
from uuid_utils.compat import uuid7

from observability.jobs import note_job_failure
from observability.models import JobFailure
from observability.rounds import keep_doing, keep_draining

pytestmark = pytest.mark.django_db(transaction=True)


class Unlucky(Exception):
    pass


def failures_of(queue):
    return list(JobFailure.objects.filter(queue=queue).values_list("error", flat=True))


@pytest.mark.parametrize("kind", ["doing", "draining"])
def test_both_kinds_of_loop_note_what_fails(kind):
    queue = f"q{uuid7()}"
    tries = 0

    async def work():
        stopping = asyncio.Event()

        async def fail():
            nonlocal tries
            tries += 1
            if tries < 3:
                raise Unlucky("with a secret in it")
            stopping.set()
            return 0

        if kind == "doing":
            await keep_doing(stopping, fail, every_s=0.01, what="working", queue=queue)
        else:
            await keep_draining(stopping, fail, every_s=0.01, failed="not worked", queue=queue)

    async_to_sync(work)()
    assert failures_of(queue) == ["Unlucky", "Unlucky"]


def test_a_database_that_is_away_is_not_asked_to_keep_it():
    queue = f"q{uuid7()}"
    async_to_sync(note_job_failure)(queue, OperationalError("gone"))
    assert failures_of(queue) == []


def test_who_is_in_a_hurry_does_not_wait_ever_longer_after_failures():
    queue = f"q{uuid7()}"
    tries = 0

    async def work():
        stopping = asyncio.Event()

        async def fail():
            nonlocal tries
            tries += 1
            if tries == 12:  # by doubling alone, the last wait would be 20 s
                stopping.set()
            raise OperationalError("gone")

        async with asyncio.timeout(60):
            await keep_doing(stopping, fail, every_s=0.01, what="working", queue=queue, longest_wait_s=0.02)

    async_to_sync(work)()
    assert tries == 12
