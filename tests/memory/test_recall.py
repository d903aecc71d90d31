"""Recall: the right passages, of the right person, within the budget and the deadline."""

import asyncio
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.db import connection, transaction
from structlog.testing import capture_logs

from agents.models import AgentVersion
from memory.browsing import agent_owner, shared_owner
from memory.choosing import WhyNot, choose
from memory.curating import add
from memory.embedders.client import embed
from memory.isolation import act_for
from memory.models import EmbeddingSpace, MemoryOwner, OwnerKind, Passage, Turn
from memory.question import Voices, read_question
from memory.ranking import Ranked, rank
from memory.recall import TooSlow, _rank_in_time, recall
from memory.sources import Source, Sources, Whose, find_sources
from memory.weights import WEIGHTS
from memory.wishes import Outcome, Room, Wish
from memory.writing import remember_due_turns
from observability.api import run_burst
from observability.outbound import close_transports
from tests.factories import forget_vectors, unique

pytestmark = pytest.mark.usefixtures("live_db")


@pytest.fixture(autouse=True)
def _own_space(live_db, settings):
    settings.MEMORY_DEADLINE_MS = 60_000  # what is recalled must not depend on who else uses the machine
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    forget_vectors()
    MemoryOwner.objects.filter(agent="companion").exclude(kind=OwnerKind.PERSON).delete()  # what another test told everybody


def run(task):
    async def to_the_end():
        try:
            return await task
        finally:
            await close_transports()

    return asyncio.run(to_the_end())


def remember(model):
    async def drain():
        while await remember_due_turns(model):
            pass

    run(drain())


def sources_of(turn_id, model, **fields):
    turn = Turn.objects.get(pk=turn_id)
    return run(run_burst(find_sources, Whose(agent=turn.agent, conversation_id=turn.conversation_id, **fields), models=[model]))


def wish(question, whose, **fields):
    """A passage costs a token for each word."""
    allowed = {"limit": 5, "room": Room(200), "tokens_of": lambda p: len(p.text.split())}
    return Wish(question=question, whose=whose, **(allowed | fields))


def note(owner, text):
    return run(add(owner.pk, text=text, author="editor"))


def ask(question, turn_id, **fields):
    """Recall for the conversation of a turn."""
    turn = Turn.objects.get(pk=turn_id)
    whose = {name: fields.pop(name) for name in ("session_only", "knowledge") if name in fields}
    not_turns = fields.pop("not_turns", [])
    fields |= {"room": Room(fields.pop("budget_tokens", 200), frozenset(not_turns)), "in_view": not_turns}
    return run(recall(wish(question, Whose(agent=turn.agent, conversation_id=turn.conversation_id, **whose), **fields)))


def texts(recalled):
    return [passage.text for passage in recalled.passages]


def say_a_few_things(finish, **fields):
    """Three turns in two sessions of one person; returns the newest turn's id."""
    person = unique("person")
    finish("My dog is called Biscuit.", "What a lovely name for a dog!", subject=person, session=unique("s"), **fields)
    finish("I moved to Lisbon because of the sea.", "Lisbon is wonderful.", subject=person, session=unique("s"), **fields)
    return finish("I play the cello on Tuesdays.", "How long have you played?", subject=person, session=unique("s"), **fields)


def test_what_was_said_in_earlier_sessions_comes_back_the_best_first(embedder, finish):
    turn = say_a_few_things(finish)
    remember(embedder)
    for question, answer in {
        "What is my dog called?": "My dog is called Biscuit.",
        "Why did I move?": "I moved to Lisbon because of the sea.",
        "Which instrument do I play?": "I play the cello on Tuesdays.",
    }.items():
        recalled = ask(question, turn)
        assert (texts(recalled)[0], recalled.failure) == (answer, "")
        assert [passage.score for passage in recalled.passages] == sorted((p.score for p in recalled.passages), reverse=True)
        for passage in recalled.passages:
            assert sum(passage.contributions().values()) == pytest.approx(passage.score)
            assert list(passage.contributions()) == list(WEIGHTS)


def test_nobody_elses_memories_come_back_nor_another_agents(embedder, finish):
    mine, theirs = say_a_few_things(finish), finish("My dog is called Rex.", "Good dog.")
    name = Turn.objects.get(pk=mine).conversation.subject.name
    elsewhere = finish("My dog is called Waldo.", "Good dog.", subject=name, session=unique("s"), agent="other-agent")
    same_name = finish("My dog is called Fido.", "Good dog.", subject=name, owner="somebody-else", session=unique("s"))
    remember(embedder)
    said = {turn: texts(ask("What is my dog called?", turn, limit=50)) for turn in (mine, theirs, elsewhere, same_name)}
    names = {turn: set(re.findall("Biscuit|Rex|Waldo|Fido", " ".join(found))) for turn, found in said.items()}
    assert names == {mine: {"Biscuit"}, theirs: {"Rex"}, elsewhere: {"Waldo"}, same_name: {"Fido"}}


def test_a_session_alone_and_turns_that_are_sent_anyway(embedder, finish):
    turn = say_a_few_things(finish)
    remember(embedder)
    assert texts(ask("Which dog?", turn, session_only=True))[0] == "I play the cello on Tuesdays."
    assert len(ask("Which dog?", turn, session_only=True).passages) == 2
    assert not {"I play the cello on Tuesdays.", "How long have you played?"} & set(texts(ask("Cello?", turn, not_turns=[turn])))
    assert ask("Cello?", turn, session_only=True, not_turns=[turn]).passages == ()


def test_limit_and_budget_hold(embedder, finish):
    turn = say_a_few_things(finish)
    remember(embedder)
    assert len(ask("What do you know?", turn, limit=2).passages) == 2
    for budget in (1, 4, 5, 9, 14, 30):
        found = texts(ask("What is my dog called?", turn, budget_tokens=budget))
        assert sum(len(text.split()) for text in found) <= budget
    assert texts(ask("What is my dog called?", turn, budget_tokens=5)) == ["My dog is called Biscuit."]
    assert ask("What is my dog called?", turn, limit=0).passages == ask("What is my dog called?", turn, budget_tokens=0).passages == ()


@pytest.mark.parametrize("is_alone", [True, False])
def test_tokens_of_a_question_among_others_are_counted_without_a_connection(embedder, finish, monkeypatch, is_alone):
    turn = Turn.objects.get(pk=say_a_few_things(finish))
    remember(embedder)
    held = []

    def room():
        held.append(connection.connection is not None)
        return Room(200)

    monkeypatch.setattr("memory.recall.has_line", lambda model: is_alone)
    whose = Whose(agent=turn.agent, conversation_id=turn.conversation_id)
    assert "My dog is called Biscuit." in texts(run(recall(wish("What is my dog called?", whose, room=room))))
    assert held == [is_alone]


def test_people_without_memories_cost_no_embedding(embedder, finish, settings):
    turn = finish("Hello", "Hi", remember=False)
    settings.EMBEDDER_URL = "http://127.0.0.1:9/v1"
    assert ask("What is my dog called?", turn).failure == ""


def test_greetings_recall_nothing_and_the_shortest_questions_do(embedder, finish):
    turn = say_a_few_things(finish)
    remember(embedder)
    assert [texts(ask(greeting, turn)) for greeting in ("Hello!", "ok, thanks", "👍")] == [[], [], []]
    assert all(texts(ask(question, turn)) for question in ("Who am I?", "what do I like", "Biscuit"))


def test_dates_speakers_and_forms_are_found_in_the_statement(embedder, finish):
    person = unique("person")
    may = {"created_at": datetime(2023, 5, 8, 12, tzinfo=UTC), "deadline_at": datetime(2023, 5, 8, 13, tzinfo=UTC)}
    june = {"created_at": datetime(2023, 6, 20, 12, tzinfo=UTC), "deadline_at": datetime(2023, 6, 20, 13, tzinfo=UTC)}
    finish("I baked bread.", "Why did you bake bread?", subject=person, session="a" + person, **may)
    turn = finish("Yesterday I baked 3 loaves of bread.", "Bread again!", subject=person, session="b" + person, **june)
    remember(embedder)
    sources = sources_of(turn, embedder)

    def features(question):
        asked = read_question(question, voices=Voices(), today=datetime(2026, 1, 1, tzinfo=UTC).date())
        [vector] = run(embed([asked.to_embed], model=embedder))
        found = rank(asked, embedding=vector, space_id=sources.space_id, owner_id=sources.owners[0].owner_id, session=None, most=9)
        return {passage.text: passage.features for passage in found}

    first, question, second, last = "I baked bread.", "Why did you bake bread?", "Yesterday I baked 3 loaves of bread.", "Bread again!"
    found = features("How many loaves did I bake on 19 June 2023?")
    assert {text: of["date"] for text, of in found.items()} == {first: 0, question: 0, second: 1.3, last: 1}
    assert {text: of["speaker"] for text, of in found.items()} == {first: 1, question: 0, second: 1, last: 0}
    assert {text: of["answer_form"] for text, of in found.items()} == {first: 0, question: 0, second: 0.4, last: 0}
    assert {text: of["asks"] for text, of in found.items()} == {first: 0, question: 1, second: 0, last: 0}
    assert {text: of["opens"] for text, of in found.items()} == {first: 1, question: 0, second: 1, last: 0}
    assert found[second]["words"] > found[first]["words"] > found[last]["words"] == 0
    assert found[last]["nearby_words"] > 0
    assert found[first]["session_meaning"] == found[question]["session_meaning"] == max(found[t]["meaning"] for t in (first, question))
    assert found[first]["whole_passage"] == pytest.approx(found[first]["meaning"], abs=1e-3)
    assert [found[text]["answers_question"] for text in (first, second)] == [0, 0]


def test_an_answer_is_found_by_the_question_before_it(embedder, finish):
    person = unique("person")
    finish("Hello there, I am new.", "Welcome! Where were you born?", subject=person, session=person)
    turn = finish("Oslo, long before the war.", "I see.", subject=person, session=person)
    remember(embedder)
    [best, *_] = ask("Where was I born?", turn, limit=1).passages
    assert best.text == "Oslo, long before the war."
    assert best.features["answers_question"] > 1


def test_what_the_agent_knows_and_shared_collections_come_back_for_everybody(embedder, finish):
    agent, handbook = unique("agent"), unique("handbook")
    turn = finish("I bought a bicycle.", "Which one?", agent=agent)
    remember(embedder)
    note(agent_owner(agent), "Bicycles are repaired on the second floor.")
    note(agent_owner(unique("other")), "Bicycles are repaired in the cellar.")
    note(shared_owner(handbook), "Repairing a bicycle costs 40 euros an hour.")
    note(shared_owner(unique("secret")), "Repairing a bicycle costs us 12 euros an hour.")
    expected = {"I bought a bicycle.", "Bicycles are repaired on the second floor.", "Repairing a bicycle costs 40 euros an hour."}
    asked = "What does repairing my bicycle cost?"
    assert set(texts(ask(asked, turn, knowledge=[handbook], limit=50))) - {"Which one?"} == expected
    # A limit to the session is none for what is nobody's.
    assert set(texts(ask(asked, turn, knowledge=[handbook], limit=50, session_only=True))) - {"Which one?"} == expected
    stranger = run(recall(wish(asked, Whose(agent=agent, knowledge=[handbook]))))
    assert set(texts(stranger)) == expected - {"I bought a bicycle."}
    scores = [passage.score for passage in ask(asked, turn, knowledge=[handbook], limit=50).passages]
    assert scores == sorted(scores, reverse=True)


def test_a_person_without_a_conversation_recalls_as_in_a_new_one(embedder, finish):
    turn = say_a_few_things(finish)
    remember(embedder)
    stored = Turn.objects.get(pk=turn)
    asked = "Which instrument do I play?"
    alone = run(recall(wish(asked, Whose(agent=stored.agent, subject_id=stored.conversation.subject_id))))
    assert texts(alone) == texts(ask(asked, turn))
    assert [passage.features["meaning"] for passage in alone.passages] == [p.features["meaning"] for p in ask(asked, turn).passages]
    assert not run(recall(wish(asked, Whose(agent="other", subject_id=stored.conversation.subject_id)))).passages
    assert not run(recall(wish(asked, Whose(agent="other", conversation_id=stored.conversation_id)))).passages


def test_a_session_remembers_its_facts_and_notes_about_its_person(embedder, finish):
    person = unique("person")
    finish("My name is Ada.", "Hello Ada!", subject=person, session=unique("s"))
    turn = finish("My dog is called Biscuit.", "A lovely name!", subject=person, session=unique("s"))
    remember(embedder)
    owner = MemoryOwner.objects.get(subject__name=person)
    note(owner, "Prefers short answers.")
    found = ask("What do you know about me?", turn, session_only=True, limit=50)
    assert {passage.origin for passage in found.passages} == {"turn", "fact", "added"}
    assert not [text for text in texts(found) if "Ada" in text]
    assert "Prefers short answers." in texts(found)


def test_what_is_no_longer_true_is_not_recalled_and_of_equals_the_newest_counts(embedder, finish):
    person = unique("person")
    long_ago = {"created_at": datetime(2024, 2, 29, 12, tzinfo=UTC), "deadline_at": datetime(2024, 2, 29, 13, tzinfo=UTC)}
    finish("We had pancakes for breakfast.", "Nice!", subject=person, session=unique("s"), **long_ago)
    turn = finish("We had pancakes for breakfast!", "Nice.", subject=person, session=unique("s"))
    remember(embedder)
    found = ask("What did we have for breakfast?", turn)
    [newest] = [passage for passage in found.passages if "pancakes" in passage.text]
    assert newest.text == "We had pancakes for breakfast!"
    assert newest.features["recent"] == pytest.approx(1, abs=0.01)
    [same] = [each for each in found.left_out if "pancakes" in each.passage.text]
    assert (same.reason, same.passage.features["recent"] < 0.01) == (WhyNot.DUPLICATE, True)
    Passage.objects.filter(pk=newest.id).update(valid_until=datetime.now(UTC))
    assert [passage.said_at.year for passage in ask("What did we have for breakfast?", turn, limit=1).passages] == [2024]


def test_small_talk_recalls_nothing_from_the_default_threshold_on(embedder, finish):
    person = unique("person")
    for message, reply in SAID:
        turn = finish(message, reply, subject=person, session=unique("s"))
    remember(embedder)
    threshold = AgentVersion().memory_threshold
    for question, answer in ASKED.items():
        assert answer in " ".join(texts(ask(question, turn, threshold=threshold))), question
    for question in ("What is 17 times 23?", "Translate 'good morning' into Spanish.", "Why is the sky blue?"):
        found = ask(question, turn, threshold=threshold)
        assert (texts(found), found.outcome) == ([], Outcome.EMPTY), question
        assert {each.reason for each in found.left_out} == {WhyNot.BELOW_THRESHOLD}


SAID = [
    ("Hi! My name is Ava and I am a vet.", "Nice to meet you, Ava!"),
    ("I live in Porto with my two cats, Miso and Tofu.", "Porto is beautiful."),
    ("I'm allergic to peanuts, so no satay for me.", "I will keep that in mind."),
    ("My sister Lena gets married on 12 June.", "How exciting!"),
    ("I prefer tea over coffee.", "Tea it is."),
    ("Can you recommend a book about bread?", "Tartine Bread by Chad Robertson is a classic."),
]
ASKED = {
    "What is my name?": "Ava",
    "Who am I?": "Ava",
    "Where do I live?": "Porto",
    "What are my cats called?": "Miso",
    "What can't I eat?": "peanuts",
    "When is the wedding?": "12 June",
    "Do I like coffee?": "tea",
    "Which book did you recommend to me?": "Tartine",
}


def passage(number, score, text, **fields):
    return Ranked(id=number, turn_id=None, speaker="user", said_at=datetime.now(UTC), text=text, score=score, features={}, **fields)


def test_a_fact_is_told_in_place_of_what_it_was_read_from_unless_that_says_more():
    source, fact = passage(1, 9.0, "Hi, my name is Ava"), passage(2, 6.0, "My name is Ava", origin="fact", source_id=1)
    longer, home = (
        passage(3, 8.0, "I live in Porto with my two cats, Miso and Tofu"),
        passage(4, 7.5, "I live in Porto", origin="fact", source_id=3),
    )

    def chosen(ranked, **fields):
        found = choose(ranked, **{"limit": 5, "budget_tokens": 100, "tokens_of": lambda p: len(p.text.split()), **fields})
        return [each.id for each in found.passages], {each.passage.id: each.reason for each in found.left_out}

    assert chosen([source, longer, home, fact]) == ([3, 4, 2], {1: WhyNot.DUPLICATE})
    # It stands in the other's place, and is not lost to the limit behind what is worth less.
    assert chosen([source, longer, home, fact], limit=1) == (
        [2],
        {1: WhyNot.DUPLICATE, 3: WhyNot.OVER_LIMIT, 4: WhyNot.OVER_LIMIT},
    )
    assert chosen([source, fact], threshold=7) == ([1], {2: WhyNot.BELOW_THRESHOLD})
    assert chosen([source], budget_tokens=2) == ([], {1: WhyNot.OVER_BUDGET})


def test_what_is_chosen_is_worth_its_tokens():
    long = passage(1, 5.1, "word " * 40)
    short, same, other = passage(2, 5.0, "two words"), passage(3, 4.9, "Two  words"), passage(4, 4.0, "three more words")

    def chosen(budget, limit=5):
        found = choose([long, short, same, other], limit=limit, budget_tokens=budget, tokens_of=lambda p: len(p.text.split()))
        return [each.id for each in found.passages]

    assert chosen(100) == [1, 2, 4]  # what says the same is left out
    assert chosen(40) == [2, 4]  # the long one no longer fits, which does not end it
    assert chosen(100, limit=1) == [2]
    assert chosen(1) == []


def test_what_scores_too_low_is_not_even_counted():
    counted = []
    ranked = [passage(number, 10.0 - number, f"text {number}") for number in range(6)]
    found = choose(ranked, limit=5, budget_tokens=100, tokens_of=lambda p: counted.append(p.id) or 2, threshold=7.5)
    assert [each.id for each in found.passages] == counted == [0, 1, 2]
    assert [each.reason for each in found.left_out] == [WhyNot.BELOW_THRESHOLD] * 3


def test_a_short_answer_brings_its_question_along():
    answering = {"features": {"answers_question": 1.4}}
    question = replace(passage(1, 3.0, "Where were you born?"), seq=7)
    answer = replace(passage(2, 9.0, "In Oslo."), seq=8, **answering)
    long = replace(passage(3, 8.0, "I was born in Oslo " + "and more " * 10), seq=8, **answering)

    def chosen(*ranked, **fields):
        found = choose(ranked, **{"limit": 5, "budget_tokens": 100, "tokens_of": lambda p: len(p.text.split()), "threshold": 5, **fields})
        return [each.id for each in found.passages], [each.passage.id for each in found.left_out]

    assert chosen(answer, question) == ([2, 1], [])
    assert chosen(long, question) == ([3], [1])
    assert chosen(replace(answer, features={"answers_question": 0.5}), question) == ([2], [1])
    assert chosen(replace(answer, owner_id=9), question) == ([2], [1])
    assert chosen(answer, question, limit=1) == chosen(answer, question, budget_tokens=5) == ([2], [1])


def test_what_was_asked_before_in_the_same_words_takes_no_place(embedder, finish):
    question, asked = passage(1, 9.0, "in which city do I live"), passage(2, 8.0, "In which city do I live, and since when?")
    answer = replace(passage(3, 7.0, "In Porto."), seq=8, features={"answers_question": 1.4})
    before = replace(question, seq=7)
    found = choose([before, asked, answer], question="In which city do I live?", limit=5, budget_tokens=99, tokens_of=lambda p: 1)
    assert [each.id for each in found.passages] == [2, 3]
    assert [(each.passage.id, each.reason) for each in found.left_out] == [(1, WhyNot.THE_QUESTION)]

    person = unique("person")
    finish("In which city do I live?", "You have not told me yet.", subject=person, session=unique("s"))
    turn = finish("I live in Porto.", "A fine city.", subject=person, session=unique("s"))
    remember(embedder)
    recalled = ask("In which city do I live?", turn)
    assert "I live in Porto." in " ".join(text.rstrip(".") + "." for text in texts(recalled))
    assert [each.passage.text for each in recalled.left_out if each.reason is WhyNot.THE_QUESTION] == ["In which city do I live?"]


@pytest.fixture
def hanging_embedder():
    """An address that takes requests and never answers; yields it and the list of requests."""
    asked, stop = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            stop.wait(20)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    stop.set()
    server.shutdown()


def test_a_slow_embedder_is_not_waited_for(embedder, finish, settings, hanging_embedder):
    turn = say_a_few_things(finish)
    remember(embedder)
    settings.EMBEDDER_URL, asked = hanging_embedder
    settings.OUTBOUND_ALLOWED_HOSTS, settings.MEMORY_DEADLINE_MS = ["127.0.0.1"], 2000
    started = time.monotonic()
    with capture_logs() as logs:
        recalled = ask("What is my dog called?", turn)
    assert 1.5 < time.monotonic() - started < 15
    assert (recalled.passages, recalled.failure, len(asked)) == ((), "not done within 2000 ms", 1)
    assert [(line["event"], line["log_level"]) for line in logs] == [("memory recall failed", "warning")]


def test_an_embedder_that_is_gone_and_a_broken_statement_are_failures_and_no_errors(embedder, finish, settings, free_port):
    turn = say_a_few_things(finish)
    remember(embedder)
    EmbeddingSpace.objects.create(model="other", dimensions=2)
    settings.EMBEDDER_URL, settings.OUTBOUND_ALLOWED_HOSTS = f"http://127.0.0.1:{free_port}/v1", ["127.0.0.1"]
    recalled = ask("What is my dog called?", turn)
    assert recalled.passages == ()
    assert "EmbeddingFailed: no connection" in recalled.failure


def test_a_statement_that_takes_too_long_is_ended_and_not_tried_again(settings, monkeypatch):
    settings.MEMORY_DEADLINE_MS = 200
    tried = []
    source = Source(owner_id=1, session=None, is_all_in_view=False)
    sources = Sources(owners=(source,), voices=Voices(), model=None, space_id=1)

    def slow(asked, **kwargs):
        tried.append(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(20)")

    monkeypatch.setattr("memory.recall.rank", slow)
    started = time.monotonic()
    with pytest.raises(TooSlow, match="200 ms"):
        run(run_burst(_rank_in_time, None, sources=sources, embedding=[1.0], not_turns=[], most=1))
    assert time.monotonic() - started < 15
    assert tried == [1]


def test_without_an_embedder_there_is_nothing_to_recall(embedder, finish, settings):
    turn = say_a_few_things(finish)
    remember(embedder)
    settings.EMBEDDER_URL = ""
    assert ask("What is my dog called?", turn) == ask("Anything?", turn)
    assert ask("Anything?", turn).failure == ""


def test_vectors_of_another_model_are_never_compared(embedder, finish):
    turn = say_a_few_things(finish)
    remember(embedder)
    EmbeddingSpace.objects.update(model="another-model")
    assert ask("What is my dog called?", turn).passages == ()


def test_other_programs_recall_by_meaning(embedder, finish):
    turn = say_a_few_things(finish)
    finish("My dog is called Rex.")
    remember(embedder)
    owner = MemoryOwner.objects.get(subject=Turn.objects.get(pk=turn).conversation.subject)
    [vector] = run(embed(["My dog has the name Biscuit."], model=embedder))
    with connection.cursor() as cursor:
        statement = "SELECT passage, speaker, text, similarity FROM match_memory(%s::halfvec, %s, %s, %s)"
        cursor.execute(statement, [str(vector), 0.2, 2, owner.pk])
        rows = cursor.fetchall()
        cursor.execute(statement, [str([2 * value for value in vector]), 1.01, 5, owner.pk])
        assert cursor.fetchall() == []
    assert rows[0][1:3] == ("user", "My dog is called Biscuit.")
    assert rows[0][0] in Passage.objects.filter(owner=owner, text=rows[0][2]).values_list("pk", flat=True)
    assert len(rows) <= 2
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    assert all(0.2 <= row[3] <= 1 for row in rows)


def test_a_large_upload_is_found_quickly_before_the_planner_knows_of_it(live_db):
    """No step may read all rows again for each row: 3,000 notes would take longer than the deadline until the next ANALYZE."""
    asked = replace(read_question("How much is a bicycle?", voices=Voices(), today=datetime.now(UTC).date()), terms=("bicycl", "cost"))
    most = 60
    with transaction.atomic():
        space, owner = EmbeddingSpace.objects.create(model=unique("model"), dimensions=3, is_active=True), agent_owner(unique("agent"))
        act_for([owner.pk])
        with connection.cursor() as cursor:
            for insert in _MANY_NOTES:
                cursor.execute(insert, {"owner": owner.pk, "space": space.pk})
        found = rank(asked, embedding=[0.6, 0.8, 0], space_id=space.pk, owner_id=owner.pk, session=None, most=most)
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + inside_of_rank_memory(cursor), values_inside(asked, owner, space, most))
            [[[explained]]] = cursor.fetchall()
        transaction.set_rollback(True)
    assert len(found) == most
    rows_of_steps = [step["Actual Rows"] * step["Actual Loops"] for step in steps_of(explained["Plan"])]
    assert 3000 <= max(rows_of_steps) <= 5 * 3000


def inside_of_rank_memory(cursor):
    """Return the function's query, with its variables as parameters, after setting what the function sets."""
    cursor.execute("SELECT prosrc, proconfig FROM pg_proc WHERE proname = 'rank_memory'")
    [(source, settings)] = cursor.fetchall()
    for setting in settings:
        cursor.execute("SELECT set_config(%s, %s, true)", setting.split("="))
    query = source.partition("RETURN QUERY")[2].rpartition(";\nEND")[0]
    return re.sub(rf"(?<!\.)\b({'|'.join(_INSIDE)}|weight_of_\w+)\b", lambda found: f"%({found[0]})s{_INSIDE.get(found[0], '')}", query)


_INSIDE = {
    **dict.fromkeys(("of_owner", "in_space", "most", "by_speaker", "names_dates", "asks_form"), ""),
    **dict.fromkeys(("a_time", "a_number", "a_reason", "a_name", "half_life_s"), ""),
    "query_embedding": "::halfvec",
    "query_terms": "::text[]",
    "in_session": "::bigint",
    "not_turns": "::uuid[]",
    "said_first": "::date[]",
    "said_last": "::date[]",
    "said_value": "::float8[]",
    "spoken_of": "::datemultirange",
}


def values_inside(asked, owner, space, most):
    return {
        **dict.fromkeys(_INSIDE, 0),
        **{f"weight_of_{name}": weight for name, weight in WEIGHTS.items()},
        **dict.fromkeys(("names_dates", "asks_form"), False),
        **{name: [] for name in ("not_turns", "said_first", "said_last", "said_value")},
        "of_owner": owner.pk,
        "in_space": space.pk,
        "query_embedding": "[0.6,0.8,0]",
        "query_terms": list(asked.terms),
        "most": most,
        "by_speaker": asked.speaker,
        "in_session": None,
        "spoken_of": "{}",
        "half_life_s": 2592000.0,
    }


# Every second has one of the words that are asked for.
_MANY_NOTES = [
    """INSERT INTO memory_passage (owner_id, session, seq, speaker, part, said_at, text, content_hash, length, window_length, word_count,
                                   asks, has_time, has_number, has_reason, has_name, spans, origin, attribute, author)
       SELECT %(owner)s, -10 * n, -10 * n, 'note', 0, now(), 'note ' || n, sha256(n::text::bytea), 5, 5, 5, 0,
              false, false, false, false, '{}', 'added', '', 'editor' FROM generate_series(1, 3000) AS n""",
    """INSERT INTO memory_sentence (owner_id, space_id, seq, place, words, is_question, embedding)
       SELECT %(owner)s, %(space)s, -10 * n, 0, 5, false, ARRAY[cos(n / 3000.0 * 0.9273), sin(n / 3000.0 * 0.9273), 0]::halfvec
       FROM generate_series(1, 3000) AS n""",
    """INSERT INTO memory_posting (owner_id, term, seq, frequency, in_question)
       SELECT %(owner)s, CASE WHEN n %% 4 = 0 THEN 'bicycl' ELSE 'cost' END, -10 * n, 1, false FROM generate_series(2, 3000, 2) AS n""",
]


def steps_of(plan):
    yield plan
    for step in plan.get("Plans", []):
        yield from steps_of(step)
