"""What is remembered, as people read it: a list of memories with where they come from and what they were last good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection

from memory.isolation import acting_for
from memory.models import MemoryOwner, OwnerKind
from observability.errors import BadRequest

MOST_MEMORIES: Final = 200
"""How many memories a page has at most."""

# The page's passages are found before anything is joined to them. `strpos`, because in LIKE a search for 100% would mean any text.
_LIST: Final = """
    SELECT page.id, page.text, page.origin, page.speaker, page.said_at, page.attribute, page.valid_until, page.superseded_by_id,
           page.source_id, page.pinned_at IS NOT NULL, page.author, page.turn_id, conversation.session_id, last.recalled_at,
           CASE WHEN owner.kind = 'person' THEN last.message END
    FROM (
        SELECT * FROM memory_passage
        WHERE owner_id = %(owner)s AND (%(history)s OR valid_until IS NULL)
          AND (%(origins)s::text[] IS NULL OR origin = ANY(%(origins)s))
          AND (%(search)s = '' OR strpos(lower(text), lower(%(search)s)) > 0)
          AND (%(before_at)s::timestamptz IS NULL OR (said_at, id) < (%(before_at)s, %(before_id)s::bigint))
        ORDER BY said_at DESC, id DESC LIMIT %(most)s
    ) AS page
    JOIN memory_owner owner ON owner.id = page.owner_id
    LEFT JOIN memory_turn turn ON turn.id = page.turn_id
    LEFT JOIN memory_conversation conversation ON conversation.id = turn.conversation_id
    LEFT JOIN LATERAL (
        SELECT recalled.recalled_at, helped.message
        FROM memory_recalled recalled JOIN memory_turn helped ON helped.id = recalled.turn_id
        WHERE recalled.owner_id = page.owner_id AND recalled.passage_id = page.id
        ORDER BY recalled.recalled_at DESC LIMIT 1
    ) AS last ON true
    ORDER BY page.said_at DESC, page.id DESC
"""
_COUNT: Final = """
    SELECT owner_id, count(*) FROM memory_passage WHERE owner_id = ANY(%s) AND valid_until IS NULL GROUP BY owner_id
"""


@dataclass(frozen=True, slots=True)
class MemoryCard:
    """A memory as it is shown.

    Attributes:
        origin: "turn", "fact", "model" or "added" (`memory.models.Origin`).
        speaker: "user", "agent" or "note".
        attribute: what a fact is about, such as "name"; "" for anything else.
        valid_until: when it stopped being true; such a memory is history, and never recalled.
        superseded_by: the memory that took its place.
        source: the memory that it was read from.
        author: who wrote it by hand.
        turn_id, session_id: where it was said; None and "" for what was written by hand.
        recalled_at, recalled_for: when it last helped to answer, and which message; "" for what is known for everybody, as the
            message is somebody's whom it need not concern.
    """

    id: int
    text: str
    origin: str
    speaker: str
    said_at: datetime
    attribute: str
    valid_until: datetime | None
    superseded_by: int | None
    source: int | None
    is_pinned: bool
    author: str
    turn_id: UUID | None
    session_id: str
    recalled_at: datetime | None
    recalled_for: str


@dataclass(frozen=True, slots=True)
class MemoryPage:
    """Memories, the newest first. `next` is what `before` must be to get those that follow; "" where none do."""

    items: tuple[MemoryCard, ...]
    next: str


def list_memories(
    owner_id: int,
    *,
    search: str = "",
    history: bool = False,
    origins: Sequence[str] = (),
    before: str | None = None,
    limit: int = 50,
) -> MemoryPage:
    """Return an owner's memories, the newest first.

    Args:
        search: only those that contain this, whatever the case.
        history: those too that are true no longer.
        origins: only those that come from there (`memory.models.Origin`); everything where there are none.
        before: the `next` of the page before.
        limit: how many at most, 1 to `MOST_MEMORIES`.

    Raises:
        BadRequest: `before` is not what a page gave.
    """
    limit = max(1, min(limit, MOST_MEMORIES))
    before_at, before_id = _read_cursor(before) if before else (None, None)
    parameters: dict[str, Any] = {
        "owner": owner_id,
        "search": search.replace("\0", ""),
        "history": history,
        "origins": list(origins) or None,
        "before_at": before_at,
        "before_id": before_id,
        "most": limit + 1,
    }
    with acting_for([owner_id]), connection.cursor() as cursor:
        cursor.execute(_LIST, parameters)
        cards = [_card(row) for row in cursor.fetchall()]
    follows = len(cards) > limit
    return MemoryPage(tuple(cards[:limit]), _cursor(cards[limit - 1]) if follows else "")


def memory_counts(owner_ids: list[int]) -> Mapping[int, int]:
    """Return how many memories each owner has, history not counted; 0 for one that has none."""
    with acting_for(owner_ids), connection.cursor() as cursor:
        cursor.execute(_COUNT, [owner_ids])
        return dict.fromkeys(owner_ids, 0) | dict(cursor.fetchall())


def owners_of_subject(subject_id: int) -> list[MemoryOwner]:
    """Return whose memories there are of a person: one for each agent that remembers them, by the agent's slug."""
    return list(MemoryOwner.objects.filter(subject_id=subject_id, kind=OwnerKind.PERSON).order_by("agent"))


def owner_for(agent: str, subject_id: int) -> MemoryOwner | None:
    """Return whose memories an agent's of a person are; None where it remembers nothing of them."""
    return MemoryOwner.objects.filter(agent=agent, subject_id=subject_id, kind=OwnerKind.PERSON).first()


def person_owner(agent: str, subject_id: int) -> MemoryOwner:
    """As `owner_for`, and made where it is not there yet."""
    return _get_or_create(kind=OwnerKind.PERSON, agent=agent, subject_id=subject_id)


def agent_owner(agent: str) -> MemoryOwner:
    """Return the owner of what an agent knows for everybody, made where it is not there yet."""
    return _get_or_create(kind=OwnerKind.AGENT, agent=agent)


def shared_owner(collection: str) -> MemoryOwner:
    """Return the owner of a shared collection, made where it is not there yet."""
    return _get_or_create(kind=OwnerKind.SHARED, collection=collection)


def shared_owners() -> list[MemoryOwner]:
    """Return the owners of all shared collections, by name."""
    return list(MemoryOwner.objects.filter(kind=OwnerKind.SHARED).order_by("collection"))


def _get_or_create(**fields: Any) -> MemoryOwner:
    if owner := MemoryOwner.objects.filter(**fields).first():
        return owner
    MemoryOwner.objects.bulk_create([MemoryOwner(**fields)], ignore_conflicts=True)  # two at once make one
    return MemoryOwner.objects.get(**fields)


def _card(row: tuple[Any, ...]) -> MemoryCard:
    *most, session_id, recalled_at, recalled_for = row
    values: tuple[Any, ...] = (*most, session_id or "", recalled_at, recalled_for or "")
    return MemoryCard(*values)


def _cursor(card: MemoryCard) -> str:
    return f"{card.said_at.isoformat()}~{card.id}"


def _read_cursor(cursor: str) -> tuple[datetime, int]:
    said_at, _, id = cursor.replace(" ", "+").partition("~")  # a + that was not quoted in an address arrives as a blank
    try:
        moment = datetime.fromisoformat(said_at)
        if moment.utcoffset() != timedelta(0) or not 0 <= int(id) < 2**63:  # PostgreSQL does not know every offset that Python does
            raise ValueError(cursor)
        return moment, int(id)
    except ValueError:
        raise BadRequest(fields={"before": ["Send what the page before gave as `next`."]}) from None
