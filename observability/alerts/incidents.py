"""From what is wrong to what is told: incidents open, get worse and end, and each change is a notice for everyone it is for.

An incident and its notices are written in one transaction, under a lock that one worker holds at a time: so there is one of each,
however many workers look, and none is lost. Runs inside a transaction that the caller began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction

from observability.alerts.finding import MOST, Asked, Seen
from observability.alerts.kinds import KINDS, runbook_of
from observability.logs import in_words
from observability.models import AlertKind, AlertRule, AlertTarget, Breaker, Incident, JobFailure, Notice, Telling

log = structlog.get_logger(__name__)

# An arbitrary number, this work's own among the advisory locks of a database.
_LOCK: Final = 6_021_190
# A question that takes longer is given up, and asked again the next time: the database has other things to do.
_PATIENCE: Final = "SET LOCAL statement_timeout = '3s'"
# That an incident goes on is written so often, not at each look.
_SEEN_EVERY: Final = timedelta(minutes=1)
_KEEP_INCIDENTS: Final = timedelta(days=90)
_KEEP_FAILURES: Final = timedelta(days=7)
MOST_CHARS: Final = 350
"""A notice is at most so long, so that several fit into a message."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an incident."""

    incident: Incident
    telling: Telling
    text: str


def look(*, now: datetime) -> list[Change] | None:
    """Look at everything that is watched, and write what changed; None where another process is at it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if cursor.fetchone() != (True,):
            return None
        cursor.execute(_PATIENCE)
    everybody = list(AlertTarget.objects.filter(is_active=True))
    changes: list[Change] = []
    for rule in AlertRule.objects.prefetch_related("targets"):
        try:
            with transaction.atomic():
                found = _judge(rule, now=now)
                _write_notices(rule, found, everybody=everybody, now=now)
        except DatabaseError as error:  # of one rule: the others are looked at all the same
            log.warning("alert rule not looked at", rule=rule.kind, reason=in_words(error))
            continue
        changes += found
    return changes


def forget_old(*, now: datetime) -> None:
    """Delete what ended long ago: incidents and breakers after 90 days, failures of background work after 7."""
    Incident.objects.filter(resolved_at__lt=now - _KEEP_INCIDENTS).delete()
    Breaker.objects.filter(closed_at__lt=now - _KEEP_INCIDENTS).delete()
    Breaker.objects.filter(closed_at=None, seen_at__lt=now - _KEEP_INCIDENTS).delete()
    JobFailure.objects.filter(at__lt=now - _KEEP_FAILURES).delete()


def _judge(rule: AlertRule, *, now: datetime) -> list[Change]:
    kind = KINDS[AlertKind(rule.kind)]
    asked = Asked(now=now, threshold=rule.threshold, window=timedelta(seconds=rule.window_s))
    seen = kind.find(asked) if rule.is_active else []
    running = {incident.subject: incident for incident in Incident.objects.filter(rule=rule, resolved_at=None).select_for_update()}
    changes = []
    for one in seen:
        incident = running.pop(one.subject, None) or _begin(rule, one, now=now)
        changes += _go_on(rule, incident, one, now=now)
    if len(seen) < MOST:  # otherwise the rest may only not have been looked at
        changes += [change for incident in running.values() for change in _clear(rule, incident, now=now)]
    return changes


def _begin(rule: AlertRule, seen: Seen, *, now: datetime) -> Incident:
    return Incident.objects.create(
        rule=rule,
        subject=seen.subject,
        name=seen.name[:300],
        text=_cut(seen.text),
        value=seen.value,
        level=seen.level,
        first_seen_at=now,
        last_seen_at=now,
    )


def _go_on(rule: AlertRule, incident: Incident, seen: Seen, *, now: datetime) -> list[Change]:
    telling = _what_to_tell(rule, incident, seen, now=now)
    is_changed = telling or incident.clear_since or seen.level != incident.level or now - incident.last_seen_at >= _SEEN_EVERY
    if not is_changed:
        return []
    incident.clear_since = None
    incident.last_seen_at = now
    incident.level, incident.value, incident.text = seen.level, seen.value, _cut(seen.text)
    if telling:
        incident.opened_at = incident.opened_at or now
        incident.told_at = now
    incident.save()
    return [Change(incident, telling, incident.text)] if telling else []


def _what_to_tell(rule: AlertRule, incident: Incident, seen: Seen, *, now: datetime) -> Telling | None:
    if incident.opened_at is None:
        return Telling.OPENED if now - incident.first_seen_at >= timedelta(seconds=rule.holds_s) else None
    if seen.level > incident.level:
        return Telling.WORSE
    if rule.again_every_s and incident.told_at and now - incident.told_at >= timedelta(seconds=rule.again_every_s):
        return Telling.AGAIN
    return None


def _clear(rule: AlertRule, incident: Incident, *, now: datetime) -> list[Change]:
    if incident.opened_at is None:
        incident.delete()  # it did not hold, and nobody was told
        return []
    incident.clear_since = incident.clear_since or now
    is_over = not rule.is_active or now - incident.clear_since >= timedelta(seconds=rule.clears_s)
    if is_over:
        incident.resolved_at = now
    incident.save()
    if not is_over:
        return []
    why = KINDS[AlertKind(rule.kind)].over if rule.is_active else "its rule was switched off"
    lasted = max(1, round((now - incident.opened_at) / timedelta(minutes=1)))
    return [Change(incident, Telling.RESOLVED, _cut(f"{incident.name}: {why} (after {lasted:,} min)."))]


def _write_notices(rule: AlertRule, changes: Sequence[Change], *, everybody: Sequence[AlertTarget], now: datetime) -> None:
    if not changes:
        return
    chosen = list(rule.targets.all())
    receivers: set[int | None] = {target.pk for target in chosen or everybody if target.is_active}
    if settings.ALERT_WEBHOOK_URL:
        receivers.add(None)
    notices = []
    for change in changes:
        told = receivers
        if change.telling is Telling.RESOLVED:
            # Who was told that it began is told that it is over, whoever else the rule is for by now.
            told = set(Notice.objects.filter(incident=change.incident).values_list("target_id", flat=True))
            told &= {target.pk for target in everybody} | {None}
        text = _with_remedy(rule, change)
        notices += [
            Notice(incident=change.incident, target_id=target_id, telling=change.telling, text=text, created_at=now, due_at=now)
            for target_id in told
        ]
    Notice.objects.bulk_create(notices)


def _with_remedy(rule: AlertRule, change: Change) -> str:
    if change.telling is Telling.RESOLVED:
        return change.text
    return _cut(f"{change.text} {KINDS[AlertKind(rule.kind)].remedy} ({runbook_of(rule.kind)})", most=400)


def _cut(text: str, *, most: int = MOST_CHARS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
