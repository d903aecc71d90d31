"""Lists and pages to look at: what is read-only in the admin, and how moments are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from unfold.admin import ModelAdmin


class ReadOnlyAdmin(ModelAdmin):
    """A list and a page to look at, for those with the view permission; no form of it can be sent."""

    actions = None
    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def shown(moment: datetime) -> str:
    """Return `moment` (UTC) as the lists show it."""
    return f"{moment:%d %b %Y, %H:%M:%S}"
