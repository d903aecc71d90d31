"""People in the admin: a searchable list, the newest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.db.models import Max, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from memory.browsing import memory_counts
from memory.models import Conversation, MemoryOwner, Subject
from memory.naming import PersonName, name_people

from . import erasing
from .person import person
from .reading import ReadOnlyAdmin, shown

MOST_DIGITS: Final = 18


@dataclass(slots=True)
class Glance:
    """What one line of the list says about a person."""

    name: PersonName
    memories: int = 0
    turns: int = 0
    last_seen_at: datetime | None = None
    agents: list[str] = field(default_factory=list)


@admin.register(Subject)
class SubjectAdmin(ReadOnlyAdmin):
    """Everybody who talked to an agent, the newest first."""

    list_display = ("person", "agents", "memories", "turns", "last_seen")
    search_fields = ("name", "=owner")
    search_help_text = "Search for a user's name, a session, or a number such as #17."
    ordering = ("-id",)
    change_list_template = "admin/memory/people_list.html"

    def get_urls(self) -> list[URLPattern]:
        def page(route: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
            pattern: URLPattern = path(route, self.admin_site.admin_view(view), name=f"memory_subject_{name}")
            return pattern

        urls: list[URLPattern] = super().get_urls()
        return [page("<int:subject_id>/erase/", erasing.erase, "erase"), *urls]

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Subject], search_term: str) -> tuple[QuerySet[Subject], bool]:
        number = search_term.strip().removeprefix("#")
        if search_term.strip().startswith("#") and number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS:
            return queryset.filter(pk=int(number)), False
        found: tuple[QuerySet[Subject], bool] = super().get_search_results(request, queryset, search_term)
        return found

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        people = list(changelist.result_list)
        glances = glance_at(people)
        for subject in people:
            subject.glance = glances[subject.pk]
        changelist.result_list = people
        return changelist

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"title": "People", "nobody": not Subject.objects.exists(), **(extra_context or {})}
        response: HttpResponse = super().changelist_view(request, context)
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not (object_id.isascii() and object_id.isdigit() and len(object_id) <= MOST_DIGITS):
            raise Http404
        return person(request, int(object_id))

    @admin.display(description="person", ordering="name")
    def person(self, subject: Subject) -> SafeString:
        return render_to_string("admin/memory/cells/person.html", {"name": _glance_of(subject).name})

    @admin.display(description="agents")
    def agents(self, subject: Subject) -> str:
        return ", ".join(_glance_of(subject).agents) or "none"

    @admin.display(description="memories")
    def memories(self, subject: Subject) -> int:
        return _glance_of(subject).memories

    @admin.display(description="turns")
    def turns(self, subject: Subject) -> int:
        return _glance_of(subject).turns

    @admin.display(description="last seen (UTC)", empty_value="never")
    def last_seen(self, subject: Subject) -> str | None:
        seen_at = _glance_of(subject).last_seen_at
        return shown(seen_at) if seen_at else None


def glance_at(subjects: list[Subject]) -> dict[int, Glance]:
    """Return the glances of `subjects`, by id, in a handful of queries however many they are."""
    glances = {id: Glance(name) for id, name in name_people(subjects).items()}
    said = Conversation.objects.filter(subject__in=subjects).values("subject_id", "agent").order_by("agent")
    for row in said.annotate(said=Sum("last_seq"), last_at=Max("last_turn_at")):
        glance = glances[row["subject_id"]]
        glance.turns += row["said"]
        glance.last_seen_at = max(filter(None, (glance.last_seen_at, row["last_at"])))
        glance.agents.append(row["agent"])
    owners = dict(MemoryOwner.objects.filter(subject__in=subjects).values_list("id", "subject_id"))
    for owner_id, memories in memory_counts(list(owners)).items():
        glances[owners[owner_id]].memories += memories
    return glances


def _glance_of(subject: Subject) -> Glance:
    glance: Glance = subject.glance  # type: ignore[attr-defined] # get_changelist_instance sets it on every row
    return glance
