"""Nobody reads, changes or erases what is another's; and what is erased is gone, whoever is at work meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from django.db import connection
from drf_spectacular.generators import SchemaGenerator
from uuid_utils.compat import uuid7

from agents.access.issuing import IssuedKey
from memory.embedders.passages import embed_passages
from memory.models import Passage, Subject, Turn
from memory.writing import remember_due_turns
from observability.outbound import close_transports
from tests.factories import forget_vectors, make_key, unique
from tests.live_server import LiveServer, live_server
from tests.upstream import Gate, Reply

pytestmark = pytest.mark.usefixtures("live_db")
ALL = ("chat", "manage_memories", "manage_knowledge", "read_conversations", "erase", "usage", "pinned_versions")
MEMORY = {"memory_enabled": True, "memory_limit": 5, "memory_budget_tokens": 200}
# What a body needs on each of these routes.
BODIES = {
    ("post", "/api/users/{user}/memories"): {"agent": "{query_agent}", "text": "Mine now."},
    ("patch", "/api/users/{user}/memories/{id}"): {"text": "Changed by a stranger."},
    ("post", "/api/agents/{agent}/memories"): {"text": "Mine now."},
    ("patch", "/api/agents/{agent}/memories/{id}"): {"pinned": True},
}
ABOUT_PEOPLE = re.compile(r"/api/(users|conversations|erasures|agents/\{agent\}/memories)")


@pytest.fixture(autouse=True)
def _nothing_waits(live_db: None) -> None:
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    forget_vectors()


@pytest.fixture(scope="session")
def remembering_server(server_environment: dict[str, str], embedder_port: int) -> Iterator[LiveServer]:
    own = {"EMBEDDER_URL": f"http://127.0.0.1:{embedder_port}/v1", "MEMORY_DEADLINE_MS": "10000", "CHAT_HISTORY_TURNS": "0"}
    with live_server(environment={**server_environment, **own}) as server:
        yield server


@pytest.fixture
def calling(remembering_server: LiveServer, watch_log: Callable[[LiveServer], None]) -> Iterator[Callable[..., httpx2.Client]]:
    clients = []
    watch_log(remembering_server)

    def calling(credential: IssuedKey | str) -> httpx2.Client:
        secret = credential if isinstance(credential, str) else credential.secret
        clients.append(remembering_server.client(headers={"Authorization": f"Bearer {secret}"}))
        return clients[-1]

    yield calling
    for client in clients:
        client.close()


def remember(model: Any) -> None:
    """Do the worker's work until there is none."""

    async def drain() -> None:
        try:
            while await remember_due_turns(model):
                pass
        finally:
            await close_transports()

    asyncio.run(drain())


def chat(client: httpx2.Client, agent: Any, message: str, **fields: Any) -> dict[str, Any]:
    answer = client.post(f"/api/chat/{agent.slug}", json={"message": message, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def tables_holding(text: str) -> set[str]:
    """The tables, of the whole database, in any column of which `text` stands."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        holding = set()
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{table}" row WHERE row::text ILIKE %s', [f"%{text}%"])  # noqa: S608
            if cursor.fetchone()[0]:
                holding.add(table)
    return holding


def rows_of(*subjects: Subject) -> list[str]:
    """What is kept of these people, row by row."""
    found = []
    with connection.cursor() as cursor:
        for statement in (
            "SELECT t::text FROM memory_subject t WHERE id = ANY(%s)",
            "SELECT t::text FROM memory_conversation t WHERE subject_id = ANY(%s)",
            "SELECT t::text FROM memory_turn t JOIN memory_conversation c ON c.id = t.conversation_id WHERE c.subject_id = ANY(%s)",
            "SELECT t::text FROM memory_passage t JOIN memory_owner o ON o.id = t.owner_id WHERE o.subject_id = ANY(%s)",
            "SELECT t::text FROM memory_posting t JOIN memory_owner o ON o.id = t.owner_id WHERE o.subject_id = ANY(%s)",
        ):
            cursor.execute(statement, [[subject.pk for subject in subjects]])
            found += [text for (text,) in cursor.fetchall()]
    return sorted(found)


class Party:
    """A key, its agent, and two users of whom something is kept."""

    def __init__(self, agent: Any, calling: Callable[..., httpx2.Client], embedder: Any) -> None:
        self.agent, self.key = agent, make_key(agent, scopes=ALL)
        self.client = calling(self.key)
        self.users = [unique("user"), unique("user")]
        self.session = unique("session")
        for user in self.users:
            chat(self.client, agent, f"I am {user} and I like plums.", user=user, session_id=self.session)
        remember(embedder)
        self.memory = self._post(f"/api/users/{self.users[0]}/memories", {"agent": agent.slug, "text": "Likes plums a lot."})
        self.neighbours_memory = self._post(f"/api/users/{self.users[1]}/memories", {"agent": agent.slug, "text": "Likes pears."})
        self.agents_memory = self._post(f"/api/agents/{agent.slug}/memories", {"text": "The shop opens at nine."})
        self.receipt = self.client.delete(f"/api/users/{unique('gone')}").json()["id"]

    @property
    def subjects(self) -> list[Subject]:
        return list(Subject.objects.filter(owner=f"owner:{self.key.key.owner_id}", name__in=self.users))

    def _post(self, path: str, body: dict[str, Any]) -> int:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])


def operations() -> list[tuple[str, str]]:
    """Every method and path about people, from the API's own description."""
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    found = [(method, path) for path, methods in paths.items() if ABOUT_PEOPLE.match(path) for method in methods]
    assert len(found) >= 14
    return sorted(found)


def query_of(method: str, path: str) -> tuple[str, ...]:
    """The names that stand in a request's query or body."""
    if "/conversations/" in path:
        return "query_agent", "query_user"
    return ("query_agent",) if path == "/api/users/{user}/memories" else ()


def ask(client: httpx2.Client, method: str, path: str, **names: Any) -> tuple[int, Any]:
    """Send a request whose path, query and body hold `names`; return its status and what of its answer can be compared."""
    query = {name.removeprefix("query_"): names[name] for name in query_of(method, path) if method != "post"}
    body = BODIES.get((method, path))
    sent = {name: value.format(**names) if isinstance(value, str) else value for name, value in body.items()} if body else None
    answer = client.request(
        method.upper(),
        path.format(**names),
        params=query,
        **({"json": sent} if sent else {}),
    )
    assert answer.status_code < 500, answer.text
    document = answer.json()
    return answer.status_code, {name: value for name, value in document.items() if name not in ("request_id", "id", "erased_at", "took_ms")}


def test_what_is_anothers_answers_as_what_does_not_exist(make_chat_agent, upstream, calling, embedder):
    ours, theirs = (Party(make_chat_agent(upstream, access="key", **MEMORY), calling, embedder) for _ in range(2))
    before = rows_of(*theirs.subjects)
    foreign = {
        "user": theirs.users[0], "agent": theirs.agent.slug, "session_id": theirs.session, "query_agent": theirs.agent.slug,
        "query_user": theirs.users[0],
    }  # fmt: skip
    absent = {
        "user": unique("user"), "agent": unique("agent"), "session_id": unique("session"), "query_agent": unique("agent"),
        "query_user": unique("user"),
    }  # fmt: skip
    own = {
        "user": ours.users[0], "agent": ours.agent.slug, "session_id": ours.session, "query_agent": ours.agent.slug,
        "query_user": ours.users[0],
    }  # fmt: skip
    tried = 0
    for method, path in operations():
        foreign_id = theirs.receipt if "erasures" in path else theirs.agents_memory if "agents" in path else theirs.memory
        absent_id = uuid7() if "erasures" in path else 2**62
        for taken in (*(name for name in own if f"{{{name}}}" in path), *query_of(method, path)):
            if (method, path) == ("delete", "/api/users/{user}") or (method, path, taken) == ("post", "/api/users/{user}/memories", "user"):
                continue  # of our own users, who are only called alike
            refused = ask(ours.client, method, path, **{**own, taken: foreign[taken], "id": absent_id})
            unknown = ask(ours.client, method, path, **{**own, taken: absent[taken], "id": absent_id})
            assert refused == unknown, (method, path, taken)
            tried += 1
        if "{id}" in path:
            refused = ask(ours.client, method, path, **own, id=foreign_id)
            assert refused == ask(ours.client, method, path, **own, id=absent_id), (method, path)
            assert refused[0] == 404, (method, path)
            tried += 1
    assert tried > 15
    assert ask(ours.client, "delete", "/api/users/{user}", **{**own, "user": theirs.users[0]})[0] == 200
    assert rows_of(*theirs.subjects) == before


def test_a_users_token_reaches_that_user_and_nobody_else(make_chat_agent, upstream, calling, embedder):
    party = Party(make_chat_agent(upstream, access="key", **MEMORY), calling, embedder)
    user, neighbour = party.users
    before = rows_of(*party.subjects)
    body = {"user": user, "scopes": ["chat", "manage_memories"]}
    token = calling(party.client.post("/api/tokens", json=body).json()["token"])
    own = {"user": user, "agent": party.agent.slug, "session_id": party.session, "query_agent": party.agent.slug, "query_user": user}
    for method, path in operations():
        ids = {"id": party.receipt if "erasures" in path else party.agents_memory if "agents" in path else party.neighbours_memory}
        if "{user}" in path:
            refused = ask(token, method, path, **{**own, "user": neighbour}, **ids)
            assert refused == ask(token, method, path, **{**own, "user": unique("user")}, **ids), (method, path)
            assert refused[0] == 403, (method, path)
        else:
            assert ask(token, method, path, **own, **ids)[0] == 403, (method, path)
    for method in ("patch", "delete"):
        path = "/api/users/{user}/memories/{id}"
        refused = ask(token, method, path, **own, id=party.neighbours_memory)
        assert refused == ask(token, method, path, **own, id=2**62)
        assert refused[0] == 404
    assert rows_of(*party.subjects) == before
    assert token.get(f"/api/users/{user}/memories", params={"agent": party.agent.slug}).status_code == 200


def test_an_erased_person_is_recalled_no_more_and_no_word_of_them_is_left(make_chat_agent, upstream, calling, embedder, remembering_server):
    agent = make_chat_agent(upstream, access="key", **MEMORY)
    client = calling(make_key(agent, scopes=ALL))
    canary, user = unique("zyxwv").replace("-", ""), unique("ada")
    upstream.script(Reply("I will keep that in mind."))
    chat(client, agent, f"My name is {canary}. My dog is called {canary}, and I live in {canary}.", user=user)
    client.post(f"/api/users/{user}/memories", json={"agent": agent.slug, "text": f"Has a boat named {canary}."})
    remember(embedder)
    chat(client, agent, "What is my dog called?", user=user)
    assert canary in json.dumps(upstream.calls[-1].messages)
    assert {"memory_turn", "memory_passage", "memory_posting"} <= tables_holding(canary)

    receipt = client.delete(f"/api/users/{user}").json()
    assert receipt["counts"]["recalled"] > 0
    assert tables_holding(canary) == set()
    assert tables_holding(user) == set()
    assert user not in remembering_server.log()
    assert canary not in remembering_server.log()
    chat(client, agent, "What is my dog called?", user=user)
    remember(embedder)
    chat(client, agent, "What is my dog called?", user=user)
    assert canary not in json.dumps(upstream.calls[-1].messages)


def test_a_turn_that_is_answered_during_the_erasure_leaves_nothing(make_chat_agent, upstream, calling, embedder):
    agent = make_chat_agent(upstream, access="key", **MEMORY)
    client = calling(make_key(agent, scopes=ALL))
    user = unique("ada")
    chat(client, agent, "I like plums.", user=user)
    remember(embedder)
    gate = Gate()
    upstream.script(Reply("You like plums.", gate=gate))
    answers: list[httpx2.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(client.post(f"/api/chat/{agent.slug}", json={"message": "What do I like?", "user": user}))
    )
    asking.start()
    upstream.wait_for_calls(2)
    assert client.delete(f"/api/users/{user}").json()["counts"]["turns"] == 2
    gate.open()
    asking.join(20)
    assert answers[0].status_code == 200, answers[0].text
    remember(embedder)
    assert tables_holding(user) == set()
    assert not Passage.objects.filter(owner__agent=agent.slug).exists()
    assert not Turn.objects.filter(agent=agent.slug).exists()


def test_what_the_worker_is_embedding_during_the_erasure_is_dropped(make_chat_agent, upstream, calling, embedder, monkeypatch):
    agent = make_chat_agent(upstream, access="key", **MEMORY)
    client = calling(make_key(agent, scopes=ALL))
    user = unique("ada")
    chat(client, agent, "I like plums.", user=user)
    embedding, go_on = threading.Event(), threading.Event()

    async def embed_slowly(*args: Any, **kwargs: Any) -> Any:
        embedding.set()
        await asyncio.to_thread(go_on.wait, 20)
        return await embed_passages(*args, **kwargs)

    monkeypatch.setattr("memory.writing.embed_passages", embed_slowly)
    worker = threading.Thread(target=remember, args=(embedder,))
    worker.start()
    assert embedding.wait(20)
    assert client.delete(f"/api/users/{user}").json()["counts"]["turns"] == 1
    go_on.set()
    worker.join(20)
    assert not worker.is_alive()
    assert tables_holding(user) == set()
    assert not Passage.objects.filter(owner__agent=agent.slug).exists()
