"""Is long-term memory at work? What readiness and `manage.py check` tell of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import structlog
from django.utils import timezone

from memory.embedders.configured import embedding_model, next_embedding_model, usable_models
from memory.isolation import read_standing
from memory.models import Turn
from memory.spaces import active_space, model_of, remedy_for
from observability.api import HealthCheck, Unhealthy, register_health_check, run_burst

log = structlog.get_logger(__name__)

LATE: Final = timedelta(seconds=60)
"""How long a finished turn may wait before something must be wrong."""
NO_MODEL: Final = (
    "Turns wait to be remembered, and there is nothing to embed them with. Set EMBEDDING_BASE_URL or OPENAI_API_KEY, or run "
    "`manage.py embedder` and set EMBEDDER_URL."
)
NO_WORKER: Final = (
    "Turns have waited to be remembered for more than a minute. Run `manage.py worker`; where one runs, its log says what is in the way."
)
NOT_HELD: Final = (
    "Row-level security is not in force: this database user stands above it and may not act as chatbot_app, so that people's memories "
    "are kept apart by the queries alone. Connect as a user that is no superuser and has no BYPASSRLS, or have an administrator of the "
    "database make the role as docs/memory.md says."
)

_SLOW: Final = "Its question to the database did not succeed: have the doctor look at everything."


def register_memory_checks() -> None:
    """Make memory a part of readiness.

    Settings that do not fit what is stored are a fault of the deployment, so that a new release with them is not to take the
    place of one that works. A worker or an embedder that is away is not: chat answers without memory.
    """
    register_health_check(HealthCheck("embedding model", _check_model, remedy=_SLOW))
    register_health_check(HealthCheck("memory", _check_memory, required=False, remedy=_SLOW))


async def _check_model() -> None:
    if trouble := await run_burst(find_mismatch):
        raise Unhealthy(trouble)


async def _check_memory() -> None:
    if trouble := await run_burst(find_trouble):
        raise Unhealthy(trouble)


def find_mismatch() -> str:
    """Return that memories were embedded by a model that the settings do not name, and the remedy; "" where all is well.

    Where they name none at all, memory is switched off, and nothing is amiss.
    """
    space = active_space()
    return remedy_for(space) if space and usable_models() and model_of(space) is None else ""


def find_trouble() -> str:
    """Return what keeps turns from being remembered though the settings fit, and the remedy; "" where nobody asks for memory."""
    waiting = Turn.objects.filter(remember=True, remembered_at=None, finished_at__isnull=False)
    if not usable_models():
        return NO_MODEL if waiting.exists() else ""
    return NO_WORKER if waiting.filter(finished_at__lt=timezone.now() - LATE).exists() else ""


def find_unfinished_change() -> str:
    """Return that memory works with another model than the settings ask for first, and what is to be done; "" where it is that one."""
    space, named, target = active_space(), embedding_model(), next_embedding_model()
    model = model_of(space) if space else None
    if space is None or model is None or named is None:
        return ""
    if target is not None and target.makes(space.model, dimensions=space.dimensions):
        return (
            f"Memories are embedded by {space}, the model to change to. Give EMBEDDING_* the values of EMBEDDING_NEXT_* and remove the "
            "latter; `manage.py reembed --drop-old` deletes the vectors of the former model."
        )
    if not named.makes(space.model, dimensions=space.dimensions):
        return (
            f"Memories are embedded by {space}, and the settings name {named}. Run `manage.py reembed` to change to it, or set "
            f"EMBEDDING_MODEL={space.model} to stay."
        )
    return ""


def find_lack_of_isolation() -> str:
    """Return that the database does not keep people's memories apart by itself, and the remedy; "" where it does."""
    return "" if read_standing().is_held else NOT_HELD


def warn_unless_isolated() -> None:
    """Say so in the log, for who starts this process."""
    if lack := find_lack_of_isolation():
        problem, _, remedy = lack.partition(". ")
        log.warning(problem, remedy=remedy)
