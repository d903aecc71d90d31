"""Similar questions: one gets the answer of another where an editor allows it, and nobody gets what is not for them."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import transaction
from django_redis import get_redis_connection

from agents.chat.likeness import LONGEST_CHARS, _keep, delete_ended_questions
from agents.chat.replies import reply_name
from agents.models import KeptQuestion
from memory.api import erase
from memory.models import Turn
from observability.models import Attempt
from observability.outbound import close_transports
from tests.factories import make_key, make_key_owner, make_version, unique
from tests.live_server import live_server
from tests.memory.embedding_server import EmbeddingServer
from tests.promises.conftest import priced as priced
from tests.upstream import Gate, Reply
from tests.waiting import eventually

SIMILAR = {"reply_cache_s": 60, "reply_similarity": 0.85}
ONE, OTHER = "How do I reset my password?", "How do I reset my password please?"


@pytest.fixture(scope="module")
def embeddings():
    """A vendor's embeddings, in which texts that share words are close: ONE and OTHER are 0.93."""
    server = EmbeddingServer(dimensions=1024)
    server.model = unique("model")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def embedding_environment(server_environment, embeddings):
    return {**server_environment, "EMBEDDING_BASE_URL": embeddings.url, "EMBEDDING_MODEL": embeddings.model, "EMBEDDER_URL": ""}


@pytest.fixture(scope="module")
def patient(embedding_environment):
    """A server that waits long for embeddings, whoever else uses the machine."""
    with live_server(environment={**embedding_environment, "MEMORY_DEADLINE_MS": "10000"}) as server:
        yield server


@pytest.fixture
def ask(patient, watch_log):
    watch_log(patient)

    def ask(agent, message, *, key=None, server=patient, **fields):
        headers = {"Authorization": f"Bearer {key.secret}"} if key else {}
        headers |= {"Cache-Control": fields.pop("cache_control")} if "cache_control" in fields else {}
        with server.client() as client:
            response = client.post(f"/api/chat/{agent.slug}", json={"message": message, **fields}, headers=headers)
        assert response.status_code == 200, response.text
        return response if fields.get("stream") else response.json()

    return ask


def kept(agent, *, count=1):
    """Wait until so many questions of an agent can be found."""
    turns = Turn.objects.filter(agent=agent.slug).values("id")
    return eventually(lambda: KeptQuestion.objects.filter(turn_id__in=turns).count() == count, what="questions are kept")


def erase_person(subject_id):
    async def forget():
        try:
            return await erase(subject_id, actor="test")
        finally:
            await close_transports()

    return asyncio.run(forget())


def test_a_similar_question_gets_the_answer_and_is_told_why(make_chat_agent, upstream, ask, priced):
    upstream.script(Reply("Click on 'Forgot password'."))
    agent = make_chat_agent(upstream, **SIMILAR)
    priced(agent)
    first = ask(agent, ONE)
    kept(agent)
    again = ask(agent, OTHER)
    assert (first["cached"], again["cached"]) == (False, True)
    assert "matched" not in first
    assert again["reply"] == first["reply"]
    assert 0.85 <= again["matched"]["similarity"] < 1
    assert 0 <= again["matched"]["age_s"] < 60
    assert again["matched"]["question"] is None
    assert again["usage"]["saved_usd"] == "0.0180000000"
    assert len(upstream.calls) == 1
    assert Counter(Attempt.objects.filter(agent=agent.slug, kind="chat").values_list("outcome", "cost_usd", "saved_usd", "saved_by")) == {
        ("done", Decimal("0.018"), 0, ""): 1,
        ("cancelled", 0, 0, ""): 1,  # what the second might have cost, until it was clear that it costs nothing
        ("cached", 0, Decimal("0.018"), "cache"): 1,
    }
    assert list(Turn.objects.filter(agent=agent.slug).values_list("state", "reply")) == [("done", first["reply"])] * 2


def test_a_stream_tells_it_too(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, **SIMILAR)
    ask(agent, ONE)
    kept(agent)
    streamed = ask(agent, OTHER, stream=True)
    assert [line for line in streamed.text.splitlines() if line.startswith("event")] == ["event: start", "event: delta", "event: done"]
    assert '"cached":true' in streamed.text
    assert '"matched":{"similarity":0.9' in streamed.text


def test_who_has_a_key_is_told_the_other_question(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, **SIMILAR)
    key = make_key(agent)
    ask(agent, ONE, key=key, user="ada")
    kept(agent)
    assert ask(agent, OTHER, key=key, user="ada")["matched"]["question"] == ONE


def test_the_very_same_question_is_matched_by_nothing(make_chat_agent, upstream, ask, embeddings):
    agent = make_chat_agent(upstream, **SIMILAR)
    ask(agent, ONE)
    kept(agent)
    before = embeddings.calls
    again = ask(agent, ONE)
    assert again["cached"]
    assert "matched" not in again
    assert embeddings.calls == before


@pytest.mark.parametrize(
    "fields",
    [{"reply_cache_s": 60}, {**SIMILAR, "reply_cache_s": 0}, {**SIMILAR, "memory_enabled": True}, {**SIMILAR, "reply_similarity": 1.0}],
)
def test_it_is_off_without_a_similarity_a_cache_or_where_the_agent_remembers(make_chat_agent, upstream, ask, fields):
    agent = make_chat_agent(upstream, **fields)
    assert [ask(agent, message)["cached"] for message in (ONE, OTHER)] == [False, False]
    assert len(upstream.calls) == 2


def test_nothing_is_embedded_where_it_is_off(make_chat_agent, upstream, ask, embeddings):
    agent = make_chat_agent(upstream, reply_cache_s=60)
    before = embeddings.calls
    ask(agent, ONE)
    assert embeddings.calls == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("When will you deliver my order number 12 to me?", "When will you deliver my order number 13 to me?"),
        ("Please tell me: can I return the shoes that I bought?", "Please tell me: can't I return the shoes that I bought?"),
        ("What is the best hotel in all of Paris today?", "What is the best hotel in all of London today?"),
        ("How do I reset my password?", "What does it cost to send a parcel abroad?"),
        ("How do I reset my password? " + "x" * LONGEST_CHARS, "How do I reset my password please? " + "x" * LONGEST_CHARS),
    ],
)
def test_what_may_mean_something_else_is_asked(make_chat_agent, upstream, ask, one, other):
    agent = make_chat_agent(upstream, **SIMILAR)
    ask(agent, one)
    if len(one) <= LONGEST_CHARS:
        kept(agent)
    assert not ask(agent, other)["cached"]


def test_answers_never_cross_agents_versions_owners_and_users(make_chat_agent, upstream, ask):
    agent, another = make_chat_agent(upstream, **SIMILAR), make_chat_agent(upstream, **SIMILAR)
    owner = make_key_owner()
    scopes = ("chat", "pinned_versions")
    ours, also_ours, theirs = make_key(agent, owner=owner, scopes=scopes), make_key(agent, owner=owner), make_key(agent)
    ask(agent, ONE)
    ask(agent, ONE, key=ours, user="ada")
    ask(agent, ONE, key=ours)
    kept(agent, count=3)
    others = [
        ask(another, OTHER),
        ask(agent, OTHER, key=theirs),
        ask(agent, OTHER, key=theirs, user="ada"),
        ask(agent, OTHER, key=ours, user="bob"),
    ]
    assert [answer["cached"] for answer in others] == [False] * 4
    same = [ask(agent, OTHER), ask(agent, OTHER, key=also_ours), ask(agent, OTHER, key=also_ours, user="ada")]
    assert [answer["cached"] for answer in same] == [True] * 3
    version = make_version(agent, temperature=0.1)
    assert not ask(agent, OTHER, key=ours, version=version.number)["cached"]


def test_a_conversation_that_goes_on_is_another_question(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, **SIMILAR)
    session = ask(agent, ONE)["session_id"]
    kept(agent)
    assert not ask(agent, OTHER, session_id=session)["cached"]


def test_no_cache_asks_the_model(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, **SIMILAR)
    ask(agent, ONE)
    kept(agent)
    assert not ask(agent, OTHER, cache_control="no-cache")["cached"]


def test_a_new_answer_that_was_asked_for_takes_the_old_ones_place_for_similar_questions_too(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, **SIMILAR)
    ask(agent, ONE)
    kept(agent)
    upstream.script(Reply("A new one."))
    message_id = ask(agent, ONE, cache_control="no-cache")["message_id"]
    eventually(lambda: KeptQuestion.objects.filter(turn_id=message_id).exists(), what="the question is the new turn's")
    kept(agent)
    assert ask(agent, OTHER)["reply"] == "A new one."


def test_what_an_editor_keeps_from_the_cheaper_model_gets_no_answer_of_it(make_chat_agent, upstream, ask):
    names = {name: unique(name) for name in ("large", "small", "tiny")}
    agent = make_chat_agent(
        upstream, model=names["large"], simple_model=names["small"], classifier_enabled=True, classifier_model=names["tiny"],
        simple_max_chars=60, simple_not_words=["please"], **SIMILAR,
    )  # fmt: skip
    upstream.script(Reply("simple"), model=names["tiny"])
    assert ask(agent, ONE)["model"] == names["small"]
    kept(agent)
    assert ask(agent, OTHER)["model"] == names["large"]
    assert ask(agent, "So how do I reset my password?")["cached"]


def test_of_the_same_questions_at_once_all_are_answered_like_the_similar_one(make_chat_agent, upstream, ask, patient):
    agent = make_chat_agent(upstream, **SIMILAR)
    ask(agent, ONE)
    kept(agent)

    async def together():
        async with patient.async_client() as client:
            asked = [client.post(f"/api/chat/{agent.slug}", json={"message": OTHER}) for _ in range(10)]
            return [response.json() for response in await asyncio.gather(*asked)]

    answers = asyncio.run(together())
    assert [(answer["cached"], "matched" in answer) for answer in answers] == [(True, True)] * 10
    assert len(upstream.calls) == 1


def test_without_the_answer_or_past_its_time_the_model_is_asked(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, **SIMILAR)
    message_id = ask(agent, ONE)["message_id"]
    kept(agent)
    question = KeptQuestion.objects.get(turn_id=message_id)
    KeptQuestion.objects.filter(pk=question.pk).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert not ask(agent, OTHER, cache_control="no-store")["cached"]
    with transaction.atomic():
        delete_ended_questions()
    assert not KeptQuestion.objects.filter(pk=question.pk).exists()

    other = KeptQuestion.objects.filter(turn_id__in=Turn.objects.filter(agent=agent.slug).values("id"))
    kept(agent)
    get_redis_connection("default").delete(*(reply_name(it.pk) for it in other))
    assert not ask(agent, f"{OTHER} please")["cached"]


def test_slow_embeddings_delay_nobody_and_help_later(make_chat_agent, upstream, ask, embedding_environment, embeddings, watch_log):
    agent = make_chat_agent(upstream, **SIMILAR)
    with live_server(environment={**embedding_environment, "MEMORY_DEADLINE_MS": "100", "EMBEDDING_CACHE_S": "60"}) as hasty:
        watch_log(hasty)
        ask(agent, "Are you there?", server=hasty)  # what a process does but once is done
        gate, answer = threading.Event(), embeddings.answer
        embeddings.answer = lambda texts: answer(texts) if gate.wait(20) else None
        try:
            assert not ask(agent, ONE, server=hasty)["cached"]  # told before the embedding is there
        finally:
            gate.set()
            embeddings.answer = answer
        kept(agent, count=2)  # once its vector came


def test_without_embeddings_the_model_is_asked(make_chat_agent, upstream, ask, embeddings):
    agent = make_chat_agent(upstream, **SIMILAR)
    embeddings.refused = "password"
    try:
        assert [ask(agent, message)["cached"] for message in (ONE, OTHER)] == [False, False]
    finally:
        embeddings.refused = ""


def test_who_is_erased_leaves_no_question_and_no_answer_for_others(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, **SIMILAR)
    message_id = ask(agent, ONE)["message_id"]
    kept(agent)
    turn = Turn.objects.select_related("conversation").get(pk=message_id)
    receipt = erase_person(turn.conversation.subject_id)
    assert receipt.counts["similar_questions"] == 1
    assert not KeptQuestion.objects.filter(turn_id=message_id).exists()
    assert not ask(agent, ONE)["cached"]


def test_who_is_erased_before_the_answer_came_leaves_none_in_the_cache(make_chat_agent, upstream, ask):
    agent, gate = make_chat_agent(upstream, reply_cache_s=60), Gate()
    upstream.script(Reply("Too late.", gate=gate), Reply("Anew."))
    with ThreadPoolExecutor(1) as others:
        asking = others.submit(ask, agent, ONE)
        turn = eventually(lambda: Turn.objects.select_related("conversation").filter(agent=agent.slug).first(), what="the turn is stored")
        eventually(lambda: len(upstream.calls) == 1, what="the model is asked")
        erase_person(turn.conversation.subject_id)
        gate.open()
        assert asking.result()["reply"] == "Too late."
    assert ask(agent, ONE)["reply"] == "Anew."


def test_of_a_turn_that_was_erased_meanwhile_nothing_is_kept(live_db):
    key = unique("key")
    redis = get_redis_connection("default")
    redis.set(reply_name(key), b"{}")
    now = datetime.now(UTC)
    question = KeptQuestion(key=key, scope="s", turn_id=uuid4(), question=ONE, embedding=[1.0], kept_at=now, expires_at=now)
    with transaction.atomic():
        _keep([question])
    assert not KeptQuestion.objects.filter(pk=key).exists()
    assert not redis.exists(reply_name(key))


def test_the_embedding_is_on_the_persons_account(make_chat_agent, upstream, ask, embeddings):
    agent = make_chat_agent(upstream, **SIMILAR)
    key = make_key(agent)
    turn = Turn.objects.select_related("conversation").get(pk=ask(agent, ONE, key=key, user="ada")["message_id"])
    [call] = eventually(
        lambda: list(Attempt.objects.filter(agent=agent.slug, kind="embedding", outcome="done")), what="the call is in the ledger"
    )
    assert (call.subject_id, call.conversation_id, call.key) == (turn.conversation.subject_id, turn.conversation_id, key.key.prefix)
    assert call.model == embeddings.model
