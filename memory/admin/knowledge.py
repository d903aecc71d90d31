"""Shared knowledge: collections of texts that agents may use; and every page about an owner's memories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path

from memory.browsing import memory_counts, shared_owner
from memory.forgetting import forget_all
from memory.models import MemoryOwner, OwnerKind

from . import changing, memories
from .forms import CollectionForm
from .memories import render_owner_page
from .pages import KNOWLEDGE, for_owner, may, render_page, wait_for
from .people import MOST_DIGITS
from .reading import ReadOnlyAdmin, shown


@admin.register(MemoryOwner)
class MemoryOwnerAdmin(ReadOnlyAdmin):
    """The list of collections, and the addresses of every page about memories, whosesoever they are."""

    list_display = ("collection", "passages", "made")
    search_fields = ("collection",)
    search_help_text = "Search for a collection's name."
    ordering = ("collection",)
    change_list_template = "admin/memory/collections_list.html"

    def get_urls(self) -> list[URLPattern]:
        def page(route: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
            pattern: URLPattern = path(route, self.admin_site.admin_view(view), name=f"memory_memoryowner_{name}")
            return pattern

        own = [
            page("<int:owner_id>/add/", changing.add, "add_memory"),
            page("<int:owner_id>/forget/", changing.forget_all, "forget_all"),
            page("<int:owner_id>/delete/", delete, "delete_collection"),
            page("<int:owner_id>/<int:passage_id>/correct/", changing.correct, "correct"),
            page("<int:owner_id>/<int:passage_id>/pin/", changing.pin, "pin"),
            page("<int:owner_id>/<int:passage_id>/forget/", changing.forget, "forget"),
        ]
        urls: list[URLPattern] = super().get_urls()
        return own + urls

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("memory.add_memoryowner")

    def get_queryset(self, request: HttpRequest) -> QuerySet[MemoryOwner]:
        owners: QuerySet[MemoryOwner] = super().get_queryset(request).filter(kind=OwnerKind.SHARED)
        return owners

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        owners = list(changelist.result_list)
        counts = memory_counts([owner.pk for owner in owners])
        for owner in owners:
            owner.passage_count = counts[owner.pk]
        changelist.result_list = owners
        return changelist

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        nothing = not MemoryOwner.objects.filter(kind=OwnerKind.SHARED).exists()
        response: HttpResponse = super().changelist_view(
            request, {"title": "Shared knowledge", "nothing": nothing, **(extra_context or {})}
        )
        return response

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = CollectionForm(request.POST or None, initial={"name": request.GET.get("name", "")})
        if request.method == "POST" and form.is_valid():
            owner = shared_owner(form.cleaned_data["name"])
            messages.success(request, f"{owner.collection} exists. Add texts, then name it under Memory on the agents that shall use it.")
            return redirect("admin:memory_memoryowner_change", owner.pk)
        status = 422 if form.errors else 200
        return render_page(
            request, "admin/memory/new_collection.html", title="New collection", status=status, form=form, opts=MemoryOwner._meta
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not (object_id.isascii() and object_id.isdigit() and len(object_id) <= MOST_DIGITS):
            raise Http404
        return memories.memories(request, int(object_id))

    @admin.display(description="texts")
    def passages(self, owner: MemoryOwner) -> int:
        count: int = owner.passage_count  # type: ignore[attr-defined] # get_changelist_instance sets it on every row
        return count

    @admin.display(description="made (UTC)", ordering="created_at")
    def made(self, owner: MemoryOwner) -> str:
        return shown(owner.created_at)


@for_owner("delete")
def delete(request: HttpRequest, owner: MemoryOwner) -> HttpResponseBase:
    """Delete a collection with its texts, once that was confirmed."""
    if owner.kind != OwnerKind.SHARED or not may(request, "delete", KNOWLEDGE):
        raise PermissionDenied
    if request.method == "POST":
        gone = wait_for(forget_all, owner.pk)
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM memory_owner WHERE id = %s", [owner.pk])
        messages.success(request, f"{owner.collection} is deleted, with {gone} text{'' if gone == 1 else 's'}.")
        return redirect("admin:memory_memoryowner_changelist")
    return render_owner_page(
        request, "admin/memory/delete_collection.html", owner, memory_count=memory_counts([owner.pk])[owner.pk], is_list=False
    )
