"""Opening and closing turns: numbers without gaps under concurrency, each turn finished once, the right past."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from memory.api import FinishedTurn, NewTurn, OpenedTurn, PastTurn, TurnState, end_left_behind_turns, finish_turns, open_turns
from memory.models import Conversation, Subject, Turn
from observability.api import GroupCommit
from tests.factories import unique


def new_turn(session: str, *, message: str = "Hello", turns: int = 50, chars: int = 100_000, late_s: float = 60, **fields: Any) -> NewTurn:
    now = datetime.now(UTC)
    known = {"owner": "anonymous:test", "subject": session, "session_id": session, "agent": "support", "version": 1}
    return NewTurn(
        **{
            **known,
            "id": uuid7(),
            "message": message,
            "created_at": now - timedelta(seconds=100),
            "deadline_at": now + timedelta(seconds=late_s),
            "recent_turns": turns,
            "recent_chars": chars,
            **fields,
        }
    )


def say(session: str, message: str, *, reply: str = "Hi", state: TurnState = TurnState.DONE, **fields: Any) -> OpenedTurn:
    """Open a turn and finish it."""
    turn = new_turn(session, message=message, **fields)
    [opened] = open_turns([turn])
    assert finish_turns([FinishedTurn(id=turn.id, state=state, reply=reply)]) == [True]
    return opened


def test_a_first_turn_makes_its_subject_and_conversation(db: None) -> None:
    turn = new_turn(unique("s"), message="Grüße 👋", metadata={"k": 'v"\\'}, request_id="req-1")
    [opened] = open_turns([turn])
    stored = Turn.objects.get(pk=turn.id)
    assert (stored.state, stored.seq, stored.message, stored.metadata, stored.request_id) == (
        "running",
        1,
        "Grüße 👋",
        {"k": 'v"\\'},
        "req-1",
    )
    assert (stored.conversation_id, stored.seq, opened.recent) == (opened.conversation_id, opened.seq, ())
    conversation = Conversation.objects.get(pk=opened.conversation_id)
    assert (conversation.session_id, conversation.owner, conversation.last_seq) == (turn.session_id, turn.owner, 1)
    assert (conversation.subject.owner, conversation.subject.name) == (turn.owner, turn.subject)


def test_whose_person_is_erased_between_two_statements_is_to_be_opened_again(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.turns._ADD_SUBJECTS", "SELECT %s::text[], %s::text[]")
    with pytest.raises(IntegrityError):  # for which `GroupCommit` asks again
        open_turns([new_turn(unique("session"))])


def test_a_batch_of_many_conversations_keeps_every_message_in_its_place(db: None) -> None:
    sessions = [unique("s") for _ in range(5)]
    turns = [new_turn(random.choice(sessions), message=f"message {number}") for number in range(40)]
    opened = open_turns(turns)
    for session in sessions:
        own = [(place.seq, turn.message) for turn, place in zip(turns, opened, strict=True) if turn.session_id == session]
        assert [seq for seq, _ in own] == list(range(1, len(own) + 1))  # in the order of the batch
        assert list(Turn.objects.filter(conversation__session_id=session).order_by("seq").values_list("seq", "message")) == own


def test_owners_and_agents_have_conversations_of_their_own(db: None) -> None:
    session = unique("s")
    say(session, "a secret", owner="one")
    say(session, "another", owner="one", agent="sales")
    [stranger, same] = open_turns([new_turn(session, owner="two"), new_turn(session, owner="one")])
    assert (stranger.seq, stranger.recent) == (1, ())
    assert same.recent == (PastTurn("a secret", "Hi"),)
    assert Subject.objects.filter(name=session).count() == 2


def test_subjects_who_call_their_sessions_the_same_never_meet(db: None) -> None:
    session = unique("s")
    say(session, "a secret", subject="alice")
    bob, alice = open_turns([new_turn(session, subject="bob"), new_turn(session, subject="alice")])  # in one batch
    assert (bob.seq, bob.recent) == (1, ())
    assert (alice.seq, alice.recent) == (2, (PastTurn("a secret", "Hi"),))
    [again] = open_turns([new_turn(session, subject="bob")])
    assert (again.conversation_id, again.seq) == (bob.conversation_id, 2)


def test_fifty_opens_at_once_in_one_conversation_have_no_gap_and_no_double(live_db: None) -> None:
    session = unique("s")
    barrier = threading.Barrier(10)

    def open_five(_: int) -> list[OpenedTurn]:
        try:
            barrier.wait(10)
            opened = []
            for size in (1, 2, 1, 1):
                with transaction.atomic():
                    opened += open_turns([new_turn(session) for _ in range(size)])
            return opened
        finally:
            connections.close_all()

    with ThreadPoolExecutor(10) as pool:
        opened = [place for places in pool.map(open_five, range(10)) for place in places]
    assert sorted(place.seq for place in opened) == list(range(1, 51))
    assert len({place.conversation_id for place in opened}) == 1
    assert Conversation.objects.get(session_id=session).last_seq == 50
    assert sorted(Turn.objects.filter(conversation__session_id=session).values_list("seq", flat=True)) == list(range(1, 51))


@pytest.mark.parametrize("seed", range(3))
def test_batches_over_the_same_conversations_in_any_order_never_deadlock(live_db: None, seed: int) -> None:
    sessions = [unique("s") for _ in range(12)]
    barrier = threading.Barrier(8)

    def work(worker: int) -> int:
        order = random.Random(f"{seed}/{worker}")
        barrier.wait(10)
        count = 0
        try:
            for _ in range(8):
                turns = [new_turn(session) for session in order.sample(sessions, order.randint(1, 12))]
                with transaction.atomic():
                    open_turns(turns)
                finished = [FinishedTurn(id=turn.id, state=TurnState.DONE, reply="Hi") for turn in turns]
                order.shuffle(finished)
                with transaction.atomic():
                    assert all(finish_turns(finished))
                count += len(turns)
            return count
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(work, range(8)))
    seqs = [
        sorted(Turn.objects.filter(conversation__session_id=session, state="done").values_list("seq", flat=True)) for session in sessions
    ]
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seqs)
    assert sum(map(len, seqs)) == total


def test_the_same_through_group_commit(live_db: None) -> None:
    sessions = [unique("s") for _ in range(4)]

    async def run() -> list[OpenedTurn]:
        opening: GroupCommit[NewTurn, OpenedTurn] = GroupCommit(open_turns)
        return await asyncio.gather(*(opening.submit(new_turn(sessions[number % 4])) for number in range(200)))

    opened = asyncio.run(run())
    for number in range(4):
        assert sorted(place.seq for place in opened[number::4]) == list(range(1, 51))


def test_a_turn_is_finished_once(db: None) -> None:
    turn = new_turn(unique("s"))
    open_turns([turn])
    first = FinishedTurn(
        id=turn.id, state=TurnState.DONE, reply="Hi", provider="p", model="m", finish_reason="stop", prompt_tokens=3, completion_tokens=1
    )
    assert finish_turns([first]) == [True]
    assert finish_turns([FinishedTurn(id=turn.id, state=TurnState.CANCELLED, reply="")]) == [False]
    assert finish_turns([FinishedTurn(id=uuid7(), state=TurnState.DONE, reply="")]) == [False]
    stored = Turn.objects.get(pk=turn.id)
    assert (stored.state, stored.reply, stored.model, stored.prompt_tokens) == ("done", "Hi", "m", 3)
    assert stored.finished_at is not None


def test_two_who_finish_the_same_turn_at_once_have_one_winner(live_db: None) -> None:
    turns = [new_turn(unique("s")) for _ in range(20)]
    with transaction.atomic():
        open_turns(turns)
    barrier = threading.Barrier(4)

    def finish(state: TurnState) -> list[bool]:
        barrier.wait(10)
        try:
            with transaction.atomic():
                return [finish_turns([FinishedTurn(id=turn.id, state=state, reply="Hi")])[0] for turn in turns]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(finish, [TurnState.DONE, TurnState.CANCELLED, TurnState.INTERRUPTED, TurnState.DONE]))
    assert [sum(wins) for wins in zip(*outcomes, strict=True)] == [1] * 20


def test_a_failed_turn_has_no_text(db: None) -> None:
    turn = new_turn(unique("s"))
    open_turns([turn])
    with pytest.raises(IntegrityError):
        finish_turns([FinishedTurn(id=turn.id, state=TurnState.FAILED, reply="some")])


def test_the_past_holds_finished_turns_with_a_reply_oldest_first(db: None) -> None:
    session = unique("s")
    say(session, "done")
    say(session, "left", state=TurnState.CANCELLED, reply="half an ans")
    say(session, "broke", state=TurnState.INTERRUPTED, reply="bro")
    say(session, "failed", state=TurnState.FAILED, reply="")
    say(session, "left early", state=TurnState.CANCELLED, reply="")
    open_turns([new_turn(session, message="still running")])
    [one, two] = open_turns([new_turn(session, message="now"), new_turn(session, message="and again")])
    expected = (PastTurn("done", "Hi"), PastTurn("left", "half an ans"), PastTurn("broke", "bro"))
    assert (one.recent, two.recent) == (expected, expected)


@settings(max_examples=50)  # each example has a session of its own
@given(texts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=8), turns=st.integers(0, 9), chars=st.integers(0, 200))
def test_the_past_is_the_longest_run_of_newest_turns_within_both_limits(
    db: None, texts: list[tuple[int, int]], turns: int, chars: int
) -> None:
    session = unique("s")
    for asked, replied in texts:
        say(session, "ö" * asked, reply="👋" * replied)
    [opened] = open_turns([new_turn(session, turns=turns, chars=chars)])
    expected: list[PastTurn] = []
    left = chars
    for asked, replied in list(reversed(texts))[:turns]:
        left -= asked + replied
        if left < 0:
            break
        expected.insert(0, PastTurn("ö" * asked, "👋" * replied))
    assert list(opened.recent) == expected


def test_the_past_of_a_long_conversation_reads_no_more_than_it_needs(db: None) -> None:
    session = unique("s")
    turns = [new_turn(session, message=f"m{number}") for number in range(2000)]
    opened = open_turns(turns)
    finish_turns([FinishedTurn(id=turn.id, state=TurnState.DONE, reply="r") for turn in turns])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE memory_turn")
        cursor.execute(
            "EXPLAIN (FORMAT JSON) SELECT seq FROM memory_turn WHERE conversation_id = %s AND seq < 2000"
            " AND state IN ('done', 'cancelled', 'interrupted') AND reply <> '' ORDER BY seq DESC LIMIT 50",
            [opened[0].conversation_id],
        )
        assert "Index" in str(cursor.fetchone())
    [latest] = open_turns([new_turn(session)])
    assert [past.message for past in latest.recent] == [f"m{number}" for number in range(1950, 2000)]


def test_turns_left_behind_are_ended_and_others_are_not(db: None) -> None:
    overdue, running = new_turn(unique("s"), late_s=-1), new_turn(unique("s"))
    open_turns([overdue, running])
    finished = say(unique("s"), "done", late_s=-1)
    assert end_left_behind_turns() >= 1
    left = Turn.objects.get(pk=overdue.id)
    assert (left.state, left.error_code, left.finished_at is not None) == ("failed", "left-behind", True)
    assert Turn.objects.get(pk=running.id).state == "running"
    assert Turn.objects.get(conversation_id=finished.conversation_id).state == "done"
    assert not finish_turns([FinishedTurn(id=overdue.id, state=TurnState.DONE, reply="too late")])[0]


def test_many_sweepers_at_once_end_each_turn_once(live_db: None) -> None:
    barrier = threading.Barrier(4)

    def sweep(_: int) -> int:
        barrier.wait(10)
        try:
            with transaction.atomic():
                return end_left_behind_turns()
        finally:
            connections.close_all()

    def count_swept() -> int:
        turns = [new_turn(unique("s"), late_s=-1) for _ in range(100)]
        with transaction.atomic():
            end_left_behind_turns()
            open_turns(turns)
        with ThreadPoolExecutor(4) as pool:
            count = sum(pool.map(sweep, range(4)))
        assert Turn.objects.filter(pk__in=[turn.id for turn in turns], state="failed").count() == 100
        return count

    counts = [count_swept() for _ in range(3)]
    assert max(counts) == 100, counts  # a server of other tests sweeps here once a minute, and may have had a part of one
