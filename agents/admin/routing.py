"""*Which model answers?*: what a version's rule for its cheaper model makes of a message, and why."""

from __future__ import annotations

from typing import Final

from django import forms
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_safe

from agents.chat.routing import route_by_rule, rule_in_words
from agents.models import Agent
from agents.versions.live import snapshot_of

from .forms import Textarea
from .pages import for_viewers, render_agent_page, version_to_edit

MOST_CHARS: Final = 2000


class MessageForm(forms.Form):
    """What somebody might write to the agent."""

    message = forms.CharField(
        label="What somebody writes to the agent",
        max_length=MOST_CHARS,
        widget=Textarea({"rows": 3}),
        help_text="Nothing is stored, and no model is asked.",
    )


@require_safe
@for_viewers
def page(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show which model would answer a message, and why, by the draft or, without one, by what is live."""
    version = version_to_edit(agent)
    answering = snapshot_of(agent, version)
    form = MessageForm(request.GET) if "message" in request.GET else MessageForm()
    route = route_by_rule(answering, form.cleaned_data["message"]) if form.is_bound and form.is_valid() else None
    return render_agent_page(
        request,
        "admin/agents/agent/route.html",
        agent,
        tab="edit",
        version=version,
        form=form,
        rule=rule_in_words(answering),
        has_cheaper=answering.simple is not None,
        route=route,
    )
