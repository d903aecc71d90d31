"""Which memories of a person go, and why. Everything here runs inside a transaction that acts for the owners it names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django.db import connection

from memory.facts.settling import fill_user_names
from memory.isolation import act_for
from memory.storing import WINDOW
from memory.upkeep.policy import Policy

OWNERS_AT_ONCE: Final = 100
"""How many people are looked at together."""
ROWS_AT_ONCE: Final = 1000
"""How many rows a transaction deletes, so that none takes long or keeps a chat waiting."""

_NEXT_OWNERS: Final = "SELECT id FROM memory_owner WHERE kind = 'person' AND agent = %s AND id > %s ORDER BY id LIMIT %s"
# Nearly everybody has nothing to lose: theirs are counted and not ranked.
_WORTH_A_LOOK: Final = """
    SELECT owner_id FROM memory_passage WHERE owner_id = ANY(%(owners)s)
    GROUP BY owner_id
    HAVING count(*) > nullif(%(cap)s, 0) OR min(said_at) < %(too_old)s::timestamptz
    ORDER BY owner_id
"""
# What is pinned stays. A memory counts its days from when it was said; history, from when it stopped holding; a fact that
# holds, from when it was told or last recalled; what was written by hand does not count any. What an ended conversation takes
# along is no business of this statement (`conversations`), and takes no room under the cap.
#
# Beyond the cap, the least useful go: history first; then what was not of use for longest, an agent's words and short ones
# counting one and a half times as long, and what was never recalled twice as long; facts and notes last.
#
# A fact that holds no more marks the words it was read from as outdated: it goes with them, and takes no room either.
_DUE: Final = """
WITH memory AS (
    SELECT passage.*, last.recalled_at
    FROM memory_passage passage
    CROSS JOIN LATERAL (
        SELECT max(recalled_at) AS recalled_at FROM memory_recalled WHERE owner_id = %(owner)s AND passage_id = passage.id
    ) AS last
    WHERE owner_id = %(owner)s AND NOT (
        origin = 'turn'
        AND EXISTS (SELECT FROM memory_conversation WHERE id = passage.session AND last_turn_at < %(over)s::timestamptz)
        AND NOT EXISTS (
            SELECT FROM memory_passage pinned
            WHERE pinned.owner_id = %(owner)s AND pinned.turn_id = passage.turn_id AND pinned.origin = 'turn'
              AND pinned.pinned_at IS NOT NULL
        )
    )
), counted AS (
    SELECT id, source_id, pinned_at IS NOT NULL AS is_pinned, valid_until IS NOT NULL AS is_history, origin <> 'turn' AS stands_alone,
           valid_until IS NOT NULL AND source_id IS NOT NULL AS marks,
           coalesce(%(too_old)s::timestamptz > CASE
               WHEN pinned_at IS NOT NULL THEN NULL
               WHEN valid_until IS NOT NULL THEN valid_until
               WHEN origin = 'added' THEN NULL
               WHEN origin = 'turn' THEN said_at
               ELSE greatest(said_at, recalled_at)
           END, false) AS is_too_old,
           extract(epoch FROM %(now)s::timestamptz - greatest(said_at, recalled_at))
           * CASE WHEN recalled_at IS NULL THEN 2 ELSE 1 END
           * CASE WHEN speaker = 'agent' THEN 1.5 ELSE 1 END
           * CASE WHEN word_count < 8 THEN 1.5 ELSE 1 END AS unused_s
    FROM memory
), kept AS (
    SELECT id, is_pinned, row_number() OVER (ORDER BY is_pinned DESC, is_history, stands_alone DESC, unused_s, id DESC) AS place
    FROM counted WHERE NOT is_too_old AND NOT marks
), due AS (
    SELECT id, 'memories_too_old' AS reason FROM counted WHERE is_too_old AND NOT marks
    UNION ALL
    SELECT id, 'memories_over_cap' FROM kept WHERE place > nullif(%(cap)s, 0) AND NOT is_pinned
)
SELECT id, reason FROM (
    SELECT id, reason, 0 AS position FROM due
    UNION ALL
    SELECT counted.id, due.reason, 1 FROM counted JOIN due ON due.id = counted.source_id WHERE marks AND NOT is_pinned
) AS found ORDER BY position
"""
_LOCK_OWNERS: Final = "SELECT FROM memory_owner WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
# A fact outlives what it was read from: it goes for reasons of its own.
_DETACH_FACTS: Final = "UPDATE memory_passage SET source_id = NULL WHERE owner_id = ANY(%(owners)s) AND source_id = ANY(%(ids)s)"
_DELETE: Final = """
    DELETE FROM memory_passage WHERE owner_id = ANY(%(owners)s) AND id = ANY(%(ids)s) AND pinned_at IS NULL
    RETURNING owner_id, seq, attribute
"""
_NARROW_WINDOWS: Final = f"""
    UPDATE memory_passage passage
    SET window_length = (
        SELECT sum(length) FROM memory_passage near
        WHERE near.owner_id = passage.owner_id AND near.seq BETWEEN passage.seq - {WINDOW} AND passage.seq + {WINDOW}
    )
    FROM (
        SELECT DISTINCT owner_id, seq + distance AS seq
        FROM unnest(%s::bigint[], %s::int[]) AS gone (owner_id, seq), generate_series(-{WINDOW}, {WINDOW}) AS distance
    ) AS around
    WHERE passage.owner_id = around.owner_id AND passage.seq = around.seq
"""  # noqa: S608 - a constant


def count_owners(agents: Sequence[str]) -> int:
    """Return how many people these agents have memories of."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_owner WHERE kind = 'person' AND agent = ANY(%s)", [list(agents)])
        [count] = cursor.fetchone() or [0]
    return int(count)


def next_owners(agent: str, *, after: int) -> list[int]:
    """Return the ids of the agent's next owners in order, at most `OWNERS_AT_ONCE`."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_OWNERS, [agent, after, OWNERS_AT_ONCE])
        return [id for (id,) in cursor.fetchall()]


def owners_worth_a_look(owners: Sequence[int], *, policy: Policy, now: datetime) -> list[int]:
    """Return those of `owners` who have more memories than the cap, or older ones than the limit."""
    act_for(owners)
    with connection.cursor() as cursor:
        cursor.execute(_WORTH_A_LOOK, {"owners": list(owners), "cap": policy.memory_cap, "too_old": policy.memories_before(now)})
        return [id for (id,) in cursor.fetchall()]


def due_memories(owner: int, *, policy: Policy, now: datetime) -> dict[str, list[int]]:
    """Return the ids of the owner's memories that go, by the reason."""
    act_for([owner])
    due: dict[str, list[int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            _DUE,
            {
                "owner": owner,
                "now": now,
                "cap": policy.memory_cap,
                "too_old": policy.memories_before(now),
                "over": policy.conversations_before(now),
            },
        )
        for id, reason in cursor.fetchall():
            due.setdefault(reason, []).append(id)
    return due


def delete_memories(ids: Sequence[int], *, owners: Sequence[int]) -> int:
    """Delete these memories of `owners`, whom the transaction acts for, unless they are pinned; return how many were left to delete."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_OWNERS, [list(owners)])  # as those who write memories do: windows are of one mind
        named = {"owners": list(owners), "ids": list(ids)}
        cursor.execute(_DETACH_FACTS, named)
        cursor.execute(_DELETE, named)
        gone = cursor.fetchall()
        cursor.execute(_NARROW_WINDOWS, [[owner for owner, _, _ in gone], [seq for _, seq, _ in gone]])
        if unnamed := {owner for owner, _, attribute in gone if attribute == "name"}:
            fill_user_names(sorted(unnamed))
    return len(gone)
