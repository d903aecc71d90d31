"""Two people, or two windows of one, edit a draft at once: no words are lost, and nobody overwrites others unseen.

The edit page carries what it was made from: the version's id and time, and a fingerprint of every field. A form that was
made from something else by now is not saved. What only the colleague changed is taken over; what both changed is shown
side by side, and the person decides.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models
from django.utils import timezone

from agents.models import AgentVersion, Provider
from agents.versions.comparison import DEFAULTED
from agents.versions.content import PROVIDERS

from .forms import VERSION_FIELDS

Values = dict[str, Any]
FALLBACKS: Final = "fallbacks"


@dataclass(frozen=True, kw_only=True)
class Clash:
    """A field that a colleague and the sender of the form both changed."""

    name: str
    label: str
    theirs: str
    mine: str


@dataclass(kw_only=True)
class Conflict:
    """What happened while somebody was editing, in words for them. `is_own`: it was they themselves, in another window."""

    sentence: str
    is_own: bool
    clashes: list[Clash] = field(default_factory=list)
    taken_over: list[str] = field(default_factory=list)


def values_of(version: AgentVersion) -> Values:
    """Return what an editor can change of `version`, with its fallbacks as a list of (provider id, model)."""
    values: Values = {name: getattr(version, attribute_of(name)) for name in VERSION_FIELDS}
    return values | {FALLBACKS: [(row.provider_id, row.model) for row in version.fallbacks.order_by("position")]}


def attribute_of(name: str) -> str:
    """Return the attribute that holds the value of the field `name`: of a provider, its id."""
    return f"{name}_id" if name in PROVIDERS else name


def basis_of(version: AgentVersion) -> str:
    """Return the text that an edit page carries to say what it was made from."""
    prints = {name: _fingerprint(value) for name, value in values_of(version).items()}
    return json.dumps({"version": version.pk, "at": version.updated_at.isoformat(), "prints": prints})


def is_current(basis: str, *, source: AgentVersion) -> bool:
    """Whether a page with `basis` was made from `source` as it is now."""
    read = _read(basis)
    return read.get("version") == source.pk and read.get("at") == source.updated_at.isoformat()


def find_conflict(basis: str, *, source: AgentVersion, mine: Values, editor: AbstractBaseUser) -> tuple[Conflict, Values]:
    """Compare a form (`mine`) that was made from `basis` with `source`, which has changed since.

    Returns the conflict, and the values for the form to show again: the sender's own, plus what only the colleague changed.
    """
    given = _read(basis).get("prints")
    prints: dict[str, Any] = given if isinstance(given, dict) else {}
    theirs = values_of(source)
    is_own = source.published_at is None and source.author_id == editor.pk
    conflict = Conflict(sentence=_what_happened(source, is_own=is_own), is_own=is_own)
    merged = dict(mine)
    for name, their_value in theirs.items():
        if their_value == mine.get(name):
            continue
        if _fingerprint(mine.get(name)) == prints.get(name):
            merged[name] = their_value
            conflict.taken_over.append(label_of(name))
        elif _fingerprint(their_value) != prints.get(name):
            conflict.clashes.append(Clash(name=name, label=label_of(name), theirs=show(name, their_value), mine=show(name, mine.get(name))))
    return conflict, merged


def show(name: str, value: Any) -> str:
    """Return `value` of the field `name` in words."""
    if name == FALLBACKS:
        return "\n".join(f"{position}. {model or 'default model'}" for position, (_, model) in enumerate(value or [], 1)) or "none"
    if value is None or value in ("", []):
        return "the default" if name in DEFAULTED else "empty"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(value)
    if name in PROVIDERS:
        return str(Provider.objects.filter(pk=value).first() or "a provider that was removed")
    choices = dict(_field(name).flatchoices)
    return str(choices.get(value, value))


def _what_happened(source: AgentVersion, *, is_own: bool) -> str:
    who = source.author.get_username() if source.author else "A colleague"
    when = timezone.localtime(source.updated_at).strftime("%H:%M:%S %Z")
    if is_own:
        return f"You saved the draft (v{source.number}) in another window at {when}, while you were editing here."
    if source.published_at is None:
        return f"{who} saved the draft (v{source.number}) at {when}, while you were editing."
    return (
        "While you were editing, the draft was published or discarded, or another version was made live. "
        f"v{source.number} is what answers now."
    )


def label_of(name: str) -> str:
    """Return what the field `name` is called."""
    return "fallback models" if name == FALLBACKS else str(_field(name).verbose_name)


def _field(name: str) -> models.Field[Any, Any]:
    return cast("models.Field[Any, Any]", AgentVersion._meta.get_field(name))


def _fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode("utf-8", "replace")).hexdigest()[:16]


def _read(basis: str) -> dict[str, Any]:
    try:
        read = json.loads(basis)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
