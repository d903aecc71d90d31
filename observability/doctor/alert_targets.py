"""Examination of where alerts go: whether each target can be reached, without sending anything, and what it last did not take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import httpx2
from django.conf import settings

from observability.alerts.addresses import Address, address_of
from observability.doctor.examination import READING_TABLES, Examination, Finding, in_thread, register_examination
from observability.models import AlertTarget, Notice, NoticeState, TargetKind
from observability.outbound import OutboundRefused, new_client
from observability.sealing import Unreadable

_WITHIN_S: Final = 4.0
_MAIL_PORTS: Final = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}
_LATELY: Final = timedelta(days=1)
_CHECK: Final = "Check its address in the admin under Alert targets, and press *Send test*."


def register_alert_examination() -> None:
    """Register it; observability's `ready()` calls it."""
    register_examination(Examination(name="alert targets", run=_look_at_targets, needs=READING_TABLES, remedy=_CHECK))


async def _look_at_targets() -> Sequence[Finding]:
    targets = await in_thread(_read_targets)()
    looks = [_look_at_target(target, trouble) for target, trouble in targets]
    if url := settings.ALERT_WEBHOOK_URL:
        looks.append(_reach("ALERT_WEBHOOK_URL", url, remedy="Correct ALERT_WEBHOOK_URL."))
    if not looks:
        return [Finding.warning("nobody is told of anything", "Add a target in the admin under Alert targets, or set ALERT_WEBHOOK_URL.")]
    return await asyncio.gather(*looks)


def _read_targets() -> list[tuple[AlertTarget, str]]:
    """Return each target with why it did not take the last message, if it did not."""
    since, found = datetime.now(UTC) - _LATELY, []
    for target in AlertTarget.objects.filter(is_active=True):
        last = Notice.objects.filter(target=target, tries__gt=0, created_at__gt=since).order_by("-id").first()
        found.append((target, last.last_error if last and last.state != NoticeState.SENT else ""))
    return found


async def _look_at_target(target: AlertTarget, trouble: str) -> Finding:
    if trouble:
        return Finding.failed(f"it did not take the last alert: {trouble}", _CHECK, about=target.name)
    try:
        address = address_of(target)
    except Unreadable:
        remedy = "Enter it again, or put the earlier SECRET_KEY into SECRET_KEY_FALLBACKS."
        return Finding.failed("its address cannot be read: SECRET_KEY changed", remedy, about=target.name)
    if target.kind == TargetKind.EMAIL:
        return await _reach_mail_server(target.name, address)
    if target.kind == TargetKind.APPRISE:
        return Finding.ok("not tried: only a message shows whether it arrives", about=target.name)
    return await _reach(target.name, address.to, remedy=_CHECK)


async def _reach(name: str, url: str, *, remedy: str) -> Finding:
    """Ask for the root of the target's host: whatever is answered, it is there. Its own address would be a secret sent for nothing."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_WITHIN_S), new_client() as client:
            await client.head(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/", timeout=_WITHIN_S)
    except OutboundRefused as error:
        return Finding.failed(str(error), "Add the host to OUTBOUND_ALLOWED_HOSTS if alerts may go there.", about=name)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
        return Finding.failed(
            f"{parts.hostname} cannot be reached", f"{remedy} See that this machine may open connections to it.", about=name
        )
    return Finding.ok(f"{parts.hostname} can be reached", about=name)


async def _reach_mail_server(name: str, address: Address) -> Finding:
    if not address.mail_server:
        return Finding.failed("there is no mail server", "Set EMAIL_URL, or enter the target's own.", about=name)
    parts = urlsplit(address.mail_server)
    try:
        async with asyncio.timeout(_WITHIN_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or _MAIL_PORTS[parts.scheme])
        writer.close()
    except (OSError, TimeoutError):
        return Finding.failed(
            f"the mail server {parts.hostname} cannot be reached", "Correct EMAIL_URL, or the target's own server.", about=name
        )
    return Finding.ok(f"the mail server {parts.hostname} can be reached", about=name)
