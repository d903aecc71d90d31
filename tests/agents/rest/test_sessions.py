"""Sessions: what of a conversation reaches the next prompt, and whose conversation it is."""

import threading

import pytest

from memory.models import Conversation, Turn, TurnState
from tests.upstream import Gate, Refusal, Reply


def contents(call):
    return [message["content"] for message in call.messages]


def test_earlier_turns_are_in_the_prompt_in_order(make_chat_agent, upstream, ask):
    upstream.script(Reply("First reply"), Reply("Second reply"), Reply("Third reply"))
    agent = make_chat_agent(upstream, system_prompt="System.")
    session = ask(agent, "First").json()["session_id"]
    ask(agent, "Second", session_id=session, stream=True)
    ask(agent, "Third", sessionId=session)
    assert contents(upstream.calls[-1]) == ["System.", "First", "First reply", "Second", "Second reply", "Third"]
    assert [message["role"] for message in upstream.calls[-1].messages] == ["system", "user", "assistant", "user", "assistant", "user"]


def test_a_chosen_name_is_a_session_of_its_own_for_each_agent(make_chat_agent, upstream, ask):
    one, other = make_chat_agent(upstream), make_chat_agent(upstream)
    ask(one, "Secret", session_id="user-123")
    ask(other, "Hello", session_id="user-123")
    assert "Secret" not in contents(upstream.calls[-1])
    assert ask(other, "Again", session_id="user-124").status_code == 200
    assert len(contents(upstream.calls[-1])) == 2


def test_failed_turns_stay_out_of_the_prompt(make_chat_agent, upstream, ask):
    upstream.script(Reply("Fine"), Refusal(400, "no"), Reply("Fine again"))
    agent = make_chat_agent(upstream)
    assert [ask(agent, text, session_id="s").status_code for text in ("One", "Broken", "Two")] == [200, 502, 200]
    assert contents(upstream.calls[-1])[1:] == ["One", "Fine", "Two"]
    assert list(Turn.objects.filter(agent=agent.slug).order_by("seq").values_list("seq", "state")) == [
        (1, TurnState.DONE),
        (2, TurnState.FAILED),
        (3, TurnState.DONE),
    ]


def test_two_posts_at_once_into_one_session_are_both_answered_and_see_only_finished_turns(make_chat_agent, upstream, ask, server):
    gate = Gate()
    upstream.script(Reply("Before"), Reply("Held", gate=gate), Reply("Held", gate=gate), Reply("After"))
    agent = make_chat_agent(upstream)
    ask(agent, "Before?", session_id="s")
    answers = {}

    def post(name):
        with server.client() as client:
            answers[name] = client.post(f"/api/chat/{agent.slug}", json={"message": name, "session_id": "s"})

    threads = [threading.Thread(target=post, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    upstream.wait_for_calls(3)
    gate.open()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers.values()} == {200}
    for call in upstream.calls[1:3]:
        assert contents(call)[1:-1] == ["Before?", "Before"]
    ask(agent, "After?", session_id="s")
    assert sorted(contents(upstream.calls[-1])[3:-1]) == ["Held", "Held", "left", "right"]
    assert sorted(Turn.objects.filter(agent=agent.slug).values_list("seq", flat=True)) == [1, 2, 3, 4]
    assert Conversation.objects.get(agent=agent.slug).last_seq == 4


def test_the_prompt_stays_within_the_budget_and_keeps_the_system_prompt_and_the_newest(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, system_prompt="Keep me.", prompt_budget_tokens=200)
    upstream.script(Reply("word " * 40))
    for number in range(6):
        ask(agent, f"question {number} " + "word " * 10, session_id="s")
    sent = contents(upstream.calls[-1])
    assert sent[0] == "Keep me."
    assert sent[-1].startswith("question 5")
    assert sent[-3].startswith("question 4")
    assert not any(text.startswith("question 0") for text in sent)
    assert sum(len(text.split()) for text in sent) <= 200


def test_a_message_over_the_budget_is_refused_with_the_number_allowed(make_chat_agent, upstream, ask, problem):
    agent = make_chat_agent(upstream, prompt_budget_tokens=100)
    document = problem(ask(agent, "word " * 200), 400)
    assert "message" in document["errors"]
    allowed = (
        int(document["detail"].split("at most ")[1].split()[0].replace(",", "").rstrip(";.")) if "at most " in document["detail"] else 0
    )
    assert 0 < allowed < 100
    assert ask(agent, "word " * (allowed - 5)).status_code == 200
    assert not [call for call in upstream.calls if len(call.newest_message) > 900]


@pytest.mark.parametrize("session_id", ["a", "x" * 128, "Grüße 🙂", "../../etc/passwd", "' OR 1=1 --"])
def test_names_are_free(make_chat_agent, upstream, ask, session_id):
    agent = make_chat_agent(upstream)
    ask(agent, "One", session_id=session_id)
    assert ask(agent, "Two", session_id=session_id).json()["session_id"] == session_id
    assert len(upstream.calls[-1].messages) == 4
