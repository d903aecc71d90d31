"""A key that is revoked, narrowed or replaced is refused by every worker within five seconds, its tokens included."""

import time

from agents.access.issuing import revoke_key
from agents.models import ApiKey
from tests.factories import make_key

HOLDS_WITHIN_S = 5.0


def statuses(clients, agent, credential):
    headers = {"Authorization": f"Bearer {credential}"}
    return {client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}, headers=headers).status_code for client in clients}


def use_until(moment, clients, agent, *credentials):
    """Keep the keys in use meanwhile: what is in use is what processes remember."""
    while time.monotonic() < moment:
        for credential in credentials:
            statuses(clients[:6], agent, credential)
        time.sleep(0.1)


def test_revoking_a_key_ends_it_and_its_tokens_everywhere(make_chat_agent, upstream, clients):
    agent = make_chat_agent(upstream, access="key")
    issued, other = make_key(agent), make_key(agent)
    headers = {"Authorization": f"Bearer {issued.secret}"}
    token = clients[0].post("/api/tokens", json={"user": "ada"}, headers=headers).json()["token"]
    for credential in (issued.secret, token, other.secret):
        assert statuses(clients, agent, credential) == {200}
    revoke_key(issued.key)
    use_until(time.monotonic() + HOLDS_WITHIN_S, clients, agent, issued.secret, token)
    calls = len(upstream.calls)
    for credential in (issued.secret, token):
        assert statuses(clients, agent, credential) == {401}
    assert len(upstream.calls) == calls
    assert statuses(clients, agent, other.secret) == {200}


def test_taking_an_agent_or_a_scope_away_holds_everywhere(make_chat_agent, upstream, clients):
    agent = make_chat_agent(upstream, access="key")
    without_agent, without_scope = make_key(agent), make_key(agent)
    secrets = (without_agent.secret, without_scope.secret)
    for secret in secrets:
        assert statuses(clients, agent, secret) == {200}
    without_agent.key.agents.clear()
    ApiKey.objects.filter(pk=without_scope.key.pk).update(scopes=[])
    use_until(time.monotonic() + HOLDS_WITHIN_S, clients, agent, *secrets)
    assert [statuses(clients, agent, secret) for secret in secrets] == [{404}, {403}]
