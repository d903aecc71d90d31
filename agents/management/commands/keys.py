"""`manage.py keys create | list | rotate | revoke`: API keys (docs/api-keys.md).

A new key's secret is the only thing that is written to the standard output, so that it can be piped; what is said about it
goes to the standard error.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from agents.access.issuing import HOLDS_WITHIN_S, LONGEST_OVERLAP, IssuedKey, issue_key, revoke_key, rotate_key
from agents.models import Agent, ApiKey, KeyOwner, Scope
from observability.errors import ChatbotError

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_LONGEST: Final = timedelta(days=3650)


def duration(text: str) -> timedelta:
    """Read `30m`, `12h` or `90d`.

    Raises:
        ArgumentTypeError: it is none of these.
    """
    if not (match := re.fullmatch(r"([1-9]\d{0,5})([mhd])", text)):
        raise ArgumentTypeError(f"{text!r} is no duration; write it as 30m, 12h or 90d")
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if length > _LONGEST:
        raise ArgumentTypeError("is longer than ten years")
    return length


class Command(BaseCommand):
    help = "Make, list, rotate and revoke API keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a key and print its secret, once")
        create.add_argument("owner", help="the short name of who uses it, such as web-shop; made where it does not exist")
        create.add_argument("name", help="what the key is for")
        agents = create.add_mutually_exclusive_group(required=True)
        agents.add_argument("--agent", action="append", dest="slugs", metavar="SLUG", help="an agent it may use; may be repeated")
        agents.add_argument("--all-agents", action="store_true", help="it may use every agent, also those made later")
        create.add_argument(
            "--scope", action="append", dest="scopes", choices=Scope.values, help="what it may do; may be repeated; none: only chat"
        )
        create.add_argument("--expires-in", type=duration, metavar="TIME", help="such as 90d or 12h; none: it never expires")
        actions.add_parser("list", help="show every key; secrets are never shown")
        rotate = actions.add_parser("rotate", help="make a successor and print its secret; the old key goes on for a while")
        rotate.add_argument("key_id", metavar="KEY", help="the key's id: the part before the dot")
        rotate.add_argument("--overlap", type=duration, default=timedelta(days=1), metavar="TIME", help="for how long (1d)")
        revoke = actions.add_parser("revoke", help="end a key and its tokens for good")
        revoke.add_argument("key_id", metavar="KEY", help="the key's id: the part before the dot")

    def handle(self, *, action: str, **options: Any) -> None:
        runs: dict[str, Callable[..., None]] = {"create": self._create, "list": self._list, "rotate": self._rotate, "revoke": self._revoke}
        try:
            runs[action](**options)
        except ChatbotError as error:
            raise CommandError(error.detail) from None
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None

    def _create(
        self, *, owner: str, name: str, slugs: list[str] | None, all_agents: bool, scopes: list[str] | None, **options: Any
    ) -> None:
        lifetime: timedelta | None = options["expires_in"]
        with transaction.atomic():
            key_owner = _owner(owner)
            issued = issue_key(
                key_owner,
                name=_checked_name(name),
                scopes=scopes or [Scope.CHAT],
                agents=_agents(slugs or []),
                all_agents=all_agents,
                expires_at=timezone.now() + lifetime if lifetime else None,
            )
        self._show(issued)

    def _list(self, **options: Any) -> None:
        rows = [("KEY", "OWNER", "STATE", "LAST USED", "AGENTS", "SCOPES", "NAME")]
        for key in ApiKey.objects.select_related("owner").prefetch_related("agents"):
            agents = "every agent" if key.all_agents else ",".join(agent.slug for agent in key.agents.all()) or "none"
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            rows.append((key.prefix, key.owner.slug, _state(key), used, agents, ",".join(key.scopes) or "none", key.name))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
        for row in rows:
            self.stdout.write("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))

    def _rotate(self, *, key_id: str, overlap: timedelta, **options: Any) -> None:
        if overlap > LONGEST_OVERLAP:
            raise CommandError(f"The overlap may be at most {LONGEST_OVERLAP.days} days.")
        key = _key(key_id)
        issued = rotate_key(key, overlap=overlap)
        key.refresh_from_db()
        self.stderr.write(f"The old key {key.prefix} goes on until {key.expiry_date:%Y-%m-%d %H:%M} UTC.")
        self._show(issued)

    def _revoke(self, *, key_id: str, **options: Any) -> None:
        key = _key(key_id)
        if key.revoked:
            self.stderr.write(f"The key {key.prefix} was revoked already.")
            return
        revoke_key(key)
        self.stderr.write(f"The key {key.prefix} is revoked; it and its tokens are refused everywhere within {HOLDS_WITHIN_S} seconds.")

    def _show(self, issued: IssuedKey) -> None:
        self.stderr.write(f"The key {issued.key.prefix} of {issued.key.owner}. Its secret is shown now and never again:")
        self.stdout.write(issued.secret)


def _owner(slug: str) -> KeyOwner:
    owner = KeyOwner.objects.filter(slug=slug).first()
    if owner is None:
        owner = KeyOwner(slug=slug, name=slug)
        owner.full_clean()
        owner.save()
    return owner


def _checked_name(name: str) -> str:
    cleaned: str = ApiKey._meta.get_field("name").clean(name.strip(), None)
    return cleaned


def _agents(slugs: list[str]) -> list[Agent]:
    found = {agent.slug: agent for agent in Agent.objects.filter(slug__in=slugs)}
    if absent := sorted(set(slugs) - found.keys()):
        raise CommandError(f"There is no agent called {', '.join(absent)}. `manage.py agents list` shows them all.")
    return list(found.values())


def _key(key_id: str) -> ApiKey:
    key: ApiKey | None = ApiKey.objects.filter(prefix=key_id).first()
    if key is None:
        raise CommandError("There is no such key. Name it by the part before the dot; `manage.py keys list` shows them all.")
    return key


def _state(key: ApiKey) -> str:
    if key.revoked:
        return "revoked"
    if not key.is_usable():
        return "expired"
    return f"until {key.expiry_date:%Y-%m-%d}" if key.expiry_date else "active"
