"""What the names mean under which memory keeps people: whose users they are, or which kind of session."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth import get_user_model

from agents.models import KeyOwner
from memory.api import Known

_SESSION = "session/"


def describe_people(people: Sequence[tuple[str, str]]) -> list[Known]:
    """Return what each (namespace, name) means, as `agents.access.callers` made them."""
    kinds = [namespace.partition(":") for namespace, _ in people]
    owners = {str(owner.pk): owner.name for owner in KeyOwner.objects.filter(pk__in=_numbers(kinds, "owner"))}
    editors = {str(user.pk): user.get_username() for user in get_user_model().objects.filter(pk__in=_numbers(kinds, "editor"))}
    found = []
    for (kind, _, number), (namespace, name) in zip(kinds, people, strict=True):
        match kind:
            case "anonymous":
                found.append(Known("", "anonymous session"))
            case "editor":
                found.append(Known("", f"tried by {editors.get(number, 'an editor')}"))
            case "owner":
                whose = owners.get(number, f"key owner {number}")
                found.append(Known("", f"session of {whose}") if name.startswith(_SESSION) else Known(name, whose))
            case _:
                found.append(Known(name, namespace))
    return found


def _numbers(kinds: Sequence[tuple[str, str, str]], wanted: str) -> set[int]:
    return {int(number) for kind, _, number in kinds if kind == wanted and number.isascii() and number.isdigit()}
