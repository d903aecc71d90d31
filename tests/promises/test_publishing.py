"""Publishing and rolling back change the next answer in every worker process within a second, without a restart."""

import time

import httpx2

from agents.versions.publishing import roll_back
from tests.factories import make_version


def versions(clients, agent):
    answers = [client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}) for client in clients]
    return {(answer.status_code, answer.json()["version"]) for answer in answers}


def wait_a_second_after(published_at):
    time.sleep(max(0.0, published_at + 1.0 - time.monotonic()))


def test_a_publication_is_seen_by_every_worker_within_a_second(make_chat_agent, upstream, clients: list[httpx2.Client]):
    agent = make_chat_agent(upstream, system_prompt="First.")
    first = agent.live_version
    assert versions(clients, agent) == {(200, 1)}
    make_version(agent, system_prompt="Second.")
    wait_a_second_after(time.monotonic())
    assert versions(clients, agent) == {(200, 2)}
    assert {call.messages[0]["content"] for call in upstream.calls[-len(clients) :]} == {"Second."}
    roll_back(agent, to=first, actor=None)
    wait_a_second_after(time.monotonic())
    assert versions(clients, agent) == {(200, 1)}


def test_switching_an_agent_off_and_changing_its_provider_are_seen_too(make_chat_agent, upstream, open_upstream, clients):
    agent, other = make_chat_agent(upstream), open_upstream()
    assert versions(clients, agent) == {(200, 1)}
    provider = agent.live_version.provider
    provider.base_url = other.base_url
    provider.save()
    wait_a_second_after(time.monotonic())
    before = len(upstream.calls)
    assert versions(clients, agent) == {(200, 1)}
    assert (len(upstream.calls), len(other.calls)) == (before, len(clients))
    agent.is_active = False
    agent.save()
    wait_a_second_after(time.monotonic())
    assert {client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}).status_code for client in clients} == {404}
