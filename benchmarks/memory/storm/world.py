"""The operations of the storm: what people, workers and editors do, by the server's own code, and to the model."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

from django.db import connection
from uuid_utils.compat import uuid7

from memory.api import (
    FinishedTurn,
    NewTurn,
    Outcome,
    Room,
    TurnState,
    Whose,
    Wish,
    add,
    correct,
    erase,
    find_subject,
    finish_turns,
    forget,
    forget_all,
    list_memories,
    open_turns,
    person_owner,
    recall,
    subject_for,
)
from memory.embedders.client import EmbeddingModel
from memory.isolation import act_for
from memory.writing import remember_due_turns, take_due_turns
from observability.api import run_burst

from .embedder import WordEmbedder
from .model import Broken, Mind

SESSIONS: Final = 3
_THINGS: Final = ("harbour", "mill", "orchard", "bridge", "quarry", "meadow", "lantern", "violin")
_PATIENCE_S: Final = 60.0
_WAITS: Final = "SELECT EXISTS (SELECT FROM memory_turn WHERE id = ANY(%s) AND remembered_at IS NULL)"
_PASSAGES: Final = "SELECT text, origin, valid_until IS NULL FROM memory_passage WHERE owner_id = %s"
_ORPHANS: Final = """
    SELECT (SELECT count(*) FROM memory_sentence part WHERE owner_id = %(owner)s AND NOT EXISTS (
               SELECT FROM memory_passage WHERE owner_id = %(owner)s AND seq = part.seq))
         + (SELECT count(*) FROM memory_posting part WHERE owner_id = %(owner)s AND NOT EXISTS (
               SELECT FROM memory_passage WHERE owner_id = %(owner)s AND seq = part.seq))
"""
_LET_LEASES_END: Final = "UPDATE memory_owner SET busy_until = now() - interval '1 second' WHERE id = ANY(%s) AND busy_until > now()"
_BUSY: Final = "SELECT id FROM memory_owner WHERE busy_until > now()"


class World:
    """People who talk to agents. Each `Mind` is to be used by one task at a time; different ones may be used at once.

    Args:
        stalling: an embedder for workers that hang meanwhile, beside the one of `model`.
    """

    def __init__(self, *, users: int, agents: int, stalling: WordEmbedder, model: EmbeddingModel) -> None:
        name = secrets.token_hex(4)
        self.owner = f"owner:storm-{name}"
        self.agents = [f"storm-{name}-{number}" for number in range(agents)]
        self.minds = [Mind(agent, f"user-{number}") for number in range(users) for agent in self.agents]
        self.operations: Counter[str] = Counter()
        self._model = model
        self._stalling = stalling
        self._slow_model = EmbeddingModel(stalling.url, model.api_key, model.name, model.dimensions)
        self._one_stalls = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def say(self, mind: Mind, session: int) -> None:
        """A turn: something new from each side."""
        message, reply = self._new_text(), self._new_text()
        turn_id = await self._turn(mind, session, message, reply)
        mind.waiting[turn_id] = (message, reply)
        self.operations["turns said"] += 1

    async def tell_home(self, mind: Mind, session: int) -> None:
        """A statement that becomes a fact, and contradicts the one before."""
        message = f"I live in {self._new_word().capitalize()}."
        turn_id = await self._turn(mind, session, message, "")
        mind.waiting[turn_id] = (message,)
        mind.told.append(message)
        self.operations["facts told"] += 1

    async def remember(self, mind: Mind) -> None:
        """Workers run until nothing that was said waits any more."""
        turns = list(mind.waiting)
        async with asyncio.timeout(_PATIENCE_S):
            while await run_burst(_any_waits, turns):
                if not await remember_due_turns(self._model):
                    await asyncio.sleep(0.005)  # another worker has them in hand
        mind.remembered()
        self.operations["rounds of workers"] += 1

    async def recall(self, mind: Mind, text: str) -> None:
        """Ask for `text`, whoever said it."""
        subject_id = await run_burst(find_subject, self.owner, mind.user)
        whose = Whose(agent=mind.agent, subject_id=subject_id if subject_id is not None else 0)
        wish = Wish(question=f"What of this: {text}", whose=whose, limit=20, room=Room(100_000), tokens_of=lambda _: 1)
        recalled = await recall(wish)
        if recalled.outcome in (Outcome.SLOW, Outcome.FAILED):
            raise Broken(f"recall: {recalled.failure}")
        mind.check_recalled([passage.text for passage in recalled.passages], asked=text)
        self.operations["recalls"] += 1

    async def note(self, mind: Mind) -> None:
        """An editor adds a memory."""
        text = self._new_text()
        await add(await self._owner_id(mind), text=text, author="storm")
        mind.live[text] = None
        self.operations["memories added"] += 1

    async def correct(self, mind: Mind, old: str) -> None:
        new, owner_id = self._new_text(), await self._owner_id(mind)
        await correct(owner_id, await self._id_of(owner_id, old), text=new, author="storm")
        mind.corrected(old, new)
        self.operations["memories corrected"] += 1

    async def forget(self, mind: Mind, text: str) -> None:
        owner_id = await self._owner_id(mind)
        await run_burst(forget, owner_id, await self._id_of(owner_id, text))
        mind.forgotten(text)
        self.operations["memories forgotten"] += 1

    async def forget_all(self, mind: Mind) -> None:
        await forget_all(await self._owner_id(mind))
        mind.emptied()
        self.operations["minds emptied"] += 1

    async def erase(self, user: str) -> None:
        """Everything about a person goes, with every agent; workers may have some of it in hand."""
        if (subject_id := await run_burst(find_subject, self.owner, user)) is not None:
            await erase(subject_id, actor="storm")
        for mind in self.minds_of(user):
            mind.emptied()
        self.operations["people erased"] += 1

    async def lose_worker(self) -> None:
        """A worker takes turns and is killed before it stores any; after its lease, others take them."""
        taken = await run_burst(take_due_turns)
        await run_burst(_change, _LET_LEASES_END, list(taken.owner_ids))
        self.operations["workers killed"] += 1

    async def stall_worker(self, mind: Mind) -> None:
        """A worker hangs while it embeds, for longer than its lease; others do its work, and then it goes on and stores, too."""
        async with self._one_stalls:
            with self._stalling.held():
                late = asyncio.create_task(remember_due_turns(self._slow_model))
                while not (late.done() or await asyncio.to_thread(self._stalling.asked.wait, 0.02)):
                    pass
                await run_burst(_change, _LET_LEASES_END, await run_burst(_column, _BUSY))
                await self.remember(mind)
            with suppress(asyncio.CancelledError):
                await late
        self.operations["workers stalled"] += 1

    async def check(self, mind: Mind) -> None:
        """Compare the rows with the model, as soon as nothing waits."""
        await self.remember(mind)
        rows, orphans = await run_burst(_stored, await self._owner_id(mind))
        if orphans:
            raise Broken(f"{orphans} vectors or words of {mind.user} of {mind.agent} are left without their passage")
        mind.check_stored(rows)
        self.operations["minds compared"] += 1

    def minds_of(self, user: str) -> list[Mind]:
        return [mind for mind in self.minds if mind.user == user]

    def any_text(self, random: Random, mind: Mind) -> str:
        """Return something to ask `mind` for: mostly what it should know, else what it knows no more or what others know."""
        kind = random.random()
        if kind < 0.6 and mind.live:
            return random.choice(list(mind.live))
        if kind < 0.8 and (mind.gone or mind.history):
            return random.choice(sorted(mind.gone | mind.history))
        other = random.choice(self.minds)
        return random.choice(list(other.live)) if other.live else "the harbour"

    async def _turn(self, mind: Mind, session: int, message: str, reply: str) -> UUID:
        now = datetime.now(UTC)
        turn = NewTurn(
            id=uuid7(),
            owner=self.owner,
            subject=mind.user,
            session_id=f"{mind.user}-{mind.agent}-{session % SESSIONS}",
            agent=mind.agent,
            version=1,
            message=message,
            created_at=now,
            deadline_at=now + timedelta(minutes=10),
            recent_turns=0,
            recent_chars=0,
            remember=True,
        )
        await run_burst(open_turns, [turn])
        await run_burst(finish_turns, [FinishedTurn(id=turn.id, state=TurnState.DONE, reply=reply)])
        return turn.id

    async def _owner_id(self, mind: Mind) -> int:
        return await run_burst(_owner_id, self.owner, mind.user, mind.agent)

    async def _id_of(self, owner_id: int, text: str) -> int:
        page = await run_burst(list_memories, owner_id, search=text)
        return next(card.id for card in page.items if card.text == text)

    def _new_text(self) -> str:
        word, thing = self._new_word(), _THINGS[next(self._numbers) % len(_THINGS)]
        return f"{word.capitalize()} stood by the old {thing} of {word}."

    def _new_word(self) -> str:
        """Return a word that was never said before, of letters alone."""
        return "q" + "".join(chr(ord("b") + int(digit)) for digit in str(next(self._numbers))) + "zu"


def _owner_id(owner: str, user: str, agent: str) -> int:
    return person_owner(agent, subject_for(owner, user)).pk


def _any_waits(turns: list[UUID]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_WAITS, [turns])
        [waits] = cursor.fetchone() or [False]
    return bool(waits)


def _change(statement: str, ids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [ids])


def _column(statement: str) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [value for (value,) in cursor.fetchall()]


def _stored(owner_id: int) -> tuple[list[tuple[str, str, bool]], int]:
    act_for([owner_id])
    with connection.cursor() as cursor:
        cursor.execute(_PASSAGES, [owner_id])
        rows = cursor.fetchall()
        cursor.execute(_ORPHANS, {"owner": owner_id})
        [orphans] = cursor.fetchone() or [0]
    return rows, int(orphans)
