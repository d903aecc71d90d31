"""Opening and closing turns, many at a time, inside a transaction that the caller began.

Every statement here takes a whole batch, because turns opened within the same few milliseconds share a transaction
(`observability.bursts`). Rows are locked in one order (owner, agent, session), so two processes never deadlock.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import IntegrityError, connection

from memory.models import TurnState
from memory.recollections import RecalledPassage, add_recalled
from observability.api import Statement, run_together


class NewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A person's message, to be stored before the model is called."""

    id: UUID
    owner: str
    subject: str
    session_id: str
    agent: str
    version: int
    message: str
    metadata: dict[str, str] = {}
    request_id: str = ""
    created_at: datetime
    deadline_at: datetime
    recent_turns: int
    """How many finished earlier turns to return at most."""
    recent_chars: int
    """How many characters of them at most."""
    remember: bool = False
    """Whether the turn goes to long-term memory once it is finished."""
    read_facts: bool = False
    """Whether a model reads facts in it after that (`memory.facts.reading`)."""


@dataclass(frozen=True, slots=True)
class PastTurn:
    """What was asked and answered before, for the prompt."""

    message: str
    reply: str
    id: UUID | None = field(default=None, compare=False)
    seq: int = field(default=0, compare=False)


class OpenedTurn(msgspec.Struct, frozen=True):
    """The stored turn's place in its conversation, and the finished turns before it, oldest first.

    `summary` tells what was said up to the turn `summarised_seq`; "" and 0 where nothing is summarised.
    """

    conversation_id: int
    seq: int
    recent: tuple[PastTurn, ...]
    summary: str = ""
    summarised_seq: int = 0
    subject_id: int = 0
    """Who the conversation is with."""


class FinishedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended. Durations in milliseconds, counts in tokens."""

    id: UUID
    state: TurnState
    reply: str
    provider: str = ""
    model: str = ""
    finish_reason: str = ""
    error_code: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usage_estimated: bool = False
    first_token_ms: int | None = None
    summarise_before: int | None = None
    """The oldest turn of the prompt: what was said before it, and stands in no summary, is to be summarised. None: nothing is."""
    recalled: tuple[RecalledPassage, ...] = ()
    sent: str = ""
    """What the model was sent, the JSON as it went out; "" where nothing was, or it is not to be kept."""
    trace: str = ""
    """What was done and when, as JSON (`memory.models.Turn`); "" where it is not to be kept."""


_ConversationKey = tuple[str, str, str, str]

_ADD_SUBJECTS: Final = """
    INSERT INTO memory_subject (owner, name, created_at)
    SELECT new.owner, new.name, now() FROM unnest(%s::text[], %s::text[]) AS new (owner, name)
    WHERE NOT EXISTS (SELECT FROM memory_subject old WHERE old.owner = new.owner AND old.name = new.name)
    ORDER BY 1, 2
    ON CONFLICT (owner, name) DO NOTHING
"""
# `later`: how many turns of the same conversation follow in the batch. A conversation that goes to memory is read once it is
# quiet for a while, as much of it together as there is.
_ADD_TURNS: Final = """
    WITH new AS (
        SELECT new.*, subject.id AS subject_id
        FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::text[], %s::jsonb[],
                    %s::text[], %s::timestamptz[], %s::timestamptz[], %s::bool[], %s::bool[])
          AS new (id, owner, agent, session_id, subject, later, version, message, metadata, request_id, created_at, deadline_at,
                  remember, read_facts)
        JOIN memory_subject subject ON subject.owner = new.owner AND subject.name = new.subject
    ), taken AS (
        INSERT INTO memory_conversation (subject_id, owner, agent, session_id, last_seq, created_at, last_turn_at)
        SELECT subject_id, owner, agent, session_id, count(*), now(), now() FROM new
        GROUP BY owner, agent, session_id, subject, subject_id
        ORDER BY owner, agent, session_id, subject
        ON CONFLICT (subject_id, agent, session_id)
        DO UPDATE SET last_seq = memory_conversation.last_seq + EXCLUDED.last_seq, last_turn_at = now()
        RETURNING id, subject_id, agent, session_id, last_seq, summary, summarised_seq
    ), placed AS (
        SELECT new.*, taken.id AS conversation_id, taken.last_seq - new.later AS seq, taken.summary, taken.summarised_seq
        FROM new JOIN taken USING (subject_id, agent, session_id)
    ), added AS (
        INSERT INTO memory_turn (id, conversation_id, seq, state, agent, version, message, reply, provider, model, finish_reason,
                                 error_code, usage_estimated, metadata, request_id, created_at, deadline_at, remember, facts_due_at)
        SELECT id, conversation_id, seq, 'running', agent, version, message, '', '', '', '', '', false, metadata, request_id,
               created_at, deadline_at, remember, CASE WHEN remember AND read_facts THEN created_at + interval '1 minute' END
        FROM placed
    )
    SELECT id, conversation_id, seq, summary, summarised_seq, subject_id FROM placed
"""
# A prompt takes only finished earlier turns: one that still runs has no reply, and a failed one has none to show.
_RECENT_TURNS: Final = """
    SELECT asked.position, past.message, past.reply, past.id, past.seq
    FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[]) WITH ORDINALITY
         AS asked (conversation_id, before_seq, turns, chars, position)
    CROSS JOIN LATERAL (
        SELECT id, seq, message, reply, sum(length(message) + length(reply)) OVER (ORDER BY seq DESC) AS chars_so_far
        FROM (
            SELECT id, seq, message, reply FROM memory_turn
            WHERE conversation_id = asked.conversation_id AND seq < asked.before_seq
              AND state IN ('done', 'cancelled', 'interrupted') AND reply <> ''
            ORDER BY seq DESC LIMIT asked.turns
        ) AS newest
    ) AS past
    WHERE past.chars_so_far <= asked.chars
    ORDER BY asked.position, past.seq
"""
# Long texts go out as one, joined by a character that JSON never holds as it is: as an array they would take twenty times as long.
_BETWEEN: Final = "\x1e"
_FINISH_TURNS: Final = """
    UPDATE memory_turn turn
    SET state = done.state, reply = done.reply, provider = done.provider, model = done.model, finish_reason = done.finish_reason,
        error_code = done.error_code, prompt_tokens = done.prompt_tokens, completion_tokens = done.completion_tokens,
        usage_estimated = done.usage_estimated, first_token_ms = done.first_token_ms, finished_at = clock_timestamp(),
        sent = done.sent, trace = done.trace
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::bool[],
                %s::int[], string_to_array(%s, chr(30), ''), string_to_array(%s, chr(30), '')::jsonb[])
      AS done (id, state, reply, provider, model, finish_reason, error_code, prompt_tokens, completion_tokens, usage_estimated,
               first_token_ms, sent, trace)
    WHERE turn.id = done.id AND turn.state = 'running'
    RETURNING turn.id, turn.remember
"""
# A conversation whose row somebody has locked is answering another message: that turn's end will find the same turns left out.
_MARK_TO_SUMMARISE: Final = """
    UPDATE memory_conversation SET summary_due = true
    WHERE id IN (
        SELECT conversation.id
        FROM unnest(%s::uuid[], %s::int[]) AS sent (turn_id, from_seq)
        JOIN memory_turn turn ON turn.id = sent.turn_id
        JOIN memory_conversation conversation ON conversation.id = turn.conversation_id
        WHERE NOT conversation.summary_due AND EXISTS (
            SELECT FROM memory_turn past
            WHERE past.conversation_id = conversation.id AND past.seq > conversation.summarised_seq AND past.seq < sent.from_seq
              AND past.state IN ('done', 'cancelled', 'interrupted') AND past.reply <> ''
        )
        FOR UPDATE OF conversation SKIP LOCKED
    )
"""
# Something that they recalled was forgotten meanwhile: no copy of it stays behind.
_DROP_SENT: Final = "UPDATE memory_turn SET sent = NULL WHERE id = ANY(%s::uuid[])"
TO_REMEMBER: Final = "memory_turns"
"""The channel on which PostgreSQL tells workers that a turn waits for them."""
_END_LEFT_BEHIND: Final = """
    UPDATE memory_turn SET state = 'failed', error_code = 'left-behind', finished_at = now()
    WHERE id IN (SELECT id FROM memory_turn WHERE state = 'running' AND deadline_at < now() LIMIT 1000 FOR UPDATE SKIP LOCKED)
"""


def open_turns(turns: Sequence[NewTurn]) -> list[OpenedTurn]:
    """Store `turns` as running and return, for each, its place and the turns before it.

    Conversations and subjects are made where they do not exist. A session id that another subject uses too is another
    conversation: nobody goes on with a stranger's, or learns that there is one. A turn's `seq` is allocated under its conversation's row
    lock, in the order of `turns`.

    Raises:
        IntegrityError: somebody was erased at this moment; asked again, they begin anew.
    """
    subjects = sorted({(turn.owner, turn.subject) for turn in turns})
    later: list[int] = []
    counted: Counter[_ConversationKey] = Counter()
    for turn in reversed(turns):
        conversation = (turn.owner, turn.agent, turn.session_id, turn.subject)
        later.append(counted[conversation])
        counted[conversation] += 1
    _, placed = run_together(
        (_ADD_SUBJECTS, [[owner for owner, _ in subjects], [name for _, name in subjects]]),
        (_ADD_TURNS, _columns(turns, later[::-1])),
    )
    if len(placed) < len(turns):  # opened again, they begin anew
        raise IntegrityError("a person was erased while a turn of theirs was opened")
    places = {id: (conversation_id, seq, found) for id, conversation_id, seq, *found in placed}
    recent = _recent_turns(turns, [places[turn.id][:2] for turn in turns])
    opened = []
    for position, turn in enumerate(turns):
        conversation_id, seq, found = places[turn.id]
        opened.append(OpenedTurn(conversation_id, seq, tuple(recent[position]), *found))
    return opened


def _columns(turns: Sequence[NewTurn], later: list[int]) -> list[list[Any]]:
    return [
        [turn.id for turn in turns],
        [turn.owner for turn in turns],
        [turn.agent for turn in turns],
        [turn.session_id for turn in turns],
        [turn.subject for turn in turns],
        later,
        [turn.version for turn in turns],
        [turn.message for turn in turns],
        [json.dumps(turn.metadata) if turn.metadata else "{}" for turn in turns],
        [turn.request_id for turn in turns],
        [turn.created_at for turn in turns],
        [turn.deadline_at for turn in turns],
        [turn.remember for turn in turns],
        [turn.read_facts for turn in turns],
    ]


def _recent_turns(turns: Sequence[NewTurn], places: list[tuple[int, int]]) -> defaultdict[int, list[PastTurn]]:
    """Return the finished turns before each turn at `places` (conversation, seq), by its position in `turns`."""
    recent: defaultdict[int, list[PastTurn]] = defaultdict(list)
    continued = [position for position, (_, seq) in enumerate(places) if seq > 1 and turns[position].recent_turns > 0]
    if continued:
        asked = [
            [places[position][0] for position in continued],
            [places[position][1] for position in continued],
            [turns[position].recent_turns for position in continued],
            [turns[position].recent_chars for position in continued],
        ]
        [found] = run_together((_RECENT_TURNS, asked))
        for ordinal, *past in found:
            recent[continued[ordinal - 1]].append(PastTurn(*past))
    return recent


def finish_turns(turns: Sequence[FinishedTurn], *further: Statement) -> list[bool]:
    """Store how `turns` ended; tell for each whether it was still running (a turn is finished once).

    `further`: what is to be run right after that, in the same round trip.
    """
    rows, *_ = run_together((_FINISH_TURNS, _ends(turns)), *further)
    with connection.cursor() as cursor:
        if any(remember for _, remember in rows):
            cursor.execute(f"NOTIFY {TO_REMEMBER}")
        if cut := [(turn.id, turn.summarise_before) for turn in turns if turn.summarise_before is not None]:
            cursor.execute(_MARK_TO_SUMMARISE, [[id for id, _ in cut], [from_seq for _, from_seq in cut]])
        finished = {id for id, _ in rows}
        recalled = [(turn.id, passage) for turn in turns if turn.id in finished for passage in turn.recalled]
        if lost := Counter(turn_id for turn_id, _ in recalled) - Counter(add_recalled(cursor, recalled)):
            cursor.execute(_DROP_SENT, [list(lost)])
    return [turn.id in finished for turn in turns]


def _ends(turns: Sequence[FinishedTurn]) -> list[Any]:
    return [
        [turn.id for turn in turns],
        [turn.state.value for turn in turns],
        [turn.reply for turn in turns],
        [turn.provider for turn in turns],
        [turn.model for turn in turns],
        [turn.finish_reason for turn in turns],
        [turn.error_code for turn in turns],
        [turn.prompt_tokens for turn in turns],
        [turn.completion_tokens for turn in turns],
        [turn.usage_estimated for turn in turns],
        [turn.first_token_ms for turn in turns],
        _BETWEEN.join([turn.sent for turn in turns]),
        _BETWEEN.join([turn.trace for turn in turns]),
    ]


def hold_turns(ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these turns are stored still. Nobody erases them until the transaction ends, and who does then knows of them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM memory_turn WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE", [list(ids)])
        return {id for (id,) in cursor.fetchall()}


def end_left_behind_turns() -> int:
    """End turns whose process died before it could; return how many. Safe to run in several processes at once."""
    with connection.cursor() as cursor:
        cursor.execute(_END_LEFT_BEHIND)
        return int(cursor.rowcount)
