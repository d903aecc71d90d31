"""What a question asks for: whom it is about, which dates it names, which form its answer has."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.question import NamedDate, Voices, dates_named, forms_asked, read_question, speaker_asked

TODAY = date(2026, 3, 15)
VOICES = Voices(names={"Zoë": "user", "Ava": "agent"})


def read(question, **fields):
    return read_question(question, **{"voices": VOICES, "today": TODAY, **fields})


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("What happened on 8 May 2023?", [NamedDate(8, 5, 2023)]),
        ("What happened on the 8th of May, 2023?", [NamedDate(8, 5, 2023)]),
        ("What happened on May 8, 2023?", [NamedDate(8, 5, 2023)]),
        ("What happened on Sept. 3rd?", [NamedDate(3, 9, None)]),
        ("What happened on 2023-05-08?", [NamedDate(8, 5, 2023)]),
        ("What did I plan in May?", [NamedDate(None, 5, None)]),
        ("May I ask what you know?", []),
        ("What happened in March 2024 and in 2025?", [NamedDate(None, 3, 2024)]),
        ("What did we do in 2024?", [NamedDate(None, None, 2024)]),
        ("Between 1 June and 4 July?", [NamedDate(1, 6, None), NamedDate(4, 7, None)]),
        ("What is my dog called?", []),
    ],
)
def test_dates(question, named):
    assert dates_named(question) == named


def test_a_day_is_told_of_within_days_and_a_month_in_it_or_the_next():
    worth = {days.value: (days.first, days.last) for days in read("What did I do on 8 May 2023?").said}
    assert worth == {
        1.0: (date(2023, 5, 8), date(2023, 5, 10)),
        0.6: (date(2023, 5, 7), date(2023, 5, 16)),
        0.3: (date(2023, 5, 1), date(2023, 6, 8)),
    }
    worth = {days.value: (days.first, days.last) for days in read("What did I do in December 2023?").said}
    assert worth == {1.0: (date(2023, 12, 1), date(2023, 12, 31)), 0.5: (date(2024, 1, 1), date(2024, 1, 31))}


def test_a_date_without_a_year_means_past_years_and_this_one():
    asked = read("What did I plan on 29 February?")
    assert [first for first, last in asked.spoken_of] == [date(year, 2, 29) for year in (2008, 2012, 2016, 2020, 2024)]
    assert all(first.year <= TODAY.year for first, last in read("What did I plan in April?").spoken_of)


@pytest.mark.parametrize("question", ["On 31 February 2023?", "On 2023-13-45?", "On 9999-12-31?", "In December 9999?", "On 0000-01-01?"])
def test_days_that_do_not_exist_are_no_dates(question):
    assert read(question).said == ()


@pytest.mark.parametrize(
    ("question", "speaker"),
    [
        ("What is Zoë's dog called?", "user"),
        ("What did Ava recommend?", "agent"),
        ("What did Ava recommend to Zoë?", ""),
        ("What is my dog called?", "user"),
        ("What did you recommend?", "agent"),
        ("What did you tell me?", "user"),
        ("What did Ava tell me?", ""),
        ("Which dogs are small?", ""),
        ("What about Avalon?", ""),
    ],
)
def test_whom_it_is_about(question, speaker):
    assert speaker_asked(question, voices=VOICES) == speaker


def test_a_question_from_outside_speaks_of_neither():
    assert speaker_asked("What do you know of my dog?", voices=Voices(asker="", answerer="")) == ""


@pytest.mark.parametrize(
    ("question", "forms"),
    [
        ("When did I move?", {"time": 1.0}),
        ("How long ago did I move?", {"time": 1.0}),
        ("How many dogs do I have?", {"number": 0.4}),
        ("Why did I move?", {"reason": 0.4}),
        ("Where do I live?", {"name": 0.4}),
        ("What year did we see that movie?", {"time": 1.0, "name": 0.4}),
        ("How was my day?", {}),
    ],
)
def test_form_of_the_answer(question, forms):
    assert forms_asked(question) == forms


def test_names_are_a_column_and_not_part_of_what_is_compared():
    asked = read("When did Zoë paint Zoë's kitchen?")
    assert asked.to_embed == "When did I paint my kitchen?"
    assert asked.terms == ("kitchen", "paint")


def test_each_term_counts_once():
    assert read("Dogs, dogs and a dog?").terms == ("dog",)


@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=10), max_size=2))
def test_any_text_can_be_asked(question, names):
    asked = read(question, voices=Voices(names=dict.fromkeys(names, "user")))
    assert all(days.first <= days.last and 0 < days.value <= 1 for days in asked.said)


@given(st.dates(date(1, 1, 1), date(9999, 12, 31)), st.sampled_from(["%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%B %Y"]))
def test_any_date_can_be_asked(day, shape):
    asked = read(f"What happened on {day.replace(day=1).strftime(shape)}?")
    assert all(days.first <= days.last for days in asked.said)
