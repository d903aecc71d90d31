"""The embedding cache: the same text again costs no call, and Redis never gets in the way."""

import asyncio
import base64
import json
import socket
import struct
import time

import pytest
from django.core.cache import caches
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from memory.embedders import cache
from memory.embedders.client import EmbeddingModel, embed
from observability.outbound import close_transports
from tests.factories import unique
from tests.memory.embedding_server import EmbeddingServer, vector_of
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("live_db")  # every call is in the ledger


@pytest.fixture(autouse=True)
def _switched_on(settings, monkeypatch):
    settings.EMBEDDING_CACHE_S = 300
    monkeypatch.setattr(cache, "DEADLINE_S", 30.0)  # whoever else uses the machine
    monkeypatch.setattr(cache, "_paused_until", 0.0)
    cache.counts.clear()


@pytest.fixture
def server(settings):
    server = EmbeddingServer(dimensions=32)
    settings.OUTBOUND_ALLOWED_HOSTS = [server.address]
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = server.url, "some-model"
    settings.OPENAI_API_KEY = settings.EMBEDDER_URL = ""
    server.model = EmbeddingModel(server.url, "", "some-model", None)
    yield server
    server.stop()


def run(task):
    async def to_the_end():
        try:
            return await task
        finally:
            await close_transports()

    return asyncio.run(to_the_end())


def is_kept(text, model):
    return caches[cache.ALIAS].has_key(cache.key_of(text, model))


def embedded(texts, model, **options):
    """Embed, and wait until it is kept."""
    vectors = run(embed(texts, model=model, **options))
    eventually(lambda: all(is_kept(text, model) for text in texts), what="the vectors are kept")
    return vectors


def test_the_same_text_again_costs_no_call(server):
    texts = [unique("one"), unique("two"), unique("one")]
    first = embedded([*texts, texts[0]], server.model)
    assert server.texts == dict.fromkeys(texts, 1)
    assert first[0] == first[3]
    again = run(embed([*texts, other := unique("three")], model=server.model))
    assert server.texts == dict.fromkeys([*texts, other], 1)
    for vector, before in zip(again[:3], first[:3], strict=True):
        assert vector == pytest.approx(before, abs=1e-3)
    assert cache.counts == {"misses": 4, "hits": 3}


def test_models_dimensions_and_servers_have_vectors_of_their_own(server):
    text = unique("text")
    embedded([text], server.model)
    for model in (
        EmbeddingModel(server.url, "", "another", None),
        EmbeddingModel(server.url, "", "some-model", 32),
        EmbeddingModel(f"http://localhost:{server.address.rpartition(':')[2]}/v1", "", "some-model", None),
    ):
        assert not is_kept(text, model)


def test_values_are_json_that_holds_halves_and_end_in_time(server):
    text = unique("text")
    embedded([text], server.model, cache_s=40)
    redis = caches[cache.ALIAS]
    key = cache.key_of(text, server.model)
    raw = redis.client.get_client(write=True).get(redis.make_key(key))
    packed = base64.b64decode(json.loads(raw))
    assert struct.unpack("<32e", packed) == pytest.approx(vector_of(text, dimensions=32), abs=1e-3)
    assert 0 < redis.ttl(key) <= 40
    embedded([lasting := unique("text")], server.model, cache_s=10_000)
    assert 200 < redis.ttl(cache.key_of(lasting, server.model)) <= 300  # EMBEDDING_CACHE_S


def half(*values):
    return base64.b64encode(struct.pack(f"<{len(values)}e", *values)).decode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        [1, 2],
        {"a": 1},
        "",
        "no base64!",
        "QQ==",  # half a half
        half(*[0.0] * 32),
        half(*[1.0] * 32),
        half(float("nan"), *[0.0] * 31),
        half(float("inf"), *[0.0] * 31),
        half(1.0, *[0.0] * 9),  # another length
    ],
)
def test_a_foreign_value_is_a_miss(server, value):
    model = EmbeddingModel(server.url, "", "some-model", 32)
    text = unique("text")
    caches[cache.ALIAS].set(cache.key_of(text, model), value)
    assert run(embed([text], model=model)) == [pytest.approx(vector_of(text, dimensions=32))]
    assert server.texts == {text: 1}


def test_what_is_no_json_is_a_miss(server):
    text, redis = unique("text"), caches[cache.ALIAS]
    redis.client.get_client(write=True).set(redis.make_key(cache.key_of(text, server.model)), b"\x80\x04N.")
    assert len(run(embed([text], model=server.model))) == 1


def test_a_server_that_changed_its_model_under_the_same_name(server):
    kept, new = unique("kept"), unique("new")
    embedded([kept], server.model)
    server.dimensions = 48
    assert {len(vector) for vector in run(embed([kept, new], model=server.model))} == {48}


def test_switched_off_nothing_is_asked_or_kept(server, settings):
    settings.EMBEDDING_CACHE_S = 0
    text = unique("text")
    run(embed([text], model=server.model))
    run(embed([text], model=server.model))
    assert server.texts == {text: 2}
    assert not cache.counts


@pytest.fixture
def redis_at(settings):
    """Let the cache be on another port."""

    def redis_at(port):
        settings.CACHES = {
            **settings.CACHES,
            cache.ALIAS: {**settings.CACHES[cache.ALIAS], "LOCATION": f"redis://127.0.0.1:{port}/0"},
        }

    return redis_at


def test_without_redis_it_is_a_miss_and_then_costs_nothing(server, redis_at, free_port):
    redis_at(free_port)
    with capture_logs() as logs:
        for _ in range(3):
            assert len(run(embed([unique("text")], model=server.model))) == 1
    assert [line["event"] for line in logs] == ["embedding cache left alone for a while"]
    assert cache.counts["failures"] == 1


def test_a_redis_that_hangs_is_waited_for_once_and_briefly(server, redis_at, monkeypatch):
    monkeypatch.setattr(cache, "DEADLINE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        redis_at(hanging.getsockname()[1])

        async def asked():
            started = time.monotonic()
            found = [await cache.fetch([unique("text")], model=server.model) for _ in range(50)]
            return time.monotonic() - started, found

        took_s, found = run(asked())
        assert +cache.counts == {"misses": 50, "failures": 1}
    assert found == [{}] * 50
    assert 0.5 <= took_s < 20  # waited for 50 times, it would be 25 s
    eventually(lambda: cache.counts["failures"] == 2, what="the thread that waits hears that the connection is gone")


def test_texts_are_forgotten_by_every_model(server):
    texts, others = [unique("text") for _ in range(3)], [unique("other")]
    models = [server.model, EmbeddingModel(server.url, "", "another", 32)]
    for model in models:
        embedded([*texts, *others], model)
    assert run(cache.forget_texts([*texts, texts[0], unique("never seen")], models=models)) == 6
    assert [is_kept(text, model) for model in models for text in (*texts, *others)] == [False, False, False, True] * 2


def test_forgetting_fails_where_redis_does_not_confirm(server, redis_at, free_port):
    redis_at(free_port)
    with pytest.raises(RedisConnectionError):
        run(cache.forget_texts(["I like pears."], models=[server.model]))
