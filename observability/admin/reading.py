"""Lists to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin

if TYPE_CHECKING:
    RowsPaginator = Paginator[Any]
else:
    RowsPaginator = Paginator


class ReadOnlyAdmin(ModelAdmin):
    """A list and a page to look at, for those with the view permission; no form of it can be sent."""

    actions = None
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class NewestPages(RowsPaginator):
    """Counts at most 10,000 rows: nobody turns more pages, and counting ten million takes seconds."""

    MOST = 10_000

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return len(rows.order_by().values_list("pk")[: self.MOST])
