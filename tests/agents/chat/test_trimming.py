"""What prompts leave out of long conversations, in the model's own tokens, and what that saved."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from msgspec.structs import replace

from agents.chat.trimming import Trimming, trimming_of
from memory.api import OpenedTurn, PastTurn
from observability.api import AttemptOutcome, Price, SettledAttempt
from observability.models import Attempt, ModelPrice
from tests.factories import unique
from tests.upstream import Reply

PRICE = Price(input_usd=Decimal(1), output_usd=Decimal(1), context_tokens=1000)
DONE = SettledAttempt(id=UUID(int=1), outcome=AttemptOutcome.DONE, price=PRICE, prompt_tokens=100, completion_tokens=50)
PROMPT = [{"role": "user", "content": "x" * 400}]


def opened(*, first, seq, chars=100):
    """A turn `seq` before which the turns from `first` on were read, each of so many characters."""
    recent = [PastTurn("m" * (chars // 2), "r" * (chars - chars // 2), UUID(int=number), number) for number in range(first, seq)]
    return OpenedTurn(1, seq, tuple(recent))


@pytest.mark.parametrize(
    ("turn", "oldest", "summary", "left_out"),
    [
        (opened(first=1, seq=5), 1, "", 0),
        (opened(first=1, seq=5), 3, "", 200),
        (opened(first=1, seq=5), 5, "", 400),
        (opened(first=1, seq=5), 5, "s" * 150, 250),
        (opened(first=1, seq=5), 2, "s" * 150, 0),
        (opened(first=11, seq=15), 11, "", 1000),
        (opened(first=11, seq=15), 13, "", 1200),
        (opened(first=1, seq=1), 1, "", 0),
        (opened(first=9, seq=9), 9, "", 0),
    ],
    ids=[
        "all sent",
        "two left out",
        "none sent",
        "less the summary",
        "a longer summary",
        "not even read",
        "both",
        "the first",
        "none read",
    ],
)
def test_what_is_left_out_are_turns_that_are_not_sent_less_the_summary(turn, oldest, summary, left_out):
    assert trimming_of(turn, oldest=oldest, summary=summary, messages=PROMPT).left_out_chars == left_out


def test_turns_that_failed_are_not_taken_for_ones_with_an_answer():
    turn = opened(first=11, seq=15)
    turn = replace(turn, recent=turn.recent[::2])  # every second one failed, so of the ten before, too
    assert trimming_of(turn, oldest=11, summary="", messages=PROMPT).left_out_chars == 500


@pytest.mark.parametrize(
    ("attempt", "tokens"),
    [
        (DONE, 200),
        (replace(DONE, price=None), 200),
        (replace(DONE, prompt_tokens=900), 50),  # of 1,000 that the model reads, 50 are left
        (replace(DONE, prompt_tokens=2000), 0),
        (replace(DONE, prompt_tokens=None), 0),
        (replace(DONE, outcome=AttemptOutcome.FAILED), 0),
        (replace(DONE, outcome=AttemptOutcome.CANCELLED), 200),
    ],
    ids=["done", "unknown price", "up to the context", "beyond it", "no usage", "failed", "the client left"],
)
def test_left_out_characters_are_tokens_as_the_model_counted_its_prompt(attempt, tokens):
    [noted] = Trimming(800, 400).note_on([attempt])
    assert noted.trimmed_tokens == tokens


def test_a_long_conversation_shows_in_the_ledger_what_was_not_sent(make_chat_agent, upstream, start_server):
    upstream.script(*[Reply("word " * 40, usage=(300, 40)) for _ in range(4)])
    agent = make_chat_agent(upstream, system_prompt="You help.", prompt_budget_tokens=105, model=unique("model"), reply_cache_s=0)
    ModelPrice.objects.create(
        provider=agent.live_version.provider.slug, model=agent.live_version.model, effective_from="2026-01-01T00:00:00Z",
        input_usd=10, output_usd=10,
    )  # fmt: skip
    session = unique("session")
    with start_server().client() as client:
        for _ in range(4):
            assert client.post(f"/api/chat/{agent.slug}", json={"message": "And then?", "session_id": session}).status_code == 200
    rows = list(Attempt.objects.filter(agent=agent.slug).order_by("started_at"))
    assert [row.trimmed_tokens > 0 for row in rows] == [False, False, True, True], [row.trimmed_tokens for row in rows]
    sent, left_out = sum(len(message["content"]) for message in upstream.calls[-1].body["messages"]), 2 * len("And then?" + "word " * 40)
    assert rows[-1].trimmed_tokens == round(left_out * 300 / sent)
