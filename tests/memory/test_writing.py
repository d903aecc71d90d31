"""Turns become memories: all of them, once, in order, whoever dies in between."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.db import connection, connections, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.embedders.client import EmbeddingFailed, EmbeddingModel, embedding_model
from memory.features import features_of
from memory.models import EmbeddingSpace, MemoryOwner, Origin, Passage, Posting, Sentence, Speaker, Subject, Turn
from memory.spaces import WrongSpace
from memory.storing import NewPassage, store
from memory.writing import MAX_TURNS, free_owners, remember_due_turns, take_due_turns
from observability.outbound import close_transports
from tests.factories import forget_vectors, unique
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("live_db")


@pytest.fixture(autouse=True)
def _nothing_waits(live_db):
    """Leave no turn of another test waiting, and no embedding space of another test's model."""
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    forget_vectors()


def remember(model):
    """Remember all that waits; return how many turns it were."""

    async def run():
        count = 0
        try:
            while done := await remember_due_turns(model):
                count += done
        finally:
            await close_transports()
        return count

    return asyncio.run(run())


def passages(*turns):
    return Passage.objects.filter(turn__in=turns, origin=Origin.TURN).order_by("seq")


def check_rows(owner):
    """Prove that an owner's sentences, postings and windows are what the passages' texts say."""
    names = [name for name in (owner.user_name, owner.agent_name) if name]
    own = list(Passage.objects.filter(owner=owner).order_by("seq"))
    lengths = {passage.seq: passage.length for passage in own}
    sentences, postings = set(), set()
    for passage in own:
        found = features_of(passage.text, said_on=passage.said_at.date(), names=names)
        sentences |= {(passage.seq, place, each.words, each.is_question) for place, each in enumerate(found.sentences)}
        postings |= {(each.term, passage.seq, each.frequency, each.in_question) for each in found.terms}
        assert (passage.length, passage.word_count, passage.asks) == (found.length, found.word_count, pytest.approx(found.asks))
        assert passage.window_length == sum(lengths.get(passage.seq + step, 0) for step in range(-2, 3))
        assert [(span.lower, span.upper - timedelta(1)) for span in passage.spans] == sorted({(s.first, s.last) for s in found.spans})
    for before, after in itertools.pairwise(own):
        assert after.seq - before.seq == (1 if before.session == after.session else 10)
    stored = Sentence.objects.filter(owner=owner).values_list("seq", "place", "words", "is_question")
    assert (len(stored), set(stored)) == (len(sentences), sentences)
    stored = Posting.objects.filter(owner=owner).values_list("term", "seq", "frequency", "in_question")
    assert (len(stored), set(stored)) == (len(postings), postings)


def owner_of(turn):
    conversation = Turn.objects.select_related("conversation").get(pk=turn).conversation
    return MemoryOwner.objects.get(agent=conversation.agent, subject=conversation.subject_id)


def test_a_finished_turn_becomes_passages_of_both_sides(embedder, finish):
    turn = finish("I adopted two cats yesterday. Do you like cats?", "Oh, I love cats because they purr!")
    assert remember(embedder) == 1
    user, agent = passages(turn)
    assert (user.speaker, user.seq, user.text) == ("user", 0, "I adopted two cats yesterday. Do you like cats?")
    assert (agent.speaker, agent.seq, agent.text) == ("agent", 1, "Oh, I love cats because they purr!")
    assert (user.has_time, user.has_number, agent.has_reason) == (True, True, True)
    assert user.asks == pytest.approx(4 / 9)
    stored = Turn.objects.get(pk=turn)
    assert user.said_at == stored.created_at
    assert stored.remembered_at is not None
    owner = owner_of(turn)
    check_rows(owner)
    assert owner.busy_until is None
    space = EmbeddingSpace.objects.get()
    assert (space.model, space.dimensions, space.is_active) == (embedder.name, 384, True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT vector_dims(embedding), l2_norm(embedding) FROM memory_sentence WHERE owner_id = %s", [owner.pk])
        assert [(dims, round(norm, 2)) for dims, norm in cursor.fetchall()] == [(384, 1.0)] * 3


def test_only_ended_turns_of_agents_that_remember(embedder, finish):
    unwanted = finish("I adopted a cat", "Nice!", remember=False)
    running = finish("I adopted a dog", state="running")
    failed = finish("I adopted a bird", state="failed")
    left = finish("I adopted a fish", "A fi", state="cancelled")
    assert remember(embedder) == 2
    stored = {passage.text for passage in passages(unwanted, running, failed, left)}
    assert stored == {"I adopted a bird", "I adopted a fish", "A fi"}


def test_greetings_get_no_row_and_wait_no_longer(embedder, finish):
    turn = finish("Hi there!", "Hello! How are you?")
    assert remember(embedder) == 1
    assert not passages(turn)
    assert remember(embedder) == 0


def test_sessions_never_touch(embedder, finish):
    person, first, second = unique("person"), unique("session"), unique("session")
    turns = [
        finish("I like apples", "I like pears", session=first, subject=person),
        finish("I like plums", "I like figs", session=first, subject=person),
        finish("I like bread", "I like cake", session=second, subject=person),
    ]
    assert remember(embedder) == 3
    turns.append(finish("I like nuts", "I like rice", session=first, subject=person))
    assert remember(embedder) == 1
    assert [passage.seq for passage in passages(*turns)] == [0, 1, 2, 3, 13, 14, 24, 25]
    check_rows(owner_of(turns[0]))


def test_windows_grow_with_what_follows(embedder, finish):
    session = unique("session")
    for number in range(7):
        finish(f"My {'red ' * number} apple", "A ripe pear, it seems", session=session)
        assert remember(embedder) == 1
    check_rows(owner_of(finish("one more", session=session)))


def test_long_texts_are_stored_in_parts(embedder, finish):
    text = "The green apples of this garden are sour until late in autumn. " * 60
    turn = finish("Tell me of apples", text)
    assert remember(embedder) == 1
    _, *rest = passages(turn)
    assert "".join(passage.text for passage in rest) == text
    assert [passage.part for passage in rest] == list(range(len(rest)))
    assert len(rest) > 3
    check_rows(owner_of(turn))


def test_names_of_the_speakers_are_neither_embedded_nor_indexed(embedder, finish):
    session = unique("session")
    first = finish("I like apples", session=session)
    remember(embedder)
    MemoryOwner.objects.filter(pk=owner_of(first).pk).update(user_name="Ada", agent_name="Robo")
    finish("Robo, Ada likes plums", session=session)
    remember(embedder)
    owner = owner_of(first)
    check_rows(owner)
    assert not Posting.objects.filter(owner=owner, term__in=["ada", "robo"]).exists()


text_of_turns = st.text(st.sampled_from("abcd \n.?!'é👋"), min_size=1, max_size=60)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), text_of_turns, text_of_turns), min_size=1, max_size=8), st.integers(1, 8))
def test_rows_are_what_the_texts_say(embedder, finish, said, at_once):
    person = unique("person")
    sessions = [unique("session") for _ in range(3)]
    turns = []
    for number, (session, message, reply) in enumerate(said):
        turns.append(finish(message, reply, session=sessions[session], subject=person))
        if number % at_once == 0:
            remember(embedder)
    remember(embedder)
    assert Turn.objects.filter(pk__in=turns, remembered_at=None).count() == 0
    check_rows(owner_of(turns[0]))


def test_workers_at_once_remember_every_turn_once(embedder, finish):
    sessions = [unique("session") for _ in range(6)]
    turns = [finish(f"I planted {number} trees", f"You planted {number} trees", session=sessions[number % 6]) for number in range(90)]

    async def work():
        count = idle = 0
        while idle < 3:  # another may be busy with the owners that are left
            done = await remember_due_turns(embedder)
            count, idle = count + done, 0 if done else idle + 1
            await asyncio.sleep(0 if done else 0.2)
        return count

    async def run():
        try:
            return await asyncio.gather(*(work() for _ in range(4)))
        finally:
            await close_transports()

    counts = asyncio.run(run())
    assert sum(counts) == 90
    assert passages(*turns).count() == 180
    for turn in turns[:6]:
        check_rows(owner_of(turn))


def test_an_owner_that_one_worker_is_busy_with_is_left_alone(embedder, finish):
    mine, other = finish("I like apples"), finish("I like pears")
    with transaction.atomic():
        taken = take_due_turns()
    assert {turn.id for turn in taken.turns} == {mine, other}
    late = finish("I like plums", session=Turn.objects.get(pk=mine).conversation.session_id)
    third = finish("I like figs")
    assert remember(embedder) == 1
    assert passages(mine, other, late).count() == 0
    assert passages(third).count() == 1
    free_owners(taken.owner_ids)
    assert remember(embedder) == 3


def test_a_lease_that_is_over_is_taken_again_and_the_second_to_write_writes_nothing(embedder, finish):
    turn = finish("I like apples")
    with transaction.atomic():
        [late] = take_due_turns().turns
    MemoryOwner.objects.filter(pk=late.owner_id).update(busy_until=datetime.now(UTC) - timedelta(seconds=1))
    assert remember(embedder) == 1
    passage = NewPassage(
        owner_id=late.owner_id,
        turn_id=turn,
        session=late.conversation_id,
        speaker=Speaker.USER,
        part=0,
        said_at=late.said_at,
        text=late.message,
        features=features_of(late.message, said_on=late.said_at.date()),
        vectors=(),
    )
    with transaction.atomic():
        assert store([passage], turn_ids=[turn], model=embedder) == 0
    assert passages(turn).count() == 1


def test_many_due_turns_come_in_batches(embedder, finish):
    session = unique("session")
    for number in range(MAX_TURNS + 5):
        finish(f"Apple {number}", session=session)
    with transaction.atomic():
        taken = take_due_turns()
    assert [turn.message for turn in taken.turns] == [f"Apple {number}" for number in range(MAX_TURNS)]
    free_owners(taken.owner_ids)
    assert remember(embedder) == MAX_TURNS + 5


def test_an_embedder_that_is_down_loses_nothing(embedder, finish):
    turn = finish("I like apples")
    with pytest.raises(EmbeddingFailed):
        remember(EmbeddingModel("http://127.0.0.1:9/v1", "", embedder.name, embedder.dimensions, is_builtin=True))
    assert passages(turn).count() == 0
    assert remember(embedder) == 1
    assert passages(turn).count() == 1


def test_vectors_of_another_model_are_refused(embedder, finish):
    finish("I like apples")
    remember(embedder)
    turn = finish("I like pears")
    with pytest.raises(WrongSpace, match="EMBEDDING_MODEL"):
        remember(EmbeddingModel(embedder.base_url, "", "other-model", None))
    assert passages(turn).count() == 0
    assert remember(embedder) == 1


def test_the_built_in_embedder_can_be_kept_beside_openai(embedder, finish, settings):
    first = finish("I like apples")
    remember(embedder)
    settings.OPENAI_API_KEY = "key"
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = embedder.base_url, embedder.name  # as docs/memory.md says
    second = finish("I like pears", session=Turn.objects.get(pk=first).conversation.session_id)
    assert remember(embedding_model()) == 1
    assert Sentence.objects.filter(owner=owner_of(second), seq__gte=0).count() == 2
    assert EmbeddingSpace.objects.count() == 1


def test_what_the_embedder_never_takes_is_remembered_by_its_words(finish, settings):
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    turn = finish("I like apples", "So do I, apples are good")
    picky = PickyEmbedder()
    try:
        assert remember(picky.model) == 1
    finally:
        picky.stop()
    assert passages(turn).count() == 2
    owner = owner_of(turn)
    assert [sentence.seq for sentence in Sentence.objects.filter(owner=owner)] == [1]
    assert Posting.objects.filter(owner=owner, term="appl", seq__gte=0).count() == 2


def test_a_server_that_refuses_everything_loses_nothing(finish, settings):
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    turn = finish("I like apples")
    picky = PickyEmbedder(disliked="")
    try:
        with pytest.raises(EmbeddingFailed, match="whatever is sent"):
            remember(picky.model)
    finally:
        picky.stop()
    assert Turn.objects.get(pk=turn).remembered_at is None


def test_forgetting_a_person_or_a_passage_leaves_no_row(embedder, finish):
    turn = finish("I like apples. I like pears", "So do I")
    kept = finish("I like plums", "I like figs")
    remember(embedder)
    owner, other = owner_of(turn), owner_of(kept)
    passages(turn).filter(speaker="user").delete()
    check_rows(other)
    assert {sentence.seq for sentence in Sentence.objects.filter(owner=owner)} == set(passages(turn).values_list("seq", flat=True))
    assert {posting.seq for posting in Posting.objects.filter(owner=owner)} <= {1}
    Subject.objects.get(pk=owner.subject_id).delete()
    for model in (Passage, Sentence, Posting):
        assert not model.objects.filter(owner_id=owner.pk).exists()
    check_rows(other)


class Worker:
    """`manage.py worker` in a process of its own."""

    def __init__(self, environment, url):
        env = {**environment, "EMBEDDER_URL": url, "LOG_LEVEL": "INFO"}
        self.process = subprocess.Popen([sys.executable, "manage.py", "worker"], env=env)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(90)


@pytest.fixture
def start_worker(server_environment):
    workers = []

    def start_worker(url):
        environment = {**os.environ, **server_environment, "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test"}
        workers.append(Worker(environment, url))
        return workers[-1]

    yield start_worker
    for worker in workers:
        if worker.process.poll() is None:
            worker.stop(signal.SIGKILL)


def test_a_worker_remembers_within_a_second_and_stops_when_asked(embedder, finish, start_worker):
    worker = start_worker(embedder.base_url)
    first = finish("I like apples")
    eventually(lambda: Turn.objects.get(pk=first).remembered_at, what="the worker is up", timeout_s=90)
    eventually(lambda: listeners(), what="the worker listens")
    took_s = []
    while not took_s or (min(took_s) >= 1.0 and len(took_s) < 10):
        number = len(took_s)
        turn = Turn.objects.get(pk=finish(f"I like pear number {number}"))
        remembered = eventually(lambda turn=turn: Turn.objects.get(pk=turn.pk).remembered_at, what="it is remembered")
        took_s.append((remembered - turn.finished_at).total_seconds())
    assert min(took_s) < 1.0
    assert worker.stop() == 0


def listeners():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
        return cursor.fetchone()[0]


def test_a_worker_killed_between_embedding_and_commit_loses_and_doubles_nothing(embedder, finish, start_worker):
    turns = [finish(f"I like apple number {number}", "So do I, a lot of apples") for number in range(5)]
    with transaction.atomic():
        take = take_due_turns()  # so that there are owners to lock
    free_owners(take.owner_ids)
    worker = start_worker(embedder.base_url)
    with transaction.atomic(), connection.cursor() as cursor:
        # The worker takes the turns, embeds them, and then waits for this lock.
        cursor.execute("LOCK TABLE memory_passage IN EXCLUSIVE MODE")
        in_other_session = ThreadPoolExecutor(1)
        waits = in_other_session.submit(wait_for_blocked_insert)
        waits.result(95)
        worker.stop(signal.SIGKILL)
        in_other_session.shutdown()
    assert passages(*turns).count() == 0
    assert Turn.objects.filter(pk__in=turns, remembered_at=None).count() == 5
    assert remember(embedder) == 0, "the dead worker's lease holds"
    MemoryOwner.objects.filter(pk__in=take.owner_ids).update(busy_until=datetime.now(UTC) - timedelta(seconds=1))
    second = start_worker(embedder.base_url)
    eventually(lambda: not Turn.objects.filter(pk__in=turns, remembered_at=None).exists(), what="another worker remembers", timeout_s=90)
    second.stop()
    assert passages(*turns).count() == 10
    for turn in turns:
        check_rows(owner_of(turn))


def wait_for_blocked_insert():
    try:
        eventually(blocked_inserts, what="the worker waits to write", timeout_s=90)
    finally:
        connections.close_all()


def blocked_inserts():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE '%INSERT INTO memory_passage%'"
        )
        return cursor.fetchone()[0]


class PickyEmbedder:
    """Refuses for good whatever holds the word "like", and embeds the rest."""

    def __init__(self, disliked="like"):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
                if any(disliked in text for text in texts):
                    status, answer = 400, {"error": {"message": "no likes"}}
                else:
                    status, answer = 200, {"data": [{"index": at, "embedding": [0.6, 0.8]} for at in range(len(texts))]}
                payload = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.model = EmbeddingModel(f"http://127.0.0.1:{self.server.server_port}/v1", "", "picky", None)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def test_a_worker_goes_on_when_the_embedder_is_back(finish, start_worker, free_port, wait_for_embedder):
    turn = finish("I like apples")
    worker = start_worker(f"http://127.0.0.1:{free_port}/v1")
    eventually(lambda: attempts(turn), what="the worker has tried", timeout_s=90)
    assert worker.process.poll() is None
    process = subprocess.Popen([sys.executable, "-m", "memory.embedders.builtin", str(free_port)])
    try:
        wait_for_embedder(process, free_port)
        eventually(lambda: Turn.objects.get(pk=turn).remembered_at, what="the turn is remembered", timeout_s=90)
    finally:
        process.terminate()
        process.wait(10)
    assert worker.stop() == 0


def attempts(turn):
    """The worker took the turn, and gave it back: its owner is there and not busy."""
    conversation = Turn.objects.select_related("conversation").get(pk=turn).conversation
    return MemoryOwner.objects.filter(agent=conversation.agent, subject=conversation.subject_id, busy_until=None).exists()
