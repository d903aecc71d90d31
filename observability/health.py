"""Is this server ready? Each app registers the checks of what it needs; readiness runs them side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_DEADLINE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A check by name. `run` raises when something is wrong; its message, for operators, must hold no secrets.

    Where `required` is false a failure is reported, but the server stays ready: it answers without that part.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Readiness:
    """`checks` maps each check's name to "ok" or to what is wrong."""

    is_ready: bool
    checks: dict[str, str]

    @property
    def status(self) -> str:
        return "unavailable" if not self.is_ready else "ok" if set(self.checks.values()) <= {"ok"} else "degraded"


class Unhealthy(Exception):
    """What a health check found, in words for the operator."""


_checks: dict[str, HealthCheck] = {}


def register_health_check(check: HealthCheck) -> None:
    """Make `check` a part of readiness; one of the same name replaces it."""
    _checks[check.name] = check


async def check_readiness() -> Readiness:
    """Run every registered check, each for at most 3 seconds."""
    checks = list(_checks.values())
    results = await asyncio.gather(*(_run(check) for check in checks))
    failed = any(result != "ok" and check.required for check, result in zip(checks, results, strict=True))
    return Readiness(not failed, {check.name: result for check, result in zip(checks, results, strict=True)})


async def _run(check: HealthCheck) -> str:
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await check.run()
    except TimeoutError:
        return f"no answer within {_DEADLINE_S:.0f} s"
    except Unhealthy as error:
        return str(error)
    except Exception as error:
        # The text of a driver's error may hold an address or a password: its kind is enough here, the log has the rest.
        return type(error).__name__
    return "ok"
