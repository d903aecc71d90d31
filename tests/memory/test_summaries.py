"""Rolling summaries: which conversations are due, what a summary covers, and that nothing is summarised twice or lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from memory.models import Conversation, Summary, Turn, TurnState
from memory.summaries import TOGETHER, Written, keep_summarising, store_summary, summarise_due, take_due, turns_to_summarise
from memory.turns import FinishedTurn, PastTurn, finish_turns
from tests.factories import unique

pytestmark = pytest.mark.usefixtures("live_db")


@pytest.fixture(autouse=True)
def _nothing_else_is_due(live_db: None) -> None:
    Conversation.objects.filter(summary_due=True).update(summary_due=False)


@pytest.fixture
def talk(finish):
    """A conversation of so many turns, marked as due: `talk(6)`; its messages are "said 1" and so on."""

    def talk(turns: int, *, due: bool = True, reply: str = "Fine.", **fields) -> Conversation:
        session = fields.pop("session", "") or unique("session")
        for number in range(1, turns + 1):
            finish(f"said {number}", reply, session=session, remember=False, **fields)
        conversation = Conversation.objects.get(session_id=session)
        if due:
            Conversation.objects.filter(pk=conversation.pk).update(summary_due=True)
        return conversation

    return talk


class Model:
    """Stands for the model that is handed in: notes what it is given, and numbers what it writes."""

    def __init__(self, *, failing: int = 0) -> None:
        self.asked: list[tuple[str, str, list[str]]] = []
        self.failing = failing

    async def __call__(self, agent: str, summary: str, turns: Sequence[PastTurn]) -> Written | None:
        self.asked.append((agent, summary, [turn.message for turn in turns]))
        if len(self.asked) <= self.failing:
            raise RuntimeError("no model today")
        text = f"summary {len(self.asked)}"
        return Written(text=text, provider="p", model="small", prompt_tokens=12, completion_tokens=3)


def work(model) -> int:
    return asyncio.run(summarise_due(model))


def rows(conversation: Conversation) -> list[tuple[int, int, str]]:
    return list(Summary.objects.filter(conversation=conversation).values_list("number", "upto_seq", "text"))


def test_the_older_half_is_summarised_and_the_next_summary_takes_its_place(talk):
    conversation, model = talk(6), Model()
    assert work(model) == 1
    assert model.asked == [("companion", "", ["said 1", "said 2", "said 3"])]
    conversation.refresh_from_db()
    assert (conversation.summary, conversation.summarised_seq, conversation.summary_due) == ("summary 1", 3, False)
    assert work(model) == 0
    talk(4, session=conversation.session_id)
    assert work(model) == 1
    assert model.asked[1:] == [("companion", "summary 1", ["said 4", "said 5", "said 6", "said 1"])]
    conversation.refresh_from_db()
    assert (conversation.summary, conversation.summarised_seq) == ("summary 2", 7)
    assert rows(conversation) == [(1, 3, "summary 1"), (2, 7, "summary 2")]
    newest = Summary.objects.get(conversation=conversation, number=2)
    assert (newest.provider, newest.model, newest.prompt_tokens, newest.completion_tokens) == ("p", "small", 12, 3)
    assert Turn.objects.filter(conversation=conversation).count() == 10, "turns stay"


def test_what_has_no_text_or_still_runs_waits(talk, finish):
    conversation = talk(4)
    finish("broke", "", session=conversation.session_id, state="failed", remember=False)
    finish("thinking", session=conversation.session_id, state="running", remember=False)
    talk(3, session=conversation.session_id, reply="x" * 100)
    model = Model()
    work(model)
    assert model.asked[0][2] == ["said 1", "said 2"], "half of what was said before the running turn"


def test_a_conversation_of_which_nothing_is_left_to_tell_is_no_longer_due(talk):
    conversation, model = talk(1), Model()
    assert work(model) == 1
    conversation.refresh_from_db()
    assert (model.asked, rows(conversation), conversation.summary_due) == ([], [], False)


def test_where_no_summary_is_wanted_there_is_none(talk):
    conversation = talk(6)

    async def unwanted(agent, summary, turns):
        return None

    assert work(unwanted) == 1
    conversation.refresh_from_db()
    assert (rows(conversation), conversation.summary_due, conversation.summary) == ([], False, "")


def test_a_very_long_conversation_is_summarised_in_rounds(talk):
    conversation, model = talk(12, reply="x" * 9000), Model()
    while work(model):
        pass
    asked = [message for _, _, messages in model.asked for message in messages]
    assert asked == [f"said {number}" for number in range(1, len(asked) + 1)], "in order, each once"
    assert all(len(messages) <= 2 for _, _, messages in model.asked)
    assert [number for number, _, _ in rows(conversation)] == list(range(1, len(model.asked) + 1))
    conversation.refresh_from_db()
    assert conversation.summarised_seq == len(asked) >= 6


def test_a_worker_that_died_doubles_nothing(talk):
    conversation = talk(6)
    with transaction.atomic():
        [lost] = take_due()
        turns, is_all = turns_to_summarise(lost)
    model = Model()
    assert work(model) == 0, "left to the one that has it"
    Conversation.objects.filter(pk=conversation.pk).update(summary_busy_until=datetime.now(UTC) - timedelta(seconds=1))
    assert work(model) == 1
    with transaction.atomic():
        stored = store_summary(lost, written=Written(text="late"), upto_seq=turns[-1].seq, is_all=is_all)
    assert not stored
    assert rows(conversation) == [(1, 3, "summary 1")]


def test_an_erased_conversation_gets_no_summary(talk):
    conversation = talk(6)
    with transaction.atomic():
        [due] = take_due()
    conversation.delete()
    with transaction.atomic():
        assert not store_summary(due, written=Written(text="late"), upto_seq=3, is_all=True)


def test_what_fails_is_tried_again_each_time_after_a_longer_while(talk):
    conversation, model, failures = talk(6), Model(failing=2), {}
    waits = []
    for _ in range(2):
        assert asyncio.run(summarise_due(model, failures)) == 1
        assert work(model) == 0, "it waits"
        conversation.refresh_from_db()
        assert conversation.summary_due
        waits.append(conversation.summary_busy_until - datetime.now(UTC))
        Conversation.objects.filter(pk=conversation.pk).update(summary_busy_until=None)
    assert waits[1] > 1.5 * waits[0] > timedelta(seconds=10)
    assert asyncio.run(summarise_due(model, failures)) == 1
    assert (len(rows(conversation)), failures) == (1, {})


def test_workers_at_once_summarise_every_conversation_once(talk):
    conversations, model = [talk(4) for _ in range(3 * TOGETHER)], Model()

    async def drain():
        while await summarise_due(model):
            pass

    async def run():
        await asyncio.gather(*(drain() for _ in range(3)))

    asyncio.run(run())
    assert len(model.asked) == len(conversations)
    for conversation in conversations:
        [(number, upto_seq, _)] = rows(conversation)
        assert (number, upto_seq) == (1, 2)


def test_stopping_leaves_what_is_being_written_to_others(talk):
    conversation = talk(6)

    async def run():
        stopping, asked = asyncio.Event(), asyncio.Event()

        async def slow(agent, summary, turns):
            asked.set()
            await asyncio.sleep(600)

        keeping = asyncio.create_task(keep_summarising(stopping, slow))
        async with asyncio.timeout(60):
            await asked.wait()
            stopping.set()
            await keeping

    asyncio.run(run())
    model = Model()
    assert work(model) == 1
    assert rows(conversation) == [(1, 3, "summary 1")]


@pytest.mark.parametrize(
    ("turns", "summarised", "before", "due"),
    [
        (4, 0, None, False),
        (4, 0, 1, False),
        (4, 0, 2, True),
        (4, 2, 3, False),
        (4, 2, 4, True),
    ],
)
def test_a_turn_marks_its_conversation_where_what_it_left_out_stands_in_no_summary(talk, finish, turns, summarised, before, due):
    conversation = talk(turns, due=False)
    Conversation.objects.filter(pk=conversation.pk).update(summarised_seq=summarised)
    id = finish("newest", state="running", session=conversation.session_id, remember=False)
    with transaction.atomic():
        finish_turns([FinishedTurn(id=id, state=TurnState.DONE, reply="Yes.", summarise_before=before)])
    conversation.refresh_from_db()
    assert conversation.summary_due is due


def test_a_turn_that_failed_is_nothing_to_summarise(talk, finish):
    session = unique("session")
    finish("broke", "", session=session, state="failed", remember=False)
    conversation = talk(2, session=session, due=False)
    id = finish("newest", state="running", session=session, remember=False)
    with transaction.atomic():
        finish_turns([FinishedTurn(id=id, state=TurnState.DONE, reply="Yes.", summarise_before=2)])
    conversation.refresh_from_db()
    assert not conversation.summary_due
