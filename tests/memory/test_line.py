"""A lone recall asks the built-in embedder on a line of its own while the database finds whose memories there are."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import memory.recall as recalling
from memory.choosing import Choice
from memory.embedders.builtin import DIMENSIONS
from memory.embedders.client import EmbeddingFailed
from memory.embedders.configured import EmbeddingModel, embedding_model
from memory.embedders.line import Line, close_lines, has_line, line_to
from memory.recall import recall
from memory.sources import Whose
from memory.wishes import Outcome, Room, Wish
from tests.factories import unique
from tests.memory.embedding_server import EmbeddingServer, vector_of
from tests.waiting import eventually

PATIENCE_S = 30.0


def soon() -> float:
    return time.monotonic() + PATIENCE_S


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    server = EmbeddingServer(dimensions=DIMENSIONS)
    yield server
    close_lines()
    server.stop()


@pytest.fixture
def builtin(server: EmbeddingServer, settings) -> EmbeddingModel:
    settings.EMBEDDER_URL, settings.EMBEDDING_MODEL, settings.OPENAI_API_KEY = server.url, "", ""
    settings.MEMORY_DEADLINE_MS = 60_000  # whoever else uses the machine
    model = embedding_model()
    assert model is not None
    assert model.is_builtin
    return model


def test_question_is_answered_and_the_connection_kept(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    for text in ("Where do I live?", "What is my dog called?", "Where do I live?"):
        with line_to(builtin, until=soon()) as line:
            line.ask(text)
            assert line.answer() == pytest.approx(vector_of(text, dimensions=DIMENSIONS), abs=1e-6)
    assert server.texts == {"Where do I live?": 2, "What is my dog called?": 1}
    assert server.connections == 1


def test_nobody_hears_the_answer_to_another_question(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    with line_to(builtin, until=soon()) as line:
        line.ask("Never mind.")
    with line_to(builtin, until=soon()) as line:
        line.ask("Where does Ada live?")
        line.ask("Where do I live?")
        assert line.answer() == pytest.approx(vector_of("Where do I live?", dimensions=DIMENSIONS), abs=1e-6)


def test_each_of_several_threads_has_a_connection_of_its_own(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    with line_to(builtin, until=soon()) as first, line_to(builtin, until=soon()) as second:
        first.ask("One?")
        second.ask("Two?")
        assert second.answer() == pytest.approx(vector_of("Two?", dimensions=DIMENSIONS), abs=1e-6)
        assert first.answer() == pytest.approx(vector_of("One?", dimensions=DIMENSIONS), abs=1e-6)
    assert server.connections == 2


def is_connected(line: Line) -> bool:
    return line._connection.sock is not None


def test_one_connection_is_kept_and_no_longer_than_it_is_sure_to_last(
    server: EmbeddingServer, builtin: EmbeddingModel, monkeypatch
) -> None:
    with line_to(builtin, until=soon()) as first, line_to(builtin, until=soon()) as second:
        for line in (first, second):
            line.ask("One?")
            line.answer()
    assert (is_connected(first), is_connected(second)) == (True, False)
    monkeypatch.setattr("memory.embedders.line._LONGEST_IDLE_S", 0.0)
    with line_to(builtin, until=soon()) as line:
        line.ask("Two?")
        line.answer()
    assert (is_connected(first), server.connections) == (False, 3)


def test_a_connection_that_was_closed_while_it_was_idle_is_opened_again(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    with line_to(builtin, until=soon()) as line:
        line.ask("One?")
        line.answer()
    server.close_connections()
    with line_to(builtin, until=soon()) as line:
        line.ask("Two?")
        assert len(line.answer()) == DIMENSIONS


def test_an_embedder_that_is_gone_or_refuses_has_no_vector(server: EmbeddingServer, builtin: EmbeddingModel, free_port: int) -> None:
    server.refused = "swear"
    with line_to(builtin, until=soon()) as line:
        line.ask("I swear.")
        with pytest.raises(EmbeddingFailed, match="HTTP 400"):
            line.answer()
    gone = EmbeddingModel(f"http://127.0.0.1:{free_port}/v1", "", builtin.name, DIMENSIONS, is_builtin=True)
    with line_to(gone, until=soon()) as line:
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
        with line_to(model, until=time.monotonic() + 2) as line:
            line.ask("One?")
            with pytest.raises(TimeoutError):
                line.answer()
            with pytest.raises(TimeoutError, match="no time is left"):
                line.ask("Two?")
    finally:
        stop.set()
        hanging.shutdown()


@pytest.mark.parametrize(
    ("url", "has_one"),
    [("http://127.0.0.1:8100/v1", True), ("https://embedder.internal/v1", False), ("http://me:secret@embedder.internal/v1", False)],
)
def test_a_password_and_tls_are_left_to_the_client_of_vendors(settings, url: str, has_one: bool) -> None:
    settings.EMBEDDER_URL, settings.EMBEDDING_MODEL, settings.OPENAI_API_KEY = url, "", ""
    model = embedding_model()
    assert model is not None
    assert has_line(model) == has_one


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
    assert recall_for_strangers(1) == [Outcome.EMPTY]
    eventually(lambda: server.texts.total() >= 2, what="those that were alone are asked for")  # who hung up is served all the same
    assert server.texts.total() == 2


@pytest.mark.usefixtures("live_db")
def test_vendor_that_is_paid_is_asked_nothing_in_vain(server: EmbeddingServer, builtin: EmbeddingModel, settings) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = [server.address]
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = server.url, "text-embedding-3-small"
    assert recall_for_strangers(1) == [Outcome.EMPTY]
    assert not server.texts


@pytest.mark.usefixtures("live_db")
def test_while_a_visit_goes_on_for_nobody_others_recall_in_steps(
    server: EmbeddingServer, builtin: EmbeddingModel, settings, monkeypatch
) -> None:
    visits: list[str] = []
    at_once, find, go_on = recalling._recall_at_once, recalling._find, threading.Event()

    def visit(*given: Any, **named: Any) -> Choice:
        visits.append("begun")
        return at_once(*given, **named)

    def find_slowly(*given: Any, **named: Any) -> Any:
        found = find(*given, **named)
        if len(visits) == 1:
            go_on.wait(PATIENCE_S)
        return found

    monkeypatch.setattr(recalling, "_recall_at_once", visit)
    monkeypatch.setattr(recalling, "_find", find_slowly)
    settings.MEMORY_DEADLINE_MS = 1000
    assert recall_for_strangers(1) == [Outcome.SLOW]
    monkeypatch.setattr(recalling, "_find", find)
    settings.MEMORY_DEADLINE_MS = 60_000
    assert recall_for_strangers(1) == [Outcome.EMPTY]
    assert len(visits) == 1
    go_on.set()
    eventually(lambda: not recalling._at_once.locked(), what="the thread ends")
    assert recall_for_strangers(1) == [Outcome.EMPTY]
    assert len(visits) == 2
