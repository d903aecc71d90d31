"""Filling long-term memory with generated turns of many people, in the server's own batches, by the server's own `store`."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from uuid_utils.compat import uuid7

from memory.embedders.client import EmbeddingModel
from memory.models import Conversation, MemoryOwner, Speaker, Subject, Turn, TurnState
from memory.storing import NewPassage, store
from memory.writing import MAX_TURNS
from observability.api import run_burst

from .generated import Generated, Generator

AGENT: Final = "bench"
_POOL: Final = 5_000
_OTHERS: Final = 1_000
"""How many vectors each of the people has whose recall is not measured."""
_TURNS_A_SESSION: Final = 30
_FIRST_SAID_AT: Final = datetime(2024, 5, 8, tzinfo=UTC)


@dataclass(slots=True)
class Person:
    """One owner of memories, who is to have `wanted` vectors."""

    wanted: int
    subject_id: int
    owner_id: int
    vectors: int = 0
    turns: int = 0
    conversation_id: int = 0


@dataclass(slots=True)
class Memory:
    """What was stored so far: how many vectors, in how many seconds."""

    model: EmbeddingModel
    vectors: int = 0
    storing_s: float = 0.0
    _random: random.Random = field(default_factory=lambda: random.Random(11))
    _pool: list[Generated] = field(default_factory=list)

    async def fill(self, rows: int, *, measured: Sequence[int]) -> tuple[list[Person], float]:
        """Store turns until there are about `rows` vectors, each batch durably.

        Args:
            measured: how many vectors each of those has whose recall is to be measured; others have `_OTHERS`, as many as are missing.

        Returns:
            those who are measured, and how many vectors were stored a second, with all that belongs to them.
        """
        if not self._pool:
            self._pool = Generator().passages(_POOL)
        missing = max(rows - self.vectors - sum(measured), 0)
        others = [_OTHERS] * (missing // _OTHERS) + [missing % _OTHERS]
        people = await run_burst(_add_people, [*measured, *others])
        vectors, seconds = self.vectors, self.storing_s
        while unfinished := [person for person in people if person.vectors < person.wanted]:
            # People talk at the same time, those who say more the more often: nobody's rows lie beside each other.
            weights = [person.wanted - person.vectors for person in unfinished]
            await self._remember(self._random.choices(unfinished, weights, k=MAX_TURNS))
        return people[: len(measured)], (self.vectors - vectors) / (self.storing_s - seconds)

    async def _remember(self, speaking: Sequence[Person]) -> None:
        """Store a turn of each of `speaking`, as the worker does once it has their vectors."""
        turns = await run_burst(_add_turns, speaking)
        passages = [
            self._passage(person, turn, speaker)
            for person, turn in zip(speaking, turns, strict=True)
            for speaker in (Speaker.USER, Speaker.AGENT)
        ]
        started = time.perf_counter()
        await run_burst(store, passages, turn_ids=[turn.id for turn in turns], model=self.model)
        self.storing_s += time.perf_counter() - started
        self.vectors += sum(len(passage.vectors) for passage in passages)

    def _passage(self, person: Person, turn: Turn, speaker: Speaker) -> NewPassage:
        generated = self._random.choice(self._pool)
        person.vectors += len(generated.vectors)
        return NewPassage(
            owner_id=person.owner_id,
            turn_id=turn.id,
            session=turn.conversation_id,
            speaker=speaker,
            said_at=turn.created_at,
            text=generated.text,
            features=generated.features,
            vectors=generated.vectors,
        )


def _add_people(wanted: Sequence[int]) -> list[Person]:
    subjects = Subject.objects.bulk_create([Subject(owner="benchmark", name=str(uuid7())) for _ in wanted])
    owners = MemoryOwner.objects.bulk_create([MemoryOwner(agent=AGENT, subject=subject) for subject in subjects])
    return [Person(vectors, subject.pk, owner.pk) for vectors, subject, owner in zip(wanted, subjects, owners, strict=True)]


def _add_turns(speaking: Sequence[Person]) -> list[Turn]:
    """Store a finished turn of each, which waits to be remembered."""
    return Turn.objects.bulk_create([_turn(person) for person in speaking])


def _turn(person: Person) -> Turn:
    if person.turns % _TURNS_A_SESSION == 0:
        conversation = Conversation.objects.create(
            subject_id=person.subject_id, owner="benchmark", agent=AGENT, session_id=f"{person.subject_id}-{person.turns}"
        )
        person.conversation_id = conversation.pk
    person.turns += 1
    said_at = _FIRST_SAID_AT + timedelta(hours=person.turns)
    return Turn(
        id=uuid7(),
        conversation_id=person.conversation_id,
        seq=person.turns,
        state=TurnState.DONE,
        agent=AGENT,
        version=1,
        created_at=said_at,
        deadline_at=said_at + timedelta(minutes=1),
        finished_at=said_at,
        remember=True,
    )
