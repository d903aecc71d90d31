"""What operators are told when turns are not remembered."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core.checks import run_checks

from memory.health import NO_MODEL, NO_WORKER, find_trouble
from memory.models import EmbeddingSpace, Turn

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_waits(db):
    Turn.objects.filter(remember=True).update(remember=False)


@pytest.fixture
def no_embedder(settings):
    settings.EMBEDDING_BASE_URL = settings.EMBEDDER_URL = settings.OPENAI_API_KEY = ""


def warnings():
    return [message for message in run_checks(databases=["default"]) if message.id == "memory.W001"]


def test_nobody_asks_for_memory(no_embedder, finish):
    finish("I like apples", remember=False)
    assert find_trouble() == ""
    assert warnings() == []


def test_nothing_to_embed_with(no_embedder, finish):
    finish("I like apples")
    assert find_trouble() == NO_MODEL
    [warning] = warnings()
    assert warning.msg == "Turns wait to be remembered, and there is nothing to embed them with."
    assert "EMBEDDER_URL" in warning.hint


def test_turns_that_wait_too_long(embedder, finish):
    turn = finish("I like apples")
    assert find_trouble() == ""
    Turn.objects.filter(pk=turn).update(finished_at=datetime.now(UTC) - timedelta(seconds=61))
    assert find_trouble() == NO_WORKER
    Turn.objects.filter(pk=turn).update(remembered_at=datetime.now(UTC))
    assert find_trouble() == ""


def test_another_model_than_before(embedder):
    EmbeddingSpace.objects.update(is_active=False)
    EmbeddingSpace.objects.create(model="another", dimensions=384, is_active=True)
    assert "another (384)" in find_trouble()
    [warning] = warnings()
    assert "EMBEDDING_MODEL" in warning.hint
