"""Which troubles of memory take a server from duty, and which do not."""

from datetime import UTC, datetime, timedelta

from memory.health import NO_WORKER, find_mismatch
from memory.models import EmbeddingSpace, Turn
from tests.factories import forget_vectors


def test_a_mismatch_takes_a_server_from_duty_and_a_missing_worker_does_not(live_db, embedder, finish, client, monkeypatch):
    monkeypatch.setattr("observability.health._DEADLINE_S", 60.0)  # whoever else uses the machine
    forget_vectors()
    turn = finish("I like apples")
    Turn.objects.filter(pk=turn).update(finished_at=datetime.now(UTC) - timedelta(seconds=61))
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"], answer.json()["checks"]["memory"]) == (200, "degraded", NO_WORKER)
    Turn.objects.filter(pk=turn).update(remembered_at=datetime.now(UTC))
    another = EmbeddingSpace.objects.create(model="another", dimensions=384, is_active=True)
    try:
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert answer.json()["checks"]["embedding model"] == find_mismatch()
    finally:
        another.delete()
