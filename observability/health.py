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
    `remedy` is what to do where `run` says nothing of that: it did not end in time, or raised what is not `Unhealthy`.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    required: bool = True
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: "ok" or what is wrong, and what to do where those words do not say so."""

    check: HealthCheck
    result: str
    remedy: str = ""

    @property
    def is_ok(self) -> bool:
        return self.result == "ok"


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
    found = await run_checks(deadline_s=_DEADLINE_S)
    failed = any(not checked.is_ok and checked.check.required for checked in found)
    return Readiness(not failed, {checked.check.name: checked.result for checked in found})


async def run_checks(*, deadline_s: float) -> list[Checked]:
    """Run every registered check side by side, each for at most `deadline_s`, and return what each found."""
    return await asyncio.gather(*(_run(check, deadline_s) for check in _checks.values()))


async def _run(check: HealthCheck, deadline_s: float) -> Checked:
    try:
        async with asyncio.timeout(deadline_s):
            await check.run()
    except TimeoutError:
        return Checked(check, f"no answer within {deadline_s:g} s", check.remedy)
    except Unhealthy as error:
        return Checked(check, str(error))
    except Exception as error:
        # The text of a driver's error may hold an address or a password: its kind is enough here, the log has the rest.
        return Checked(check, type(error).__name__, check.remedy)
    return Checked(check, "ok")
