"""How alerting stands, for pages and checks elsewhere: the latest incidents, and targets that do not take what they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import F

from observability.models import AlertKind, AlertRule, AlertTarget, Incident, Notice, NoticeState


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentLine:
    """An incident as a list shows it. `resolved_at` None: it goes on."""

    id: int
    title: str
    text: str
    opened_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailingTarget:
    """A target that something waits for, and why it did not take it."""

    name: str
    error: str


def latest_incidents(*, limit: int) -> list[IncidentLine]:
    """Return the latest incidents, those that go on first."""
    told = Incident.objects.filter(opened_at__isnull=False).select_related("rule")
    return [
        IncidentLine(
            id=incident.pk,
            title=str(incident.rule).capitalize(),
            text=incident.text,
            opened_at=incident.opened_at,
            resolved_at=incident.resolved_at,
        )
        for incident in told.order_by(F("resolved_at").desc(nulls_first=True), "-id")[:limit]
        if incident.opened_at is not None
    ]


def failing_targets() -> list[FailingTarget]:
    """Return the targets that have not taken what they were last sent."""
    waiting = Notice.objects.filter(state=NoticeState.WAITING).exclude(last_error="").select_related("target").order_by("target_id", "-id")
    found: dict[str, FailingTarget] = {}
    for notice in waiting:
        name = notice.target.name if notice.target else "ALERT_WEBHOOK_URL"
        found.setdefault(name, FailingTarget(name, notice.last_error))
    return list(found.values())


def who_is_told(kind: AlertKind) -> list[str]:
    """Return the names of those who are told of trouble of this kind; none where its rule is off."""
    rule = AlertRule.objects.filter(kind=kind, is_active=True).first()
    if rule is None:
        return []
    chosen = rule.targets.all() if rule.targets.exists() else AlertTarget.objects.all()
    names = list(chosen.filter(is_active=True).order_by("name").values_list("name", flat=True))
    return names + (["ALERT_WEBHOOK_URL"] if settings.ALERT_WEBHOOK_URL else [])
