"""The trace of a turn: what the model was sent, byte for byte, and what was done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from django.db import connection
from uuid_utils.compat import uuid7

from agents.chat.routing import Route
from agents.chat.trace import Trace
from agents.providers.keys import seal
from agents.versions.live import load_live
from memory.api import FinishedTurn, TurnState
from memory.models import Turn
from observability.models import Attempt
from tests.upstream import Refusal, Reply, Upstream


def ask(api: Any, agent: Any, message: str = 'Say "hello" “there”\n?', **fields: Any) -> Turn:
    """Return the stored turn of a message."""
    response = api.post(f"/api/chat/{agent.slug}", json={"message": message, **fields})
    found = Turn.objects.filter(request_id=response.headers["x-request-id"]).get()
    if response.status_code == 200:
        assert UUID(response.json()["message_id"]) == found.pk
    return found


def test_what_was_sent_is_kept_byte_for_byte(make_chat_agent: Callable[..., Any], upstream: Upstream, api: Any) -> None:
    agent = make_chat_agent(upstream, system_prompt='Be brief.\n\t"Quoted" — ünïcode \U0001f600 and \\ back', temperature=0.3)
    for _ in range(3):
        turn = ask(api, agent, session_id="one-session")
    bodies = [call.raw_body for call in upstream.calls]
    kept = list(Turn.objects.filter(conversation=turn.conversation_id).order_by("seq").values_list("sent", flat=True))
    assert [sent.encode() for sent in kept] == bodies
    assert len(json.loads(kept[-1])["messages"]) == 6


def test_steps_and_calls_are_kept_with_their_moments(
    make_chat_agent: Callable[..., Any], upstream: Upstream, open_upstream: Callable[[], Upstream], api: Any
) -> None:
    spare = open_upstream()
    upstream.script(Refusal(400))
    spare.script(Refusal(503), Reply("Here."))
    turn = ask(api, make_chat_agent(upstream, fallbacks=[(spare, "spare")]))
    assert turn.sent == spare.calls[-1].raw_body.decode()  # of the model that answered
    assert [step for step, _ in turn.trace["steps"]] == ["open", "recall", "prompt"]
    moments = [at for _, at in turn.trace["steps"]]
    assert moments == sorted(moments)
    attempts = Attempt.objects.filter(turn_id=turn.pk).order_by("number")
    assert [(attempt.model, attempt.outcome) for attempt in attempts] == [
        (attempts[0].model, "failed"),
        ("spare", "failed"),
        ("spare", "done"),
    ]
    begun = [turn.trace["calls"][str(attempt.pk)] for attempt in attempts]
    assert moments[-1] <= begun[0] < begun[1] < begun[2] <= turn.trace["end"]
    assert (turn.trace["cache"], turn.trace["recall"]) == ("off", "off")
    assert "answers: this version has no cheaper model" in turn.trace["route"]


def test_a_turn_that_failed_tells_what_was_sent_too(make_chat_agent: Callable[..., Any], upstream: Upstream, api: Any) -> None:
    upstream.script(Refusal(401))
    turn = ask(api, make_chat_agent(upstream))
    assert (turn.state, turn.sent) == ("failed", upstream.calls[0].raw_body.decode())


def test_no_key_is_in_it(make_chat_agent: Callable[..., Any], upstream: Upstream, api: Any) -> None:
    canary = "sk-canary-of-a-trace"
    turn = ask(api, make_chat_agent(upstream, provider={"encrypted_key": seal(canary)}))
    assert upstream.calls[0].headers["authorization"] == f"Bearer {canary}"
    assert canary not in f"{turn.sent}{turn.trace}"


def test_nothing_is_kept_where_the_version_says_so(make_chat_agent: Callable[..., Any], upstream: Upstream, api: Any) -> None:
    turn = ask(api, make_chat_agent(upstream, trace_days=0))
    assert (turn.state, turn.sent, turn.trace) == ("done", None, None)


def test_many_turns_that_end_together_keep_each_its_own(make_chat_agent: Callable[..., Any], upstream: Upstream, api: Any) -> None:
    agent = make_chat_agent(upstream)
    with ThreadPoolExecutor(16) as threads:
        path = f"/api/chat/{agent.slug}"
        answers = list(threads.map(lambda number: api.post(path, json={"message": f"Message {number}"}).json(), range(32)))
    for number, answer in enumerate(answers):
        turn = Turn.objects.get(pk=answer["message_id"])
        assert turn.trace is not None
        assert json.loads(turn.sent or "")["messages"][-1]["content"] == f"Message {number}"


def test_whatever_a_reason_quotes_can_be_stored(make_chat_agent: Callable[..., Any], upstream: Upstream, live_db: None) -> None:
    version = load_live(make_chat_agent(upstream).slug)

    async def traced() -> FinishedTurn:
        route = Route(answering=version, why="it said 'a\x00b\x1ec\ud800'")
        return Trace().on(FinishedTurn(id=uuid7(), state=TurnState.DONE, reply=""), None, route, version)

    with connection.cursor() as cursor:
        cursor.execute("SELECT (string_to_array(%s, chr(30), '')::jsonb[])[1]->>'route'", [asyncio.run(traced()).trace])
        assert cursor.fetchone() == ("it said 'a\ufffdb\x1ec?'",)
