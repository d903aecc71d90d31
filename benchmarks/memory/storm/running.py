"""A storm of many operations: several lanes at once, each with people of its own, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any, Final

from memory.embedders.client import embedding_model
from observability.outbound import close_transports

from .embedder import WordEmbedder
from .model import Mind
from .world import World

LANES: Final = 4
USERS: Final = 24
AGENTS: Final = 3
# How often each comes in a thousand operations.
_OFTEN: Final = {
    "say": 300, "recall": 440, "remember": 80, "note": 50, "correct": 35, "forget": 45, "tell_home": 25, "lose_worker": 10,
    "stall_worker": 3, "check": 7, "erase": 3, "forget_all": 2,
}  # fmt: skip


async def run_storm(*, operations: int, seed: int, stalling: WordEmbedder) -> dict[str, Any]:
    """Do `operations` operations and compare all memories with the model in the end; return what was done.

    Raises:
        Broken: a promise is broken.
    """
    model = embedding_model()
    assert model is not None, "the settings name an embedder"
    world = World(users=USERS, agents=AGENTS, stalling=stalling, model=model)
    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as lanes:
            for lane in range(LANES):
                own = world.minds[lane * len(world.minds) // LANES : (lane + 1) * len(world.minds) // LANES]
                lanes.create_task(_run_lane(world, own, operations=operations // LANES, random=Random(f"{seed}/{lane}")))
        for mind in world.minds:
            await world.check(mind)
    finally:
        await close_transports()
    return {
        "seed": seed,
        "operations": sum(world.operations.values()),
        "of_each": dict(world.operations),
        "people": USERS,
        "agents": AGENTS,
        "took_s": round(time.perf_counter() - started, 1),
        "foreign": 0,
        "after_forgetting": 0,
        "lost": 0,
        "doubled": 0,
    }


async def _run_lane(world: World, minds: list[Mind], *, operations: int, random: Random) -> None:
    names, weights = list(_OFTEN), list(_OFTEN.values())
    for _ in range(operations):
        await do(world, random.choice(minds), random.choices(names, weights)[0], random)


async def do(world: World, mind: Mind, name: str, random: Random) -> None:
    """Do one operation to `mind`; where it needs a memory and there is none, one is made."""
    match name:
        case "say" | "tell_home":
            await getattr(world, name)(mind, random.randrange(3))
        case "recall":
            await world.recall(mind, world.any_text(random, mind))
        case "correct" | "forget" if texts := mind.correctable():
            await getattr(world, name)(mind, random.choice(texts))
        case "correct" | "forget":
            await world.note(mind)
        case "erase":
            await world.erase(mind.user)
        case "lose_worker":
            await world.lose_worker()
        case _:
            await getattr(world, name)(mind)
