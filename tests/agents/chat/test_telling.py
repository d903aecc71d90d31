"""The line "turn ended": one for each turn however it ends, true to what is stored, and without what was said unless it is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2

from agents.chat.telling import MOST_LOGGED_CHARS, EndedTurn
from agents.chat.telling import line_of as written_line_of
from agents.models import Agent
from chatbot_site.settings.environment import PROJECT_DIR
from memory.models import Turn
from observability.sentry import TAGS
from tests.factories import make_key, unique
from tests.live_server import LiveServer
from tests.upstream import Gate, Refusal, Reply, Upstream
from tests.waiting import eventually

MakeAgent = Callable[..., Any]
CANARY = "canary-2d90ab"


def lines_of(server: LiveServer, agent: Any, event: str = "turn ended") -> list[dict[str, Any]]:
    """Return the lines of that event about `agent`, in the order in which they were written."""
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event and line.get("agent") == agent.slug]


def line_of(server: LiveServer, agent: Any) -> dict[str, Any]:
    [line] = eventually(lambda: lines_of(server, agent), what="the turn's line")
    return line


def ask(client: httpx2.Client, agent: Any, message: str = f"Tell me of {CANARY}", **more: Any) -> httpx2.Response:
    return client.post(f"/api/chat/{agent.slug}", json={"message": message, **more})


def test_a_turn_that_is_done(server: LiveServer, api: httpx2.Client, upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    upstream.script(Reply(f"Here is {CANARY}", usage=(12, 5)))
    agent = make_chat_agent(upstream, model="some-model")
    key = make_key(agent)
    headers = {"Authorization": f"Bearer {key.secret}", "X-Request-ID": unique("request")}
    body = {"message": f"Tell me of {CANARY}", "session_id": f"session-{CANARY}", "user": f"user-{CANARY}", "metadata": {"a": CANARY}}
    answer = api.post(f"/api/chat/{agent.slug}", json=body, headers=headers)
    turn, line = Turn.objects.get(agent=agent.slug), line_of(server, agent)
    assert {name: line[name] for name in ("request_id", "message_id", "agent", "version", "session", "key", "outcome", "level")} == {
        "request_id": headers["X-Request-ID"],
        "message_id": answer.json()["message_id"],
        "agent": agent.slug,
        "version": 1,
        "session": turn.conversation_id,
        "key": key.key.prefix,
        "outcome": "done",
        "level": "info",
    }
    assert (line["provider"], line["model"], line["finish_reason"]) == (agent.live_version.provider.slug, "some-model", "stop")
    assert (line["prompt_tokens"], line["cached_prompt_tokens"], line["completion_tokens"], line["attempts"]) == (12, 0, 5, 1)
    assert (line["cached"], line["streamed"], line["recalled"], line["saved_usd"]) == (False, False, 0, 0)
    assert 0 < line["first_token_ms"] <= line["latency_ms"] < 60_000
    datetime.fromisoformat(line["timestamp"])
    [access] = lines_of(server, agent, "request")
    told_by_both = set(line) - {"event", "timestamp", "latency_ms"}
    assert {name: access[name] for name in told_by_both} == {name: line[name] for name in told_by_both}
    assert (access["method"], access["path"], access["status"]) == ("POST", f"/api/chat/{agent.slug}", 200)
    for secret in (CANARY, key.secret):
        assert secret not in server.log()


def test_a_kept_answer_used_nothing(server: LiveServer, api: httpx2.Client, upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    upstream.script(Reply("The same"))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    message = unique("question")
    assert [ask(api, agent, message).json()["cached"] for _ in range(2)] == [False, True]
    first, second = eventually(lambda: found if len(found := lines_of(server, agent)) == 2 else [], what="two lines")
    assert (first["cached"], first["attempts"]) == (False, 1)
    assert (second["cached"], second["attempts"], second["prompt_tokens"], second["saved_by"]) == (True, 0, 0, "cache")


def test_a_turn_that_failed_counts_all_its_attempts(
    server: LiveServer, api: httpx2.Client, upstream: Upstream, make_chat_agent: MakeAgent
) -> None:
    upstream.script(Refusal(400, message=f"what do you mean by 'Tell me of {CANARY}'?"))
    agent = make_chat_agent(upstream)
    assert ask(api, agent).status_code == 502
    line = line_of(server, agent)
    assert (line["outcome"], line["error_code"], line["level"], line["attempts"]) == ("failed", "upstream-failed", "warning", 1)
    assert "first_token_ms" not in line
    [why] = lines_of(server, agent, "turn failed")
    assert "HTTP 400" in why["reason"]
    assert CANARY not in server.log()


def test_a_turn_whose_client_left(server: LiveServer, api: httpx2.Client, upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    upstream.script(Reply(chunks=["tick "], never_ends=True, delay_between_s=0.02))
    agent = make_chat_agent(upstream)
    with api.stream("POST", f"/api/chat/{agent.slug}", json={"message": "Hello", "stream": True}) as stream:
        next(stream.iter_bytes())
    line = line_of(server, agent)
    assert (line["outcome"], line["streamed"], line["level"]) == ("cancelled", True, "info")
    assert "error_code" not in line


def test_a_turn_that_a_limit_refused(start_server: Callable[..., LiveServer], upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    agent = make_chat_agent(upstream)
    server = start_server(ANONYMOUS_REQUESTS_PER_MINUTE="1", REDIS_URL="redis://127.0.0.1:1/0")
    with server.client() as client:
        assert [ask(client, agent).status_code for _ in range(2)] == [200, 429]
    done, refused = eventually(lambda: found if len(found := lines_of(server, agent)) == 2 else [], what="two lines")
    assert done["outcome"] == "done"
    assert (refused["outcome"], refused["error_code"], refused["refused_by"]) == ("refused", "rate-limited", "address")
    assert "session" not in refused


def test_what_was_said_is_logged_only_while_an_operator_wants_it(
    server: LiveServer, api: httpx2.Client, upstream: Upstream, make_chat_agent: MakeAgent
) -> None:
    upstream.script(Reply("word " * 1000))
    agent = make_chat_agent(upstream)
    message = "My key is sk-live-0123456789abcdef, what of it?"
    for until, is_logged in ((datetime.now(UTC) + timedelta(minutes=5), True), (datetime.now(UTC) - timedelta(seconds=1), False)):
        before = len(lines_of(server, agent))
        Agent.objects.filter(pk=agent.pk).update(log_messages_until=until)

        def newest(before: int = before, wanted: bool = is_logged) -> dict[str, Any] | None:
            ask(api, agent, message)
            line = eventually(lambda: lines_of(server, agent)[before:], what="a line")[-1]
            return line if ("message" in line) == wanted else None

        line = eventually(newest, what=f"a line with messages: {is_logged}")
        assert line is not None
        if is_logged:
            assert line["message"] == "My key is (a secret), what of it?"
            assert len(line["reply"]) == MOST_LOGGED_CHARS
        assert "message" not in lines_of(server, agent, "request")[-1]
    assert "sk-live-0123456789abcdef" not in server.log()


def test_an_answer_is_told_once_though_its_client_left_at_the_very_end(
    server: LiveServer, upstream: Upstream, make_chat_agent: MakeAgent
) -> None:
    agent, gate = make_chat_agent(upstream), Gate()
    upstream.script(Reply("All of it", gate=gate))
    for _ in range(8):
        with server.client() as client, client.stream("POST", f"/api/chat/{agent.slug}", json={"message": "Hi", "stream": True}) as stream:
            gate.open()
            for data in stream.iter_bytes():
                if b"delta" in data:
                    break
    eventually(lambda: len(lines_of(server, agent)) >= 8, what="eight lines")
    lines = lines_of(server, agent)
    assert len({line["message_id"] for line in lines}) == len(lines) == 8
    stored = {str(turn.id): turn.state for turn in Turn.objects.filter(agent=agent.slug)}
    assert {line["message_id"]: line["outcome"] for line in lines} == stored


def ended_turn(**facts: Any) -> EndedTurn:
    return EndedTurn(
        **dict.fromkeys(("request_id", "agent", "key", "outcome", "error_code", "refused_by", "provider", "model", "finish_reason"), "x"),
        message_id=uuid4(),
        version=1,
        session=1,
        started_at=datetime.now(UTC),
        streamed=True,
        latency_ms=1,
        first_token_ms=1,
        saved_by="cache",
        **facts,
    )


def test_a_turn_in_a_traceback_says_nothing_of_what_was_said() -> None:
    turn = ended_turn(message="my secret", reply="your secret")
    assert "secret" not in repr(turn)
    assert "secret" not in str(turn.__rich_repr__())  # what development's tracebacks show


def test_docs_list_every_field() -> None:
    turn = ended_turn()
    docs = (PROJECT_DIR / "docs" / "logs.md").read_text()
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", docs.partition("\n### ")[0], re.MULTILINE))
    always = {"timestamp", "level", "event", "logger", "trace_id", "exception", "exception_type", "method", "path", "status"}
    assert listed == set(written_line_of(turn)) | always | {"message", "reply"}
    assert all(f"`{tag}`" in docs for tag in TAGS)
