"""Token counts: what OpenAI publishes, and a bound that holds for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.tokens import count_tokens, count_tokens_of_messages, count_tokens_of_prompt, most_tokens
from tests.waiting import timely

# The messages of https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken, section 6.
PUBLISHED_MESSAGES = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]


@pytest.mark.parametrize(
    ("model", "text", "tokens"),
    [
        # https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
        ("gpt-4o", "antidisestablishmentarianism", 6),
        ("gpt-4", "antidisestablishmentarianism", 6),
        ("gpt-4o", "2 + 2 = 4", 7),
        ("gpt-4", "2 + 2 = 4", 7),
        ("gpt-4o", "お誕生日おめでとう", 8),
        ("gpt-4", "お誕生日おめでとう", 9),
        ("gpt-4", "tiktoken is great!", 6),
    ],
)
def test_counts_equal_the_published_examples(model: str, text: str, tokens: int) -> None:
    assert count_tokens(text, model=model) == tokens
    assert count_tokens_of_prompt(text, model=model) == tokens


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        # What the API itself is printed to have counted.
        ("gpt-3.5-turbo-0613", 129),
        ("gpt-4-0314", 129),
        ("gpt-4-0613", 129),
        ("gpt-4", 129),
        ("gpt-4o", 124),
        ("gpt-4o-mini", 124),
    ],
)
def test_messages_with_their_framing_count_as_the_api_is_published_to_count_them(model: str, tokens: int) -> None:
    assert count_tokens_of_messages(PUBLISHED_MESSAGES, model=model) == tokens


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        # The cookbook's Japanese example tells the two encodings apart.
        *((name, 9) for name in ("gpt-4", "gpt-3.5-turbo", "text-embedding-3-small", "text-embedding-ada-002", "vendor/gpt-4")),
        *((name, 8) for name in ("gpt-4o", "gpt-4.1", "gpt-5", "o3-mini", "chatgpt-4o-latest", "gpt-oss-20b", "no-such-model")),
    ],
)
def test_each_model_is_counted_with_its_own_encoding(model: str, tokens: int) -> None:
    assert count_tokens("お誕生日おめでとう", model=model) == tokens


@pytest.mark.parametrize("model", ["", "llama-3.3-70b", "some/vendor/gpt-4o", "gpt-2", "text-davinci-003", "x" * 200])
def test_every_other_model_is_counted_too(model: str) -> None:
    assert count_tokens("お誕生日おめでとう", model=model) == 8


def test_special_tokens_in_peoples_text_are_plain_text() -> None:
    assert count_tokens("<|endoftext|>", model="gpt-4o") > 1


@given(st.text(max_size=300))
def test_the_bound_is_never_below_the_count(text: str) -> None:
    for model in ("gpt-4o", "gpt-4"):
        assert most_tokens(text) >= count_tokens(text, model=model)


@pytest.mark.parametrize("text", ["a" * 200_000, " " * 200_000, "é" * 100_000, "a1" * 100_000], ids=lambda text: repr(text[:2]))
def test_texts_that_tokenize_badly_are_still_counted_quickly(text: str) -> None:
    count_tokens("warm", model="gpt-4o")
    assert timely(lambda: count_tokens(text, model="gpt-4o"), within_s=1) > 0
