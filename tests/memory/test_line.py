"""A lone recall asks the built-in embedder on a line of its own while the database finds whose memories there are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from memory.embedders.builtin import DIMENSIONS
from memory.embedders.client import EmbeddingFailed
from memory.embedders.configured import EmbeddingModel, embedding_model
from memory.embedders.line import close_lines, line_to
from memory.recall import recall
from memory.sources import Whose
from memory.wishes import Outcome, Room, Wish
from tests.factories import unique
from tests.memory.embedding_server import EmbeddingServer, vector_of

PATIENCE_S = 30.0


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    server = EmbeddingServer(dimensions=DIMENSIONS)
    yield server
    close_lines()
    server.stop()


@pytest.fixture
def builtin(server: EmbeddingServer, settings) -> EmbeddingModel:
    settings.EMBEDDER_URL, settings.EMBEDDING_MODEL, settings.OPENAI_API_KEY = server.url, "", ""
    model = embedding_model()
    assert model is not None
    assert model.is_builtin
    return model


def test_question_is_answered_and_the_connection_kept(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    for text in ("Where do I live?", "What is my dog called?", "Where do I live?"):
        with line_to(builtin, timeout_s=PATIENCE_S) as line:
            line.ask(text)
            assert line.answer() == pytest.approx(vector_of(text, dimensions=DIMENSIONS), abs=1e-6)
    assert server.texts == {"Where do I live?": 2, "What is my dog called?": 1}
    assert server.connections == 1


def test_nobody_hears_the_answer_to_another_question(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    with line_to(builtin, timeout_s=PATIENCE_S) as line:
        line.ask("Never mind.")
    with line_to(builtin, timeout_s=PATIENCE_S) as line:
        line.ask("Where does Ada live?")
        line.ask("Where do I live?")
        assert line.answer() == pytest.approx(vector_of("Where do I live?", dimensions=DIMENSIONS), abs=1e-6)


def test_each_of_several_threads_has_a_connection_of_its_own(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    with line_to(builtin, timeout_s=PATIENCE_S) as first, line_to(builtin, timeout_s=PATIENCE_S) as second:
        first.ask("One?")
        second.ask("Two?")
        assert second.answer() == pytest.approx(vector_of("Two?", dimensions=DIMENSIONS), abs=1e-6)
        assert first.answer() == pytest.approx(vector_of("One?", dimensions=DIMENSIONS), abs=1e-6)
    assert server.connections == 2


def test_a_connection_that_was_closed_while_it_was_idle_is_opened_again(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    with line_to(builtin, timeout_s=PATIENCE_S) as line:
        line.ask("One?")
        line.answer()
    server.close_connections()
    with line_to(builtin, timeout_s=PATIENCE_S) as line:
        line.ask("Two?")
        assert len(line.answer()) == DIMENSIONS


def test_an_embedder_that_is_gone_or_refuses_has_no_vector(server: EmbeddingServer, builtin: EmbeddingModel, free_port: int) -> None:
    server.refused = "swear"
    with line_to(builtin, timeout_s=PATIENCE_S) as line:
        line.ask("I swear.")
        with pytest.raises(EmbeddingFailed, match="HTTP 400"):
            line.answer()
    gone = EmbeddingModel(f"http://127.0.0.1:{free_port}/v1", "", builtin.name, DIMENSIONS, is_builtin=True)
    with line_to(gone, timeout_s=PATIENCE_S) as line:
        line.ask("One?")
        with pytest.raises(EmbeddingFailed, match="no connection"):
            line.answer()


def test_an_embedder_that_hangs_is_waited_for_no_longer_than_said() -> None:
    stop = threading.Event()

    class Hanging(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            stop.wait(600)

    hanging = ThreadingHTTPServer(("127.0.0.1", 0), Hanging)
    threading.Thread(target=hanging.serve_forever, daemon=True).start()
    model = EmbeddingModel(f"http://127.0.0.1:{hanging.server_port}/v1", "", "model", DIMENSIONS, is_builtin=True)
    try:
        with line_to(model, timeout_s=0.1) as line:
            line.ask("One?")
            with pytest.raises(TimeoutError):
                line.answer()
    finally:
        stop.set()
        hanging.shutdown()


def recall_for_strangers(count: int) -> list[Outcome]:
    """Recall at once for so many people of whom nothing is known."""

    def wish() -> Wish:
        return Wish(question="Where do I live?", whose=Whose(agent=unique("agent")), limit=5, room=Room(200), tokens_of=lambda _: 1)

    async def ask() -> list[Outcome]:
        return [recalled.outcome for recalled in await asyncio.gather(*(recall(wish()) for _ in range(count)))]

    return asyncio.run(ask())


@pytest.mark.usefixtures("live_db")
def test_who_recalls_for_others_already_has_no_time_to_embed_in_vain(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    assert recall_for_strangers(5) == [Outcome.EMPTY] * 5
    assert server.texts.total() == 1
    assert recall_for_strangers(1) == [Outcome.EMPTY]
    assert server.texts.total() == 2


@pytest.mark.usefixtures("live_db")
def test_vendor_that_is_paid_is_asked_nothing_in_vain(server: EmbeddingServer, builtin: EmbeddingModel, settings) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = [server.address]
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = server.url, "text-embedding-3-small"
    assert recall_for_strangers(1) == [Outcome.EMPTY]
    assert not server.texts
