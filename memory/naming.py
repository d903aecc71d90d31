"""What people are called where somebody looks at them. `memory` holds names as callers gave them; who calls says what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from memory.models import MemoryOwner, OwnerKind, Subject


@dataclass(frozen=True, slots=True)
class Known:
    """What a subject's owner and name mean.

    Attributes:
        name: the person's name as a client gave it; "" where there is only a session.
        whose: whose user they are, such as "Web shop", or what kind of session it is.
    """

    name: str
    whose: str


@dataclass(frozen=True, slots=True)
class PersonName:
    """How one person is shown: as `title`, which is "maria", or "#17" for a session without a name."""

    title: str
    whose: str
    is_named: bool


Describe = Callable[[Sequence[tuple[str, str]]], Sequence[Known]]
_describe: list[Describe] = []


def describe_people_by(describe: Describe) -> None:
    """Let `describe` say what the (owner, name) of each subject mean, in order."""
    _describe[:] = [describe]


def name_people(subjects: Iterable[Subject]) -> dict[int, PersonName]:
    """Return how `subjects` are shown, by id."""
    subjects = list(subjects)
    given = [(subject.owner, subject.name) for subject in subjects]
    known = _describe[0](given) if _describe else [Known(name, owner) for owner, name in given]
    return {
        subject.pk: PersonName(each.name or f"#{subject.pk}", each.whose, is_named=bool(each.name))
        for subject, each in zip(subjects, known, strict=True)
    }


def name_person(subject: Subject) -> PersonName:
    """Return how one person is shown."""
    return name_people([subject])[subject.pk]


def find_person(subject_id: int) -> PersonName | None:
    """Return how the person `subject_id` is shown; None where there is nobody of that number."""
    subject = Subject.objects.filter(pk=subject_id).first()
    return name_person(subject) if subject else None


def name_owner(owner: MemoryOwner) -> str:
    """Return whose memories an owner's are, in a word or two."""
    match owner.kind:
        case OwnerKind.AGENT:
            return "known for everybody"
        case OwnerKind.SHARED:
            return f"shared: {owner.collection}"
        case _:
            return "the person's"
