"""*Try recall*: it shows what a chat turn recalls, as that is what it asks."""

from __future__ import annotations

import asyncio
import html

import pytest
from django.test import Client
from django.urls import reverse

from agents.access import Caller
from agents.chat.answer import Question, answer
from memory.browsing import agent_owner, person_owner, shared_owner
from memory.curating import add
from memory.isolation import acting_for
from memory.models import Recalled, Subject, Turn
from observability.outbound import close_transports
from tests.factories import make_key, make_user, unique

pytestmark = pytest.mark.usefixtures("live_db", "embedder")
MEMORY = {"memory_enabled": True, "memory_limit": 3, "memory_budget_tokens": 300, "memory_threshold": 0}


@pytest.fixture(autouse=True)
def _patient(settings):
    settings.MEMORY_DEADLINE_MS = 5000
    settings.OUTBOUND_ALLOWED_HOSTS = [*settings.OUTBOUND_ALLOWED_HOSTS, "127.0.0.1"]


def sign_in(role):
    client = Client(headers={"accept": "text/html"})
    client.force_login(make_user(role=role))
    return client


def run(awaitable):
    async def finish():
        try:
            return await awaitable
        finally:
            await close_transports()

    return asyncio.run(finish())


def tried(client, agent, question, *, person=None):
    address = reverse("admin:agents_agent_recall", args=(agent.pk,))
    response = client.get(address, {"question": question} | ({"person": person.pk} if person else {}))
    assert response.status_code == 200, response.content
    return response


@pytest.fixture
def knowing(make_chat_agent, upstream):
    """An agent, somebody with memories, and shared knowledge that the agent uses."""
    collection = unique("prices")
    agent = make_chat_agent(upstream, knowledge=[collection], **MEMORY)
    key = make_key(agent).key
    subject = Subject.objects.create(owner=f"owner:{key.owner_id}", name=unique("maria"))
    owners = {"hers": person_owner(agent.slug, subject.pk), "own": agent_owner(agent.slug), "shared": shared_owner(collection)}
    texts = {
        "hers": ["Maria's dog is called Biscuit.", "Maria lives in Lisbon.", "Maria works as a nurse at night.", "Maria likes tea."],
        "own": ["The agent never gives medical advice."],
        "shared": ["Dog food costs 12 euros.", "Tea costs 2 euros."],
    }
    for name, owner in owners.items():
        for text in texts[name]:
            run(add(owner.pk, text=text, author="anna"))
    return agent, subject, key, owners


@pytest.mark.parametrize("question", ["What is my dog called?", "How much does tea cost?", "Where do I live?", "Hello!"])
def test_it_shows_what_a_chat_turn_recalls(question, knowing, upstream):
    agent, subject, key, owners = knowing
    shown = tried(sign_in("operator"), agent, question, person=subject).context["chosen"]
    caller = Caller(owner=subject.owner, key_id=key.prefix, all_agents=True)
    session = unique("session")

    async def chat():
        asked = Question(agent=agent.slug, message=question, session_id=session, user=subject.name, caller=caller)
        async for _ in answer(asked):
            pass

    run(chat())
    turn = Turn.objects.get(conversation__session_id=session)
    with acting_for([owner.pk for owner in owners.values()]):
        kept = list(Recalled.objects.filter(turn=turn).order_by("position").values_list("passage_id", "score", "contributions"))
    assert [each.memory.id for each in shown] == [id for id, _, _ in kept]
    for each, (_, score, contributions) in zip(shown, kept, strict=True):
        assert each.memory.score == pytest.approx(score, abs=1e-3)
        assert each.memory.contributions() == pytest.approx(contributions, abs=1e-3)
    assert bool(shown) is (question != "Hello!")
    prompt = "\n".join(str(message["content"]) for message in upstream.calls[-1].messages)
    assert [each.memory.text in prompt for each in shown] == [True] * len(shown)


def test_it_says_why_and_what_was_left_out(knowing):
    agent, subject, _, owners = knowing
    response = tried(sign_in("operator"), agent, "What is my dog called?", person=subject)
    text = html.unescape(response.content.decode())
    assert "It contains the question's words; rare words count more." in text
    assert "Maria's dog is called Biscuit." in text
    assert "The version's number of memories is reached." in text
    assert {each.whose for each in response.context["chosen"] + response.context["left_out"]} == {
        "the person's",
        "known for everybody",
        f"shared: {owners['shared'].collection}",
    }
    assert subject.name in text


def test_editors_try_it_as_a_stranger_and_as_nobody_else(knowing):
    agent, subject, _, _ = knowing
    editor = sign_in("editor")
    text = tried(editor, agent, "What does dog food cost?").content.decode()
    assert "Dog food costs 12 euros." in text
    assert "Biscuit" not in text
    address = reverse("admin:agents_agent_recall", args=(agent.pk,))
    assert editor.get(address, {"question": "What is my dog called?", "person": subject.pk}).status_code == 403


def test_it_says_when_recall_does_not_work(knowing, settings, free_port):
    agent, subject, _, _ = knowing
    settings.EMBEDDER_URL = f"http://127.0.0.1:{free_port}/v1"
    response = tried(sign_in("operator"), agent, f"What is my dog called, {unique('dog')}?", person=subject)
    assert "Recall did not work" in response.content.decode()


@pytest.mark.parametrize("person", ["0", "x", "99999999999999999999", "²", "999999999"])
def test_somebody_who_is_not_there_is_a_stranger(person, make_chat_agent, upstream):
    agent = make_chat_agent(upstream, **MEMORY)
    response = sign_in("operator").get(reverse("admin:agents_agent_recall", args=(agent.pk,)), {"person": person})
    assert response.context["person"] is None
    assert "somebody whom the agent does not know" in response.content.decode()


def test_an_agent_without_memory_says_so(make_chat_agent, upstream):
    agent = make_chat_agent(upstream)
    assert "chats recall nothing" in tried(sign_in("operator"), agent, "What is my dog called?").content.decode()
    empty = sign_in("operator").get(reverse("admin:agents_agent_recall", args=(agent.pk,)), {"question": ""})
    assert "Recalled:" not in empty.content.decode()
