"""Agents in the admin: their list, creating one, its settings, deleting one that was never published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from agents.models import Agent
from agents.versions.drafts import create_agent
from memory.api import turns_today
from observability.errors import ChatbotError

from . import documents, drafts, history, logged_messages, recalling, routing, trying
from .forms import AgentForm, NewAgentForm
from .glance import Glance, glance_at
from .pages import agent_url, for_viewers, person_of, render_agent_page, render_page
from .permissions import may_add_agents, may_edit_agents


@admin.register(Agent)
class AgentAdmin(ModelAdmin):
    """The list of agents, and the addresses of every page of one."""

    list_display = ("agent", "state", "access", "answers", "turns", "links")
    list_display_links = None
    search_fields = ("name", "slug")
    list_filter = ("is_active", "access")
    list_filter_sheet = True
    list_per_page = 50
    ordering = ("name", "slug")
    actions = ("export_selected",)

    def get_urls(self) -> list[URLPattern]:
        def page(route: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
            pattern: URLPattern = path(route, self.admin_site.admin_view(view), name=f"agents_agent_{name}")
            return pattern

        own = [
            page("tokens/", drafts.tokens, "tokens"),
            page("import/", documents.import_agent, "import"),
            page("<int:agent_id>/settings/", settings, "settings"),
            page("<int:agent_id>/log-messages/", logged_messages.switch, "log_messages"),
            page("<int:agent_id>/export/", documents.export, "export"),
            page("<int:agent_id>/discard/", drafts.discard, "discard"),
            page("<int:agent_id>/publish/", history.review, "publish"),
            page("<int:agent_id>/versions/", history.versions, "versions"),
            page("<int:agent_id>/versions/<int:number>/", history.version, "version"),
            page("<int:agent_id>/versions/<int:number>/live/", history.make_live, "make_live"),
            page("<int:agent_id>/try/", trying.page, "try"),
            page("<int:agent_id>/route/", routing.page, "route"),
            page("<int:agent_id>/memory/", recalling.memory, "memory"),
            page("<int:agent_id>/memory/begin/", recalling.begin_own, "begin_own"),
            page("<int:agent_id>/recall/", recalling.recall, "recall"),
            page("named/<slug:slug>/<slug:page>/", recalling.named, "named"),
            # Async: they check the person themselves, because admin_view would answer before the stream is known.
            path("<int:agent_id>/try/chat", trying.chat, name="agents_agent_try_chat"),
            path("<int:agent_id>/route/ask/", routing.ask, name="agents_agent_route_ask"),
        ]
        urls: list[URLPattern] = super().get_urls()
        return own + urls

    # --- the list -----------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Agent]:
        agents: QuerySet[Agent] = super().get_queryset(request).select_related("live_version__provider")
        return agents

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        agents = list(changelist.result_list)
        glances = glance_at(agents, turns=turns_today([agent.slug for agent in agents]), may_try=may_edit_agents(request))
        for agent, glance in zip(agents, glances, strict=True):
            agent.glance = glance
        changelist.result_list = agents
        return changelist

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {
            "title": "Agents",
            "may_edit": may_edit_agents(request),
            "no_agents": not Agent.objects.exists(),
            **(extra_context or {}),
        }
        response: HttpResponse = super().changelist_view(request, context)
        return response

    @admin.display(description="agent", ordering="name")
    def agent(self, agent: Agent) -> SafeString:
        return _cell("agent", agent)

    @admin.display(description="state")
    def state(self, agent: Agent) -> SafeString:
        return _cell("state", agent)

    @admin.display(description="answers with")
    def answers(self, agent: Agent) -> SafeString:
        return _cell("answers", agent)

    @admin.display(description="turns today")
    def turns(self, agent: Agent) -> int:
        return _glance_of(agent).turns_today

    @admin.display(description="open")
    def links(self, agent: Agent) -> SafeString:
        return _cell("links", agent)

    @admin.action(description="Export as files", permissions=["view"])
    def export_selected(self, request: HttpRequest, agents: QuerySet[Agent]) -> HttpResponse | None:
        try:
            return documents.export_many(agents)
        except ChatbotError as error:
            messages.error(request, error.detail)
            return None

    # --- one agent ----------------------------------------------------------------------------------------------------

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not may_add_agents(request):
            raise PermissionDenied
        form = NewAgentForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data
            agent = create_agent(author=person_of(request), **given)
            self.log_addition(request, agent, "Created in the admin.")
            messages.success(request, f"{agent.name} exists. Nobody can chat with it until you publish its first version.")
            return redirect(agent_url("change", agent))
        status = 422 if form.errors else 200
        return render_page(request, "admin/agents/agent/add.html", title="New agent", status=status, form=form, opts=Agent._meta)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        return drafts.edit(request, _id_or_404(object_id))

    def history_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        return redirect("admin:agents_agent_versions", _id_or_404(object_id))

    def has_delete_permission(self, request: HttpRequest, obj: Agent | None = None) -> bool:
        return may_edit_agents(request) and (obj is None or not was_published(obj))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        # One at a time, on its own page, where the consequences stand.
        actions.pop("delete_selected", None)
        return actions

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        agent = Agent.objects.filter(pk=_id_or_404(object_id)).first()
        if agent is None:
            raise Http404
        if may_edit_agents(request) and was_published(agent):
            messages.error(
                request,
                f"{agent.name} was published, and what was published is kept: it cannot be deleted. Switch it off, then it answers nobody.",
            )
            return redirect(agent_url("settings", agent))
        response: HttpResponse = super().delete_view(request, object_id, extra_context)
        return response


@for_viewers
def settings(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show and change what belongs to the agent itself; unlike the draft it takes effect at once."""
    if request.method == "POST":
        if not may_edit_agents(request):
            raise PermissionDenied
        form = AgentForm(request.POST, instance=Agent.objects.get(pk=agent.pk))
        if form.is_valid():
            form.save()
            messages.success(request, "Saved. The settings are in effect within a second.")
            return redirect(agent_url("settings", agent))
    else:
        form = AgentForm(instance=agent)
    if not may_edit_agents(request):
        for field in form.fields.values():
            field.disabled = True
    return render_agent_page(
        request,
        "admin/agents/agent/settings.html",
        agent,
        tab="settings",
        status=422 if form.errors else 200,
        form=form,
        deletable=not was_published(agent),
        logged=logged_messages.switch_of(request, agent),
    )


def was_published(agent: Agent) -> bool:
    """Whether any version of `agent` was ever live; then it stays for ever."""
    return agent.versions.exclude(published_at=None).exists()


def _cell(name: str, agent: Agent) -> SafeString:
    return render_to_string(f"admin/agents/agent/cells/{name}.html", {"glance": _glance_of(agent)})


def _glance_of(agent: Agent) -> Glance:
    glance: Glance = agent.glance  # type: ignore[attr-defined] # get_changelist_instance sets it on every row
    return glance


def _id_or_404(object_id: str) -> int:
    if not (object_id.isascii() and object_id.isdigit() and len(object_id) < 19):
        raise Http404
    return int(object_id)
