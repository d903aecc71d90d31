"""Notices go out: what waits for a target is one message, tried again until it is taken, by one worker at a time.

A notice is taken with a lease, sent, and then noted as sent. A worker that dies between the last two leaves it to the next one, which
sends it again when the lease is over: told twice at worst, never not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import httpx2
import structlog
from django.conf import settings
from django.db.models import Q, QuerySet

from observability.alerts.delivery import Message, NotTaken, deliver, post_to_webhook
from observability.bursts import run_burst
from observability.counting import count_alert
from observability.models import AlertRule, AlertTarget, Notice, NoticeState, TargetKind, Telling

log = structlog.get_logger(__name__)

LEASE: Final = timedelta(seconds=90)
"""How long a worker may take over a message; longer than any delivery."""
GIVE_UP_AFTER: Final = timedelta(days=3)
_FIRST_WAIT_S: Final = 10.0
_LONGEST_WAIT_S: Final = 300.0
# Discord takes 2,000 characters, and nobody reads more; mail holds a whole night's digest.
_MOST_CHARS: Final = 1800
_MOST_CHARS_BY_MAIL: Final = 20_000
_MOST_NOTICES: Final = 100
_WORDS: Final = {Telling.OPENED: "NEW", Telling.WORSE: "WORSE", Telling.AGAIN: "STILL", Telling.RESOLVED: "OVER"}


@dataclass(frozen=True, slots=True)
class Batch:
    """What one target is told in one message; target None: ALERT_WEBHOOK_URL."""

    target: AlertTarget | None
    notices: Sequence[Notice]

    @property
    def target_kind(self) -> str:
        return self.target.kind if self.target else TargetKind.WEBHOOK.value

    @property
    def message(self) -> Message:
        rules = [notice.incident.rule for notice in self.notices]
        over = sum(notice.telling == Telling.RESOLVED for notice in self.notices)
        return Message(_title(rules, over=over), "\n".join(map(_line, self.notices)), _mood(rules, is_over=over == len(rules)))


def waiting_targets(*, now: datetime, but: Collection[int | None] = ()) -> list[int | None]:
    """Return the targets that something is to be told now, `but` for some."""
    due = _due(now).values_list("target_id", flat=True).distinct()
    return [target_id for target_id in due.order_by() if target_id not in but]


def take(target_id: int | None, *, now: datetime) -> Batch | None:
    """Take what a target is to be told now, for this process alone; None where another took it, or its hours are quiet."""
    due = _due(now).filter(target_id=target_id)
    target = AlertTarget.objects.filter(pk=target_id).first() if target_id else None
    if target and is_quiet(target, now):
        due = due.filter(incident__rule__is_critical=True)
    locked = due.select_related("incident__rule").select_for_update(of=("self",), skip_locked=True).order_by("id")[:_MOST_NOTICES]
    notices = _that_fit(list(locked), most=_MOST_CHARS_BY_MAIL if target and target.kind == TargetKind.EMAIL else _MOST_CHARS)
    if not notices:
        return None
    Notice.objects.filter(pk__in=[notice.pk for notice in notices]).update(leased_until=now + LEASE)
    return Batch(target, notices)


async def send(batch: Batch, *, client: httpx2.AsyncClient) -> str:
    """Send a batch and return why it was not taken, "" if it was. `client` is for ALERT_WEBHOOK_URL."""
    try:
        if batch.target is None:
            await post_to_webhook(client, batch.message)
        else:
            await deliver(batch.message, to=batch.target)
    except NotTaken as reason:
        log.warning("alert not taken", target=batch.target.name if batch.target else "ALERT_WEBHOOK_URL", reason=str(reason))
        count_alert(target_kind=batch.target_kind, result="failed")
        return str(reason)
    count_alert(target_kind=batch.target_kind, result="sent")
    return ""


def note(batch: Batch, *, error: str, now: datetime) -> None:
    """Note what became of a batch: sent, or to be tried again later, for three days."""
    for notice in batch.notices:
        notice.leased_until = None
        notice.tries += 1
        notice.last_error = error[:300]
        if not error:
            notice.state, notice.sent_at = NoticeState.SENT, now
        elif now - notice.created_at >= GIVE_UP_AFTER:
            notice.state = NoticeState.GIVEN_UP
        else:
            notice.due_at = now + timedelta(seconds=min(_FIRST_WAIT_S * 2.0 ** min(notice.tries - 1, 10), _LONGEST_WAIT_S))
    Notice.objects.bulk_update(batch.notices, ["leased_until", "tries", "last_error", "state", "sent_at", "due_at"])


def give_up_for(target: AlertTarget) -> int:
    """Give up what waits for `target`, which was switched off, and return how much; switched on again, it is told what is new."""
    return Notice.objects.filter(target=target, state=NoticeState.WAITING).update(
        state=NoticeState.GIVEN_UP, last_error="the target was switched off"
    )


def give_up_for_nobody() -> None:
    """Give up what waits for a target that is off, or for ALERT_WEBHOOK_URL where it is not set any more."""
    waiting = Notice.objects.filter(state=NoticeState.WAITING)
    waiting.filter(target__is_active=False).update(state=NoticeState.GIVEN_UP, last_error="the target was switched off")
    if not settings.ALERT_WEBHOOK_URL:
        waiting.filter(target=None).update(state=NoticeState.GIVEN_UP, last_error="ALERT_WEBHOOK_URL is not set any more")


async def send_due(client: httpx2.AsyncClient, *, now: datetime) -> int:
    """Send everything that is due, one target after the other, and return how many messages were taken."""
    sent = 0
    for target_id in await run_burst(waiting_targets, now=now):
        while await send_to(target_id, client=client, now=now):
            sent += 1
    return sent


async def send_to(target_id: int | None, *, client: httpx2.AsyncClient, now: datetime) -> bool:
    """Send one message to a target, if something is due; tell whether it was taken."""
    batch = await run_burst(take, target_id, now=now)
    if batch is None:
        return False
    error = await send(batch, client=client)
    await run_burst(note, batch, error=error, now=now)
    return not error


def is_quiet(target: AlertTarget, now: datetime) -> bool:
    """Tell whether `now` is in the quiet hours of `target`, by its own clock; they may lie around midnight."""
    if target.quiet_from is None or target.quiet_until is None:
        return False
    time = now.astimezone(ZoneInfo(target.time_zone)).time().replace(tzinfo=None)
    if target.quiet_from <= target.quiet_until:
        return target.quiet_from <= time < target.quiet_until
    return time >= target.quiet_from or time < target.quiet_until


def _due(now: datetime) -> QuerySet[Notice]:
    due = Notice.objects.filter(Q(leased_until=None) | Q(leased_until__lt=now), state=NoticeState.WAITING, due_at__lte=now)
    wanted = Q(target__is_active=True)
    return due.filter(wanted | Q(target=None) if settings.ALERT_WEBHOOK_URL else wanted)


def _that_fit(notices: Sequence[Notice], *, most: int) -> list[Notice]:
    fitting: list[Notice] = []
    left = most
    for notice in notices:
        left -= len(_line(notice)) + 1
        if left < 0 and fitting:
            break
        fitting.append(notice)
    return fitting


def _line(notice: Notice) -> str:
    return f"{_WORDS[Telling(notice.telling)]}: {notice.text}"


def _title(rules: Sequence[AlertRule], *, over: int) -> str:
    where = f"[{settings.ENVIRONMENT_NAME}] " if settings.ENVIRONMENT_NAME else ""
    new = len(rules) - over
    if len(rules) == 1:
        return f"{where}{'Over' if over else 'Alert'}: {rules[0].get_kind_display()}"
    parts = [f"{new} {'alert' if new == 1 else 'alerts'}"] if new else []
    return where + ", ".join([*parts, f"{over} over"] if over else parts)


def _mood(rules: Sequence[AlertRule], *, is_over: bool) -> str:
    if is_over:
        return "success"
    return "failure" if any(rule.is_critical for rule in rules) else "warning"
