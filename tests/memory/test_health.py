"""What operators are told when turns are not remembered."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core.checks import run_checks
from django.db import connection
from structlog.testing import capture_logs

from memory.health import NO_MODEL, NO_WORKER, find_mismatch, find_trouble, find_unfinished_change, warn_unless_isolated
from memory.isolation import read_standing
from memory.models import EmbeddingSpace, Turn

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_waits(db):
    Turn.objects.filter(remember=True).update(remember=False)


@pytest.fixture
def no_embedder(settings):
    settings.EMBEDDING_BASE_URL = settings.EMBEDDER_URL = settings.OPENAI_API_KEY = ""


@pytest.fixture
def stored(db):
    """Let memories be embedded by a model: `stored("some-model", 384)`."""

    def stored(model, dimensions):
        EmbeddingSpace.objects.update(is_active=False)
        return EmbeddingSpace.objects.create(model=model, dimensions=dimensions, is_active=True)

    return stored


def warnings(id="memory.W001"):
    return [message for message in run_checks(databases=["default"]) if message.id == id]


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


def test_another_model_than_before(embedder, stored):
    assert find_mismatch() == ""
    stored("another", 384)
    assert find_mismatch().startswith("Memories are embedded by another (384), and the settings now name all-minilm-l6-v2 (384).")
    assert "EMBEDDING_MODEL=another and EMBEDDING_DIMENSIONS=384" in find_mismatch()
    assert find_trouble() == ""
    [warning] = warnings("memory.W004")
    assert "run `manage.py reembed`" in warning.hint


def test_a_key_of_openai_after_memories_of_the_built_in_embedder(no_embedder, stored, settings):
    stored("all-minilm-l6-v2", 384)
    settings.OPENAI_API_KEY = "key"
    assert "the settings now name text-embedding-3-small (512)" in find_mismatch()
    for remedy in (
        "EMBEDDING_MODEL=all-minilm-l6-v2",
        "EMBEDDING_NEXT_MODEL=text-embedding-3-small",
        "`manage.py reembed`",
        "EMBEDDER_URL=",
    ):
        assert remedy in find_mismatch()
    settings.EMBEDDING_MODEL, settings.EMBEDDING_NEXT_MODEL = "all-minilm-l6-v2", "text-embedding-3-small"
    assert "EMBEDDER_URL" in find_mismatch()
    settings.EMBEDDER_URL = "http://127.0.0.1:8100/v1"
    assert find_mismatch() == find_unfinished_change() == ""


def test_the_built_in_embedder_goes_on_where_it_runs_until_the_change(embedder, stored, settings):
    stored("all-minilm-l6-v2", 384)
    settings.OPENAI_API_KEY = "key"
    assert find_mismatch() == ""
    [warning] = warnings("memory.W003")
    assert "`manage.py reembed`" in warning.hint


def test_after_the_change_the_settings_are_to_follow(embedder, stored, settings):
    stored("text-embedding-3-small", 512)
    settings.OPENAI_API_KEY, settings.EMBEDDING_MODEL = "key", "all-minilm-l6-v2"
    settings.EMBEDDING_NEXT_MODEL = "text-embedding-3-small"
    assert find_mismatch() == ""
    assert "EMBEDDING_NEXT_" in find_unfinished_change()


def test_without_any_model_memory_is_off_and_nothing_is_amiss(no_embedder, stored):
    stored("another", 384)
    assert find_mismatch() == find_unfinished_change() == ""


def test_row_level_security_that_is_not_in_force_is_told(embedder):
    assert read_standing().is_held
    with capture_logs() as logs:
        warn_unless_isolated()
    assert (logs, warnings("memory.W002")) == ([], [])
    with connection.cursor() as cursor:
        cursor.execute("ALTER ROLE chatbot_app BYPASSRLS")  # taken back with this test's transaction
    with capture_logs() as logs:
        warn_unless_isolated()
    [line] = logs
    [warning] = warnings("memory.W002")
    assert line["log_level"] == "warning"
    assert line["event"] + "." == warning.msg
    assert "docs/memory.md" in line["remedy"] == warning.hint
