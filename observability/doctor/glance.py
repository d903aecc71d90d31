"""What is wrong now, at a glance: what a page may ask each time that it is opened, because nobody outside is called for it."""

from __future__ import annotations

from asgiref.sync import async_to_sync

from observability.alerts.standing import failing_targets
from observability.breakers import open_breakers
from observability.doctor.examination import Finding
from observability.health import Checked, run_checks

Named = tuple[str, Finding]
"""A finding, and what it is about."""


def look_at_readiness(*, deadline_s: float) -> list[Named]:
    """Return what the checks of `/health/ready` find, each within `deadline_s`; to be called without an event loop of its own."""
    return [(checked.check.name, _finding_of(checked)) for checked in async_to_sync(run_checks)(deadline_s=deadline_s)]


def _finding_of(checked: Checked) -> Finding:
    if checked.is_ok:
        return Finding.ok("ok")
    found = Finding.failed if checked.check.required else Finding.warning
    return found(checked.result, checked.remedy)


def look_at_breakers() -> list[Named]:
    """Return a fault for each model that is left alone."""
    remedy = "It is tried again by itself. See docs/runbooks/breaker_open.md."
    return [
        (f"model {it.model} at {it.provider}", Finding.failed(f"left alone since {it.opened_at:%Y-%m-%d %H:%M} UTC: {it.reason}", remedy))
        for it in open_breakers()
    ]


def look_at_alert_targets() -> list[Named]:
    """Return a warning for each alert target that did not take what it was sent."""
    remedy = "Check its address under Alert targets, and press Send test; what it did not take is sent again by itself."
    return [
        (f"alert target {target.name}", Finding.warning(f"did not take the last notice: {target.error}", remedy))
        for target in failing_targets()
    ]
