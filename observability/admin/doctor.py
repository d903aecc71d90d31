"""The doctor in the admin: what was last found, with remedies, and a button that examines everything now."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from observability.admin.reading import ReadOnlyAdmin
from observability.bursts import run_burst
from observability.doctor.examination import Grade, examinations
from observability.doctor.examining import Result, examine
from observability.doctor.reports import keep_report, last_report, results_of
from observability.doctor.table import in_a_sentence
from observability.models import DoctorReport

_CODE: Final = re.compile(r"`([^`]+)`")
_ADD: Final = "observability.add_doctorreport"
_LABELS: Final = {
    Grade.OK: ("live", "ok"),
    Grade.SKIPPED: ("quiet", "not looked at"),
    Grade.WARNING: ("draft", "warning"),
    Grade.FAILED: ("off", "fault"),
}


@admin.register(DoctorReport)
class DoctorReportAdmin(ReadOnlyAdmin):
    def get_urls(self) -> list[URLPattern]:
        # Async: it checks the person itself.
        page = path("", self.admin_site.admin_view(self.changelist_view), name="observability_doctorreport_changelist")
        return [page, path("examine/", examine_now, name="observability_doctorreport_examine")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the last report."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        report = last_report()
        results = results_of(report) if report else []
        context = {
            **self.admin_site.each_context(request),
            "title": "Doctor",
            "report": report,
            "rows": [(*_LABELS[result.grade], result, _with_code(result.remedy)) for result in results],
            "sentence": in_a_sentence(results),
            "may_examine": _may_examine(request),
        }
        return TemplateResponse(request, "admin/observability/doctor.html", context)


async def examine_now(request: HttpRequest) -> HttpResponseBase:
    """Examine everything, and tell how far it is: lines of `{"done", "of"}`, the last one with `"said"`, how it stands in all."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    person = await request.auser()
    if not await run_burst(_may_examine, request):
        raise PermissionDenied
    lines = _examined(by=person.get_username(), with_calls=request.POST.get("calls") == "yes")
    response = StreamingHttpResponse(lines, content_type="application/x-ndjson")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


def _with_code(text: str) -> SafeString:
    """Return `text` as HTML, with what stands between backticks as code."""
    return mark_safe(_CODE.sub(r"<code>\1</code>", escape(text)))  # noqa: S308 - escaped


def _may_examine(request: HttpRequest) -> bool:
    person = request.user
    return bool(person.is_active and person.is_staff and person.has_perm(_ADD))


async def _examined(*, by: str, with_calls: bool) -> AsyncIterator[str]:
    began_at, of = time.monotonic(), len(examinations())
    told: asyncio.Queue[Sequence[Result]] = asyncio.Queue()
    work = asyncio.create_task(examine(with_calls=with_calls, tell=told.put_nowait))
    try:
        for done in range(1, of + 1):
            await told.get()
            yield json.dumps({"done": done, "of": of}) + "\n"
        results = await work
        await run_burst(keep_report, results, by=by, with_calls=with_calls, seconds=time.monotonic() - began_at)
        yield json.dumps({"done": of, "of": of, "said": in_a_sentence(results)}) + "\n"
    finally:
        work.cancel()  # nobody waits any more
