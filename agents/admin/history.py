"""What was published, by whom, and what each version changed; publishing a draft and rolling back."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from agents.models import Agent, AgentVersion, Publication
from agents.versions.comparison import FieldChange, compare
from agents.versions.content import PROVIDERS
from agents.versions.drafts import draft_of
from agents.versions.publishing import missing_for_publication, publish, roll_back

from .forms import GROUPS
from .pages import agent_url, for_editors, for_viewers, person_of, render_agent_page
from .simultaneous import FALLBACKS, basis_of, is_current, label_of, show, values_of


@dataclass(kw_only=True)
class Entry:
    """A version as its line in the history shows it."""

    version: AgentVersion
    changed: list[FieldChange]
    publications: list[Publication] = field(default_factory=list)


@for_viewers
def versions(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """List every version, the newest first."""
    found = list(agent.versions.select_related("author", *PROVIDERS, "agent").prefetch_related("fallbacks__provider").order_by("-number"))
    by_version: dict[int, list[Publication]] = {}
    for publication in agent.publications.select_related("actor"):
        by_version.setdefault(publication.version_id, []).append(publication)
    entries = [
        Entry(version=version, changed=compare(earlier, version) if earlier else [], publications=by_version.get(version.pk, []))
        for version, earlier in zip_longest(found, found[1:])
    ]
    return render_agent_page(request, "admin/agents/agent/versions.html", agent, tab="versions", entries=entries)


@for_viewers
def version(request: HttpRequest, agent: Agent, number: int) -> HttpResponseBase:
    """Show one version, read-only, and how it differs from the one before it and from what is live."""
    found = _version_or_404(agent, number)
    earlier = agent.versions.filter(number__lt=number).order_by("-number").first()
    values = values_of(found)
    groups = [
        (title, [(label_of(name), show(name, values[name]), name in {"system_prompt", "greeting"}) for name in fields])
        for title, _, fields in GROUPS
    ]
    return render_agent_page(
        request,
        "admin/agents/agent/version.html",
        agent,
        tab="versions",
        version=found,
        earlier=earlier,
        groups=groups,
        fallbacks=show(FALLBACKS, values[FALLBACKS]),
        publications=found.publications.select_related("actor"),
        since_earlier=compare(earlier, found) if earlier else [],
        against_live=compare(agent.live_version, found) if agent.live_version else [],
    )


@for_editors
def review(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show what publishing the draft would change; a POST publishes exactly what was shown."""
    draft = draft_of(agent)
    if draft is None:
        messages.info(request, "There is no draft to publish. Change something and save it first.")
        return redirect(agent_url("change", agent))
    status = 200
    if request.method == "POST":
        if is_current(request.POST.get("basis", ""), source=draft):
            return _publish(request, agent, draft)
        messages.warning(
            request, "The draft was changed after you opened this page: nothing was published. This is what it would change now."
        )
        status = 409
    return render_agent_page(
        request,
        "admin/agents/agent/publish.html",
        agent,
        tab="edit",
        status=status,
        draft=draft,
        basis=basis_of(draft),
        changes=compare(agent.live_version, draft),
        missing=missing_for_publication(draft),
    )


def _publish(request: HttpRequest, agent: Agent, draft: AgentVersion) -> HttpResponseBase:
    before = agent.live_version
    publish(draft, actor=person_of(request))
    undo = (
        format_html(' To undo, make v{} live again under <a href="{}">History</a>.', before.number, agent_url("versions", agent))
        if before
        else ""
    )
    off = " The agent is switched off, so it still answers nobody: see Settings." if not agent.is_active else ""
    messages.success(request, format_html("v{} is live: it answers from the next message on.{}{}", draft.number, off, undo))
    return redirect(agent_url("versions", agent))


@for_editors
@require_POST
def make_live(request: HttpRequest, agent: Agent, number: int) -> HttpResponseBase:
    """Roll back (or forward) to a version that was published before."""
    target, before = _version_or_404(agent, number), agent.live_version
    roll_back(agent, to=target, actor=person_of(request))
    undo = f" To undo, make v{before.number} live again below." if before else ""
    messages.success(request, f"v{number} is live again: it answers from the next message on.{undo}")
    return redirect(agent_url("versions", agent))


def _version_or_404(agent: Agent, number: int) -> AgentVersion:
    found = agent.versions.select_related("agent", "author", *PROVIDERS).filter(number=number).first()
    if found is None:
        raise Http404
    return found
