"""The built-in embedder begins before it is known whose memories there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from memory.embedders.builtin import DIMENSIONS
from memory.embedders.configured import EmbeddingModel, embedding_model
from memory.head_start import head_start
from tests.memory.embedding_server import EmbeddingServer


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    server = EmbeddingServer(dimensions=DIMENSIONS)
    yield server
    server.stop()


@pytest.fixture
def builtin(server: EmbeddingServer, settings) -> EmbeddingModel:
    settings.OUTBOUND_ALLOWED_HOSTS = [server.address]
    settings.EMBEDDER_URL, settings.EMBEDDING_MODEL, settings.OPENAI_API_KEY = server.url, "", ""
    model = embedding_model()
    assert model is not None
    assert model.is_builtin
    return model


def test_question_is_embedded_once_where_it_is_read_as_it_was_asked(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    async def ask() -> None:
        with head_start("Where do I live?", [builtin]) as ahead:
            assert ahead is not None
            assert len(await ahead.embedding("Where do I live?", model=builtin)) == DIMENSIONS

    asyncio.run(ask())
    assert server.texts == {"Where do I live?": 1}


def test_question_that_is_read_otherwise_is_embedded_as_it_is_read(server: EmbeddingServer, builtin: EmbeddingModel) -> None:
    async def ask() -> tuple[list[float], list[float]]:
        with head_start("Where does Ada live?", [builtin]) as ahead:
            assert ahead is not None
            read = await ahead.embedding("Where does I live?", model=builtin)
            return read, await ahead.embedding("Where does Ada live?", model=builtin)

    as_read, as_asked = asyncio.run(ask())
    assert as_read != as_asked
    assert server.texts["Where does I live?"] == 1


def test_who_recalls_for_others_already_has_no_time_to_embed_in_vain(builtin: EmbeddingModel) -> None:
    async def ask() -> tuple[bool, bool, bool]:
        with head_start("One?", [builtin]) as first, head_start("Two?", [builtin]) as second:
            pass
        with head_start("Three?", [builtin]) as third:
            pass
        return first is not None, second is not None, third is not None

    assert asyncio.run(ask()) == (True, False, True)


def test_vendor_that_is_paid_is_asked_nothing_in_vain(server: EmbeddingServer) -> None:
    vendor = EmbeddingModel(server.url, "key", "text-embedding-3-small", DIMENSIONS)

    async def ask() -> None:
        with head_start("Where do I live?", [vendor]) as ahead:
            assert ahead is None

    asyncio.run(ask())
    assert not server.texts
