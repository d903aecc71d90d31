"""Conversations into the server's long-term memory, and questions to its recall; the same to the baselines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import numpy as np
from uuid_utils.compat import uuid7

from memory.choosing import choose
from memory.embedders.client import EmbeddingModel, embed, embedding_model
from memory.models import Conversation as StoredConversation
from memory.models import MemoryOwner, Subject, Turn, TurnState
from memory.ranking import Ranked
from memory.recall import POOL, rank_passages
from memory.sources import Sources, Whose, find_sources
from memory.writing import remember_due_turns
from observability.api import count_tokens, run_burst

from . import baselines
from .conversations import Conversation, Line
from .figures import BUDGETS, Outcome, mean, score

_AGENT: Final = "bench"
_SPEAKERS: Final = ("user", "agent")
_EVERY_PASSAGE: Final = 1_000_000
_TOKENIZER: Final = "gpt-5-mini"

Scores = tuple[float, ...]


async def measure(conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Write `conversations`, ask their questions, and return the figures that `python -m benchmarks.memory` prints."""
    model = embedding_model()
    assert model is not None
    started = time.monotonic()
    places = [await run_burst(_store, conversation) for conversation in conversations]
    turns = 0
    while remembered := await remember_due_turns(model):
        turns += remembered
    writing_s = time.monotonic() - started
    ours: list[Scores] = []
    usual: dict[str, list[Scores]] = {"bm25": [], "vectors": [], "rrf": []}
    seconds: list[float] = []
    for conversation, (conversation_id, lines) in zip(conversations, places, strict=True):
        sources = await run_burst(find_sources, Whose(agent=_AGENT, conversation_id=conversation_id), models=[model])
        assert sources is not None
        for question in conversation.questions:
            before = time.perf_counter()
            await rank_passages(question.text, sources=sources)
            seconds.append(time.perf_counter() - before)
            ours.append(score(await _recalled(question.text, sources=sources, lines=lines), question.evidence))
        for name, scores in (await _baselines(conversation, model)).items():
            usual[name] += scores
    categories = [question.category for conversation in conversations for question in conversation.questions]
    return {
        **mean(ours),
        "questions": len(ours),
        "per_category": {
            category: {"questions": categories.count(category)}
            | mean([scores for scores, of in zip(ours, categories, strict=True) if of == category])
            for category in sorted(set(categories))
        },
        "baselines": {name: mean(scores) for name, scores in usual.items()},
        "turns_per_s": round(turns / writing_s, 1),
        "recall_ms": {"p50": round(1000 * statistics.median(seconds), 1), "p95": round(1000 * _p95(seconds), 1)} if seconds else {},
    }


def _store(conversation: Conversation) -> tuple[int, dict[tuple[UUID, str], int]]:
    """Store the conversation as finished turns that wait to be remembered; return an id of its conversations, and each line's place.

    The first of the two speaks as the user, the second as the agent, and their names are known, as they are of people who gave
    them. A turn is a line of the one and the answer of the other; either may be missing.
    """
    subject = Subject.objects.create(owner="benchmark", name=str(uuid7()))
    user_name, agent_name = conversation.names
    MemoryOwner.objects.create(agent=_AGENT, subject=subject, user_name=user_name, agent_name=agent_name)
    sessions: dict[int, StoredConversation] = {}
    turns: list[Turn] = []
    lines: dict[tuple[UUID, str], int] = {}
    last: Line | None = None
    for place, line in enumerate(conversation.lines):
        if line.session not in sessions:
            sessions[line.session] = StoredConversation.objects.create(
                subject=subject, owner="benchmark", agent=_AGENT, session_id=f"{subject.pk}-{line.session}"
            )
        answers = last is not None and last.session == line.session and (last.speaker, line.speaker) == (0, 1)
        if answers:
            turns[-1].reply = line.text
        else:
            turns.append(_turn(line, sessions[line.session], seq=len(turns) + 1))
        lines[turns[-1].id, _SPEAKERS[line.speaker]] = place
        last = line
    Turn.objects.bulk_create(turns)
    return next(iter(sessions.values())).pk, lines


def _turn(line: Line, session: StoredConversation, *, seq: int) -> Turn:
    return Turn(
        id=uuid7(),
        conversation=session,
        seq=seq,
        state=TurnState.DONE,
        agent=_AGENT,
        version=1,
        message=line.text if line.speaker == 0 else "",
        reply=line.text if line.speaker == 1 else "",
        created_at=line.said_at,
        deadline_at=line.said_at + timedelta(minutes=1),
        finished_at=line.said_at,
        remember=True,
    )


async def _recalled(question: str, *, sources: Sources, lines: dict[tuple[UUID, str], int]) -> Outcome:
    ranked = await rank_passages(question, sources=sources, most=_EVERY_PASSAGE)

    def place_of(passage: Ranked) -> int:
        assert passage.turn_id is not None
        return lines[passage.turn_id, passage.speaker]

    within = (
        choose(ranked[:POOL], question=question, limit=POOL, budget_tokens=budget, tokens_of=lambda passage: _tokens(passage.text)).passages
        for budget in BUDGETS
    )
    return Outcome(list(dict.fromkeys(map(place_of, ranked))), tuple({place_of(passage) for passage in chosen} for chosen in within))


async def _baselines(conversation: Conversation, model: EmbeddingModel) -> dict[str, list[Scores]]:
    texts = [line.text for line in conversation.lines]
    tokens = [_tokens(text) for text in texts]
    bm25 = baselines.BM25(texts, names=conversation.names)
    vectors = np.array(await embed([text or "." for text in texts], model=model, timeout_s=600))
    asked = np.array(await embed([question.text for question in conversation.questions], model=model, timeout_s=600))
    found: dict[str, list[Scores]] = {"bm25": [], "vectors": [], "rrf": []}
    for question, vector in zip(conversation.questions, asked, strict=True):
        by_words, by_meaning = bm25.scores(question.text), vectors @ vector
        for name, scores in (("bm25", by_words), ("vectors", by_meaning), ("rrf", baselines.fuse(by_words, by_meaning))):
            found[name].append(score(baselines.outcome(scores, tokens), question.evidence))
    return found


def _tokens(text: str) -> int:
    return count_tokens(text, model=_TOKENIZER)


def _p95(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)]
