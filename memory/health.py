"""Is long-term memory at work? What readiness and `manage.py check` tell of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.utils import timezone

from memory.embedders.client import embedding_model
from memory.models import Turn
from memory.spaces import WrongSpace, check_space
from observability.api import HealthCheck, Unhealthy, register_health_check, run_burst

LATE: Final = timedelta(seconds=60)
"""How long a finished turn may wait before something must be wrong."""
NO_MODEL: Final = (
    "Turns wait to be remembered, and there is nothing to embed them with. Set EMBEDDING_BASE_URL or OPENAI_API_KEY, or run "
    "`manage.py embedder` and set EMBEDDER_URL."
)
NO_WORKER: Final = (
    "Turns have waited to be remembered for more than a minute. Run `manage.py worker`; where one runs, its log says what is in the way."
)


def register_memory_checks() -> None:
    # Chat answers without memory: a failure there must not take every replica away.
    register_health_check(HealthCheck("memory", _check_memory, required=False))


async def _check_memory() -> None:
    if trouble := await run_burst(find_trouble):
        raise Unhealthy(trouble)


def find_trouble() -> str:
    """Return what keeps turns from being remembered and recalled, and the remedy; "" where all is well or nobody asks for memory."""
    waiting = Turn.objects.filter(remember=True, remembered_at=None, finished_at__isnull=False)
    model = embedding_model()
    if model is None:
        return NO_MODEL if waiting.exists() else ""
    try:
        check_space(model)
    except WrongSpace as error:
        return str(error)
    return NO_WORKER if waiting.filter(finished_at__lt=timezone.now() - LATE).exists() else ""
