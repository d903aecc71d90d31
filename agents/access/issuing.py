"""Making, rotating and revoking API keys: for the admin and for `manage.py keys` alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from agents.errors import Conflict
from agents.models import Agent, ApiKey, KeyOwner
from observability.api import hand_on_limits, share_budgets

LONGEST_OVERLAP: Final = timedelta(days=90)
HOLDS_WITHIN_S: Final = 5
"""How soon every process knows of a change."""


class NotRotatable(Conflict):
    """The key cannot be given a successor."""

    code = "key-not-rotatable"
    title = "The key cannot be rotated"
    remedy = "Make a new key instead."


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, and its secret, which is known now and never again."""

    key: ApiKey
    secret: str


def issue_key(
    owner: KeyOwner,
    *,
    name: str,
    scopes: Iterable[str],
    agents: Iterable[Agent] = (),
    all_agents: bool = False,
    expires_at: datetime | None = None,
    author: User | None = None,
    replaces: ApiKey | None = None,
    maker: ApiKey | None = None,
) -> IssuedKey:
    """Make a key of `owner`. Without scopes, or without agents, it opens nothing.

    It spends from the budgets of the key that made it, and of the one that it replaces, too.
    """
    with transaction.atomic():
        made, secret = ApiKey.objects.create_key(
            owner=owner,
            name=name,
            scopes=sorted(set(scopes)),
            all_agents=all_agents,
            expiry_date=expires_at,
            author=author,
            replaces=replaces,
        )
        key = ApiKey.objects.get(pk=made.pk)
        key.agents.set(agents)
        share_budgets([payer.prefix for payer in (maker, replaces) if payer], key=key.prefix)
    return IssuedKey(key, secret)


def rotate_key(key: ApiKey, *, overlap: timedelta, author: User | None = None, maker: ApiKey | None = None) -> IssuedKey:
    """Make a successor that may do the same within the same budgets, and let `key` go on for `overlap`, so that clients can change over.

    A key that was made for a while has a successor that lives as long, counted from now.

    Raises:
        NotRotatable: it is revoked or expired, or has a successor already.
    """
    now = timezone.now()
    with transaction.atomic():
        old = ApiKey.objects.select_for_update(of=("self",)).select_related("owner").get(pk=key.pk)
        if not old.is_usable(at=now):
            raise NotRotatable("The key is revoked or expired. Make a new key instead.")
        if successor := ApiKey.objects.filter(replaces=old).first():
            raise NotRotatable(f"The key was rotated already: {successor.prefix} takes its place. Rotate that one.")
        issued = issue_key(
            old.owner,
            name=old.name,
            scopes=old.scopes,
            agents=old.agents.all(),
            all_agents=old.all_agents,
            expires_at=now + (old.expiry_date - old.created) if old.expiry_date else None,
            author=author,
            replaces=old,
            maker=maker,
        )
        hand_on_limits(old.prefix, to=issued.key.prefix)
        ends_at = now + overlap
        old.expiry_date = min(old.expiry_date, ends_at) if old.expiry_date else ends_at
        old.save(update_fields=["expiry_date"])
    return issued


def revoke_key(key: ApiKey) -> None:
    """End `key`, and the tokens it issued, for good; every process knows within seconds."""
    key.revoked = True
    key.save(update_fields=["revoked"])
