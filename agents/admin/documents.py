"""Agents as files: download one or several, upload one and see what it would change before it becomes a draft."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.views.decorators.http import require_safe
from unfold import widgets

from agents.models import Agent
from agents.versions.documents import DraftInTheWay, apply_document, export_agent, read_document
from observability.errors import ChatbotError

from .pages import agent_url, for_viewers, person_of, render_page
from .permissions import may_add_agents, may_edit_agents

MAX_FILE_BYTES: Final = 1_000_000
_DONE: Final = {
    "created": "The agent exists, with the file as its draft. Look at it, try it, then publish it.",
    "drafted": "The file was read into a draft. Look at it, try it, then publish it.",
    "updated": "The agent was updated; its versions are as they were.",
    "unchanged": "Nothing had to be changed.",
}


class ImportForm(forms.Form):
    """A file, or its text once it was read and is shown for review."""

    file = forms.FileField(
        required=False,
        label="Agent file",
        widget=forms.ClearableFileInput({"accept": ".yaml,.yml,.json"}),
        help_text="One agent as YAML or JSON, as Export makes it.",
    )
    text = forms.CharField(
        required=False,
        strip=False,
        label="or paste it here",
        max_length=MAX_FILE_BYTES,
        widget=widgets.UnfoldAdminTextareaWidget({"rows": 14, "spellcheck": "false", "class": "ca-mono"}),
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if file := data.get("file"):
            if file.size > MAX_FILE_BYTES:
                raise ValidationError(
                    f"The file has {file.size:,} bytes; at most {MAX_FILE_BYTES:,} are read. Does it hold one agent only?"
                )
            try:
                data["text"] = file.read().decode("utf-8-sig")
            except UnicodeDecodeError:
                raise ValidationError("The file is not UTF-8 text. Save it as UTF-8 and choose it again.") from None
        if not (data.get("text") or "").strip():
            raise ValidationError("Choose a file, or paste its text.")
        return data


@require_safe
@for_viewers
def export(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Download the agent as a YAML file."""
    return _download(f"{agent.slug}.yaml", export_agent(agent).encode(), content_type="application/yaml")


def export_many(agents: Iterable[Agent]) -> HttpResponse:
    """Return a download of `agents`: one YAML file, or several in a zip archive."""
    files = [(f"{agent.slug}.yaml", export_agent(agent)) for agent in agents]
    if len(files) == 1:
        return _download(files[0][0], files[0][1].encode(), content_type="application/yaml")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files:
            packed.writestr(name, text)
    return _download("agents.zip", archive.getvalue(), content_type="application/zip")


def import_agent(request: HttpRequest) -> HttpResponseBase:
    """Read an agent file. First show what it would change; with `apply` it becomes a draft, never published by itself."""
    if not (may_edit_agents(request) and may_add_agents(request)):
        raise PermissionDenied
    form = ImportForm(request.POST or None, request.FILES or None) if request.method == "POST" else ImportForm()
    context: dict[str, Any] = {}
    if request.method == "POST" and form.is_valid():
        text = form.cleaned_data["text"]
        applying = "apply" in request.POST
        try:
            applied = apply_document(read_document(text), author=person_of(request), dry_run=not applying, publish=False)
        except DraftInTheWay:
            form.add_error(
                None, "The agent has a colleague's draft, which would be lost. Publish or discard that first, then choose the file again."
            )
        except ChatbotError as error:
            for line in [f"{name}: {words}" for name, texts in error.fields.items() for words in texts] or [error.detail]:
                form.add_error(None, line)
        else:
            if applying:
                messages.success(request, _DONE[applied.action])
                return redirect(agent_url("change", Agent.objects.get(slug=applied.slug)))
            context = {"applied": applied, "reviewing": True}
            form = ImportForm(initial={"text": text})
    status = 422 if form.errors else 200
    return render_page(
        request, "admin/agents/agent/import.html", title="Import an agent", status=status, form=form, opts=Agent._meta, **context
    )


def _download(name: str, content: bytes, *, content_type: str) -> HttpResponse:
    return HttpResponse(content, content_type=content_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})
