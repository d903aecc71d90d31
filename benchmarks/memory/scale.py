"""How long recall takes, and how much can be stored a second, as the tables grow."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from django.db import connection

from memory.embedders.client import EmbeddingModel, embed, embedding_model
from memory.ranking import Ranked
from memory.recall import recall
from memory.sources import Whose
from memory.wishes import Outcome, Room, Wish
from observability.api import count_tokens

from .filling import AGENT, Memory, Person
from .generated import Generator

OWNERS: Final = (200, 2_000, 10_000, 50_000)
"""How many vectors the people have whose recall is measured."""
_SIZES: Final = (10_000, 100_000, 1_000_000)
_LARGEST_SHARE: Final = 0.6
_QUESTIONS: Final = 200
_WARMING: Final = 20
_LIMIT: Final = 10
_BUDGET_TOKENS: Final = 400
_TOKENIZER: Final = "gpt-5-mini"


async def measure_scale(rows: int) -> dict[str, Any]:
    """Store `rows` vectors and measure on the way, at 10,000, 100,000 and so on."""
    model = embedding_model()
    assert model is not None
    memory, asking, sizes = Memory(model), Generator(seed=13), [size for size in _SIZES if size < rows] + [rows]
    measured: list[Person] = []
    stages = []
    for size in sizes:
        known = {person.wanted for person in measured}
        fitting = [owner for owner in OWNERS if owner not in known and owner <= _LARGEST_SHARE * (size - memory.vectors)]
        new, stored_per_s = await memory.fill(size, measured=fitting)
        measured += new
        await asyncio.to_thread(_vacuum)
        recalled = {str(person.wanted): await _recall_ms(person, asking) for person in measured}
        stages.append({"vectors": memory.vectors, "stored_per_s": round(stored_per_s), "recall_ms": recalled})
        print(stages[-1], file=sys.stderr)
    return {"stages": stages, "embedding_ms": await _embedding_ms(model, asking)}


def _vacuum() -> None:
    """Do what autovacuum does sooner or later: see to the planner's statistics, and to what index-only scans need not look up."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) memory_owner, memory_passage, memory_sentence, memory_posting")
    connection.close()


async def _recall_ms(person: Person, asking: Generator) -> dict[str, float]:
    """Ask as a chat turn does, the question's embedding included; every question is a new one."""
    seconds = []
    for number in range(_WARMING + _QUESTIONS):
        wish = _wish(asking.question(), person)
        started = time.perf_counter()
        recalled = await recall(wish)
        if number >= _WARMING:
            seconds.append(time.perf_counter() - started)
        if recalled.outcome is not Outcome.OK:
            raise RuntimeError(f"Recall brought nothing: {recalled.failure or 'no passage'}.")
    return percentiles_ms(seconds)


def _wish(question: str, person: Person) -> Wish:
    whose = Whose(agent=AGENT, subject_id=person.subject_id)
    return Wish(question=question, whose=whose, limit=_LIMIT, room=Room(_BUDGET_TOKENS), tokens_of=_tokens_of)


def _tokens_of(passage: Ranked) -> int:
    return count_tokens(passage.text, model=_TOKENIZER)


async def _embedding_ms(model: EmbeddingModel, asking: Generator) -> dict[str, float]:
    seconds = []
    for _ in range(_QUESTIONS):
        question = asking.question()
        started = time.perf_counter()
        await embed([question], model=model)
        seconds.append(time.perf_counter() - started)
    return percentiles_ms(seconds)


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 95th percentile in milliseconds."""
    return {"p50": round(1000 * statistics.median(seconds), 1), "p95": round(1000 * sorted(seconds)[int(len(seconds) * 0.95)], 1)}


def as_text(figures: dict[str, Any]) -> str:
    """Return the figures as a table: milliseconds of recall, p50 and p95, by how many vectors there are and whose they are."""
    owners = list(figures["stages"][-1]["recall_ms"])
    lines = [f"{'vectors':>12}{'stored/s':>10}" + "".join(f"{f'owner of {int(owner):,}':>20}" for owner in owners)]
    for stage in figures["stages"]:
        cells = (stage["recall_ms"].get(owner) for owner in owners)
        shown = "".join(f"{'{p50} / {p95} ms'.format(**cell) if cell else '':>20}" for cell in cells)
        lines.append(f"{stage['vectors']:12,}{stage['stored_per_s']:10,}{shown}")
    return "\n".join([*lines, "", "of which embedding the question: {p50} / {p95} ms".format(**figures["embedding_ms"])])
