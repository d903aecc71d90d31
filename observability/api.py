"""The door of `observability`: what other apps may use of it, beside its `errors`, `logs` and `outbound`."""

from __future__ import annotations

from observability.bursts import GroupCommit, run_burst
from observability.connections import connection_parameters
from observability.health import HealthCheck, Unhealthy, register_health_check
from observability.tokens import count_tokens, count_tokens_of_prompt, most_tokens

__all__ = [
    "GroupCommit",
    "HealthCheck",
    "Unhealthy",
    "connection_parameters",
    "count_tokens",
    "count_tokens_of_prompt",
    "most_tokens",
    "register_health_check",
    "run_burst",
]
