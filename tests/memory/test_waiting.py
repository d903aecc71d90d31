"""What of memory waits for the worker: how many jobs, and since when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from uuid_utils.compat import uuid7

from memory.models import Conversation, Subject, Turn, TurnState
from memory.waiting import register_queues
from observability.api import jobs_waiting

NOW = datetime.now(UTC)


@pytest.fixture
def conversation(db):
    subject = Subject.objects.create(owner="anonymous", name="s")
    return Conversation.objects.create(subject=subject, owner="anonymous", agent="helper", session_id="s")


def make_turn(conversation, seq, **fields):
    at = NOW - timedelta(hours=1)
    return Turn.objects.create(
        id=uuid7(), conversation=conversation, seq=seq, state=TurnState.DONE, agent="helper", version=1, message="Hi", reply="Hello",
        created_at=at, deadline_at=at + timedelta(minutes=1), **{"finished_at": at, **fields},
    )  # fmt: skip


def standing():
    return {waiting.queue: (waiting.jobs, waiting.since) for waiting in jobs_waiting()}


def test_queues_tell_how_many_wait_and_since_when(conversation, settings):
    settings.EMBEDDING_BASE_URL = "http://127.0.0.1:9/v1"
    before = standing()
    assert {name: before[name] for name in ("memory", "facts", "summaries")} == {
        "memory": (0, None), "facts": (0, None), "summaries": (0, None)
    }  # fmt: skip
    oldest = NOW - timedelta(minutes=9)
    make_turn(conversation, 1, remember=True, finished_at=oldest)
    make_turn(conversation, 2, remember=True, finished_at=NOW)
    make_turn(conversation, 3, remembered_at=NOW, facts_due_at=oldest)
    make_turn(conversation, 4, remembered_at=NOW, facts_due_at=NOW + timedelta(hours=1))
    Conversation.objects.filter(pk=conversation.pk).update(summary_due=True, last_turn_at=oldest)
    after = standing()
    assert (after["memory"], after["facts"], after["summaries"]) == ((2, oldest), (1, oldest), (1, oldest))


def test_nobody_waits_for_memory_where_it_is_off(conversation, settings):
    settings.EMBEDDING_BASE_URL = settings.OPENAI_API_KEY = settings.EMBEDDER_URL = ""
    register_queues()
    assert {"memory", "facts"}.isdisjoint(standing())
