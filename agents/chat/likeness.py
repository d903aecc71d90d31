"""Similar questions: a message gets the answer that is kept for another one, where an editor allows it and both mean the same.

What the reply cache may answer, this may: the answers are the same ones, and two messages are compared only where their keys
differ in nothing but the message. A vector knows little of numbers, names and negations, so `contrast` has the last word.
Nothing is waited for longer than MEMORY_DEADLINE_MS; what fails or is slow is a miss (docs/adr/0014-similar-questions-in-postgresql.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from django.db import connection
from pgvector import HalfVector

from agents.access import Caller
from agents.chat.contrasts import contrast
from agents.chat.events import Matched
from agents.chat.question import Question
from agents.chat.replies import CachedReply, ToKeep, read_reply, reply_name, scope_of
from agents.models import KeptQuestion
from agents.versions.live import Answering
from memory.api import Meaning, OpenedTurn, Payer, SubjectErased, hold_turns, meaning_of
from observability.api import GroupCommit, RedisDown, count_lookups, keep_draining, redis_call, run_burst
from observability.logs import in_words

log = structlog.get_logger(__name__)

LONGEST_CHARS: Final = 500
"""Longer messages are not compared: embedding models read only so much, and what tells two of them apart may stand at the end."""
MOST_COMPARED: Final = 1000
_MOST_LOOKED_AT: Final = 5
# Vectors are kept as halves: that of the very same text may be a little less than 1 away.
_ROUNDING: Final = 0.0005
_EVERY_S: Final = 60.0
_MOST_ENDED: Final = 1000

_NEAREST: Final = """
    SELECT key, turn_id, question, extract(epoch FROM now() - kept_at)::int, -(embedding <#> %(vector)s::halfvec)
    FROM (
        SELECT * FROM agents_keptquestion WHERE scope = %(scope)s AND expires_at > now() ORDER BY expires_at DESC LIMIT %(compared)s
    ) AS newest
    WHERE -(embedding <#> %(vector)s::halfvec) >= %(least)s
    ORDER BY embedding <#> %(vector)s::halfvec LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An answer that was given to a question that means the same.

    Attributes:
        similarity: of both questions, 0 to 1.
        age_s: how old the answer is.
        turn_id: the turn that got it.
        question: what was asked there, in somebody else's words perhaps.
    """

    reply: CachedReply
    similarity: float
    age_s: int
    turn_id: UUID
    question: str

    def told_to(self, caller: Caller) -> Matched:
        """Return what `caller` may know of the match: callers without a key share answers, but no questions."""
        question = self.question if caller.key_id else None
        return Matched(similarity=round(self.similarity, 3), age_s=self.age_s, question=question)


class Likeness:
    """What one turn's message means, to look for an answer and to keep its own for others."""

    def __init__(self, question: Question, answering: Answering, opened: OpenedTurn, *, is_judged: bool) -> None:
        assert answering.reply_similarity is not None
        self._message = question.message
        self._wants_fresh = question.wants_fresh
        self._least = answering.reply_similarity - _ROUNDING
        self._scope_of = partial(scope_of, answering, caller=question.caller, user=question.user, opened=opened, is_judged=is_judged)
        self._payer = Payer(
            agent=answering.slug, key=question.caller.key_id, conversation_id=opened.conversation_id, subject_id=opened.subject_id
        )
        self._meaning: asyncio.Task[Meaning | None] | None = None

    async def find(self) -> Match | None:
        """Return the kept answer of the question that is most like this one; None: none is enough, not in time, or none is wanted."""
        # What the message means is wanted later, too, for its own answer: it is found out even where nobody waits for it now.
        self._meaning = meaning = asyncio.create_task(meaning_of(self._message, payer=self._payer))
        if self._wants_fresh:
            return None
        match = await self._find_in_time(meaning)
        count_lookups("semantic", hits=int(match is not None), misses=int(match is None))
        return match

    async def _find_in_time(self, finding_meaning: asyncio.Task[Meaning | None]) -> Match | None:
        try:
            async with asyncio.timeout(settings.MEMORY_DEADLINE_MS / 1000):
                meaning = await asyncio.shield(finding_meaning)
                if meaning is None:
                    return None
                scope = self._scope_of(embedded_by=meaning.model)
                match = await run_burst(_find, self._message, meaning, scope=scope, least=self._least)
        except TimeoutError:
            log.info("similar questions not found in time", deadline_ms=settings.MEMORY_DEADLINE_MS)
        except (DatabaseError, RedisDown) as error:
            log.warning("similar questions not looked up", reason=in_words(error))
        else:
            if match is not None:
                seen = {"similarity": round(match.similarity, 3), "age_s": match.age_s, "as_message": str(match.turn_id)}
                log.info("answered as a similar question", agent=self._payer.agent, **seen)
            return match
        return None

    async def keep(self, kept: ToKeep) -> None:
        """Let others find the answer that was just kept."""
        meaning = await self._meaning if self._meaning else None
        if meaning is None:
            return
        now = datetime.now(UTC)
        question = KeptQuestion(
            key=kept.key,
            scope=self._scope_of(embedded_by=meaning.model),
            turn_id=UUID(kept.turn_id),
            question=self._message,
            embedding=HalfVector(meaning.vector),
            kept_at=now,
            expires_at=now + timedelta(seconds=kept.seconds),
        )
        try:
            await _keeping.submit(question)
        except (DatabaseError, RedisDown) as error:
            log.warning("question not kept", reason=in_words(error))


def likeness_of(
    question: Question, answering: Answering, *, opened: OpenedTurn | None, key: str | None, is_judged: bool = False
) -> Likeness | None:
    """Return what is needed to look for a similar question; None where the version or the message forbids it.

    Args:
        is_judged: a classifier is to say who answers the message (`agents.chat.routing.Route.asks`).
    """
    if answering.reply_similarity is None or opened is None or key is None or len(question.message) > LONGEST_CHARS:
        return None
    return Likeness(question, answering, opened, is_judged=is_judged)


def _find(message: str, meaning: Meaning, *, scope: str, least: float) -> Match | None:
    with connection.cursor() as cursor:
        wanted: dict[str, Any] = {
            "vector": HalfVector(meaning.vector).to_text(),
            "scope": scope,
            "least": least,
            "compared": MOST_COMPARED,
            "most": _MOST_LOOKED_AT,
        }
        cursor.execute(_NEAREST, wanted)
        rows = [row for row in cursor.fetchall() if not contrast(message, row[2])]
    if not rows:
        return None
    values: Sequence[Any] = redis_call(lambda client: client.mget([reply_name(row[0]) for row in rows]))
    for (_, turn_id, question, age_s, similarity), value in zip(rows, values, strict=True):
        if reply := read_reply(value):
            return Match(reply=reply, similarity=min(1.0, similarity), age_s=max(0, age_s), turn_id=turn_id, question=question)
    return None


def _keep(questions: Sequence[KeptQuestion]) -> list[None]:
    # Of a turn that was erased meanwhile, nothing is kept, nor its answer; whoever erases one later finds its question here.
    held = hold_turns([question.turn_id for question in questions])
    if gone := [reply_name(question.key) for question in questions if question.turn_id not in held]:
        redis_call(lambda client: client.delete(*gone))
    newest = {question.key: question for question in questions if question.turn_id in held}
    KeptQuestion.objects.bulk_create(
        sorted(newest.values(), key=lambda question: question.key),  # in one order everywhere: no two batches wait for each other
        update_conflicts=True,
        unique_fields=["key"],
        update_fields=["scope", "turn_id", "question", "embedding", "kept_at", "expires_at"],
    )
    return [None for _ in questions]


_keeping: Final[GroupCommit[KeptQuestion, None]] = GroupCommit(_keep)


async def forget_questions(erased: SubjectErased) -> int:
    """Delete what an erased person asked, and the answers that are kept for others, and return how many those were.

    Raises:
        RedisDown: the answers may be there still.
    """
    return await run_burst(_forget, erased.turn_ids) if erased.turn_ids else 0


def _forget(turn_ids: Sequence[UUID]) -> int:
    questions = KeptQuestion.objects.filter(turn_id__in=turn_ids)
    keys = list(questions.values_list("key", flat=True))
    if keys:
        redis_call(lambda client: client.delete(*(reply_name(key) for key in keys)))
    return questions.delete()[0]


async def keep_forgetting_questions(stopping: asyncio.Event) -> None:
    """Delete questions whose answers are not kept any more, until `stopping` is set."""

    async def drain() -> int:
        ended = await run_burst(delete_ended_questions)
        return ended if ended == _MOST_ENDED else 0

    await keep_draining(stopping, drain, every_s=_EVERY_S, failed="deleting questions that were kept failed", queue="questions")


def delete_ended_questions() -> int:
    """Delete questions that have ended, at most 1,000, and return how many. Any number of processes may do so at once."""
    ended = KeptQuestion.objects.filter(expires_at__lt=datetime.now(UTC)).order_by("expires_at")
    return KeptQuestion.objects.filter(
        pk__in=list(ended.select_for_update(skip_locked=True).values_list("pk", flat=True)[:_MOST_ENDED])
    ).delete()[0]
