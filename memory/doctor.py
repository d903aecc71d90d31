"""The doctor's examinations of long-term memory: whether people's memories are held apart, and whether texts can be embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.db import connection

from memory.embedders.client import EmbeddingFailed, EmbeddingModel, embed
from memory.embedders.configured import usable_models
from memory.embedders.failures import EmbeddingRefused
from memory.health import NO_MODEL, find_lack_of_isolation, find_mismatch, find_unfinished_change
from memory.isolation import ROLE
from memory.models import EmbeddingSpace
from memory.spaces import active_space
from observability.api import READING_TABLES, Examination, Finding, in_thread, register_examination

_TEXT: Final = "Does the embedder answer?"
_WITHIN_S: Final = 8.0
_MAKE_ROLE: Final = "Have an administrator of the database make the role as docs/memory.md says."
_UNHELD: Final = """
    SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = current_schema() AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)
      AND relname IN ('memory_passage', 'memory_sentence', 'memory_widesentence', 'memory_posting', 'memory_recalled')
    ORDER BY 1
"""
_REMEDIES: Final = (
    ("HTTP 401", "Correct EMBEDDING_API_KEY."),
    ("HTTP 403", "Correct EMBEDDING_API_KEY, or what the vendor lets that key do."),
    ("HTTP 404", "Correct EMBEDDING_MODEL, and EMBEDDING_BASE_URL, which usually ends in /v1."),
    ("HTTP 429", "The vendor's quota is used up: raise it there, or wait."),
    ("dimensions", "Correct EMBEDDING_DIMENSIONS; memories of other lengths are embedded anew by `manage.py reembed`."),
    ("no connection", "Start the embedder, or correct EMBEDDING_BASE_URL or EMBEDDER_URL."),
)


def register_memory_examinations() -> None:
    """Register them; memory's `ready()` calls it."""
    for name, look, remedy in (
        ("row-level security", _look_at_isolation, _MAKE_ROLE),
        ("stored vectors", _look_at_spaces, "See docs/memory.md."),
    ):
        register_examination(Examination(name=name, run=in_thread(look), needs=READING_TABLES, remedy=remedy))
    register_examination(
        Examination(
            name="embedding",
            run=_look_at_models,
            needs=READING_TABLES,
            remedy="See that the embedder runs, and that EMBEDDING_* or EMBEDDER_URL are right.",
            is_call=True,
        )
    )


def _look_at_isolation() -> Sequence[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [ROLE])
        [exists] = cursor.fetchone() or (False,)
        cursor.execute(_UNHELD)
        unheld = [name for (name,) in cursor.fetchall()]
    if unheld:
        remedy = "As the tables' owner, for each: ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        return [Finding.failed(f"switched off for {', '.join(unheld)}", remedy)]
    if lack := find_lack_of_isolation():
        seen, _, remedy = lack.partition(". ")
        return [Finding.warning(seen if exists else f"{seen}; the role {ROLE} does not exist", remedy)]
    return [Finding.ok("in force")]


def _look_at_spaces() -> Sequence[Finding]:
    if trouble := find_mismatch():
        seen, _, remedy = trouble.partition(". ")
        return [Finding.failed(seen, remedy)]
    if change := find_unfinished_change():
        seen, _, remedy = change.partition(". ")
        return [Finding.warning(seen, remedy)]
    space = active_space()
    return [Finding.ok(f"made by {space}, which the settings name" if space else "none yet")]


async def _look_at_models() -> Sequence[Finding]:
    models = usable_models()
    if not models:
        _, _, remedy = NO_MODEL.partition(". ")
        return [Finding.warning("nothing to embed with: memory is off", remedy)]
    space = await in_thread(active_space)()
    return [await _try(model, space) for model in models]


async def _try(model: EmbeddingModel, space: EmbeddingSpace | None) -> Finding:
    try:
        [vector] = await embed([_TEXT], model=model, timeout_s=_WITHIN_S, cache_s=0)
    except EmbeddingRefused as error:
        return Finding.warning(str(error), "Raise the budget in the admin, or wait.", about=model.name)
    except EmbeddingFailed as error:
        remedy = next((remedy for phrase, remedy in _REMEDIES if phrase in str(error)), "See that the embedder runs and is not overloaded.")
        return Finding.failed(str(error), remedy, about=model.name)
    if space is not None and model.makes(space.model, dimensions=space.dimensions) and len(vector) != space.dimensions:
        seen = f"it gives {len(vector)} dimensions, and {space.dimensions} are stored"
        return Finding.failed(seen, f"Set EMBEDDING_DIMENSIONS={space.dimensions}, or run `manage.py reembed`.", about=model.name)
    return Finding.ok(f"it answers with {len(vector)} dimensions", about=model.name)
