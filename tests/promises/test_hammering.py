"""A circuit breaker stops hammering a model that fails, tells callers when to come again, and closes by itself."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from memory.models import Turn
from observability.models import Attempt, Breaker
from tests.upstream import Refusal, Reply
from tests.waiting import eventually

CALLERS, ASKED = 8, 80


def test_a_model_that_is_down_is_asked_a_few_times_not_by_everybody(make_chat_agent, upstream, start_server):
    agent = make_chat_agent(upstream)
    provider = agent.live_version.provider.slug
    server = start_server(BREAKER_FAILURES="5", BREAKER_WAIT_S="5")
    upstream.script(Refusal(500))
    with server.client() as client:

        def ask(_=0):
            return client.post(f"/api/chat/{agent.slug}", json={"message": "Hello"}, timeout=60)

        with ThreadPoolExecutor(CALLERS) as threads:
            answers = list(threads.map(ask, range(ASKED)))
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {502, 503}
        # Without it: three calls for each of them. Those that were under way when it opened, and its tries, come on top of the five.
        assert 5 <= len(upstream.calls) <= 5 + CALLERS + 10
        assert statuses[503] > ASKED / 2
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.json()["type"] == "/errors/upstream-paused"
        assert 1 <= int(refused.headers["retry-after"]) <= 5

        turn = Turn.objects.filter(agent=agent.slug, error_code="upstream-paused", sent=None).latest("created_at")
        assert turn.state == "failed"
        assert [(slug, code) for slug, _, code, _ in turn.trace["passed_over"]] == [(provider, "upstream-paused")]
        call = Attempt.objects.get(turn_id=turn.pk)
        assert (call.outcome, call.error_code, call.prompt_tokens) == ("cancelled", "upstream-paused", None)

        row = eventually(Breaker.objects.filter(provider=provider).first, what="its row is written")
        assert "failures in a row" in row.reason
        upstream.script(Reply("Back."))
        eventually(lambda: ask().status_code == 200, what="it is tried again by itself", timeout_s=30)
        assert [ask().status_code for _ in range(5)] == [200] * 5
        eventually(Breaker.objects.filter(pk=row.pk, closed_at__isnull=False).exists, what="its end is written")
