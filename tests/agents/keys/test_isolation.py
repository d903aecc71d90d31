"""Whose session it is: nobody goes on with another's, or learns that there is one, whatever they call theirs."""

from __future__ import annotations

import pytest

from agents.access import anonymous, resolve_session, subject_name
from memory.models import Conversation, Subject
from tests.factories import make_key, make_key_owner

SECRET = "My number is 4711."


@pytest.fixture
def remembered(upstream):
    """Whether the last prompt held what was said earlier."""

    def remembered() -> bool:
        return SECRET in str(upstream.calls[-1].messages[:-1])

    return remembered


def test_keys_of_one_owner_share_sessions_and_users_and_others_do_not(make_chat_agent, upstream, calling, chat, remembered):
    agent, owner = make_chat_agent(upstream), make_key_owner()
    first, second, stranger = make_key(agent, owner=owner), make_key(agent, owner=owner), make_key(agent)
    for fields in ({"session_id": "s"}, {"session_id": "t", "user": "ada"}):
        chat(calling(first), agent, SECRET, **fields)
        chat(calling(second), agent, "Which?", **fields)
        assert remembered()
        chat(calling(stranger), agent, "Which?", **fields)
        assert not remembered()
    assert Subject.objects.filter(owner=f"owner:{owner.pk}").count() == 2


def test_users_of_one_key_who_name_the_same_session_never_meet(make_chat_agent, upstream, calling, chat, remembered):
    agent = make_chat_agent(upstream)
    client = calling(make_key(agent))
    answers = [chat(client, agent, SECRET, session_id="s", user="ada")]
    for fields in ({"user": "bob"}, {"user": "Ada"}, {}, {"user": "s"}):
        answers.append(chat(client, agent, "Which?", session_id="s", **fields))
        assert not remembered(), fields
    assert {(answer.status_code, answer.json()["session_id"]) for answer in answers} == {(200, "s")}
    assert Conversation.objects.filter(agent=agent.slug, session_id="s").count() == 5
    chat(client, agent, "Which?", session_id="s", user="ada")
    assert remembered()


def test_a_made_session_id_is_worth_nothing_to_another_user_or_another_key(make_chat_agent, upstream, calling, chat, api, remembered):
    agent = make_chat_agent(upstream)
    key = make_key(agent)
    ada = calling(calling(key).post("/api/tokens", json={"user": "ada"}).json()["token"])
    bob = calling(calling(key).post("/api/tokens", json={"user": "bob"}).json()["token"])
    made = chat(ada, agent, SECRET).json()["session_id"]
    for stranger in (bob, calling(key), calling(make_key(agent)), api):
        assert chat(stranger, agent, "Which?", session_id=made).json()["session_id"] == made
        assert not remembered()
    chat(ada, agent, "Which?", session_id=made)
    assert remembered()


def test_a_session_called_like_a_user_is_nobody(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream)
    client = calling(make_key(agent))
    chat(client, agent, session_id="one", user="ada")
    chat(client, agent, session_id="ada")
    chat(client, agent, session_id="session/ada")
    names = set(Subject.objects.filter(conversations__agent=agent.slug).values_list("name", flat=True))
    assert names == {"ada", "session/ada", "session/session/ada"}


def test_one_user_is_one_subject_in_every_session(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream)
    client = calling(make_key(agent))
    for session in ("one", "two", None):
        chat(client, agent, user="ada", **({"session_id": session} if session else {}))
    subject = Subject.objects.get(conversations__agent=agent.slug, conversations__session_id="one")
    assert subject.conversations.count() == 3


@pytest.mark.parametrize("user", ["a/b", "/", "..", ".", "", "x" * 129, "a\x00b", 7, ["ada"], {"name": "ada"}])
def test_what_cannot_be_a_users_name_is_refused(make_chat_agent, upstream, calling, chat, problem, user):
    agent = make_chat_agent(upstream)
    assert "user" in problem(chat(calling(make_key(agent)), agent, user=user), 400)["errors"]
    assert upstream.calls == []


@pytest.mark.parametrize("user", ["ada", "ada@example.com", "a b", "Ådä 🙂", "x" * 128, "%2F", "…", "' OR 1=1 --", "session"])
def test_other_names_are_taken_as_they_are(make_chat_agent, upstream, calling, chat, user):
    agent = make_chat_agent(upstream)
    assert chat(calling(make_key(agent)), agent, user=user).status_code == 200
    assert Subject.objects.get(conversations__agent=agent.slug).name == user


def test_without_a_key_a_subject_is_a_session_as_ever():
    caller = anonymous("203.0.113.1")
    owner, session = resolve_session(caller, "user-123")
    assert (owner, subject_name(caller, user="", session_id=session)) == (caller.owner, "user-123")
