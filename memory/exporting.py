"""Exporting a person: all that is kept about them, as one JSON document that is written while it is read.

A page at a time is in memory, and no database connection is held in between. Vectors and postings are left out: they are
made of the texts that are there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import connection
from django.db.models import F

from memory.isolation import acting_for
from memory.models import Conversation, MemoryOwner, Summary, Turn
from memory.people import known_subject
from observability.api import run_burst

_PAGE: Final = 200
_encode: Final = msgspec.json.Encoder().encode

_TURN_COLUMNS: Final = (
    "conversation_id", "agent", "version", "created_at", "finished_at", "state", "message", "reply", "provider", "model", "finish_reason",
    "error_code",
    "prompt_tokens", "completion_tokens", "usage_estimated", "first_token_ms", "metadata", "request_id",
)  # fmt: skip
_THEIR_OWNERS: Final = """
    SELECT owner.id FROM memory_owner owner
    WHERE owner.kind <> 'person' OR owner.subject_id IN (
        SELECT conversation.subject_id FROM memory_turn turn JOIN memory_conversation conversation ON conversation.id = turn.conversation_id
        WHERE turn.id = ANY(%(turns)s)
    )
"""
_RECALLED: Final = """
    SELECT recalled.turn_id, recalled.passage_id AS memory, owner.kind AS of, recalled.position, recalled.score,
           recalled.contributions AS because, recalled.recalled_at
    FROM memory_recalled recalled JOIN memory_owner owner ON owner.id = recalled.owner_id
    WHERE recalled.turn_id = ANY(%s) ORDER BY recalled.turn_id, recalled.position
"""
_PASSAGES: Final = """
    SELECT id, origin AS kind, speaker, text, said_at, attribute, valid_until, superseded_by_id AS superseded_by,
           source_id AS read_from, pinned_at, author, turn_id AS message_id
    FROM memory_passage WHERE owner_id = %s AND id > %s ORDER BY id LIMIT %s
"""

Row = dict[str, Any]


async def export_user(owner: str, name: str, *, may_see: Callable[[str], bool]) -> AsyncGenerator[bytes, None]:
    """Yield all that is kept about the person whom `owner` calls `name`, with those agents that the caller `may_see`.

    Raises:
        UserNotFound: before the first piece: there is none.
        DatabaseError: the database cannot be reached; after the first piece, the document stays incomplete.
    """
    subject_id = await run_burst(known_subject, owner, name)
    agents = [agent for agent in await run_burst(_agents, subject_id) if may_see(agent)]
    owners = await run_burst(_owners, subject_id, agents)
    yield _encode({"user": name, "exported_at": datetime.now(UTC), "agents": owners})[:-1]
    for title, pages in (
        (b"conversations", _conversations(subject_id, agents)),
        (b"messages", _messages(subject_id, agents)),
        (b"memories", _memories(subject_id, agents)),
    ):
        yield b',"%b":[' % title
        separator = b""
        async for page in pages:
            yield separator + b",".join(map(_encode, page))
            separator = b","
        yield b"]"
    yield b"}"


async def _conversations(subject_id: int, agents: Collection[str]) -> AsyncIterator[list[Row]]:
    last = 0
    while page := await run_burst(_conversation_page, subject_id, agents, after=last):
        last = page[-1]["id"]
        yield page


async def _messages(subject_id: int, agents: Collection[str]) -> AsyncIterator[list[Row]]:
    async for conversations in _conversations(subject_id, agents):
        for conversation in conversations:
            last = 0
            while page := await run_burst(_turn_page, conversation["id"], after=last):
                last = page[-1]["number"]
                yield page


async def _memories(subject_id: int, agents: Collection[str]) -> AsyncIterator[list[Row]]:
    for owner in await run_burst(_owners, subject_id, agents):
        last = 0
        while page := await run_burst(_passage_page, owner["memories_of"], owner["agent"], after=last):
            last = page[-1]["id"]
            yield page


def _agents(subject_id: int) -> list[str]:
    """Return the slugs of the agents that know a person."""
    talked = Conversation.objects.filter(subject_id=subject_id).values_list("agent", flat=True)
    knowing = MemoryOwner.objects.filter(subject_id=subject_id).values_list("agent", flat=True)
    return sorted({*talked, *knowing})


def _owners(subject_id: int, agents: Collection[str]) -> list[Row]:
    own = MemoryOwner.objects.filter(subject_id=subject_id, agent__in=agents).order_by("agent")
    return [dict(row) for row in own.values("agent", "user_name", "agent_name", memories_of=F("id"))]


def _conversation_page(subject_id: int, agents: Collection[str], *, after: int) -> list[Row]:
    found = Conversation.objects.filter(subject_id=subject_id, agent__in=agents, id__gt=after).order_by("id")
    page = list(found.values("id", "agent", "session_id", "last_turn_at", began_at=F("created_at"))[:_PAGE])
    summaries: defaultdict[int, list[Row]] = defaultdict(list)
    columns = ("conversation_id", "number", "upto_seq", "text", "provider", "model", "prompt_tokens", "completion_tokens", "created_at")
    for row in Summary.objects.filter(conversation_id__in=[row["id"] for row in page]).order_by("number").values(*columns):
        summaries[row.pop("conversation_id")].append(row)
    return [{**row, "summaries": summaries[row["id"]]} for row in page]


def _turn_page(conversation_id: int, *, after: int) -> list[Row]:
    found = Turn.objects.filter(conversation_id=conversation_id, seq__gt=after).order_by("seq")
    page = list(found.values(*_TURN_COLUMNS, message_id=F("id"), number=F("seq"))[:_PAGE])
    recalled: defaultdict[UUID, list[Row]] = defaultdict(list)
    for row in _recalled([row["message_id"] for row in page]):
        recalled[row.pop("turn_id")].append(row)
    return [{**row, "recalled": recalled[row["message_id"]]} for row in page]


def _recalled(turn_ids: Sequence[UUID]) -> list[Row]:
    """Return what the prompts of turns held: their person's memories, and what their agent knows for everybody."""
    with connection.cursor() as cursor:
        cursor.execute(_THEIR_OWNERS, {"turns": list(turn_ids)})
        with acting_for([id for (id,) in cursor.fetchall()]):
            cursor.execute(_RECALLED, [list(turn_ids)])
            return [{**row, "because": json.loads(row["because"])} for row in _rows(cursor)]


def _passage_page(owner_id: int, agent: str, *, after: int) -> list[Row]:
    with acting_for([owner_id]), connection.cursor() as cursor:
        cursor.execute(_PASSAGES, [owner_id, after, _PAGE])
        return [{"agent": agent, **row} for row in _rows(cursor)]


def _rows(cursor: Any) -> list[Row]:
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
