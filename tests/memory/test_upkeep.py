"""Upkeep keeps what is of use, forgets what is due, says so beforehand, and goes on where it was killed."""

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.urls import reverse

from agents.versions.keeping import list_policies
from memory.embedders.client import EmbeddingModel
from memory.facts.settling import fill_user_names
from memory.features import features_of
from memory.models import (
    Conversation,
    MemoryOwner,
    OwnerKind,
    Passage,
    Posting,
    Recalled,
    Sentence,
    Speaker,
    Subject,
    Summary,
    Turn,
    UpkeepRun,
)
from memory.storing import NewPassage, store
from memory.upkeep import memories, remains
from memory.upkeep import run as upkeep_run
from memory.upkeep.policy import Policy
from memory.upkeep.run import AlreadyRunning, run_upkeep
from memory.upkeep.schedule import EVERY, due_in_s, keep_tidy
from tests.factories import forget_vectors, make_agent, make_version, unique
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("live_db")
MODEL = EmbeddingModel(name="upkeep-test", base_url="http://127.0.0.1:9/v1", api_key="", dimensions=3)
LONG = "The green apples of this garden are sour until late in autumn"


@pytest.fixture(autouse=True)
def _nothing_else(live_db):
    """Leave nothing of another test that a pass would look at."""
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    forget_vectors()
    UpkeepRun.objects.all().delete()


@pytest.fixture
def agent():
    return unique("agent")


@pytest.fixture
def say(finish, agent):
    """Store a turn that was said some days ago, with both sides as memories: `say("I like plums", days=3)`; return the two."""

    def say(message, reply="", *, days=0, subject="", session="", agent=agent):
        subject = subject or unique("person")
        turn_id = finish(message, reply, subject=subject, session=session or unique("session"), agent=agent)
        said_at = datetime.now(UTC) - timedelta(days=days)
        Turn.objects.filter(pk=turn_id).update(created_at=said_at)
        conversation = Turn.objects.get(pk=turn_id).conversation
        Conversation.objects.filter(pk=conversation.pk).update(last_turn_at=said_at)
        owner, _ = MemoryOwner.objects.get_or_create(agent=agent, subject_id=conversation.subject_id)
        sides = [(Speaker.USER, message), (Speaker.AGENT, reply)]
        with transaction.atomic():
            new = [new_passage(owner, turn_id, conversation.pk, speaker, text, said_at) for speaker, text in sides if text]
            store(new, turn_ids=[turn_id], model=MODEL)
        return list(Passage.objects.filter(turn=turn_id).order_by("seq"))

    return say


def new_passage(owner, turn_id, session, speaker, text, said_at):
    found = features_of(text, said_on=said_at.date())
    vectors = tuple((1.0, 0.0, 0.0) for _ in found.sentences)
    return NewPassage(
        owner_id=owner.pk, turn_id=turn_id, session=session, speaker=speaker, part=0, said_at=said_at, text=text, features=found,
        vectors=vectors,
    )  # fmt: skip


def alone(like, text, *, days=0, **fields):
    """Store a fact or a note of the owner of the passage `like`."""
    lowest = Passage.objects.filter(owner=like.owner_id).order_by("seq").values_list("seq", flat=True).first()
    seq = min(lowest, 0) - 10
    values = {
        "owner_id": like.owner_id, "session": seq, "seq": seq, "speaker": "user", "said_at": datetime.now(UTC) - timedelta(days=days),
        "text": text, "content_hash": text.encode()[:16], "length": 3, "window_length": 3, "word_count": 3, "asks": 0.0, "has_time": False,
        "has_number": False, "has_reason": False, "has_name": False, "spans": [], "origin": "added",
    }  # fmt: skip
    return Passage.objects.create(**values | fields)


def recall(passage, *, days, turn_id=None):
    Recalled.objects.create(
        turn_id=turn_id or passage.turn_id, passage=passage, owner_id=passage.owner_id, position=1, score=1.0,
        recalled_at=datetime.now(UTC) - timedelta(days=days),
    )  # fmt: skip


def upkeep(*policies, **options):
    return asyncio.run(run_upkeep(policies, actor="a test", **options))


def left(*passages):
    """Return the texts of those that are still there."""
    return set(Passage.objects.filter(pk__in=[passage.pk for passage in passages]).values_list("text", flat=True))


def check_rows(owner_id):
    """Prove that the owner's vectors, words and windows are those of its passages."""
    own = list(Passage.objects.filter(owner=owner_id, origin="turn"))
    lengths = {passage.seq: passage.length for passage in own}
    for passage in own:
        assert passage.window_length == sum(lengths.get(passage.seq + step, 0) for step in range(-2, 3))
    for model in (Sentence, Posting):
        assert set(model.objects.filter(owner=owner_id).values_list("seq", flat=True)) == set(lengths)


def test_a_cap_keeps_what_is_of_use(say, agent):
    person = unique("person")
    old = say(f"{LONG}, old.", days=50, subject=person)[0]
    recalled = say(f"{LONG}, recalled.", days=50, subject=person)[0]
    recall(recalled, days=1)
    new = say(f"{LONG}, new.", days=2, subject=person)[0]
    middle, reply = say(f"{LONG}, middle.", f"{LONG}, reply.", days=20, subject=person)
    short = say("I like plums", days=20, subject=person)[0]
    pinned = say("Pinned", days=400, subject=person)[0]
    Passage.objects.filter(pk=pinned.pk).update(pinned_at=datetime.now(UTC))
    fact = alone(old, "A fact", days=100, origin="fact", attribute="home", source=old)
    history = alone(old, "History", days=1, origin="fact", attribute="home", valid_until=datetime.now(UTC))
    everything = [old, recalled, new, middle, reply, short, pinned, fact, history]
    forgotten = []
    for cap in range(8, 0, -1):
        before = left(*everything)
        run = upkeep(Policy(agent=agent, memory_cap=cap))
        assert run.counts == {agent: {"memories_over_cap": 1}}
        assert len(left(*everything)) == cap
        forgotten += before - left(*everything)
        check_rows(old.owner_id)
    assert [text.rpartition(", ")[2] for text in forgotten] == [
        "History", "old.", "reply.", "I like plums", "middle.", "new.", "recalled.", "A fact",
    ]  # fmt: skip
    assert upkeep(Policy(agent=agent, memory_cap=1)).counts == {}, "a pinned memory is beyond no cap"
    assert left(*everything) == {"Pinned"}


def test_an_age_limit_counts_from_when_a_memory_was_last_true(say, agent):
    person = unique("person")
    old, late = say("I like apples", "So do I", days=40, subject=person)[0], say("I like pears", days=20, subject=person)[0]
    recalled = say("I like figs", days=40, subject=person)[0]
    recall(recalled, days=1)
    pinned = say("I like plums", days=40, subject=person)[0]
    Passage.objects.filter(pk=pinned.pk).update(pinned_at=datetime.now(UTC))
    facts = [
        alone(old, "fact of late", days=20, origin="fact", source=old),
        alone(old, "fact in use", days=40, origin="fact", source=old),
        alone(old, "fact of nobody", days=40, origin="model"),
        alone(old, "pinned fact", days=40, origin="fact", source=old, pinned_at=datetime.now(UTC)),
        alone(old, "note", days=400),
        alone(old, "corrected note", days=400, valid_until=datetime.now(UTC) - timedelta(days=31)),
        alone(old, "note corrected of late", days=400, valid_until=datetime.now(UTC) - timedelta(days=1)),
    ]
    recall(facts[1], days=5, turn_id=late.turn_id)
    run = upkeep(Policy(agent=agent, memory_days=30))
    assert run.counts == {agent: {"memories_too_old": 5}}
    assert left(old, late, recalled, pinned, *facts) == {
        "I like pears", "I like plums", "fact of late", "fact in use", "pinned fact", "note", "note corrected of late",
    }  # fmt: skip
    assert Turn.objects.filter(pk=old.turn_id).exists(), "what was said stays in the conversation"


def test_a_fact_that_holds_no_more_goes_with_the_words_that_it_marks_as_outdated(say, agent):
    person = unique("person")
    outdated, new = (say(f"{LONG} {number}", days=9 - number, subject=person)[0] for number in range(2))
    fact = alone(outdated, "I live in Ulm", days=9, origin="fact", source=outdated, valid_until=datetime.now(UTC) - timedelta(days=5))
    assert upkeep(Policy(agent=agent, memory_cap=2, memory_days=10)).counts == {}
    policy, now = Policy(agent=agent, memory_cap=1), datetime.now(UTC)
    assert upkeep(policy, is_dry=True, now=now).counts == upkeep(policy, now=now).counts == {agent: {"memories_over_cap": 2}}
    assert left(outdated, fact, new) == {new.text}


def test_a_name_that_is_forgotten_is_not_used_any_more(say, agent):
    told = say("I like apples", days=40)[0]
    name = alone(told, "My name is Ada", days=40, origin="fact", attribute="name", source=told)
    fill_user_names([told.owner_id])
    assert MemoryOwner.objects.get(pk=told.owner_id).user_name == "Ada"
    upkeep(Policy(agent=agent, memory_days=30))
    assert not left(told, name)
    assert MemoryOwner.objects.get(pk=told.owner_id).user_name == ""


def test_windows_close_where_neighbours_went(say, agent):
    person, session = unique("person"), unique("session")
    kept = [say(f"{LONG} {number}", "I see a ripe pear there", days=9 - number, subject=person, session=session)[0] for number in range(9)]
    upkeep(Policy(agent=agent, memory_cap=7))
    assert Passage.objects.filter(owner=kept[0].owner_id).count() == 7
    check_rows(kept[0].owner_id)


def test_conversations_that_are_over_go_with_their_words_but_not_with_their_facts(say, agent):
    person = unique("person")
    over, _ = say("I like apples", "So do I", days=40, subject=person)
    pinned, its_reply = say("I like plums", "I know", days=40, subject=person)
    Passage.objects.filter(pk=pinned.pk).update(pinned_at=datetime.now(UTC))
    going_on = say("I like pears", days=20, subject=person)[0]
    fact = alone(over, "a fact", origin="fact", turn_id=over.turn_id, source=over)
    shared, _ = MemoryOwner.objects.get_or_create(kind=OwnerKind.SHARED, collection=unique("shelf"))
    of_shop = shop(shared)
    recall(of_shop, days=40, turn_id=over.turn_id)
    for passage in (over, pinned):
        Summary.objects.create(conversation_id=passage.session, number=1, upto_seq=1, text="They like fruit.")
        Conversation.objects.filter(pk=passage.session).update(summary="They like fruit.", summarised_seq=1)
    stranger = say("I like figs", days=40, agent=unique("other"))[0]
    run = upkeep(Policy(agent=agent, conversation_days=30))
    assert run.counts == {agent: {"conversations": 1, "turns": 1, "memories_of_conversations": 2}}
    assert left(over, pinned, its_reply, going_on, fact, of_shop, stranger) == {
        "I like plums", "I know", "I like pears", "a fact", "Open at nine", "I like figs",
    }  # fmt: skip
    fact.refresh_from_db()
    assert (fact.turn_id, fact.source_id) == (None, None)
    assert set(Conversation.objects.filter(agent=agent).values_list("id", flat=True)) == {pinned.session, going_on.session}
    assert not Summary.objects.filter(conversation_id__in=[over.session, pinned.session]).exists()
    assert Conversation.objects.get(pk=pinned.session).summary == ""
    assert upkeep(Policy(agent=agent, conversation_days=30)).counts == {}
    check_rows(stranger.owner_id)


def shop(owner):
    return Passage.objects.create(
        owner=owner, session=-10, seq=-10, speaker="note", origin="added", said_at=datetime.now(UTC), text="Open at nine",
        content_hash=b"nine", length=3, window_length=3, word_count=3, asks=0.0, has_time=True, has_number=False, has_reason=False,
        has_name=False, spans=[],
    )  # fmt: skip


def test_people_of_whom_nothing_is_left_are_removed_by_the_pass_after(say, agent):
    gone, kept = say("I like apples", days=40)[0], say("I like pears", days=1)[0]
    owners = MemoryOwner.objects.filter(agent=agent)
    subjects = Subject.objects.filter(conversations__agent=agent)
    ids = list(subjects.values_list("id", flat=True))
    long_ago = datetime.now(UTC) - timedelta(days=50)
    Subject.objects.filter(id__in=ids).update(created_at=long_ago)
    owners.update(created_at=long_ago)
    policy = Policy(agent=agent, conversation_days=30)
    upkeep(policy)
    assert owners.count() == 2
    assert upkeep(policy).counts[""]["owners"] >= 1
    assert set(owners.values_list("id", flat=True)) == {kept.owner_id}
    assert upkeep(policy).counts[""]["people"] >= 1
    assert Subject.objects.filter(id__in=ids).count() == 1
    assert left(gone, kept) == {"I like pears"}


def test_who_has_only_just_come_stays(agent):
    subject = Subject.objects.create(owner="anonymous", name=unique("person"))
    owner = MemoryOwner.objects.create(agent=agent, subject=subject)
    upkeep()
    assert MemoryOwner.objects.filter(pk=owner.pk).exists()
    assert Subject.objects.filter(pk=subject.pk).exists()


def everything():
    """Return how many rows each table holds, and which memories."""
    with connection.cursor() as cursor:
        counts = {}
        for table in connection.introspection.table_names(cursor):
            if table.startswith("memory_") and table != "memory_upkeeprun":
                cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - a table's name
                counts[table] = cursor.fetchone()[0]
    return counts, list(Passage.objects.order_by("id").values_list("id", "window_length", "source", "turn"))


def test_a_dry_run_deletes_nothing_and_counts_what_the_run_then_deletes(say, agent):
    other = unique("agent")
    for slug in (agent, other):
        person = unique("person")
        for number in range(12):
            side = say(f"{LONG} {number}", "So do I" if number % 2 else "", days=number * 5, subject=person, agent=slug)[0]
            if number == 9:
                Passage.objects.filter(pk=side.pk).update(pinned_at=datetime.now(UTC))
            alone(side, f"fact {number}", days=number * 4, origin="fact", source=side, turn_id=side.turn_id)
        recall(side, days=1)
    policies = [
        Policy(agent=agent, memory_cap=12, memory_days=38, conversation_days=47),
        Policy(agent=other, memory_cap=4, conversation_days=22),
    ]
    now = datetime.now(UTC)
    UpkeepRun.objects.create(actor="of old", started_at=now - timedelta(days=100), finished_at=now - timedelta(days=remains.RUN_DAYS + 1))
    before = everything()
    counted = upkeep(*policies, is_dry=True, now=now)
    assert everything() == before
    assert set(counted.counts[agent]) == {
        "conversations", "turns", "memories_of_conversations", "memories_too_old", "memories_over_cap",
    }  # fmt: skip
    assert counted.counts[""]["passes"] == 1
    done = upkeep(*policies, now=now)
    assert done.counts == counted.counts
    assert (done.done, done.total) == (counted.done, counted.total) == (done.total, done.total)
    deleted = sum(found.get(reason, 0) for found in done.counts.values() for reason in found if reason.startswith("memories"))
    assert before[0]["memory_passage"] - everything()[0]["memory_passage"] == deleted
    for slug in (agent, other):
        for owner in MemoryOwner.objects.filter(agent=slug):
            assert Passage.objects.filter(owner=owner, origin="turn", pinned_at__isnull=False).count() == 1
    again = {slug: found for slug, found in upkeep(*policies, now=now).counts.items() if slug}
    assert again == {}


def test_strangers_and_agents_without_limits_are_not_touched(say, agent):
    mine = [say(f"{LONG} {number}", days=100) for number in range(3)]
    others = [say(f"{LONG} {number}", days=100, agent="of-nobody")[0] for number in range(3)]
    rows = list(Passage.objects.filter(pk__in=[other.pk for other in others]).values())
    upkeep(Policy(agent=agent, memory_days=1, memory_cap=1, conversation_days=1), Policy(agent="of-nobody"))
    assert not left(*(side for sides in mine for side in sides))
    assert list(Passage.objects.filter(pk__in=[other.pk for other in others]).values()) == rows


def test_one_pass_at_a_time(say, agent, monkeypatch):
    say("I like apples", days=40)

    async def two():
        async with upkeep_run._alone():
            with pytest.raises(AlreadyRunning):
                await run_upkeep([Policy(agent=agent, memory_days=1)], actor="a test")

    asyncio.run(two())
    assert UpkeepRun.objects.count() == 0
    assert upkeep(Policy(agent=agent, memory_days=1)).counts[agent]


@pytest.fixture
def start_upkeep(server_environment):
    processes = []

    def start_upkeep(command="upkeep"):
        environment = {**os.environ, **server_environment, "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test"}
        processes.append(subprocess.Popen([sys.executable, "manage.py", command], env=environment, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start_upkeep
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()


def blocked(statement):
    """Whether some other session waits for a lock with `statement`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE %s",
            [f"%{statement}%"],
        )
        return cursor.fetchone()[0]


def test_a_killed_pass_is_ended_and_gone_on_with_by_the_next(say, start_upkeep):
    agent = make_agent()
    make_version(agent, memory_days=30, memory_cap=0)
    people = [unique("person") for _ in range(3)]
    for person in people:
        for number in range(4):
            say(f"I like apple {number}", days=40 + number, subject=person, agent=agent.slug)
    owners = list(MemoryOwner.objects.filter(agent=agent.slug).order_by("id"))
    with transaction.atomic(), ThreadPoolExecutor(1) as other_session:
        # It forgets what the first person said, and then waits to lock the second.
        MemoryOwner.objects.select_for_update().get(pk=owners[1].pk)
        process = start_upkeep()
        other_session.submit(wait_until_blocked).result(125)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    memories_of = Passage.objects.filter(owner__in=owners)
    assert set(memories_of.values_list("owner", flat=True)) == {owners[1].pk, owners[2].pk}
    assert memories_of.count() == 8
    [killed] = UpkeepRun.objects.all()
    assert killed.finished_at is None
    assert killed.counts == {agent.slug: {"memories_too_old": 4}}
    assert due_in_s() == 0.0
    eventually(lambda: not killed_sessions(), what="PostgreSQL notices that the process is gone")
    next_one = start_upkeep()
    output, _ = next_one.communicate(timeout=180)
    assert next_one.returncode == 0
    assert memories_of.count() == 0
    assert f"{agent.slug}  memories too old" in output
    killed.refresh_from_db()
    assert (killed.error, killed.finished_at is None) == (upkeep_run.BROKEN_OFF, False)
    assert UpkeepRun.objects.exclude(pk=killed.pk).get().counts == {agent.slug: {"memories_too_old": 8}}


def wait_until_blocked():
    try:
        eventually(lambda: blocked("FROM memory_owner WHERE id = ANY"), what="upkeep waits for the owner", timeout_s=120)
    finally:
        connections.close_all()


def killed_sessions():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE %s AND state <> 'idle'",
            ["%pg_try_advisory_xact_lock%"],
        )
        return cursor.fetchone()[0]


def test_a_pass_that_is_asked_to_stop_stops_between_two_transactions(say, agent):
    say("I like apples", days=40)
    stopping = asyncio.Event()
    stopping.set()
    run = upkeep(Policy(agent=agent, memory_days=1), stopping=stopping)
    assert (run.error, run.counts) == (upkeep_run.STOPPED, {})
    assert run.finished_at is not None
    assert due_in_s() == 0.0, "the next worker goes on at once"


def test_a_fault_is_told_and_the_next_pass_goes_on(say, agent, monkeypatch):
    say("I like apples", days=40)
    with monkeypatch.context() as patched:
        patched.setattr(memories, "delete_memories", lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            upkeep(Policy(agent=agent, memory_days=1))
    assert UpkeepRun.objects.get().error.startswith("ZeroDivisionError")
    assert due_in_s() == 0.0
    assert upkeep(Policy(agent=agent, memory_days=1)).counts == {agent: {"memories_too_old": 1}}


def test_the_worker_runs_it_when_the_last_pass_is_an_hour_old():
    now = datetime.now(UTC)
    assert due_in_s(now) == 0.0
    UpkeepRun.objects.create(actor="worker", started_at=now, finished_at=now - EVERY + timedelta(minutes=10))
    UpkeepRun.objects.create(actor="somebody", started_at=now, finished_at=now, is_dry=True)
    UpkeepRun.objects.create(actor="worker", started_at=now, finished_at=now, error="broke")
    assert due_in_s(now) == pytest.approx(600)


def test_a_worker_keeps_memory_tidy(say, agent, monkeypatch):
    said = say("I like apples", days=40)
    monkeypatch.setattr("memory.upkeep.schedule._AFTER_START_S", 0.0)

    async def work():
        stopping = asyncio.Event()
        working = asyncio.create_task(keep_tidy(stopping, lambda: [Policy(agent=agent, memory_days=30)]))
        while not await asyncio.to_thread(finished):
            assert not working.done()
            await asyncio.sleep(0.02)
        stopping.set()
        await asyncio.wait_for(working, 60)

    asyncio.run(asyncio.wait_for(work(), 90))
    assert not left(*said)
    assert UpkeepRun.objects.get().actor == "worker"


def finished():
    try:
        return UpkeepRun.objects.filter(finished_at__isnull=False).exists()
    finally:
        connections.close_all()


def test_policies_are_those_of_live_versions(live_db):
    agent, draft = make_agent(memory_cap=7, memory_days=8, conversation_days=9, trace_days=5), make_agent(published=False)
    make_version(agent, published=False, memory_cap=1)
    policies = {policy.agent: policy for policy in list_policies()}
    assert policies[agent.slug] == Policy(agent=agent.slug, memory_cap=7, memory_days=8, conversation_days=9, trace_days=5)
    assert draft.slug not in policies


def test_the_command_prints_a_table(say, capsys):
    agent = make_agent(memory_days=30)
    said = say("I like apples", "So do I", days=40, agent=agent.slug)
    call_command("upkeep", "--dry-run")
    assert any(line.split() == [agent.slug, "memories", "too", "old", "2"] for line in capsys.readouterr().out.splitlines())
    assert len(left(*said)) == 2
    call_command("upkeep")
    assert not left(*said)


def test_the_admin_shows_runs_and_changes_none(admin_client):
    now = datetime.now(UTC)
    counts = {"companion": {"memories_too_old": 3}, "": {"people": 1}}
    run = UpkeepRun.objects.create(actor="worker", started_at=now, finished_at=now, done=2, total=2, counts=counts)
    page = admin_client.get(reverse("admin:memory_upkeeprun_changelist")).content.decode()
    assert "2 of 2" in page
    page = admin_client.get(reverse("admin:memory_upkeeprun_change", args=(run.pk,))).content.decode()
    assert "companion: memories too old, 3" in page
    assert "no agent: people, 1" in page
    assert admin_client.get(reverse("admin:memory_upkeeprun_add")).status_code == 403
    assert admin_client.post(reverse("admin:memory_upkeeprun_delete", args=(run.pk,)), {"post": "yes"}).status_code == 403
