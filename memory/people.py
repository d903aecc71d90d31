"""People by the names that callers gave them, and which memories are theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memory.curating import MemoryNotFound
from memory.isolation import acting_for
from memory.models import MemoryOwner, Passage, Subject
from observability.errors import NotFound


class UserNotFound(NotFound):
    """There is nothing about such a person in the caller's namespace."""

    code = "user-not-found"
    title = "User not found"
    remedy = "Check the user's name; there is nothing about anybody of this name."


def find_subject(owner: str, name: str) -> int | None:
    """Return the id of the person whom `owner` calls `name`; None where there is none."""
    return Subject.objects.filter(owner=owner, name=name).values_list("id", flat=True).first()


def names_of_users(owner: str, subject_ids: Iterable[int]) -> dict[int, str]:
    """Return what `owner` calls the users among these people. Mere sessions, others' users and the erased are left out."""
    known = Subject.objects.filter(owner=owner, id__in=list(subject_ids)).exclude(name__contains="/")
    return dict(known.values_list("id", "name"))


def people_numbered(subject_ids: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Return the (owner, name) of each of these people, mere sessions included; the erased are left out."""
    wanted = list(subject_ids)
    rows = Subject.objects.filter(id__in=wanted).values_list("id", "owner", "name") if wanted else ()
    return {id: (owner, name) for id, owner, name in rows}


def known_subject(owner: str, name: str) -> int:
    """As `find_subject`.

    Raises:
        UserNotFound: there is none.
    """
    subject_id = find_subject(owner, name)
    if subject_id is None:
        raise UserNotFound
    return subject_id


def subject_for(owner: str, name: str) -> int:
    """As `find_subject`, and made where there is none. Whoever is about to erase them waits until the transaction ends."""
    kept = Subject.objects.select_for_update(no_key=True).filter(owner=owner, name=name).values_list("id", flat=True)
    subject_id = kept.first()
    if subject_id is None:
        Subject.objects.bulk_create([Subject(owner=owner, name=name)], ignore_conflicts=True)  # two at once make one
        subject_id = kept.get()
    return subject_id


def owner_of_memory(memory_id: int, *, subject_id: int, may_see: Callable[[str], bool]) -> int:
    """Return the owner of a person's memory, with one of the agents that the caller `may_see`.

    Raises:
        MemoryNotFound: it is no memory, or not theirs.
    """
    owners = MemoryOwner.objects.filter(subject_id=subject_id).values_list("id", "agent")
    seen = [id for id, agent in owners if may_see(agent)]
    with acting_for(seen):
        owner_id = Passage.objects.filter(id=memory_id, owner_id__in=seen).values_list("owner_id", flat=True).first()
    if owner_id is None:
        raise MemoryNotFound
    return owner_id
