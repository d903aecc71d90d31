"""What turns recalled, and why; and conversations' summaries."""

from __future__ import annotations

import html
from datetime import UTC, datetime

import pytest
from django.urls import reverse

from memory.browsing import person_owner, shared_owner
from memory.isolation import acting_for
from memory.models import MemoryOwner, Recalled, Summary, Turn
from memory.reasons import draw_reasons
from memory.weights import FEATURES
from tests.factories import make_passage, unique

pytestmark = pytest.mark.usefixtures("live_db")


def read(client, address):
    response = client.get(address)
    assert response.status_code == 200, response.content
    return html.unescape(response.content.decode())


def test_bars_share_a_scale_and_begin_at_zero():
    reasons = draw_reasons({"meaning": 3.0, "words": 1.0, "asks": -1.0, "opens": 0.0, "gone": 0.5})
    assert [(reason.name, reason.value) for reason in reasons] == [("meaning", 3.0), ("words", 1.0), ("gone", 0.5), ("asks", -1.0)]
    meaning, words, gone, asks = reasons
    assert (meaning.x, meaning.width, meaning.zero) == (25.0, 75.0, 25.0)
    assert (words.x, words.width) == (25.0, 25.0)
    assert (asks.x, asks.width, asks.is_loss) == (0.0, 25.0, True)
    assert meaning.because == next(feature.because for feature in FEATURES if feature.name == "meaning")
    assert gone.because == "", "what older turns were scored by may be there no longer"
    assert draw_reasons({}) == draw_reasons({"words": 0.0}) == []
    assert [reason.width for reason in draw_reasons({"asks": -2.0})] == [100.0]


@pytest.fixture
def turn(maria, finish):
    """A turn of Maria's that recalled two memories of hers and one that is shared."""
    id = finish("Where do I live?", "In Lisbon.", owner=maria.owner, subject=maria.name)
    owner, shared = person_owner("companion", maria.pk), shared_owner(unique("prices"))
    recalled = [
        (owner, "Maria lives in Lisbon.", {"words": 2.0, "meaning": 3.5}),
        (shared, "Tea costs 2 euros.", {"meaning": 0.5}),
    ]
    for position, (each, text, contributions) in enumerate(recalled, 1):
        passage = make_passage(each, text)
        with acting_for([each.pk]):
            Recalled.objects.create(
                turn_id=id, owner=each, passage_id=passage, position=position, score=sum(contributions.values()),
                contributions=contributions, recalled_at=datetime.now(UTC),
            )  # fmt: skip
    return Turn.objects.select_related("conversation").get(pk=id)


def test_a_turn_shows_what_it_recalled_and_why(operator, turn):
    text = read(operator, reverse("admin:memory_turn_change", args=(turn.pk,)))
    assert text.index("Maria lives in Lisbon.") < text.index("Tea costs 2 euros.")
    assert "5.50 points" in text
    assert "the person's" in text
    assert "shared: prices" in text
    assert "It contains the question's words; rare words count more." in text


def test_a_conversation_shows_what_its_turns_recalled_and_leads_to_the_person(operator, turn, maria):
    text = read(operator, reverse("admin:memory_conversation_change", args=(turn.conversation_id,)))
    assert "Recalled 2 memories" in text
    assert "Maria lives in Lisbon." in text
    assert reverse("admin:memory_subject_change", args=(maria.pk,)) in text


def test_the_list_says_for_which_question_a_memory_was_last_recalled(operator, turn, maria):
    text = read(operator, reverse("admin:memory_memoryowner_change", args=(person_owner("companion", maria.pk).pk,)))
    assert "for “Where do I live?”" in text


def test_shared_knowledge_tells_editors_nothing_of_what_people_asked(editor, turn):
    ids = list(MemoryOwner.objects.filter(kind="shared").values_list("pk", flat=True))
    with acting_for(ids):
        [shared] = Recalled.objects.filter(turn=turn).values_list("owner_id", flat=True)
    text = read(editor, reverse("admin:memory_memoryowner_change", args=(shared,)))
    assert "Last recalled" in text
    assert "Where do I live" not in text


def test_a_turn_that_recalled_nothing_says_so(operator, finish):
    text = read(operator, reverse("admin:memory_turn_change", args=(finish("Hello there."),)))
    assert "What was recalled for it" in text
    assert "Nothing." in text


def test_a_conversation_shows_its_summary_and_those_before(operator, turn):
    for number, words in ((1, "They greeted each other."), (2, "They greeted, then spoke of Lisbon.")):
        Summary.objects.create(
            conversation=turn.conversation, number=number, upto_seq=number, text=words, model="small-model", prompt_tokens=9
        )
    text = read(operator, reverse("admin:memory_conversation_change", args=(turn.conversation_id,)))
    assert text.index("They greeted, then spoke of Lisbon.") < text.index("They greeted each other.")
    assert "Summary up to turn 2" in text
    assert "1 before it" in text
