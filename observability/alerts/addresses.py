"""Targets' addresses: what people paste, kept sealed, and what of it may be shown. Nothing shows an address again."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from observability.models import AlertTarget, TargetKind
from observability.sealing import seal, unseal

PURPOSE: Final = b"observability.alerts.addresses"
_WEBHOOK: Final = re.compile(r"https?://[!-~]+")
_SHAPES: Final = {
    TargetKind.SLACK: (
        re.compile(r"https?://[!-~]+/(services|workflows|triggers)/[!-~]+"),
        "A Slack webhook looks like https://hooks.slack.com/services/T000/B000/XXXX.",
    ),
    TargetKind.DISCORD: (
        re.compile(r"https?://[!-~]+/api/webhooks/\d+/[!-~]+"),
        "A Discord webhook looks like https://discord.com/api/webhooks/1234/XXXX.",
    ),
    TargetKind.WEBHOOK: (_WEBHOOK, "A webhook's address begins with https:// and has no spaces."),
    TargetKind.APPRISE: (re.compile(r"[a-z0-9]+://[!-~]+"), "An Apprise URL looks like tgram://TOKEN/CHAT."),
}
_SERVER: Final = re.compile(r"(smtp|smtps|smtp\+starttls)://[!-~]+")
SERVER_HELP: Final = "A mail server looks like smtps://user:password@smtp.example.com:465?from=alerts@example.com."


@dataclass(frozen=True, slots=True)
class Address:
    """Where a target is. Of e-mail `to` holds the people, with commas between them, and `server` where to hand it in: "" for EMAIL_URL."""

    to: str
    server: str = ""

    @property
    def mail_server(self) -> str:
        return self.server or str(settings.EMAIL_URL)


def read_address(kind: str, to: str, *, server: str = "") -> Address:
    """Return the address that somebody typed.

    Raises:
        ValidationError: says what to write instead; it holds nothing of what was typed.
    """
    to, server = to.strip(), server.strip()
    if kind != TargetKind.EMAIL:
        shape, remedy = _SHAPES[TargetKind(kind)]
        if not shape.fullmatch(to) or not _has_host(to):
            raise ValidationError(remedy)
        return Address(to)
    people = [person.strip() for person in to.split(",") if person.strip()]
    for person in people or [""]:
        try:
            validate_email(person)
        except ValidationError:
            raise ValidationError("Enter one or more e-mail addresses, with commas between them.") from None
    if server and not (_SERVER.fullmatch(server) and _has_host(server)):
        raise ValidationError(SERVER_HELP)
    return Address(", ".join(people), server)


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).netloc)
    except ValueError:
        return False


def set_address(target: AlertTarget, address: Address) -> None:
    """Seal `address` into `target`, which is not saved, with what may be shown of it: people's addresses, or a host."""
    target.sealed_address = seal(json.dumps(asdict(address)), purpose=PURPOSE)
    if target.kind == TargetKind.EMAIL:
        target.shown_as = address.to[:200]
    elif target.kind == TargetKind.APPRISE:
        target.shown_as = f"{urlsplit(address.to).scheme}://…"  # where others have a host, some have their secret
    else:
        target.shown_as = (urlsplit(address.to).hostname or "")[:200]


def address_of(target: AlertTarget) -> Address:
    """Return where `target` is.

    Raises:
        Unreadable: SECRET_KEY changed since it was stored.
    """
    return Address(**json.loads(unseal(target.sealed_address, purpose=PURPOSE)))
