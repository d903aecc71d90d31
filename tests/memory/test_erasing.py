"""Erasing a person: nothing of them is left anywhere, nothing comes back, and others are not touched."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections, transaction
from uuid_utils.compat import uuid7

from memory import erasing
from memory.browsing import person_owner
from memory.elsewhere import register_eraser, unregister_eraser
from memory.embedders import cache
from memory.embedders.client import EmbeddingModel
from memory.erasing import erase, erase_user
from memory.features import features_of
from memory.forgetting import forget_all
from memory.models import (
    Conversation,
    EmbeddingSpace,
    Erasure,
    MemoryOwner,
    OwnerKind,
    Passage,
    Posting,
    Recalled,
    Speaker,
    Subject,
    Summary,
    Turn,
    TurnState,
    WideSentence,
)
from memory.people import subject_for
from memory.receipts import ErasureNotFound, read_receipt, reference_to
from memory.recollections import RecalledPassage
from memory.storing import NewPassage, store
from memory.turns import FinishedTurn, NewTurn, finish_turns, open_turns
from memory.upkeep.conversations import end_conversations
from memory.writing import free_owners, take_due_turns
from observability.api import GroupCommit, run_burst
from tests.factories import forget_vectors, unique
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("live_db")
MODEL = EmbeddingModel(name="erasing-test", base_url="http://127.0.0.1:9/v1", api_key="", dimensions=3)
TABLES = (
    "memory_conversation", "memory_turn", "memory_summary", "memory_owner", "memory_passage", "memory_sentence",
    "memory_widesentence", "memory_posting", "memory_recalled", "memory_subject",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _only_our_space(live_db):
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    forget_vectors()
    yield
    forget_vectors()


@pytest.fixture
def person(finish):
    """Make somebody about whom there is something in every table; returns their `Subject`."""

    def person(*, says="I like plums", owner="owner:1", agents=("companion", "tutor")):
        name = unique("person")
        for agent in agents:
            for _ in range(2):
                remember(finish(f"{says}.", f"You said: {says}.", owner=owner, subject=name, session=unique("session"), agent=agent))
        subject = Subject.objects.get(owner=owner, name=name)
        own = MemoryOwner.objects.get(subject=subject, agent=agents[0])
        turn = Turn.objects.filter(conversation__subject=subject, agent=agents[0]).first()
        source = Passage.objects.filter(owner=own).first()
        fact = add_passage(own, f"They like: {says}", turn=turn, source=source, attribute="preference", origin="fact")
        add_passage(own, f"Once: {says}", origin="added", valid_until=datetime.now(UTC), superseded_by=fact)
        known = MemoryOwner.objects.get_or_create(kind=OwnerKind.AGENT, agent=agents[0])[0]
        shop = Passage.objects.filter(owner=known).first() or add_passage(known, "The shop opens at nine.", origin="added")
        for place, passage in enumerate((source, fact, shop), start=1):
            Recalled.objects.create(
                turn=turn, passage=passage, owner=passage.owner, position=place, score=1.0, recalled_at=datetime.now(UTC)
            )
        Summary.objects.create(conversation=turn.conversation, number=1, upto_seq=1, text=f"Summary: {says}")
        Conversation.objects.filter(id=turn.conversation_id).update(summary=f"Summary: {says}", summarised_seq=1)
        return subject

    return person


def remember(turn_id):
    """Store both sides of a finished turn as memories, as the worker does, with made-up vectors."""
    turn = Turn.objects.select_related("conversation").get(pk=turn_id)
    conversation = turn.conversation
    owner, _ = MemoryOwner.objects.get_or_create(agent=conversation.agent, subject_id=conversation.subject_id)
    with transaction.atomic():
        return store(new_passages(turn, owner), turn_ids=[turn_id], model=MODEL)


def new_passages(turn, owner):
    passages = []
    for speaker, text in ((Speaker.USER, turn.message), (Speaker.AGENT, turn.reply)):
        found = features_of(text, said_on=turn.created_at.date(), names=())
        passages.append(
            NewPassage(
                owner_id=owner.pk,
                turn_id=turn.pk,
                session=turn.conversation_id,
                speaker=speaker,
                part=0,
                said_at=turn.created_at,
                text=text,
                features=found,
                vectors=tuple((1.0, 0.0, 0.0) for _ in found.sentences),
            )
        )
    return passages


def add_passage(owner, text, **fields):
    lowest = Passage.objects.filter(owner=owner).order_by("seq").values_list("seq", flat=True).first()
    seq = min(lowest or 0, 0) - 10
    passage = Passage.objects.create(
        **{
            "owner": owner,
            "session": seq,
            "seq": seq,
            "speaker": "note",
            "said_at": datetime.now(UTC),
            "text": text,
            "content_hash": text.encode()[-16:],
            "length": 2,
            "window_length": 2,
            "word_count": 3,
            "asks": 0.0,
            "has_time": False,
            "has_number": False,
            "has_reason": False,
            "has_name": False,
            "spans": "{}",
            **fields,
        }
    )
    space = EmbeddingSpace.objects.get_or_create(model="wide", dimensions=4)[0]
    WideSentence.objects.create(
        owner=owner, space=space, seq=seq, place=0, words=3, is_question=False, sketch="1010", embedding=[1, 0, 0, 0]
    )
    Posting.objects.create(owner=owner, term=text.split()[-1].lower(), seq=seq, frequency=1, in_question=False)
    return passage


def rows():
    """Every row of every table of memory, as text."""
    with connection.cursor() as cursor:
        found = {}
        for table in TABLES:
            cursor.execute(f"SELECT row::text FROM {table} row ORDER BY 1")  # noqa: S608 - our own tables
            found[table] = [text for (text,) in cursor.fetchall()]
    return found


def texts_holding(canary):
    """The tables, of the whole database, in any column of which `canary` stands."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        tables = [table for (table,) in cursor.fetchall()]
        holding = set()
        for table in tables:
            cursor.execute(f'SELECT count(*) FROM "{table}" row WHERE row::text ILIKE %s', [f"%{canary}%"])  # noqa: S608
            if cursor.fetchone()[0]:
                holding.add(table)
    return holding


def run(coroutine):
    return asyncio.run(coroutine)


def test_everything_of_a_person_goes_and_nothing_of_anybody_else(person):
    other = person()
    before = rows()
    subject = person()
    receipt = run(erase(subject.pk, actor="key abc"))
    assert rows() == before
    assert Subject.objects.filter(pk=other.pk).exists()
    assert receipt.counts == {
        "conversations": 4, "turns": 4, "summaries": 1, "memories": 10, "vectors": 10, "words": receipt.counts["words"], "recalled": 3,
        "cached_vectors": 0,
        "replies": 0,
        "similar_questions": 0,
    }  # fmt: skip
    assert receipt.counts["words"] >= 10


def test_no_word_of_a_person_is_left_in_the_database(person):
    canary = unique("Xyzzy").replace("-", "")
    subject = person(says=f"my word is {canary}", owner=f"owner:{canary}")
    Subject.objects.filter(pk=subject.pk).update(name=f"{canary}-name")
    assert texts_holding(canary) == {
        "memory_conversation", "memory_turn", "memory_summary", "memory_passage", "memory_posting", "memory_subject",
    }  # fmt: skip
    receipt = run(erase(subject.pk, actor="key abc"))
    assert texts_holding(canary) == set()
    row = Erasure.objects.get(pk=receipt.id)
    assert (row.counts, row.actor) == (receipt.counts, "key abc")
    assert row.took_ms == receipt.took_ms > 0


def test_who_is_not_there_gets_a_receipt_of_zeros_and_can_be_erased_again():
    first, second = (run(erase_user("owner:1", "nobody", actor="key abc")) for _ in range(2))
    assert first.id != second.id
    assert set(first.counts.values()) == {0}
    assert run(read_receipt(first.id, owner="owner:1", name="nobody")) == first


def test_a_receipt_is_found_by_its_own_namespace_and_person_alone(person, settings):
    subject = person(owner="owner:7")
    receipt = run(erase(subject.pk, actor="key abc"))
    assert run(read_receipt(receipt.id, owner="owner:7")) == receipt
    assert run(read_receipt(receipt.id, owner="owner:7", name=subject.name)) == receipt
    for owner, name in (("owner:8", None), ("owner:7", "another"), ("owner:8", subject.name), ("", None), ("owner:7", "")):
        with pytest.raises(ErasureNotFound):
            run(read_receipt(receipt.id, owner=owner, name=name))
    with pytest.raises(ErasureNotFound):
        run(read_receipt(uuid7(), owner="owner:7"))
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another" * 10
    assert run(read_receipt(receipt.id, owner="owner:7", name=subject.name)) == receipt


def test_references_tell_namespaces_and_names_apart():
    assert len({reference_to(owner, name) for owner, name in (("a", "b/c"), ("a/b", "c"), ("a", "b"), ("a", "c"))}) == 4


def test_of_a_person_with_many_memories_the_bulk_goes_in_several_transactions(person, monkeypatch):
    expected = run(erase(person().pk, actor="key abc")).counts
    before = rows()
    subject = person()
    steps = []
    one_step = erasing._erase_some
    monkeypatch.setattr("memory.forgetting.AT_ONCE", 2)
    monkeypatch.setattr("memory.forgetting._ROWS_AT_ONCE", 3)
    monkeypatch.setattr(erasing, "_erase_some", lambda *args, **kwargs: steps.append(1) or one_step(*args, **kwargs))
    receipt = run(erase(subject.pk, actor="key abc"))
    assert len(steps) > 5
    assert receipt.counts == expected
    assert rows() == before


def test_a_turn_that_runs_meanwhile_leaves_nothing(person, finish):
    subject = person()
    with transaction.atomic():
        running = finish("Are you there?", owner=subject.owner, subject=subject.name, session="still-open", state="running")
    run(erase(subject.pk, actor="key abc"))
    before = rows()
    with transaction.atomic():
        assert finish_turns([FinishedTurn(id=running, state=TurnState.DONE, reply="I am.")]) == [False]
    assert rows() == before


def test_what_a_worker_embeds_meanwhile_is_not_stored(person, finish):
    subject = person()
    turn = Turn.objects.select_related("conversation").get(
        pk=finish("I moved to Porto.", "Nice!", owner=subject.owner, subject=subject.name, agent="companion")
    )
    owner = MemoryOwner.objects.get(subject=subject, agent="companion")
    held = new_passages(turn, owner)
    run(erase(subject.pk, actor="key abc"))
    before = rows()
    with transaction.atomic():
        assert store(held, turn_ids=[turn.pk], model=MODEL) == 0
    assert rows() == before


def test_erasing_waits_for_a_turn_that_is_being_opened_and_takes_it_along(person, in_thread):
    subject = person()
    session = Conversation.objects.filter(subject=subject, agent="companion").values_list("session_id", flat=True).first()
    opened, go_on = threading.Event(), threading.Event()

    def open_slowly():
        with transaction.atomic():
            open_turns([new_turn(subject, session=session)])
            opened.set()
            assert go_on.wait(10)

    opening = in_thread(open_slowly)
    assert opened.wait(10)
    erasing_it = in_thread(lambda: run(erase(subject.pk, actor="key abc")))
    eventually(somebody_waits_for_a_lock, what="erasing waits")
    go_on.set()
    opening.result(20)
    erasing_it.result(20)
    assert not Subject.objects.filter(owner=subject.owner, name=subject.name).exists()
    assert not Turn.objects.filter(message="Hello again").exists()


def test_erasing_waits_for_a_turn_that_just_ends_and_takes_along_what_it_recalled(person, finish, in_thread):
    subject = person()
    known = MemoryOwner.objects.get(kind=OwnerKind.AGENT, agent="companion")
    shop = Passage.objects.filter(owner=known).first()
    running = finish("When do you open?", owner=subject.owner, subject=subject.name, session="last", state="running")
    ended, go_on = threading.Event(), threading.Event()

    def end_slowly():
        with transaction.atomic():
            recalled = (RecalledPassage(owner_id=known.pk, passage_id=shop.pk, position=1, score=1.0),)
            finish_turns([FinishedTurn(id=running, state=TurnState.DONE, reply="At nine.", recalled=recalled)])
            ended.set()
            assert go_on.wait(10)

    ending = in_thread(end_slowly)
    assert ended.wait(10)
    erasing_it = in_thread(lambda: run(erase(subject.pk, actor="key abc")))
    eventually(somebody_waits_for_a_lock, what="erasing waits")
    go_on.set()
    ending.result(20)
    assert erasing_it.result(20).counts["recalled"] == 4
    assert not Turn.objects.filter(pk=running).exists()


def test_a_worker_makes_no_owner_for_a_person_who_is_being_erased(finish, in_thread):
    turn = Turn.objects.get(pk=finish("I like plums.", "So do I.", owner="owner:1", subject=unique("person")))
    erased, go_on = threading.Event(), threading.Event()

    def erase_slowly():
        with transaction.atomic():
            erasing._erase_some(turn.conversation.subject_id, reference="", actor="key abc")
            erased.set()
            assert go_on.wait(10)

    erasing_it = in_thread(erase_slowly)
    assert erased.wait(10)
    taking = in_thread(lambda: run(run_burst(take_due_turns)))
    assert turn.pk not in {due.id for due in taking.result(10).turns}
    go_on.set()
    erasing_it.result(20)


def test_a_worker_lets_go_of_owners_in_the_order_in_which_they_are_locked(in_thread):
    subjects = [Subject.objects.create(owner="owner:1", name=unique("person")) for _ in range(2)]
    first, second = [MemoryOwner.objects.create(agent="companion", subject=subject) for subject in subjects]
    MemoryOwner.objects.filter(pk=first.pk).update(user_name="Ada")  # stands behind the other in the table now

    def free():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
        free_owners([second.pk, first.pk])

    with transaction.atomic():
        MemoryOwner.objects.select_for_update().get(pk=first.pk)
        freeing = in_thread(lambda: run(run_burst(free)))
        eventually(somebody_waits_for_a_lock, what="the worker waits")
        assert MemoryOwner.objects.select_for_update(nowait=True).get(pk=second.pk)
    freeing.result(10)


def test_what_is_added_about_a_person_during_an_erasure_is_about_a_new_one(person, in_thread):
    subject = person(agents=("companion",))
    erased, go_on = threading.Event(), threading.Event()

    def erase_slowly():
        with transaction.atomic():
            erasing._erase_some(subject.pk, reference="", actor="key abc")
            erased.set()
            assert go_on.wait(10)

    erasing_it = in_thread(erase_slowly)
    assert erased.wait(10)
    adding = in_thread(lambda: run(run_burst(lambda: person_owner("tutor", subject_for(subject.owner, subject.name)))))
    eventually(somebody_waits_for_a_lock, what="adding waits")
    go_on.set()
    erasing_it.result(20)
    owner = adding.result(20)
    assert owner.subject_id != subject.pk
    assert owner.subject.name == subject.name


def test_a_conversation_that_ends_waits_for_the_worker_that_remembers_it(finish, in_thread):
    turn = Turn.objects.select_related("conversation").get(
        pk=finish("I like plums.", "So do I.", owner="owner:1", subject=unique("person"))
    )
    owner = MemoryOwner.objects.create(agent=turn.agent, subject_id=turn.conversation.subject_id)
    stored, go_on = threading.Event(), threading.Event()

    def remember_slowly():
        with transaction.atomic():
            store(new_passages(turn, owner), turn_ids=[turn.pk], model=MODEL)
            stored.set()
            assert go_on.wait(10)

    remembering = in_thread(remember_slowly)
    assert stored.wait(10)
    later = datetime.now(UTC) + timedelta(days=1)
    ending = in_thread(lambda: run(run_burst(end_conversations, [turn.conversation_id], agent=turn.agent, before=later)))
    eventually(somebody_waits_for_a_lock, what="ending waits")
    go_on.set()
    remembering.result(20)
    counts, _ = ending.result(20)
    assert counts == {"conversations": 1, "turns": 1, "memories_of_conversations": 2}


@pytest.mark.parametrize("continues", [True, False])
def test_a_message_sent_during_an_erasure_begins_anew(person, in_thread, continues):
    subject = person()
    session = Conversation.objects.filter(subject=subject, agent="companion").values_list("session_id", flat=True).first()
    erased, go_on = threading.Event(), threading.Event()

    def erase_slowly():
        with transaction.atomic():
            erasing._erase_some(subject.pk, reference="", actor="key abc")
            erased.set()
            assert go_on.wait(10)

    erasing_it = in_thread(erase_slowly)
    assert erased.wait(10)
    turn = new_turn(subject, message="And now?", session=session if continues else unique("session"))

    async def open_it():
        return await GroupCommit(open_turns).submit(turn)

    opening = in_thread(lambda: run(open_it()))
    eventually(somebody_waits_for_a_lock, what="the turn waits")
    go_on.set()
    erasing_it.result(20)
    opened = opening.result(20)
    assert (opened.seq, opened.recent) == (1, ())
    [stored] = Turn.objects.filter(conversation__subject__name=subject.name)
    assert stored.pk == turn.id
    assert stored.conversation.subject_id != subject.pk


@pytest.fixture
def in_thread():
    """Run something in a thread, with a database connection of its own; returns its future."""

    def closing(function):
        try:
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as threads:
        yield lambda function: threads.submit(closing, function)


def somebody_waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
        return cursor.fetchone()[0] > 0


def new_turn(subject, message="Hello again", session="continued"):
    now = datetime.now(UTC)
    return NewTurn(
        id=uuid7(), owner=subject.owner, subject=subject.name, session_id=session, agent="companion", version=1, message=message,
        created_at=now, deadline_at=now + timedelta(seconds=60), recent_turns=5, recent_chars=1000,
    )  # fmt: skip


def test_other_stores_are_told_what_was_erased(person):
    told = []

    async def forget(erased):
        told.append(erased)
        return 3

    register_eraser("cache", forget)
    try:
        subject = person(says="I like figs")
        receipt = run(erase(subject.pk, actor="key abc"))
        run(erase_user(subject.owner, subject.name, actor="key abc"))
    finally:
        unregister_eraser("cache")
    assert receipt.counts["cache"] == 3
    [erased] = told
    assert (erased.owner, erased.name) == (subject.owner, subject.name)
    assert {"I like figs.", "You said: I like figs.", "They like: I like figs"} <= set(erased.texts)
    assert (len(erased.owner_ids), len(erased.sessions), len(erased.turn_ids)) == (2, 4, 4)


def test_a_store_that_fails_stands_in_the_receipt_as_pending_until_it_forgot(person, monkeypatch):
    monkeypatch.setattr("memory.elsewhere._PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr("memory.elsewhere._LATER_PAUSES_S", (0.05, 0.05, 0.05))
    tries = []

    async def forget(erased):
        tries.append(erased)
        if len(tries) < 5:
            raise ConnectionError(f"cannot forget {erased.name}")
        return 2

    async def story():
        receipt = await erase(subject.pk, actor="key abc")
        assert receipt.counts["cache"] == "pending"
        assert receipt.pending == ("cache",)
        for _ in range(500):
            now = await read_receipt(receipt.id, owner=subject.owner)
            if not now.pending:
                return now
            await asyncio.sleep(0.01)
        raise AssertionError("still pending")

    subject = person()
    register_eraser("cache", forget)
    try:
        assert run(story()).counts["cache"] == 2
    finally:
        unregister_eraser("cache")
    assert len(tries) == 5


def test_vectors_of_what_was_said_leave_the_cache(person, embedder, settings, monkeypatch):
    monkeypatch.setattr(cache, "DEADLINE_S", 30.0)  # whoever else uses the machine
    settings.EMBEDDING_CACHE_S = 3600
    fruit = unique("fruit")
    subject = person(says=f"I like {fruit}, Ada")
    MemoryOwner.objects.filter(subject=subject, agent="companion").update(user_name="Ada", agent_name="Bo")
    vector = [1.0] + [0.0] * 383
    theirs = dict.fromkeys([f"I like {fruit}, Ada.", f"I like {fruit}.", f"I like {fruit}, I."], vector)
    others = {unique("Somebody else's"): vector}

    async def kept():
        return set(await cache.fetch([*theirs, *others], model=embedder))

    cache.keep(theirs | others, model=embedder, seconds=60)
    eventually(lambda: run(kept()) == {*theirs, *others}, what="the vectors are in the cache")
    receipt = run(erase(subject.pk, actor="key abc"))
    assert receipt.counts["cached_vectors"] == len(theirs)
    assert run(kept()) == set(others)


def test_forgetting_all_leaves_the_conversations_and_what_others_are_remembered_by(person, finish):
    subject, other = person(), person()
    own = MemoryOwner.objects.get(subject=subject, agent="companion")
    MemoryOwner.objects.filter(pk=own.pk).update(user_name="Ada", agent_name="Bo")
    kept = rows()
    waiting, running = (
        finish("I moved to Porto.", owner=subject.owner, subject=subject.name, session="s", state=state) for state in ("done", "running")
    )
    Turn.objects.filter(pk__in=(waiting, running)).update(facts_due_at=datetime.now(UTC))
    held = new_passages(Turn.objects.get(pk=waiting), own)
    assert run(forget_all(own.pk)) == 6
    assert not Passage.objects.filter(owner=own).exists()
    assert not Posting.objects.filter(owner=own).exists()
    assert not WideSentence.objects.filter(owner=own).exists()
    with transaction.atomic():
        assert store(held, turn_ids=[waiting], model=MODEL) == 0
        finish_turns([FinishedTurn(id=running, state=TurnState.DONE, reply="Nice.")])
    assert not Turn.objects.filter(pk__in=(waiting, running), remembered_at=None).exists()
    assert not Turn.objects.filter(pk__in=(waiting, running), facts_due_at__isnull=False).exists()
    own.refresh_from_db()
    assert (own.user_name, own.agent_name) == ("", "")
    assert Passage.objects.filter(owner__subject=subject, owner__agent="tutor").count() == 4
    assert Passage.objects.filter(owner__subject=other).count() == 10
    assert [row for row in rows()["memory_summary"] if row not in kept["memory_summary"]] == []
    assert Turn.objects.filter(conversation__subject=subject).count() == 6
    assert run(forget_all(own.pk)) == 0
    assert run(forget_all(2**40)) == 0
