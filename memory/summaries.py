"""Rolling summaries: what no longer fits a conversation's prompt is told in short, by a model that is handed in.

The turn that leaves earlier ones out of its prompt marks its conversation as due (`memory.turns`). A worker takes it, reads
the summary so far and the older half of what stands in none, has both merged while it holds no database connection, and
stores the new summary in one transaction that also moves `summarised_seq`. A process may die anywhere in between: another one
takes the conversation once the lease is over, and whoever comes second finds it summarised. Turns stay where they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from memory.turns import PastTurn
from observability.api import keep_draining, note_job_failure, run_burst
from observability.logs import in_words

log = structlog.get_logger(__name__)

QUEUE: Final = "summaries"
"""What metrics and alerts call this work."""
POLL_S: Final = 3.0
TOGETHER: Final = 4
"""How many conversations one worker summarises at once."""
WRITTEN_WITHIN_S: Final = 150.0
LEASE_S: Final = 180
"""How long other processes leave a conversation to the one that summarises it."""
_FIRST_WAIT_S: Final = 30.0
_LONGEST_WAIT_S: Final = 3600.0
_MOST_CHARS: Final = 24_000
"""How much is merged into a summary at once; what is beyond it comes with the next."""

_TAKE: Final = """
    UPDATE memory_conversation SET summary_busy_until = now() + make_interval(secs => %s)
    WHERE id IN (
        SELECT id FROM memory_conversation
        WHERE summary_due AND (summary_busy_until IS NULL OR summary_busy_until < now())
        ORDER BY last_turn_at LIMIT %s FOR UPDATE SKIP LOCKED
    )
    RETURNING id, agent, summary, summarised_seq
"""
# Whatever begins in the first half, never the newest turn, and nothing behind a turn that still runs: it would be skipped.
_OLDER_HALF: Final = """
    SELECT message, reply, id, seq
    FROM (
        SELECT id, seq, message, reply, chars, sum(chars) OVER (ORDER BY seq) AS so_far, sum(chars) OVER () AS total,
               row_number() OVER (ORDER BY seq DESC) AS from_newest
        FROM (
            SELECT id, seq, message, reply, length(message) + length(reply) AS chars FROM memory_turn
            WHERE conversation_id = %(conversation)s AND seq > %(after)s
              AND state IN ('done', 'cancelled', 'interrupted') AND reply <> ''
              AND seq < COALESCE((SELECT min(seq) FROM memory_turn WHERE conversation_id = %(conversation)s AND state = 'running'),
                                 2147483647)
        ) AS finished
    ) AS turn
    WHERE from_newest > 1 AND so_far - chars < total / 2.0
    ORDER BY seq LIMIT 500
"""
# Nothing comes of it where the conversation was erased meanwhile, or another process was quicker.
_STILL_WANTED: Final = "SELECT FROM memory_conversation WHERE id = %s AND summarised_seq = %s FOR UPDATE"
_ADD: Final = """
    INSERT INTO memory_summary (conversation_id, number, upto_seq, text, provider, model, prompt_tokens, completion_tokens, created_at)
    SELECT %(conversation)s, COALESCE(max(number), 0) + 1, %(upto)s, %(text)s, %(provider)s, %(model)s, %(prompt_tokens)s,
           %(completion_tokens)s, now()
    FROM memory_summary WHERE conversation_id = %(conversation)s
"""
_MOVE_ON: Final = """
    UPDATE memory_conversation SET summary = %s, summarised_seq = %s, summary_due = %s, summary_busy_until = NULL WHERE id = %s
"""
_NOT_DUE: Final = "UPDATE memory_conversation SET summary_due = false, summary_busy_until = NULL WHERE id = %s AND summarised_seq = %s"
_WAIT: Final = "UPDATE memory_conversation SET summary_busy_until = now() + make_interval(secs => %s) WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a model wrote, and what it cost."""

    text: str
    provider: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


Summarise = Callable[[str, str, Sequence[PastTurn]], Awaitable[Written | None]]
"""Merge an agent's (slug) summary so far with the turns since; None where the agent wants no summaries."""


@dataclass(frozen=True, slots=True)
class Due:
    """A conversation that this process summarises: the summary so far, and up to which turn it tells."""

    conversation_id: int
    agent: str
    summary: str
    summarised_seq: int


async def keep_summarising(stopping: asyncio.Event, summarise: Summarise) -> None:
    """Summarise conversations that are due until `stopping` is set. What fails is logged and tried again later.

    A model may take minutes: what it writes when this has to stop is given up, and its conversation left to others.
    """
    failures: dict[int, int] = {}
    await keep_draining(
        stopping, lambda: summarise_due(summarise, failures), every_s=POLL_S, failed="conversations not summarised", queue=QUEUE
    )


async def summarise_due(summarise: Summarise, failures: dict[int, int] | None = None) -> int:
    """Summarise conversations that are due, at most `TOGETHER`; return how many were: 0 when none is.

    `failures` counts, by conversation, how often it failed in a row: each time it is left alone for twice as long.

    Raises:
        DatabaseError: the database cannot be reached; the conversations stay due.
    """
    due = await run_burst(take_due)
    tries = failures if failures is not None else {}
    await asyncio.gather(*(_summarise_one(one, summarise, tries) for one in due))
    return len(due)


async def _summarise_one(due: Due, summarise: Summarise, failures: dict[int, int]) -> None:
    try:
        turns, is_all = await run_burst(turns_to_summarise, due)
        async with asyncio.timeout(WRITTEN_WITHIN_S):
            written = await summarise(due.agent, due.summary, turns) if turns else None
        if written is None:
            await run_burst(leave, due)
        else:
            await run_burst(store_summary, due, written=written, upto_seq=turns[-1].seq, is_all=is_all)
        failures.pop(due.conversation_id, None)
    except asyncio.CancelledError:
        with contextlib.suppress(DatabaseError):  # the lease ends by itself
            await asyncio.shield(run_burst(wait, [due.conversation_id], seconds=0))
        raise
    except Exception as error:
        count = failures[due.conversation_id] = failures.get(due.conversation_id, 0) + 1
        wait_s = min(_FIRST_WAIT_S * 2.0 ** (count - 1), _LONGEST_WAIT_S)
        reason = getattr(error, "reason", "") or in_words(error)
        log.warning("conversation not summarised", agent=due.agent, conversation=due.conversation_id, reason=reason, retry_in_s=wait_s)
        await note_job_failure(QUEUE, error)
        with contextlib.suppress(DatabaseError):
            await run_burst(wait, [due.conversation_id], seconds=wait_s)


def take_due() -> list[Due]:
    """Take conversations that are due and that no other process is busy with."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [LEASE_S, TOGETHER])
        return [Due(*row) for row in cursor.fetchall()]


def turns_to_summarise(due: Due) -> tuple[list[PastTurn], bool]:
    """Return the older half of the turns that stand in no summary, oldest first, and whether that is all of it.

    As much is left as is taken, so that many turns go by until the summary, with which every prompt begins, changes again.
    """
    with connection.cursor() as cursor:
        cursor.execute(_OLDER_HALF, {"conversation": due.conversation_id, "after": due.summarised_seq})
        turns = [PastTurn(*row) for row in cursor.fetchall()]
    left = _MOST_CHARS
    for number, turn in enumerate(turns):
        left -= len(turn.message) + len(turn.reply)
        if left < 0 and number:
            return turns[:number], False
    return turns, True


def store_summary(due: Due, *, written: Written, upto_seq: int, is_all: bool) -> bool:
    """Make `written` the conversation's summary up to the turn `upto_seq`; tell whether it still was to be."""
    with connection.cursor() as cursor:
        cursor.execute(_STILL_WANTED, [due.conversation_id, due.summarised_seq])
        if cursor.fetchone() is None:
            return False
        cursor.execute(_ADD, asdict(written) | {"conversation": due.conversation_id, "upto": upto_seq})
        cursor.execute(_MOVE_ON, [written.text, upto_seq, not is_all, due.conversation_id])
    return True


def leave(due: Due) -> None:
    """The conversation needs no summary now."""
    with connection.cursor() as cursor:
        cursor.execute(_NOT_DUE, [due.conversation_id, due.summarised_seq])


def wait(conversation_ids: Sequence[int], *, seconds: float) -> None:
    """Leave conversations alone for a while."""
    with connection.cursor() as cursor:
        cursor.execute(_WAIT, [seconds, list(conversation_ids)])
