"""What differs between two versions, field by field, in the words of the edit page."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.db import models

from agents.models import AgentVersion

from .content import PROVIDERS, Content, content_fields, content_of

CONTEXT_LINES: Final = 2
DEFAULTED: Final = frozenset({*PROVIDERS, "model", "simple_model", "classifier_model", "summary_model", "temperature", "top_p"})
"""Fields that stand for a default where they are empty."""
SWITCHED_OFF: Final = frozenset({"reply_similarity"})
"""Fields that switch something off where they are empty."""
# Beyond this many lines an exact diff may take seconds; the whole text is shown as replaced instead.
MAX_DIFF_LINES: Final = 5_000


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a text's diff; `gap` stands for unchanged lines that are left out."""

    kind: Literal["same", "removed", "added", "gap"]
    text: str


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs. `old` and `new` are for people; `diff` has the lines of long texts, and is empty otherwise."""

    field: str
    label: str
    old: str
    new: str
    diff: tuple[DiffLine, ...] = ()


def compare(old: AgentVersion | None, new: AgentVersion) -> list[FieldChange]:
    """Return what `new` changes against `old`, in the order of the model's fields; against None, everything it says."""
    return compare_contents(content_of(old) if old else None, content_of(new))


def compare_contents(old: Content | None, new: Content) -> list[FieldChange]:
    """Return what the content `new` changes against `old`."""
    changes = []
    for name in content_fields():
        before, after = (old.fields[name] if old else None), new.fields[name]
        if before != after and (old or after not in (None, "", [])):
            changes.append(_change(name, before, after, is_first=old is None))
    fallbacks_before = old.fallbacks if old else ()
    if fallbacks_before != new.fallbacks:
        changes.append(
            FieldChange(
                field="fallbacks", label="Fallback models", old=_fallbacks(fallbacks_before) if old else "", new=_fallbacks(new.fallbacks)
            )
        )
    return changes


def diff_lines(old: str, new: str) -> tuple[DiffLine, ...]:
    """Return the line-wise diff of two texts, with two unchanged lines around each change.

    A line break at the end that only one of them has shows as an empty line.
    """
    before, after = _lines(old), _lines(new)
    if before and after and before[-1] == after[-1] == "":
        before, after = before[:-1], after[:-1]
    if len(before) + len(after) > MAX_DIFF_LINES:
        return tuple([DiffLine("removed", line) for line in before] + [DiffLine("added", line) for line in after])
    return tuple(_grouped(before, after))


def _lines(text: str) -> list[str]:
    # Only at "\n": a change of the last line's end, or of a rarer line break, shall show.
    return text.split("\n") if text else []


def _grouped(before: list[str], after: list[str]) -> Iterator[DiffLine]:
    shown = 0
    for group in difflib.SequenceMatcher(a=before, b=after).get_grouped_opcodes(CONTEXT_LINES):
        if group[0][1] > shown:
            yield DiffLine("gap", "")
        for tag, from_a, to_a, from_b, to_b in group:
            if tag == "equal":
                yield from (DiffLine("same", line) for line in before[from_a:to_a])
                continue
            yield from (DiffLine("removed", line) for line in before[from_a:to_a])
            yield from (DiffLine("added", line) for line in after[from_b:to_b])
        shown = group[-1][2]
    if shown and shown < len(before):
        yield DiffLine("gap", "")


def _change(name: str, old: Any, new: Any, *, is_first: bool) -> FieldChange:
    field = next(field for field in AgentVersion._meta.concrete_fields if field.name == name)
    label = str(field.verbose_name)
    is_text = isinstance(field, models.TextField)
    return FieldChange(
        field=name,
        label=label[:1].upper() + label[1:],
        old="" if is_first else _shown(field, old),
        new=_shown(field, new),
        diff=diff_lines(old or "", new or "") if is_text else (),
    )


def _shown(field: models.Field[Any, Any], value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if field.choices and value is not None:
        return str(dict(field.flatchoices).get(value, value))
    if isinstance(value, list):
        return ", ".join(value)
    if value is None or value == "":
        return "default" if field.name in DEFAULTED else "off" if field.name in SWITCHED_OFF else ""
    return str(value)


def _fallbacks(fallbacks: tuple[tuple[str, str], ...]) -> str:
    rows = (
        f"{position}. {provider or 'default provider'}: {model or 'its default model'}"
        for position, (provider, model) in enumerate(fallbacks, 1)
    )
    return "\n".join(rows) or "none"
