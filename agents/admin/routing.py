"""*Which model answers?*: what a version's rule for its cheaper model makes of a message, and why. A classifier is really asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.views.decorators.http import require_safe
from uuid_utils.compat import uuid7

from agents.chat.bursts import settling
from agents.chat.classifying import Classifier, Verdict
from agents.chat.routing import Route, named, route_by_rule, rule_in_words
from agents.models import Agent
from agents.versions.live import Answering, snapshot_of
from observability.api import AttemptKind, NewAttempt, SettledAttempt, run_burst, usd

from .forms import Textarea
from .pages import for_viewers, render_agent_page, version_to_edit
from .permissions import may_edit_agents

MOST_CHARS: Final = 2000
# Far above what the classifier is given: a call of a process that died is given up then.
_GRACE: Final = timedelta(minutes=1)


class MessageForm(forms.Form):
    """What somebody might write to the agent."""

    message = forms.CharField(label="What somebody writes to the agent", max_length=MOST_CHARS, widget=Textarea({"rows": 3}))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the classifier made of a message: its name, its words, and what that cost."""

    name: str
    verdict: Verdict
    calls: tuple[SettledAttempt, ...]

    @property
    def cost(self) -> str:
        if not self.calls:
            return "nothing: it said so of the same message a while ago" if self.verdict.is_kept else "nothing: it was not called"
        costs = [call.cost_usd for call in self.calls]
        known = [cost for cost in costs if cost is not None]
        return usd(sum(known[1:], known[0])) if len(known) == len(costs) else "unknown: the model has no price"

    @property
    def tokens(self) -> int:
        return sum(call.tokens for call in self.calls)

    @property
    def took_ms(self) -> int:
        return sum(call.latency_ms or 0 for call in self.calls)


@require_safe
@for_viewers
def page(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show which model would answer a message, and why, by the draft or, without one, by what is live. No model is asked."""
    form = MessageForm(request.GET) if "message" in request.GET else MessageForm()
    message = form.cleaned_data["message"] if form.is_bound and form.is_valid() else None
    answering = snapshot_of(agent, version_to_edit(agent))
    return _render(request, agent, answering, form=form, route=None if message is None else route_by_rule(answering, message))


async def ask(request: HttpRequest, agent_id: int) -> HttpResponseBase:
    """Show the same with what the classifier says. That costs money, so those may who may change the agent.

    Async, so that a model that is asked costs no thread; no database connection is held while it is awaited.
    """
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    agent, answering = await run_burst(_admit, request, agent_id)
    form = MessageForm(request.POST)
    route, asked = await _try(answering, form.cleaned_data["message"]) if form.is_valid() else (None, None)
    return await run_burst(lambda: _render(request, agent, answering, form=form, route=route, asked=asked).render())


def _admit(request: HttpRequest, agent_id: int) -> tuple[Agent, Answering]:
    if not may_edit_agents(request):
        raise PermissionDenied
    agent = Agent.objects.select_related("live_version__author", "live_version__provider").filter(pk=agent_id).first()
    if agent is None:
        raise Http404
    return agent, snapshot_of(agent, version_to_edit(agent))


async def _try(answering: Answering, message: str) -> tuple[Route, Asked | None]:
    route = route_by_rule(answering, message)
    if not route.asks or answering.classifier is None:
        return route, None
    now = datetime.now(UTC)
    template = NewAttempt(
        id=uuid7(),
        kind=AttemptKind.ROUTING,
        agent=answering.slug,
        version=answering.number,
        price=None,  # the classifier's own is looked up
        started_at=now,
        deadline_at=now + _GRACE,
        worst_prompt_tokens=0,
        worst_completion_tokens=0,
    )
    classifier = Classifier(answering, template=template)
    verdict = await classifier.ask(message)
    calls = await classifier.settled()
    await asyncio.gather(*(settling.submit(call) for call in calls))
    return route.decided(verdict), Asked(name=named(answering.classifier), verdict=verdict, calls=calls)


def _render(
    request: HttpRequest, agent: Agent, answering: Answering, *, form: MessageForm, route: Route | None, asked: Asked | None = None
) -> TemplateResponse:
    return render_agent_page(
        request,
        "admin/agents/agent/route.html",
        agent,
        tab="edit",
        number=answering.number,
        form=form,
        rule=rule_in_words(answering),
        has_cheaper=answering.simple is not None,
        classifier=named(answering.classifier) if answering.classifier else "",
        asks=answering.classifier is not None and may_edit_agents(request),
        route=route,
        asked=asked,
    )
