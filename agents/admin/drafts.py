"""The page on which an agent's draft is written. Saving it makes or updates the draft and never touches what is live."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from agents.chat.routing import rule_in_words
from agents.models import Agent, AgentVersion, Provider
from agents.versions.content import PROVIDERS, write_fallbacks
from agents.versions.drafts import discard_draft, draft_of, lock_agent, start_draft
from agents.versions.live import snapshot_of
from agents.versions.publishing import default_provider
from observability.api import count_tokens

from .forms import DEFAULT_PROVIDER, GROUPS, VERSION_FIELDS, DraftForm, chosen_fallbacks, fallback_forms
from .pages import agent_url, for_editors, for_viewers, person_of, render_agent_page, version_to_edit
from .permissions import may_edit_agents
from .simultaneous import FALLBACKS, Values, attribute_of, basis_of, find_conflict, is_current, values_of

MAX_COUNTED_CHARS = 200_000


@for_viewers
def edit(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show the draft (or what it would start from); a POST saves it."""
    if request.method == "POST":
        if not may_edit_agents(request):
            raise PermissionDenied
        return _save(request, agent)
    version = version_to_edit(agent)
    return _show(request, agent, form=DraftForm(instance=version), fallbacks=fallback_forms(version=version), basis=basis_of(version))


def _save(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    with transaction.atomic():
        # One editor of an agent at a time, from the check to the save.
        lock_agent(agent)
        agent.refresh_from_db()
        source = version_to_edit(agent)
        form = DraftForm(request.POST, instance=_copy(source))
        fallbacks = fallback_forms(request.POST, version=source)
        basis = request.POST.get("basis", "")
        if not (form.is_valid() & fallbacks.is_valid()):
            return _show(request, agent, form=form, fallbacks=fallbacks, basis=basis, status=422)
        mine = _values_from(form, fallbacks)
        if not is_current(basis, source=source):
            return _show_conflict(request, agent, source=source, basis=basis, mine=mine)
        changed = mine != values_of(source)
        if changed:
            _store(agent, author=person_of(request), values=mine)
    return _after_saving(request, agent, changed=changed)


def _store(agent: Agent, *, author: Any, values: Values) -> None:
    draft = start_draft(agent, author=author)
    for name in VERSION_FIELDS:
        setattr(draft, attribute_of(name), values[name])
    draft.author = author
    draft.save()
    write_fallbacks(draft, fallbacks=values[FALLBACKS])


def _after_saving(request: HttpRequest, agent: Agent, *, changed: bool) -> HttpResponse:
    draft = draft_of(agent)
    if draft is None:
        messages.info(request, "Nothing was changed, so there is no draft to save.")
    elif changed:
        messages.success(request, f"Draft v{draft.number} is saved. Nobody sees it until you publish it.")
    else:
        messages.info(request, f"Draft v{draft.number} is as it was.")
    if draft and request.POST.get("then") in {"try", "publish"}:
        return redirect(agent_url(request.POST["then"], agent))
    return redirect(agent_url("change", agent))


def _show_conflict(request: HttpRequest, agent: Agent, *, source: AgentVersion, basis: str, mine: Values) -> HttpResponse:
    conflict, merged = find_conflict(basis, source=source, mine=mine, editor=person_of(request))
    version = _copy(source)
    for name in VERSION_FIELDS:
        setattr(version, attribute_of(name), merged[name])
    rows = {"fallbacks-TOTAL_FORMS": str(len(merged[FALLBACKS])), "fallbacks-INITIAL_FORMS": "0"}
    for row, (provider_id, model) in enumerate(merged[FALLBACKS]):
        rows |= {f"fallbacks-{row}-provider": str(provider_id or DEFAULT_PROVIDER), f"fallbacks-{row}-model": model}
    return _show(
        request,
        agent,
        form=DraftForm(instance=version),
        fallbacks=fallback_forms(rows, version=source),
        basis=basis_of(source),
        conflict=conflict,
        status=409,
    )


def _show(
    request: HttpRequest, agent: Agent, *, form: DraftForm, fallbacks: Any, basis: str, status: int = 200, **context: Any
) -> HttpResponse:
    if not may_edit_agents(request):
        for field in [*form.fields.values(), *(field for row in fallbacks.forms for field in row.fields.values())]:
            field.disabled = True
    groups = [{"title": title, "help": text, "fields": [form[name] for name in names]} for title, text, names in GROUPS]
    return render_agent_page(
        request,
        "admin/agents/agent/edit.html",
        agent,
        tab="edit",
        status=status,
        form=form,
        groups=groups,
        fallbacks=fallbacks,
        basis=basis,
        known_models=_known_models(),
        rule=rule_in_words(snapshot_of(agent, version_to_edit(agent))),
        default_provider=default_provider(),
        **context,
    )


def _values_from(form: DraftForm, fallbacks: Any) -> Values:
    data = form.cleaned_data
    values: Values = {name: data[name] for name in VERSION_FIELDS}
    return values | {name: data[name].pk if data[name] else None for name in PROVIDERS} | {FALLBACKS: chosen_fallbacks(fallbacks)}


def _copy(version: AgentVersion) -> AgentVersion:
    """Return a second object of the same row: a form writes into its instance even when it turns out to be invalid."""
    return AgentVersion.objects.select_related("author", *PROVIDERS).filter(pk=version.pk).first() or version


def _known_models() -> list[str]:
    named = AgentVersion.objects.exclude(model="").values_list("model", flat=True)
    defaults = Provider.objects.exclude(default_model="").values_list("default_model", flat=True)
    return sorted({*named.order_by().distinct()[:100], *defaults})


@for_editors
@require_POST
def discard(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Throw the draft away, after the person has confirmed it on the page."""
    draft = draft_of(agent)
    if draft is None:
        messages.info(request, "There is no draft to discard.")
    elif not agent.live_version_id:
        messages.error(request, "This agent was never published: its draft is all it has. Delete the agent instead, under Settings.")
    else:
        discard_draft(agent)
        messages.success(request, f"Draft v{draft.number} is discarded. What is live has not changed.")
    return redirect(agent_url("change", agent))


def tokens(request: HttpRequest) -> HttpResponseBase:
    """Count the tokens of `{"text", "model"}` for the prompt box: `{"tokens": 12}`."""
    if not may_edit_agents(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    try:
        asked = json.loads(request.body)
        text, model = str(asked["text"]), str(asked.get("model", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return JsonResponse({"error": "Send JSON with a text."}, status=400)
    if len(text) > MAX_COUNTED_CHARS:
        return JsonResponse({"error": f"At most {MAX_COUNTED_CHARS:,} characters are counted."}, status=413)
    return JsonResponse({"tokens": count_tokens(text.encode("utf-8", "replace").decode(), model=model[:200])})
