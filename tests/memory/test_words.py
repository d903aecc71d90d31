"""How texts are read."""

import re
import time
from collections import Counter
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memory.features import Span, features_of, spans_of
from memory.parts import MAX_TOKENS, parts
from memory.words import capitals, is_filler, is_question, sentences, strip_names, terms, words
from observability.api import count_tokens

TODAY = date(2026, 3, 18)
PROSE = st.text(st.sampled_from("ab cdE.!? \n'\"()…é中👋-"), max_size=200)


def test_words_are_lower_case_and_without_possessive():
    assert words("Caroline's dog didn\u2019t eat 3 apples") == ["caroline", "dog", "didn't", "eat", "3", "apples"]


def test_terms_are_stems_of_what_tells_something():
    assert terms("I was painting my rooms, and painted them again!") == ["paint", "room", "paint"]
    assert terms("Yes, I don't") == []


def test_a_very_long_word_is_cut():
    assert [len(term) for term in terms("a" * 5000)] == [64]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('She said "no." Then left', ['She said "no.', "Then left"]),
        ("- a line\n- another\n\n...\n", ["- a line", "- another"]),
        ("It costs 3.50 at example.com", ["It costs 3.50 at example.com"]),
        ("", []),
        ("👋 !!", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


@given(PROSE)
def test_sentences_lose_no_word_and_keep_the_order(text):
    assert [word for sentence in sentences(text) for word in re.findall(r"\w", sentence)] == re.findall(r"\w", text)
    assert all(sentence == sentence.strip() and "\n" not in sentence for sentence in sentences(text))


@pytest.mark.parametrize("text", ["Hi!", "Hello, how are you?", "Thanks a lot", "ok", "Good morning!", "👍", "", "Great, thank you. Bye!"])
def test_fillers_are_not_worth_a_row(text):
    assert is_filler(text)


@pytest.mark.parametrize("text", ["7", "My name is Ada", "No, in Rome.", "Привет", "今日は"])
def test_anything_else_is(text):
    assert not is_filler(text)


def test_names_are_left_out_and_blanks_put_in_order():
    assert strip_names("Hey Ada, did Bob's dog   sleep , Ada?", ["Ada", "Bob"]) == "Hey, did dog sleep?"
    assert strip_names("Ada: line\nnext", ["Ada"]) == ": line\nnext"


@given(PROSE)
def test_what_is_there_without_names_are_the_same_words(text):
    assert re.findall(r"\w", strip_names(text, ())) == re.findall(r"\w", text)


def test_capitals_name_people_and_places():
    assert capitals("Yesterday I met Ada in New York. She said I'm late.") == {"ada", "new", "york"}


@given(PROSE)
@example("Where? There. Where?")
def test_features_are_what_the_words_say(text):
    found = features_of(text, said_on=TODAY)
    plain = strip_names(text, ())
    assert [sentence.text for sentence in found.sentences] == sentences(plain)
    assert {term.term: term.frequency for term in found.terms} == Counter(terms(plain))
    asked = {term for sentence in sentences(plain) if is_question(sentence) for term in terms(sentence)}
    assert {term.term for term in found.terms if term.in_question} == asked
    assert found.length == sum(term.frequency for term in found.terms)
    assert found.word_count == sum(sentence.words for sentence in found.sentences)
    assert 0 <= found.asks <= 1


def test_kinds_of_answers():
    found = features_of("We adopted two cats in May because Ada wanted to, yesterday.", said_on=TODAY, names=["Ada"])
    assert (found.has_time, found.has_number, found.has_reason, found.has_name) == (True, True, True, True)
    none = features_of("The cat sleeps.", said_on=TODAY)
    assert (none.has_time, none.has_number, none.has_reason, none.has_name) == (False, False, False, False)
    assert not features_of("I met Ada", said_on=TODAY, names=["Ada"]).has_name


def test_days_that_a_text_speaks_of():
    assert spans_of("Yesterday I painted, tomorrow I rest", said_on=TODAY) == (
        Span(date(2026, 3, 17), date(2026, 3, 17)),
        Span(date(2026, 3, 19), date(2026, 3, 19)),
    )
    assert spans_of("A fine day", said_on=TODAY) == ()


def tokens(text):
    return count_tokens(text, model="")


@pytest.mark.parametrize(
    "text",
    [
        "This is a sentence about something that happened. " * 300,
        "word " * 3000,
        "x" * 20_000,
        "今日はとても良い天気です。" * 300,
        "- a point\n" * 500,
        ("A short one. " + "and a very long one without any end " * 12 + ". ") * 20,
        "👋🏽" * 2000,
    ],
    ids=["sentences", "words", "no blanks", "Japanese", "lines", "mixed", "emoji"],
)
def test_long_texts_come_in_parts_of_100_to_200_tokens(text):
    found = parts(text)
    assert "".join(found) == text
    assert all(tokens(part) >= 100 for part in found[:-1])
    assert all(tokens(part) <= MAX_TOKENS for part in found)


@given(st.text(st.sampled_from("ab .!?\n\"'é中👋"), max_size=3000))
def test_parts_together_are_the_text(text):
    assert "".join(parts(text)) == text
    if tokens(text) <= MAX_TOKENS:
        assert parts(text) == [text]


@pytest.mark.parametrize(
    "text", [" " * 200_000, "a" * 200_000, '."' * 100_000, "." * 200_000, "A" * 200_000, "\n" * 200_000, "a." * 100_000]
)
def test_hostile_texts_take_no_quadratic_time(text):
    started = time.process_time()
    features_of(text, said_on=TODAY, names=["Ada"])
    parts(text)
    assert time.process_time() - started < 10
