"""*Send test*: a message goes to a target now, and what happened is told as it was."""

from __future__ import annotations

import asyncio

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse

from observability.alerts.delivery import Message, NotTaken, deliver, post_to_webhook
from observability.alerts.kinds import KINDS, runbook_of
from observability.bursts import run_burst
from observability.models import AlertKind, AlertRule, AlertTarget
from observability.outbound import new_client


async def test_target(request: HttpRequest, target_id: int) -> HttpResponseBase:
    """Send a test to a saved target, active or not, and answer `{"ok", "text"}`. No database connection is held meanwhile."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    target = await run_burst(_admit_to_target, request, target_id)
    error = await _try(target, _message("Test", "TEST: alerts arrive here."))
    return JsonResponse({"ok": not error, "text": f"It was not taken: {error}." if error else "It was taken. See that it arrived."})


async def test_rule(request: HttpRequest, rule_id: int) -> HttpResponseBase:
    """Send an example of a rule's alert to everybody it is for, and answer `{"ok", "text"}`."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    rule, targets = await run_burst(_admit_to_rule, request, rule_id)
    if not targets:
        return JsonResponse({"ok": False, "text": "Nobody is told: add a target, or set ALERT_WEBHOOK_URL."})
    kind = KINDS[AlertKind(rule.kind)]
    message = _message(
        f"Test of “{rule.get_kind_display()}”", f"TEST, with made-up values: {kind.example} {kind.remedy} ({runbook_of(rule.kind)})"
    )
    errors = await asyncio.gather(*(_try(target, message) for target in targets))
    lines = [f"{_name(target)}: {f'not taken, {error}' if error else 'taken'}" for target, error in zip(targets, errors, strict=True)]
    return JsonResponse({"ok": not any(errors), "text": "; ".join(lines) + "."})


async def _try(target: AlertTarget | None, message: Message) -> str:
    try:
        if target is not None:
            await deliver(message, to=target)
        else:
            async with new_client() as client:
                await post_to_webhook(client, message)
    except NotTaken as reason:
        return str(reason)
    return ""


def _message(title: str, body: str) -> Message:
    return Message(f"[{settings.ENVIRONMENT_NAME}] {title}" if settings.ENVIRONMENT_NAME else title, body)


def _name(target: AlertTarget | None) -> str:
    return target.name if target else "ALERT_WEBHOOK_URL"


def _admit_to_target(request: HttpRequest, target_id: int) -> AlertTarget:
    _admit(request, "observability.change_alerttarget")
    target = AlertTarget.objects.filter(pk=target_id).first()
    if target is None:
        raise Http404
    return target


def _admit_to_rule(request: HttpRequest, rule_id: int) -> tuple[AlertRule, list[AlertTarget | None]]:
    _admit(request, "observability.change_alertrule")
    rule = AlertRule.objects.filter(pk=rule_id).first()
    if rule is None:
        raise Http404
    chosen = list(rule.targets.all()) or list(AlertTarget.objects.all())
    targets: list[AlertTarget | None] = [target for target in chosen if target.is_active]
    return rule, [*targets, None] if settings.ALERT_WEBHOOK_URL else targets


def _admit(request: HttpRequest, permission: str) -> None:
    person = request.user
    if not (person.is_active and person.is_staff and person.has_perm(permission)):
        raise PermissionDenied
