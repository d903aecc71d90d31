"""What was told becomes facts: the newest holds, in whatever order they come, and nothing is taken for a fact that is none."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.facts.rules import MAX_CHARS, Statement, clauses, first_name, read_as, statements_in
from memory.facts.settling import Ending, Fact, contradicts, endings, says_only
from memory.models import MemoryOwner, Origin, Passage, Sentence, Turn
from memory.writing import remember_due_turns
from observability.outbound import close_transports
from tests.factories import unique

# What is said, and the attribute and value of each statement that it makes; a leading "-" ends what was told before.
TOLD = [
    ("My name is Ada.", ["name=ada"]),
    ("my name's Ada Lovelace, nice to meet you", ["name=ada lovelace"]),
    ("Actually, my name is Grete", ["name=grete"]),
    ("My full name is Ludwig van Beethoven.", ["name=ludwig van beethoven"]),
    ("I'm called Otto", ["name=otto"]),
    ("Hi, I'm Ada.", ["name=ada"]),
    ("Hello! I am Ada from Ulm.", ["name=ada"]),
    ("Hi there, I'm Ada and I live in Berlin.", ["name=ada", "home=berlin"]),
    ("Please call me Bob.", ["called=bob"]),
    ("You can call me Al", ["called=al"]),
    ("Everyone calls me Ted.", ["called=ted"]),
    ("Don't call me Bob any more", ["-called=bob"]),
    ("I am 34 years old.", ["age=34"]),
    ("I just turned 40!", ["age=40"]),
    ("My birthday is on 3 May.", ["birthday=3 may"]),
    ("I was born on May 3rd, 1990", ["birthday=may 3rd 1990"]),
    ("My email is ada@example.org.", ["e-mail=ada@example.org"]),
    ("my phone number is +49 170 1234567", ["phone=+49 170 1234567"]),
    ("I speak German and French.", ["speaks:german and french=german and french"]),
    ("My native language is Danish", ["mother tongue=danish"]),
    ("I live in Berlin.", ["home=berlin"]),
    ("I'm living in New York City now", ["home=new york city"]),
    ("No, I live in Hamburg, not Berlin.", ["home=hamburg"]),
    ("I moved to Frankfurt am Main last year.", ["home=frankfurt am main"]),
    ("We've just moved to the Netherlands", ["home=netherlands"]),
    ("I’m based in Ulm.", ["home=ulm"]),  # noqa: RUF001 - the typographic apostrophe
    ("I don't live in Berlin any more.", ["-home=berlin"]),
    ("I no longer live in Berlin", ["-home=berlin"]),
    ("I used to live in Rome before the war", ["-home=rome"]),
    ("I'm originally from Italy.", ["origin=italy"]),
    ("I grew up in Ulm", ["origin=ulm"]),
    ("I'm a software engineer at Acme.", ["job=software engineer"]),
    ("I am now a nurse", ["job=nurse"]),
    ("I work as a school teacher in Ulm.", ["job=school teacher"]),
    ("I'm retired.", ["job=retired"]),
    ("I work for Acme Corp", ["employer=acme corp"]),
    ("I work at a hospital", ["employer=hospital"]),
    ("I don't work at Acme anymore.", ["-employer=acme"]),
    ("My wife's name is Anna.", ["family:wife=anna"]),
    ("My daughter Mia starts school tomorrow.", ["family:daughter:mia=mia"]),
    ("I have a son called Tim", ["family:son:tim=tim"]),
    ("I have two kids.", ["children=two kid"]),
    ("I'm married", ["relationship=married"]),
    ("My dog Rex hates rain", ["pet:rex=rex"]),
    ("I have a cat named Minka", ["pet:minka=minka"]),
    ("We have two dogs", ["pet:dog=dog"]),
    ("I'm allergic to peanuts.", ["allergy:peanut=peanut"]),
    ("I have a nut allergy", ["allergy:nut=nut"]),
    ("I'm lactose intolerant", ["allergy:lactose=lactose"]),
    ("I'm a vegetarian", ["diet=vegetarian"]),
    ("I'm not vegan any more.", ["-diet=vegan"]),
    ("I don't eat pork", ["diet:pork=not pork"]),
    ("I like apples a lot.", ["opinion:apple=apple"]),
    ("I really love the Beatles!", ["opinion:beatles=beatles"]),
    ("I hate cilantro", ["opinion:cilantro=not cilantro"]),
    ("I don't like coffee any more.", ["opinion:coffee=not coffee"]),
    ("I no longer like coffee", ["-opinion:coffee=coffee"]),
    ("I prefer short answers.", ["preference=short answer"]),
    ("Please always answer in German.", ["preference=always answer in german"]),
    ("My favorite color is green.", ["favourite:colour=green"]),
    ("My favourite book is Dune, by the way", ["favourite:book=dune"]),
    ("I'm a nurse, and I love tea.", ["job=nurse", "opinion:tea=tea"]),
    ("No, Hamburg, not Berlin.", ["correction=hamburg"]),
    ("I meant not Greta but Grete", ["correction=grete"]),
    ("It's Grete, not Greta", ["correction=grete"]),
    ("I live in Ulm. Where do you live? My name is Ada.", ["home=ulm", "name=ada"]),
]
NOT_TOLD = [
    "My name is not important.",
    "my name is on the list",
    "If my name is Bob, what then?",
    "What is my name?",
    "Is my name Ada?",
    "Suppose my name is Ada.",
    'She said "my name is Ada".',
    "“I live in Berlin” is what he wrote.",
    "> I live in Berlin.",
    "Translate into German: my name is Ada. I live in Berlin.",
    "Write a story about a nurse. I live in Berlin.",
    "Let's role-play. My name is Dracula.",
    "Pretend with me. I live in Paris.",
    "My friend's name is Bob.",
    "His name is Bob",
    "The name is Bond",
    "Call me tomorrow",
    "Call me Monday",
    "Call me back when you can.",
    "I'm Ada.",
    "Hi, I'm German",
    "Hi, I'm Interested in your offer",
    "Hello, I'm looking for a flat",
    "I'm happy",
    "I'm sorry",
    "I'm 34 weeks pregnant",
    "I'm 5 minutes late",
    "My birthday is tomorrow.",
    "My email is broken",
    "My phone is dead",
    "I live in a small house",
    "I live in fear",
    "I might live in Berlin next year.",
    "I would live in Paris if I could",
    "I want to live in Paris",
    "I moved to Linux last year.",
    "I moved to Sales",
    "I moved to the sofa",
    "We moved to GitLab",
    "I wish I lived in Rome",
    "I'm a big fan of yours",
    "I'm a bit tired",
    "I'm an idiot",
    "I work for fun",
    "I work at night",
    "I work from home",
    "I think I like coffee",
    "I'd like a coffee",
    "I would love coffee",
    "I like it",
    "I like that",
    "I love you",
    "I like your answer",
    "I like how you said that",
    "I like the second one",
    "I hate when that happens",
    "I feel like pizza",
    "I prefer the first option",
    "I prefer that",
    "My favourite is the second one",
    "My daughter is ill",
    "My dog ate it",
    "My wife is at home",
    "I'm allergic to it",
    "I don't eat that",
    "Maybe I'm allergic to peanuts",
    "I'm not sure I'm allergic to nuts",
    "For example: my name is Ada",
    "I'm vegan lol just kidding",
    "You are a nurse.",
    "Do I live in Berlin?",
    "Thanks!",
    "",
]


def shown(statement):
    return f"{'-' if statement.ends else ''}{statement.attribute}={statement.value}"


@pytest.mark.parametrize(("text", "told"), TOLD)
def test_what_is_told_is_read(text, told):
    assert [shown(statement) for statement in statements_in(text)] == told


@pytest.mark.parametrize("text", NOT_TOLD)
def test_nothing_else_is_read(text):
    assert statements_in(text) == []


def test_a_fact_is_the_persons_own_sentence_or_the_part_of_it_that_tells():
    assert [each.text for each in statements_in("Well, I live in Ulm! And you?")] == ["Well, I live in Ulm!"]
    assert [each.text for each in statements_in("Hi, my name is Ada, and I live in Ulm.")] == ["My name is Ada", "I live in Ulm."]


def test_pasted_texts_are_not_read():
    assert statements_in("I live in Ulm. " + "word " * (MAX_CHARS // 5)) == []


@given(st.text(max_size=400))
def test_any_text_can_be_read(text):
    for statement in statements_in(text):
        assert statement.attribute
        assert statement.text


@given(st.lists(st.sampled_from([text for text, _ in TOLD] + NOT_TOLD[2:6]), max_size=4).map(" ".join))
def test_a_stored_fact_is_read_again_as_it_was(text):
    for statement in statements_in(text):
        assert read_as(statement.attribute, statement.text) == statement


@pytest.mark.parametrize(
    ("text", "name"),
    [("My name is Ada Lovelace.", "Ada"), ("I'm Ada.", "Ada"), ("My name is Will.", ""), ("My name is Bo", ""), ("Her name is Ada", "")],
)
def test_first_names_that_are_no_other_words(text, name):
    assert first_name(text) == name


def facts_of(said, *, attribute="home", start=0):
    """Make facts of one attribute, told a day after each other."""
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    return [
        Fact(
            id=number,
            owner_id=1,
            attribute=attribute,
            seq=-10 * number,
            turn_id=None,
            said_at=noon + timedelta(number),
            text=text,
            origin="fact",
        )
        for number, text in enumerate(said, start=start + 1)
    ]


def successors(said, **kwargs):
    return {id: ending.successor for id, ending in endings(facts_of(said, **kwargs)).items()}


def test_the_newest_holds():
    facts = facts_of(["I live in Berlin.", "I live in Ulm.", "I live in Rome."])
    assert endings(facts) == {1: Ending(facts[1].said_at, 2), 2: Ending(facts[2].said_at, 3)}


def test_what_is_ended_has_no_successor():
    assert successors(["I live in Berlin.", "I no longer live in Berlin."]) == {1: None}
    assert successors(["I live in Berlin, Germany.", "I don't live in Berlin any more", "I live in Ulm"]) == {1: None, 2: 3}


def test_what_was_left_before_ends_nothing_else():
    assert successors(["I live in Ulm.", "I no longer live in Berlin."]) == {}


def test_likes_and_dislikes_of_one_thing_contradict():
    assert successors(["I like coffee.", "I don't like coffee."], attribute="opinion:coffee") == {1: 2}


def test_preferences_for_different_things_hold_at_once():
    said = [
        "I prefer short answers.",
        "I prefer tea to coffee.",
        "I prefer long answers in German.",
        "I prefer coffee.",
        "I prefer phones.",
    ]
    assert successors(said, attribute="preference") == {1: 3, 2: 4}
    facts = facts_of([*said, "I prefer calls."], attribute="preference")
    assert endings(facts, close={(-60, -50)})[5] == Ending(facts[5].said_at, 6)


def test_what_contradicts():
    berlin, again, ulm = (statements_in(text)[0] for text in ("I live in Berlin.", "I still live in Berlin!", "I live in Ulm."))
    assert contradicts(ulm, berlin)
    assert not contradicts(again, berlin)
    assert contradicts(statements_in("I hate tea")[0], statements_in("I love tea")[0])
    assert contradicts(Statement("home", "Lives in Ulm"), berlin)


HOMES = ["I live in Berlin.", "I live in Ulm.", "I no longer live in Berlin.", "I don't live in Ulm", "Lives in Rome"]


@given(st.lists(st.sampled_from(HOMES), max_size=7), st.randoms())
def test_what_holds_does_not_depend_on_the_order_of_storing(said, random):
    facts = facts_of(said)
    shuffled = random.sample(facts, len(facts))
    assert endings(shuffled) == endings(facts)
    # Whatever is known already only ends earlier when more becomes known.
    for count in range(len(shuffled)):
        known, more = endings(shuffled[:count]), endings(shuffled)
        assert all(more[id].at <= ending.at for id, ending in known.items())


def test_what_says_nothing_but_a_fact():
    def only(text, *told, origin="fact"):
        return says_only(text, [replace(fact, origin=origin) for fact in facts_of(told)])

    assert only("Hi! I live in Berlin. And you?", "I live in Berlin.")
    assert not only("I live in Berlin. The flat is small.", "I live in Berlin.")
    assert not only("My name is Ada and I live in Berlin.", "I live in Berlin.")
    assert only("My name is Ada and I live in Berlin.", *clauses("My name is Ada and I live in Berlin."))
    assert only("Ich wohne in Ulm.", "I live in Ulm.", origin="model")
    assert not only("Ich wohne in Ulm. Es ist laut.", "I live in Ulm.", origin="model")


# What follows is about stored facts.


@pytest.fixture
def stored(live_db, embedder):
    """Remember all that waits."""
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))

    def remember():
        async def run():
            try:
                while await remember_due_turns(embedder):
                    pass
            finally:
                await close_transports()

        asyncio.run(run())

    return remember


def facts(*turns, valid=None):
    found = Passage.objects.filter(turn__in=turns, origin=Origin.FACT).order_by("said_at", "-seq")
    return [fact for fact in found if valid is None or (fact.valid_until is None) is valid]


def test_a_turn_gives_facts_of_the_persons_side_alone(stored, finish):
    turn = finish("Hello! My name is Ada and I live in Berlin.", "I live in Ulm.")
    stored()
    name, home = facts(turn)
    source = Passage.objects.get(turn=turn, origin=Origin.TURN, speaker="user")
    assert [(each.attribute, each.text) for each in (name, home)] == [("name", "My name is Ada"), ("home", "I live in Berlin.")]
    assert {each.source_id for each in (name, home)} == {source.pk}
    assert {each.speaker for each in (name, home)} == {"user"}
    assert {each.said_at for each in (name, home)} == {source.said_at}
    assert MemoryOwner.objects.get(pk=name.owner_id).user_name == "Ada"
    assert Sentence.objects.filter(owner=name.owner_id, seq__in=[name.seq, home.seq]).count() == 2


def test_a_newer_fact_supersedes_and_a_source_of_nothing_else_goes_with_it(stored, finish):
    person = unique("person")
    first = finish("I live in Berlin.", "Nice!", subject=person)
    second = finish("Hi! I live in Berlin. It is a city of dogs.", "Nice!", subject=person)
    third = finish("Actually, I live in Ulm.", "Nice!", subject=person)
    stored()
    was, again = facts(first, second)
    [now] = facts(third)
    assert (was.superseded_by_id, was.valid_until) == (again.pk, again.said_at)
    assert (again.superseded_by_id, again.valid_until, now.valid_until) == (now.pk, now.said_at, None)
    [source] = Passage.objects.filter(turn=first, origin=Origin.TURN, speaker="user")
    assert source.valid_until == was.valid_until
    [telling_more] = Passage.objects.filter(turn=second, origin=Origin.TURN, speaker="user")
    assert telling_more.valid_until is None


def test_what_is_only_told_again_stays_where_it_was_told(stored, finish):
    person = unique("person")
    turns = [finish("I live in Berlin.", subject=person), finish("I still live in Berlin!", subject=person)]
    stored()
    assert len(facts(*turns, valid=True)) == 1
    assert not Passage.objects.filter(turn__in=turns, origin=Origin.TURN).exclude(valid_until=None).exists()


def test_turns_that_are_remembered_out_of_order_give_the_same(stored, finish):
    said = ["I live in Berlin.", "I live in Ulm.", "I no longer live in Ulm.", "I live in Rome."]
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    results = []
    for order in itertools.islice(itertools.permutations(range(4)), 0, 24, 5):
        person, turns = unique("person"), {}
        for number in order:
            at = noon + timedelta(number)
            turns[number] = finish(said[number], subject=person, created_at=at, deadline_at=at + timedelta(seconds=60))
            stored()
        found = facts(*turns.values())
        texts = {fact.pk: fact.text for fact in found}
        results.append([(fact.text, fact.valid_until, texts.get(fact.superseded_by_id)) for fact in found])
    assert all(result == results[0] for result in results)
    assert [valid_until is None for _, valid_until, _ in results[0]] == [False, False, False, True]


def test_a_correction_is_of_what_was_told_before(stored, finish):
    person = unique("person")
    first = finish("My name is Greta. I live in Berlin.", subject=person)
    second = finish("No, it's Grete, not Greta.", subject=person)
    other = finish("It's cold, not warm", subject=person)
    stored()
    third = finish("Not Berlin but Hamburg!", subject=person)
    stored()
    assert [(fact.attribute, fact.text) for fact in facts(first, second, third, other, valid=True)] == [
        ("name", "No, it's Grete, not Greta."),
        ("home", "Not Berlin but Hamburg!"),
    ]
    last = finish("I live in Ulm.", subject=person)
    stored()
    assert [fact.text for fact in facts(third, last, valid=True)] == ["I live in Ulm."]


def test_corrections_of_several_people_at_once(stored, finish):
    people = [unique("person") for _ in range(3)]
    for person in people:
        finish("I live in Berlin.", subject=person)
    stored()
    turns = [finish("Not Berlin but Hamburg!", subject=person) for person in people]
    stored()
    assert [fact.attribute for fact in facts(*turns, valid=True)] == ["home"] * 3


def test_nothing_is_stored_twice(stored, finish):
    turn = finish("I live in Berlin.")
    stored()
    Turn.objects.filter(pk=turn).update(remembered_at=None)
    Passage.objects.filter(turn=turn, origin=Origin.TURN).delete()
    stored()
    assert len(facts(turn)) == 1


def test_nobody_elses_facts_are_touched(stored, finish):
    mine, other = finish("I live in Berlin."), finish("I live in Ulm.")
    stored()
    assert len(facts(mine, other, valid=True)) == 2


def test_close_preferences_supersede(stored, finish):
    person = unique("person")
    turns = [finish(text, subject=person) for text in ("I prefer tea.", "I prefer window seats.", "I prefer coffee.")]
    stored()
    assert [fact.text for fact in facts(*turns, valid=True)] == ["I prefer window seats.", "I prefer coffee."]


@settings(max_examples=10)
@given(st.lists(st.sampled_from(HOMES[:4]), min_size=1, max_size=5), st.integers(1, 5))
def test_what_is_stored_is_what_the_rules_say(stored, finish, said, at_once):
    person, turns = unique("person"), []
    for number, text in enumerate(said):
        turns.append(finish(text, subject=person))
        if number % at_once == 0:
            stored()
    stored()
    found = facts(*turns)
    expected = endings(
        Fact(each.pk, each.owner_id, each.attribute, each.seq, each.turn_id, each.said_at, each.text, each.origin) for each in found
    )
    assert {each.pk: Ending(each.valid_until, each.superseded_by_id) for each in found if each.valid_until} == expected
    with transaction.atomic():
        assert len(found) == len(said)
